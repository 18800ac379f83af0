"""Tokenizers of transformers that cut with SentencePiece itself and number the pieces by a vocab.json of their own:
Marian's, which has one SentencePiece model for sources and another for targets, and M2M100's.

The tokenizers library cannot say this in one tokenizer.json, so they stay what they are.
"""

from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MODELS = {"MarianTokenizer": ("spm_source", "spm_target"), "M2M100Tokenizer": ("sp_model",)}
"""By the class, where its SentencePiece models are, that of the sources first."""


def is_of_pieces(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether this is such a tokenizer, and no fast one."""
    return type(tokenizer).__name__ in _MODELS


def piece_models(tokenizer: "PreTrainedTokenizerBase") -> list[bytes]:
    """Its SentencePiece models as files hold them, that of the sources first."""
    paths = _MODELS[type(tokenizer).__name__]
    return [bytes(attrgetter(path)(tokenizer).serialized_model_proto()) for path in paths]


def piece_ids(tokenizer: Any) -> dict[str, int]:
    """All tokens by name: pieces, special ones, languages."""
    languages: dict[str, int] = getattr(tokenizer, "lang_token_to_id", {})
    return {**tokenizer.get_vocab(), **languages, **tokenizer.added_tokens_encoder}
