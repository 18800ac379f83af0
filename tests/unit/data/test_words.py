"""Words, where they are in a text, and the tokens that they begin with."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lightpaff.data.words import first_pieces, join_words, split_words


def test_joined_words_are_found_where_they_are() -> None:
    words = ["Where", "'s", "", "Nuñez", "?"]
    text, spans = join_words(words)
    assert text == "Where 's  Nuñez ?"
    assert [text[start:end] for start, end in spans] == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Paris, (France).", ["Paris", ",", "(", "France", ")", "."]),
        ("don't  e-mail @nasa #win", ["don't", "e-mail", "@nasa", "#win"]),
        ("https://t.co/x1\tü!", ["https://t.co/x1", "ü", "!"]),
        ("  ", []),
    ],
)
def test_a_text_is_cut_at_white_space_and_punctuation(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in split_words(text)] == words


def test_the_first_token_of_each_word() -> None:
    # [CLS] un ##seen , ## Paris [SEP]; the second word has no token, the last is cut off.
    offsets = [(0, 0), (0, 2), (2, 6), (9, 10), (11, 16), (0, 0)]
    assert first_pieces(offsets, [(0, 6), (7, 8), (9, 10), (11, 16), (17, 20)]) == [1, -1, 3, 4, -1]


@pytest.mark.parametrize("add_prefix_space", [True, False])
def test_a_token_may_begin_with_the_space_before_its_word(add_prefix_space: bool) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["new york"] * 9, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    text, spans = join_words(["new", "york", "ü"])
    encoding = tokenizer.encode(text)
    starts = first_pieces(encoding.offsets, spans)
    assert all(place >= 0 for place in starts)
    read = [text[encoding.offsets[place][0] : spans[word][1]].strip() for word, place in enumerate(starts)]
    assert read == ["new", "york", "ü"]
