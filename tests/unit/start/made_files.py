"""Data files as users have them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RANDOM = np.random.default_rng(0)
WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me") for b in ("ra", "to", "shi", "n", "lop", "vex")]
ROWS = 200


def sentence(words: int) -> str:
    """So many words, or half as many more or less."""
    return " ".join(RANDOM.choice(WORDS, size=max(2, int(RANDOM.integers(words // 2, words + words // 2)))))


def reviews(row: int) -> dict[str, Any]:
    """A text and one of two labels."""
    return {"nr": row, "What they wrote": sentence(12), "verdict?": ["bad", "good"][row % 2]}


def films(row: int) -> dict[str, Any]:
    """The same, several of one film."""
    return {"movie_name": f"film {row // 8}", "text": sentence(10), "category": ["fresh", "rotten"][row % 2]}


def write_file(
    folder: Path, make: Callable[[int], dict[str, Any]], ending: str = "csv", rows: int = ROWS, name: str = "data"
) -> Path:
    """A file of made rows."""
    return write_rows(folder / f"{name}.{ending}", [make(row) for row in range(rows)])


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of rows, as its ending says."""
    ending = path.suffix[1:]
    if ending == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if ending == "tsv" else ",")
            writer.writerow(rows[0])
            writer.writerows(list(row.values()) for row in rows)
    return path


def model(folder: Path, head: str, labels: int | list[str] = 2, **settings: Any) -> str:
    """The directory of a BERT, as far as anything looks at it before a run: its config and its vocabulary.

    Args:
        folder: holds the directory.
        head: the end of its class's name.
        labels: the names of its classes, or how many there are.
        settings: more of its config.
    """
    folder = folder / "model"
    folder.mkdir(exist_ok=True)
    names = [f"LABEL_{number}" for number in range(labels)] if isinstance(labels, int) else labels
    config = {"model_type": "bert", "architectures": [f"BertFor{head}"], "id2label": dict(enumerate(names)), **settings}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return str(folder)
