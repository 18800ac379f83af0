import re
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.data.leaks import WINDOW_WORDS, LeakIndex

LONG = "The film is a slow, strange and moving portrait of a lighthouse keeper."
SHORT = "A great film!"


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"Before it. {LONG} After it.",
        "so THE FILM IS A SLOW -- strange\nand   moving portrait (of a lighthouse keeper) they say",
    ],
)
def test_a_long_example_is_found_anywhere(text: str) -> None:
    assert LeakIndex([SHORT, LONG]).find(text) == LONG


@pytest.mark.parametrize(
    "text",
    [
        "The film is a slow, strange and moving portrait of a lighthouse",
        "The film is a slow, strange and rather moving portrait of a lighthouse keeper.",
        "film is a slow, strange and moving portrait of a lighthouse keeper",
        "The film is a slow, strange and moving portrait of a lighthouse keepers",
        "",
    ],
)
def test_a_part_or_a_changed_example_is_no_leak(text: str) -> None:
    assert LeakIndex([LONG]).find(text) is None


def test_a_short_example_leaks_as_the_whole_text_only() -> None:
    index = LeakIndex([SHORT, LONG])
    assert index.find("a great... FILM") == SHORT
    assert index.find("It is a great film!") is None
    assert index.find(f"We saw a great film! {LONG}") == LONG


@pytest.mark.parametrize(("words", "expected"), [(WINDOW_WORDS - 1, False), (WINDOW_WORDS, True)])
def test_eight_words_are_long(words: int, expected: bool) -> None:
    example = " ".join(f"word{number}" for number in range(words))
    index = LeakIndex([example])
    assert index.find(example) == example
    assert (index.find(f"before {example} after") == example) is expected


def test_examples_with_the_same_first_words_are_told_apart() -> None:
    start = "this is how the story of the old king"
    index = LeakIndex([f"{start} begins", f"{start} ends", start + " goes on"])
    assert index.find(f"well, {start} ends here") == f"{start} ends"
    assert index.find(f"well, {start} stops here") is None


def test_words_of_other_scripts_count_and_accents_are_composed() -> None:
    example = "Ο Αλέξης είδε μια πολύ καλή ταινία χθες café"
    assert LeakIndex([example]).find("και ο αλέξης είδε μια πολύ καλή ταινία χθες cafe\u0301") == example


@pytest.mark.parametrize(
    "text",
    [
        "it does n't matter what they say , it 's so good",
        "It doesn’t matter what they say, it’s so good!",
        "it doesn't mat\u00adter what they say, it's so good",
        "it\u200b doesn't\ufeff matter\nwhat\u2060 they say, it's so good",
    ],
)
def test_contractions_that_are_cut_and_what_nobody_sees_hide_nothing(text: str) -> None:
    plain = "It doesn't matter what they say, it's so good."
    assert LeakIndex([plain]).find(f"before {text} after") == plain
    assert LeakIndex([text]).find(f"before {plain} after") == text


def test_every_format_character_is_seen_through() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    example = " ".join(f"wo{character}rd" for character in characters)
    text = " ".join(["word"] * len(characters))
    assert LeakIndex([example]).find(text) == example


def test_examples_without_words_are_nowhere() -> None:
    index = LeakIndex(["", "?!", "..."])
    assert [index.find(text) for text in ("", "?!", "a b c d e f g h i")] == [None] * 3


FEW_WORDS = st.lists(st.sampled_from("abC"), max_size=14).map(" ".join)


def find_naively(examples: list[str], text: str) -> bool:
    def spaced(words: str) -> str:
        return " " + " ".join(re.findall(r"\w+", words.lower())) + " "

    def leaks(example: str) -> bool:
        if len(example.split()) >= WINDOW_WORDS:
            return spaced(example) in spaced(text)
        return bool(example.split()) and spaced(example) == spaced(text)

    return any(leaks(example) for example in examples)


@given(st.lists(FEW_WORDS, max_size=5), st.lists(st.sampled_from("abc"), max_size=60).map(" ".join))
@settings(max_examples=300, deadline=None)
def test_agrees_with_a_plain_search(examples: list[str], text: str) -> None:
    found = LeakIndex(examples).find(text)
    assert (found is not None) == find_naively(examples, text)
    assert found is None or find_naively([found], text)
