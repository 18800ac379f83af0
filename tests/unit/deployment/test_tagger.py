"""Long texts through an exported tagger: part by part, each word once, at a cost that grows as the text does."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, models, pre_tokenizers, processors, trainers

from lightpaff.data.cleaning import clean_text
from lightpaff.data.words import Span, first_pieces, join_words, split_words
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.classifier import TextLogits
from lightpaff.deployment.runner import Ids
from lightpaff.deployment.tagger import Tagger

LABELS = list("abcde")
PIECES = ["bright", "don't", "x", "\u0301", "café", "U.S", "...", "a" * 60, "\x00", "\n\n\n", "中文", "-" * 9, " " * 40]


class Mixing:
    """Logits of a token that depend on all tokens before it."""

    def logits(self, ids_BS: Ids, mask_BS: Ids, segments_BS: Ids | None = None) -> NDArray[np.float32]:
        mixed_BS = (ids_BS * mask_BS).cumsum(axis=1) * 7 + ids_BS * 13
        return np.sin(mixed_BS[..., None] * np.array([0.010, 0.013, 0.017, 0.019, 0.023])).astype(np.float32)


def make_tokenizer() -> Tokenizer:
    """Of bytes, which tells a word at the beginning from one after a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["[CLS]", "[SEP]"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(PIECES)] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    return tokenizer


def card_of(max_length: int) -> ExportCard:
    return ExportCard(
        "onnx", "none", "token_classes", max_length, longest_input=None, source_sha256="", labels=LABELS, segments=False
    )


def read_plainly(text: str, max_length: int) -> list[tuple[Span, str]]:
    """Words with their tags: for every part, the whole rest of the text is cut into tokens."""
    logits = TextLogits(Mixing(), make_tokenizer(), card_of(max_length))
    spans, found, first = split_words(text), [], 0
    # As the rows of a training are read.
    read, places = join_words([clean_text(text[start:end]) for start, end in spans])
    while first < len(spans):
        shift = places[first][0]
        [(encoding, logits_SV)] = logits([read[shift:]])
        starts = first_pieces(encoding.offsets, [(start - shift, end - shift) for start, end in places[first:]])
        inside = [word for word, start in enumerate(starts) if start >= 0]
        found += [(spans[first + word], LABELS[int(logits_SV[starts[word]].argmax())]) for word in inside]
        first = first + inside[-1] + 1 if inside and encoding.overflowing else len(spans)
    return found


@pytest.mark.parametrize("max_length", [8, 9, 33])
def test_parts_are_those_of_the_whole_rest(max_length: int) -> None:
    draw = random.Random(max_length)
    texts = ["".join(draw.choice(PIECES) + draw.choice([" ", " ", "", "\n"]) for _ in range(60)) for _ in range(8)]
    tagger = Tagger(Mixing(), make_tokenizer(), card_of(max_length))
    found = [[((word.start, word.end), word.label) for word in words] for words in tagger(texts)]
    assert found == [read_plainly(text, max_length) for text in texts]
    assert min(map(len, found)) > max_length


def test_a_text_is_read_as_its_words_are() -> None:
    text = "Bright,\tcafé... don't\u00a0x\n\n(U.S)"
    words = [text[start:end] for start, end in split_words(text)]
    tagger = Tagger(Mixing(), make_tokenizer(), card_of(64))
    of_text, of_words = tagger([text, words])
    assert [word.text for word in of_text] == [word.text for word in of_words] == words
    assert [(word.label, word.probability) for word in of_text] == [(word.label, word.probability) for word in of_words]


class Counting:
    """A tokenizer that counts the characters that it cuts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.characters = tokenizer, 0

    def enable_truncation(self, *given: Any, **named: Any) -> None:
        self._tokenizer.enable_truncation(*given, **named)

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        self.characters += sum(map(len, texts))
        return list(self._tokenizer.encode_batch(texts))


def test_a_text_is_cut_a_few_times_at_most() -> None:
    text = " ".join(itertools.islice(itertools.cycle(["bright", "x", "a" * 60]), 900))
    counting: Any = Counting(make_tokenizer())
    [words] = Tagger(Mixing(), counting, card_of(16))([text])
    assert [word.text for word in words] == text.split()
    assert counting.characters < 8 * len(text)
