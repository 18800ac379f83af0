"""One canonical form of a text, so that the same sentence is the same string wherever it came from."""

import re
import unicodedata

# Control characters that are not white space, and lone surrogates, which no UTF-8 file and no tokenizer takes.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text in Unicode's form NFC, without control characters, words separated by single spaces.

    Line breaks and tabs are white space, which becomes one space a run and nothing at both ends. Cleaning twice
    changes nothing.
    """
    # First the removals: they can bring a letter and its accent together.
    composed = unicodedata.normalize("NFC", _UNWANTED.sub("", text))
    return " ".join(composed.split())
