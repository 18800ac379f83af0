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
_INVISIBLE = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f]+"
)
"""What Unicode calls format characters (Cf), such as soft hyphens: where it would cut words, nobody sees a gap."""


def plain_words(text: str) -> list[str]:
    """The words in small letters, without punctuation, so that spelling it otherwise hides nothing."""
    # What is printable has none: that is told ten times as fast as they are looked for.
    if not text.isascii() and not text.isprintable():
        text = _INVISIBLE.sub("", text)
    text = unicodedata.normalize("NFC", text).lower()
    # Treebanks write "does n't"; of their other contractions ("it 's") the words are the same anyway.
    return _PLAIN_WORD.findall(text.replace(" n't", "n't").replace(" n’t", "n’t"))


def count_words(text: str) -> tuple[int, int]:
    """How many words white space separates, and how many letters there are that are words of their own."""
    if text.isascii():
        return len(text.split()), 0
    spaced, letters = _LETTER.subn(" ", text)
    return sum(any(map(str.isalnum, word)) for word in spaced.split()), letters
