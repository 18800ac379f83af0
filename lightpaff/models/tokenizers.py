"""A WordPiece tokenizer for a teacher that is made here."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import IO

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lightpaff.errors import UserError

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens, in the order of their ids 0, 1, ..."""

_CONTINUATION = "##"
_MOST_CHARACTERS = 1000
_LEAST_PIECE_COUNT = 2

# Only these architectures have segment embeddings that are trained with two segments.
_SEGMENTED = ("bert", "electra")


def train_tokenizer(
    texts: Iterator[str], vocabulary_size: int, lowercase: bool, max_length: int, architecture: str
) -> PreTrainedTokenizerFast:
    """Train WordPiece with BERT's normaliser and special tokens (Devlin et al. 2019, section 3).

    The same texts give the same tokenizer, whatever their order.

    Args:
        texts: the corpus, read once.
        vocabulary_size: the most tokens, special ones included; a small corpus may give fewer.
        lowercase: drop case and accents.
        max_length: in tokens, kept as the tokenizer's `model_max_length`.
        architecture: the model type that it is for; all take the same tokens, but not all take segments.

    Raises:
        UserError: the texts hold no character.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as copy:
        characters = _count_characters(texts, copy, normalizer)
        if not characters:
            raise UserError("pretraining.corpus: holds no text to train a tokenizer on; name a corpus with text")
        vocabulary = _learn_vocabulary(copy, characters, vocabulary_size, normalizer)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=_assemble_tokenizer(vocabulary, normalizer),
        model_max_length=max_length,
        model_input_names=inputs if architecture in _SEGMENTED else [inputs[0], inputs[2]],
        **SPECIAL_TOKENS,
    )


def _count_characters(texts: Iterator[str], copy: IO[str], normalizer: normalizers.Normalizer) -> Counter[str]:
    """Count the characters that are left after the normaliser, and write the texts to `copy`, one a line."""
    raw: Counter[str] = Counter()
    for text in texts:
        line = " ".join(text.splitlines())
        raw.update(line)
        copy.write(line + "\n")
    # The normaliser works character by character, so each distinct one is looked at only once.
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        for normalized in "".join(normalizer.normalize_str(character).split()):
            counts[normalized] += count
    return counts


def _learn_vocabulary(
    copy: IO[str], characters: Counter[str], vocabulary_size: int, normalizer: normalizers.Normalizer
) -> dict[str, int]:
    room = (vocabulary_size - len(SPECIAL_TOKENS)) // 2
    by_count = sorted(characters, key=lambda character: (-characters[character], character))
    alphabet = sorted(by_count[: min(room, _MOST_CHARACTERS)])
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    continuations = [_CONTINUATION + c for c in alphabet if _continues_word(c, tokenizer)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        min_frequency=_LEAST_PIECE_COUNT,
        # The trainer numbers continuations, and breaks ties between characters, in the order of a hash table that
        # differs in every process. Named beforehand, both are settled.
        special_tokens=[*SPECIAL_TOKENS.values(), *continuations],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=_CONTINUATION,
        show_progress=False,
    )
    copy.seek(0)
    tokenizer.train_from_iterator(copy, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def _continues_word(character: str, tokenizer: Tokenizer) -> bool:
    """Whether the character can stand inside a word: punctuation and Chinese characters cannot."""
    text = tokenizer.normalizer.normalize_str("a" + character)
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(text)) == 1


def _assemble_tokenizer(vocabulary: dict[str, int], normalizer: normalizers.Normalizer) -> Tokenizer:
    unknown, cls, sep = (SPECIAL_TOKENS[name] for name in ("unk_token", "cls_token", "sep_token"))
    # A new one: the trained one takes the continuations for special tokens.
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, continuing_subword_prefix=_CONTINUATION))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS.values()))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUATION)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(token, vocabulary[token]) for token in (cls, sep)],
    )
    return tokenizer
