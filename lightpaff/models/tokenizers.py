"""Tokenizers for teachers that are made here: each family has its own kind."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lightpaff.models import byte_fallback, byte_level, unigram, wordpiece
from lightpaff.recipe_sections import Family, FromScratch


@dataclass(frozen=True)
class _Kind:
    """How a tokenizer is trained: from texts, the recipe's section, lower case or not, and languages."""

    train: Callable[[Iterator[str], FromScratch, bool, Sequence[str]], Tokenizer]
    special_tokens: dict[str, str]
    lowercase: bool = False


_BPE = _Kind(byte_fallback.train_byte_fallback, byte_fallback.SPECIAL_TOKENS)
_UNIGRAM = _Kind(unigram.train_unigram, byte_fallback.SPECIAL_TOKENS)

# By the recipe's word for it; None is the default.
_KINDS: dict[Family, dict[str | None, _Kind]] = {
    "encoder": {None: _Kind(wordpiece.train_wordpiece, wordpiece.SPECIAL_TOKENS, lowercase=True)},
    "decoder": {None: _Kind(byte_level.train_byte_level, byte_level.SPECIAL_TOKENS)},
    "encoder-decoder": {None: _BPE, "bpe": _BPE, "unigram": _UNIGRAM},
}

# Only these architectures have segment embeddings that are trained with two segments.
_SEGMENTED = ("bert", "electra")


def train_tokenizer(
    texts: Iterator[str], from_scratch: FromScratch, family: Family, languages: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a family's tokenizer; the same texts give the same one, in any order and in every process.

    Args:
        texts: the corpus, read once.
        from_scratch: the most tokens, special ones included (a small corpus may give fewer), lower case or not, the
            longest input in tokens, the kind of an encoder-decoder's tokenizer, and the architecture, which says
            whether there are segments.
        family: encoders get WordPiece, decoders BPE over bytes, encoder-decoders BPE over characters or Unigram.
        languages: those that get a token `<LANGUAGE>`; of encoder-decoders only.

    Raises:
        UserError: the texts hold no character, the family cannot have this lower case or vocabulary size, or the
            package that trains Unigram is not installed.
    """
    kind = _KINDS[family][from_scratch.tokenizer]
    lowercase = kind.lowercase if from_scratch.lowercase is None else from_scratch.lowercase
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    more = byte_fallback.language_tokens(languages) if family == "encoder-decoder" else []
    return PreTrainedTokenizerFast(
        tokenizer_object=kind.train(texts, from_scratch, lowercase, languages),
        model_max_length=from_scratch.max_length,
        model_input_names=inputs if from_scratch.architecture in _SEGMENTED else [inputs[0], inputs[2]],
        clean_up_tokenization_spaces=False,
        extra_special_tokens=more,
        **kind.special_tokens,
    )
