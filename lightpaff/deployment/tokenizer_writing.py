"""A tokenizer of transformers in files that exports are used with, with and without transformers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lightpaff.deployment.pieces import PIECES, PieceRules
from lightpaff.files import write_json_whole
from lightpaff.models.pieces import is_of_pieces, piece_ids, piece_models

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"


def write_tokenizer(tokenizer: "PreTrainedTokenizerBase", directory: Path) -> str:
    """Write what cuts sources and puts targets together; returns the name of the file."""
    if not is_of_pieces(tokenizer):
        tokenizer.backend_tokenizer.save(str(directory / TOKENIZER))
        return TOKENIZER
    nothing = tokenizer("")["input_ids"]
    end = nothing.index(tokenizer.eos_token_id)
    rules = PieceRules(
        vocabulary=piece_ids(tokenizer),
        special=sorted({*tokenizer.added_tokens_encoder, *tokenizer.all_special_tokens}),
        before=tokenizer.convert_ids_to_tokens(nothing[:end]),
        after=tokenizer.convert_ids_to_tokens(nothing[end:]),
        unknown=tokenizer.unk_token,
        marks_language=hasattr(tokenizer, "remove_language_code"),
    )
    rules.write(directory, piece_models(tokenizer)[0])
    return PIECES


def write_longest_text(directory: Path, max_length: int) -> None:
    """Tell transformers' tokenizer in the directory how many tokens the model reads, and so where texts are cut."""
    content = json.loads((directory / _SETTINGS).read_text("utf-8"))
    write_json_whole(directory / _SETTINGS, {**content, "model_max_length": max_length})
