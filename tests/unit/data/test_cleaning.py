import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from lightpaff.data.cleaning import clean_text

# Hypothesis leaves surrogates out of st.text() unless they are named.
ANY_TEXT = st.text(st.characters(codec=None, categories=None))


def test_white_space_becomes_single_spaces() -> None:
    assert clean_text("  one\ttwo\r\nthree \n four\u00a0five\u2003six  ") == "one two three four five six"


def test_control_characters_and_lone_surrogates_go() -> None:
    assert clean_text("a\x00b\x07c\x7fd\x9fe\ud83df") == "abcdef"


def test_letter_and_accent_become_one_character() -> None:
    assert clean_text("cafe\u0301") == "caf\u00e9"
    assert clean_text("cafe\x01\u0301") == "caf\u00e9"


def test_other_characters_stay() -> None:
    text = "Ünïcode — “quotes”, emoji 🙂, 漢字 and ½"
    assert clean_text(text) == text


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean_text(clean_text(text)) == clean_text(text)


@given(ANY_TEXT)
def test_cleaned_text_can_be_stored_and_has_no_control_characters(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in cleaned)
