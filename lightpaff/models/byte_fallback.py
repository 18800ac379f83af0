"""Byte pair encoding over characters that writes unknown ones as bytes, for encoder-decoders.

MASS learns one vocabulary for all languages with byte pair encoding (Song et al. 2019, section 4.1); marked spaces and
bytes for what has no token are SentencePiece's (Kudo and Richardson 2018). What surrounds the pieces here is also that
of Unigram, SentencePiece's other algorithm.
"""

import json
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from typing import IO, Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lightpaff.errors import UserError
from lightpaff.models.alphabet import choose_alphabet, copy_lines, normalize_counts
from lightpaff.recipe_sections import FromScratch

SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
"""In the order of their ids 0, 1, ...; the tokens of the languages come next."""

SPACE = "▁"
"""What stands for a space in pieces."""

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""The pieces that stand for bytes."""

_LEAST_PIECE_COUNT = 2


def language_tokens(languages: Sequence[str]) -> list[str]:
    """`<en>`, `<de>`, ..., sorted, each once."""
    return [f"<{language}>" for language in sorted(set(languages))]


def train_byte_fallback(
    texts: Iterator[str], from_scratch: FromScratch, lowercase: bool, languages: Sequence[str] = ()
) -> Tokenizer:
    """Train BPE with marked spaces; every text ends in `</s>`.

    Decoding gives the text back in Unicode's composed form (NFC), but for one space at its beginning and for `▁`.

    Raises:
        UserError: the texts hold no character, or the vocabulary has no room for pieces.
    """
    special = [*SPECIAL_TOKENS.values(), *language_tokens(languages)]
    room = room_for_pieces(from_scratch.vocabulary_size, special)
    composed = (unicodedata.normalize("NFC", text) for text in texts)
    folding = normalizers.Lowercase() if lowercase else None
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as copy:
        raw = copy_lines(composed, copy)
        characters = normalize_counts(raw, folding.normalize_str if folding else str)
        alphabet = sorted({SPACE, *choose_alphabet(characters, room // 2)})
        model = _learn_pieces(copy, alphabet, from_scratch.vocabulary_size, special, folding)
    merges = [(left, right) for left, right in model["merges"]]
    # A new one: the trained one takes the bytes for special tokens.
    pieces = models.BPE(model["vocab"], merges, unk_token=SPECIAL_TOKENS["unk_token"], byte_fallback=True)
    return assemble_tokenizer(pieces, special, folding)


def room_for_pieces(vocabulary_size: int, special: list[str]) -> int:
    """How many tokens are left beside the special ones and the bytes.

    Raises:
        UserError: fewer than two, one character and one longer piece.
    """
    taken = len(special) + len(BYTES)
    if vocabulary_size < taken + 2:
        raise UserError(
            f"teacher.from_scratch.vocabulary_size: is {vocabulary_size}, but special tokens and bytes alone are "
            f"{taken}; make it at least {taken + 2}"
        )
    return vocabulary_size - taken


def assemble_tokenizer(model: models.Model, special: list[str], folding: normalizers.Normalizer | None) -> Tokenizer:
    """Surround pieces with composition, `folding`, marked spaces, decoding of bytes, and `</s>` after every text."""
    end = SPECIAL_TOKENS["eos_token"]
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(special)
    steps = [normalizers.NFC()] if folding is None else [normalizers.NFC(), folding]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(replacement=SPACE)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


def _learn_pieces(
    copy: IO[str], alphabet: list[str], vocabulary_size: int, special: list[str], folding: normalizers.Normalizer | None
) -> dict[str, Any]:
    """The trained model as the training library writes it: `vocab` and `merges`."""
    tokenizer = Tokenizer(models.BPE())
    # Composed already, before the characters were counted.
    if folding is not None:
        tokenizer.normalizer = folding
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Metaspace(replacement=SPACE)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=_LEAST_PIECE_COUNT,
        special_tokens=[*special, *BYTES],
        # Named beforehand: between equally rare characters the trainer decides in the order of a hash table.
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    copy.seek(0)
    tokenizer.train_from_iterator(copy, trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model
