"""Tokenizers for teachers that are made here: byte pair encoding over bytes (Radford et al. 2019, section 2.2).

No character is unknown to it; what surrounds the pieces is the family's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from lightpaff.errors import UserError
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import FromScratch

_LEAST_PIECE_COUNT = 2

# The trainer cuts a text on one processor and holds all its pieces: a book of a million lines must not come whole.
_LONGEST_TEXT = 100_000

# Only these architectures have segment embeddings that are trained with two segments.
_SEGMENTED = ("bert", "electra")


@dataclass(frozen=True)
class _Frame:
    """What surrounds a family's pieces.

    Attributes:
        special_tokens: by use, in the order of their ids 0, 1, ...
        single, pair: how one text and two are framed, in the words of `TemplateProcessing`; empty where they are not.
        lowercase: unless the recipe says otherwise.
    """

    special_tokens: dict[str, str]
    single: str = ""
    pair: str = ""
    lowercase: bool = False


_FRAMES: dict[Family, _Frame] = {
    "encoder": _Frame(
        {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        },
        "[CLS]:0 $A:0 [SEP]:0",
        "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        lowercase=True,
    ),
    # GPT-2 has no padding, but batches of different lengths need a token that is not also a target.
    "decoder": _Frame(
        {
            **dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
            "pad_token": "<|padding|>",
        }
    ),
    "encoder-decoder": _Frame(
        {
            "pad_token": "<pad>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
        "$A </s>",
        "$A </s> $B </s>",
    ),
}


def train_tokenizer(
    texts: Iterator[str], from_scratch: FromScratch, family: Family, languages: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a family's tokenizer; the same texts give the same one, in any order and in every process.

    The pieces are learnt from counts, and ties fall to the lower id: all bytes are numbered beforehand.

    Args:
        texts: the corpus, read once.
        from_scratch: the most tokens, special ones included (a small corpus may give fewer), lower case or not, the
            longest input in tokens, and the architecture, which says whether there are segments.
        family: which special tokens there are, and what a text begins and ends with.
        languages: those that get a token `<LANGUAGE>`; of encoder-decoders only.

    Raises:
        UserError: the texts hold nothing but space, a decoder's shall have lower case, or special tokens and bytes
            alone are more than there is room for.
    """
    key, frame = "teacher.from_scratch", _FRAMES[family]
    lowercase = frame.lowercase if from_scratch.lowercase is None else from_scratch.lowercase
    if lowercase and family == "decoder":
        raise UserError(f"{key}.lowercase: is true, but a decoder's tokenizer keeps every text whole; leave it out")
    named = [f"<{language}>" for language in sorted(set(languages))] if family == "encoder-decoder" else []
    special = [*dict.fromkeys(frame.special_tokens.values()), *named]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size, least = from_scratch.vocabulary_size, len(special) + len(alphabet)
    if size < least:
        raise UserError(f"{key}.vocabulary_size: is {size}, but special tokens and bytes alone are {least}; raise it")
    tokenizer = _make_untrained(from_scratch.architecture, lowercase)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=_LEAST_PIECE_COUNT,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_cut_texts(texts), trainer)
    if frame.single:
        tokenizer.post_processor = _framing(frame, tokenizer)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=from_scratch.max_length,
        model_input_names=inputs if from_scratch.architecture in _SEGMENTED else [inputs[0], inputs[2]],
        clean_up_tokenization_spaces=False,
        extra_special_tokens=named,
        **frame.special_tokens,
    )


def _make_untrained(architecture: str, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    if architecture == "qwen2":
        # Beside a config of this model type, transformers opens every vocabulary with its own rules.
        own = Qwen2Tokenizer().backend_tokenizer
        tokenizer.normalizer, tokenizer.pre_tokenizer = own.normalizer, own.pre_tokenizer
    return tokenizer


def _framing(frame: _Frame, tokenizer: Tokenizer) -> processors.PostProcessor:
    special = [(token, tokenizer.token_to_id(token)) for token in frame.special_tokens.values()]
    return processors.Sequence(
        [
            # A word's place in a text is without the space before it.
            processors.ByteLevel(trim_offsets=True, add_prefix_space=False),
            processors.TemplateProcessing(single=frame.single, pair=frame.pair, special_tokens=special),
        ]
    )


def _cut_texts(texts: Iterator[str]) -> Iterator[str]:
    """The texts in parts of at most 100,000 characters that UTF-8 can hold."""
    is_empty = True
    for text in texts:
        valid = text.encode("utf-8", errors="replace").decode("utf-8")
        is_empty = is_empty and not valid.strip()
        yield from (valid[start : start + _LONGEST_TEXT] for start in range(0, len(valid), _LONGEST_TEXT))
    if is_empty:
        raise UserError("pretraining.corpus: holds no text to train a tokenizer on; name a corpus with text")
