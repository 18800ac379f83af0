"""Words in texts of any script: in one that puts no spaces between words, every letter is a word."""

import re
import unicodedata

_WITHOUT_SPACES = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese syllables
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
_LETTER = re.compile(rf"(?!\W)[{_WITHOUT_SPACES}]")
_PLAIN_WORD = re.compile(rf"[^\W{_WITHOUT_SPACES}]+|{_LETTER.pattern}")


def plain_words(text: str) -> list[str]:
    """The words in small letters, without punctuation, so that spelling it otherwise hides nothing."""
    return _PLAIN_WORD.findall(unicodedata.normalize("NFC", text).lower())


def count_words(text: str) -> tuple[int, int]:
    """How many words white space separates, and how many letters there are that are words of their own."""
    if text.isascii():
        return len(text.split()), 0
    spaced, letters = _LETTER.subn(" ", text)
    return sum(any(map(str.isalnum, word)) for word in spaced.split()), letters
