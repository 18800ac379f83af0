"""Tokenizers for teachers that are made here: each family has its own kind."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lightpaff.models import byte_fallback, byte_level, wordpiece
from lightpaff.recipe import Family, FromScratch


@dataclass(frozen=True)
class _Kind:
    """How a family's tokenizer is trained: from texts, the recipe's section, lower case or not, and languages."""

    train: Callable[[Iterator[str], FromScratch, bool, Sequence[str]], Tokenizer]
    special_tokens: dict[str, str]
    lowercase: bool = False


_KINDS: dict[Family, _Kind] = {
    "encoder": _Kind(wordpiece.train_wordpiece, wordpiece.SPECIAL_TOKENS, lowercase=True),
    "decoder": _Kind(byte_level.train_byte_level, byte_level.SPECIAL_TOKENS),
    "encoder-decoder": _Kind(byte_fallback.train_byte_fallback, byte_fallback.SPECIAL_TOKENS),
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
            longest input in tokens, and the architecture, which says whether there are segments.
        family: encoders get WordPiece, decoders BPE over bytes, encoder-decoders BPE over characters.
        languages: those that get a token `<LANGUAGE>`; of encoder-decoders only.

    Raises:
        UserError: the texts hold no character, or the family cannot have this lower case or vocabulary size.
    """
    kind = _KINDS[family]
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
