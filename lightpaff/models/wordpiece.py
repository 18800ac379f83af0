"""WordPiece for encoders, with BERT's normaliser and special tokens (Devlin et al. 2019, section 3)."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lightpaff.models.alphabet import choose_alphabet, copy_lines, normalize_counts
from lightpaff.recipe_sections import FromScratch

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens, in the order of their ids 0, 1, ..."""

_CONTINUATION = "##"
_LEAST_PIECE_COUNT = 2


def train_wordpiece(
    texts: Iterator[str], from_scratch: FromScratch, lowercase: bool, languages: Sequence[str] = ()
) -> Tokenizer:
    """Train WordPiece; lower case drops accents too. Encoders have no tokens for languages.

    Raises:
        UserError: the texts hold no character.
    """
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as copy:
        characters = normalize_counts(copy_lines(texts, copy), normalizer.normalize_str)
        vocabulary = _learn_vocabulary(copy, characters, from_scratch.vocabulary_size, normalizer)
    return _assemble_tokenizer(vocabulary, normalizer)


def _learn_vocabulary(
    copy: IO[str], characters: Counter[str], vocabulary_size: int, normalizer: normalizers.Normalizer
) -> dict[str, int]:
    alphabet = choose_alphabet(characters, (vocabulary_size - len(SPECIAL_TOKENS)) // 2)
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
