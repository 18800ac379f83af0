"""What an exported model says about itself: `export.json` in its directory. Imports neither torch nor transformers."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightpaff.errors import UserError
from lightpaff.files import write_json_whole
from lightpaff.runtimes import Format, Quantisation

Kind = Literal["classes", "scores", "token_classes", "spans", "next_tokens", "target_tokens"]

CARD = "export.json"


@dataclass(frozen=True)
class ExportCard:
    """What is in an export's directory.

    Attributes:
        format: whose files these are.
        quantisation: of the weights: `none` is float32.
        kind: what the model answers: `classes` (logits of labels), `scores` (one number), `token_classes` (logits of
            labels for every token), `spans` (for every token whether an answer starts or ends there; with a label where
            there may be none), `next_tokens` (a decoder) or `target_tokens` (an encoder-decoder).
        labels: the classes in order; empty for the others.
        max_length: the most tokens of a text that it was trained and checked with; longer texts are cut to it.
        longest_input: the most tokens that its positions reach; None where they have no end.
        decoder_start: the token that a decoder of an encoder-decoder begins with, as text; empty for the others.
        first_written: the token that it has to write first (its language), as text; empty where there is none.
        source_prefix: the token before every source (its language), as text; empty where there is none.
        beams: of the beam search that the scores were measured with; 1 for the others.
        length_penalty: of the same.
        max_target_length: the most tokens that are written; 0 for classifiers.
        source_sha256: of the weights that were exported.
        made_with: versions of the exporter, for the record.
        tokenizer: the file by which texts are cut: `tokenizer.json`, or `pieces.json` (see `pieces.py`).
        pairs: a classifier reads two texts at once.
        segments: it was trained with the second text marked (`token_type_ids`).
        truncation_side: which end of a long text is cut off: `right` or `left`.
        start: the id of the token that every document began with in training; None where there was none, and in older
            cards.
    """

    format: Format
    quantisation: Quantisation
    kind: Kind
    max_length: int
    longest_input: int | None
    source_sha256: str
    labels: list[str] = field(default_factory=list)
    decoder_start: str = ""
    first_written: str = ""
    source_prefix: str = ""
    beams: int = 1
    length_penalty: float = 1.0
    max_target_length: int = 0
    made_with: dict[str, str] = field(default_factory=dict)
    tokenizer: str = "tokenizer.json"
    pairs: bool = False
    segments: bool = True
    truncation_side: str = "right"
    start: int | None = None

    @property
    def shares_scales(self) -> bool:
        """All that ONNX Runtime reads in a call of 8 bits has one scale: texts that are read together change each
        other's answers a little, and so do a text's tokens."""
        return self.format == "onnx" and self.quantisation == "int8"

    def write(self, directory: Path) -> None:
        """Write `export.json` into the directory of the export."""
        write_json_whole(directory / CARD, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> "ExportCard":
        """The card of an export.

        Raises:
            UserError: the directory is no export, or its card cannot be read.
        """
        try:
            content: dict[str, Any] = json.loads((directory / CARD).read_text(encoding="utf-8"))
            # Older cards do not tell it.
            content.setdefault("longest_input", content["max_length"])
            return cls(**content)
        except FileNotFoundError as error:
            raise UserError(f"{directory}: holds no {CARD}; give a directory that lightpaff export wrote") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{directory / CARD}: cannot be read ({error}); export the model anew") from error
