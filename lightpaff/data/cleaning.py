"""One canonical form of a text, so that the same sentence is the same string wherever it came from."""

import re
import unicodedata

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character alone: JSON can spell it, but no UTF-8 file and no tokenizer takes it."""

# Control characters that are not white space, and halves of characters.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text in Unicode's form NFC, without control characters, words separated by single spaces.

    Line breaks and tabs are white space, which becomes one space a run and nothing at both ends. Cleaning twice
    changes nothing.
    """
    # First the removals: they can bring a letter and its accent together.
    composed = unicodedata.normalize("NFC", _UNWANTED.sub("", text))
    return " ".join(composed.split())


def plain_text(text: str) -> str:
    """The text with a character in the place of every half of one, so that places stay what they are."""
    return SURROGATE.sub("\ufffd", text)
