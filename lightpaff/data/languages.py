"""The tokens that tell a model of several languages which one it reads or writes."""

import contextlib
import copy
import difflib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightpaff.errors import UserError
from lightpaff.recipe_sections import Languages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def language_id(tokenizer: "PreTrainedTokenizerBase", language: str) -> int:
    """The id of the token <LANGUAGE>, or of the tokenizer's own that is called so (mBART's `en_XX`, M2M100's `__en__`).

    Raises:
        UserError: the tokenizer has neither.
    """
    # A word piece may be spelt like a language (`en`): only tokens beside the vocabulary of text count.
    known: dict[str, int] = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
    known |= getattr(tokenizer, "lang_token_to_id", {})
    for token in (f"<{language}>", f"__{language}__", language):
        if token in known:
            return known[token]
    close = difflib.get_close_matches(language, known, n=3, cutoff=0.4)
    hint = f" (the closest are {', '.join(close)})" if close else ""
    raise UserError(
        f"language {language}: the tokenizer has neither a token <{language}> nor a code {language}{hint}; name a "
        "language that it has, or none"
    )


def special_token_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The ids of tokens that are no text, those of languages included, ascending."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return sorted(added | set(tokenizer.all_special_ids))


def has_own_languages(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """It puts the language into its output itself (mBART's does, told the source's and the target's)."""
    return hasattr(tokenizer, "src_lang") and hasattr(tokenizer, "tgt_lang")


@contextlib.contextmanager
def quiet_marian() -> Iterator[None]:
    """Marian's tokenizer asks for a package that it does not use: it is not told so inside the block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*sacremoses")
        yield


def tokenizer_between(tokenizer: "PreTrainedTokenizerBase", languages: Languages | None) -> "PreTrainedTokenizerBase":
    """A copy that can be used without changing the original, set to these languages where it has its own.

    Raises:
        UserError: the tokenizer lacks one of the languages.
    """
    with quiet_marian():
        own = copy.deepcopy(tokenizer)
    if languages is not None:
        codes = [own.convert_ids_to_tokens(language_id(own, name)) for name in (languages.source, languages.target)]
        if has_own_languages(own):
            # M2M100's takes the languages' names where the others take their tokens.
            names = {token: name for name, token in getattr(own, "lang_code_to_token", {}).items()}
            own.src_lang, own.tgt_lang = (names.get(code, code) for code in codes)
    return own


def source_prefix(tokenizer: "PreTrainedTokenizerBase", languages: Languages | None) -> str:
    """The token that comes before every source, as text; empty where there is none, or the tokenizer puts it there."""
    if languages is None or has_own_languages(tokenizer):
        return ""
    return str(tokenizer.convert_ids_to_tokens(language_id(tokenizer, languages.source)))


def first_decoder_token(tokenizer: "PreTrainedTokenizerBase", languages: Languages | None, default: int | None) -> int:
    """What the decoder reads first: the target's language, where there is one and the target does not begin with it
    anyway (as mBART-50 has it); else `default`, which is then needed.
    """
    if languages is not None and first_written_token(tokenizer, languages) is None:
        return language_id(tokenizer, languages.target)
    assert default is not None, "a decoder without languages needs a start token"
    return default


def first_written_token(tokenizer: "PreTrainedTokenizerBase", languages: Languages | None) -> int | None:
    """The target's language, where every target begins with it (mBART-50's, M2M100's): a model of many languages has to
    be told to write it first (transformers: `forced_bos_token_id`). Else None.
    """
    if languages is None:
        return None
    language = language_id(tokenizer, languages.target)
    written: list[int] = tokenizer_between(tokenizer, languages)(text_target="")["input_ids"]
    return language if written[:1] == [language] else None
