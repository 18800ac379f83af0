"""A small store of soft targets, the text and the teacher that it is captured from.

Shapes: V classes.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.models.architecture import MASKED_TOKENS
from lightpaff.models.opening import split_model
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.mlm import MaskedLanguageModelling
from lightpaff.targets import capture as capturing
from lightpaff.targets.capture import Ask, CaptureRequest, capture
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Sparse
from lightpaff.targets.store import StoreFacts, TargetStore
from lightpaff.targets.teacher import LiveTeacher, StoredTeacher

EXAMPLES, V, DRAWS = 20, 40, 2
MEANING = {
    "teacher": "a" * 64,
    "tokenizer": "t",
    "objective": "mlm",
    "seed": 1,
    "sequence_length": 16,
    "mask_rate": 0.3,
}
FACTS = StoreFacts(MEANING, Encoding("sampled", V, 12), {"made with": {"torch": "2"}, "precision": "float32"})


def write_rows(path: Path, count: int, changed: int | None = None) -> None:
    random = np.random.default_rng(0)
    rows = [[2, *random.integers(5, V, size=4 + number % 9).tolist(), 3] for number in range(count)]
    if changed is not None:
        rows[changed][1] = 5 if rows[changed][1] != 5 else 6
    write_token_table(path, [{"input_ids": rows}], {})


def open_data(
    folder: Path, count: int = EXAMPLES, *, mask_rate: float = 0.3, seed: int = 1, changed: int | None = None
):
    path = folder / f"rows {count} {changed}.arrow"
    write_rows(path, count, changed)
    return MaskedLanguageModelling(
        TokenTable(path),
        special_ids=[0, 1, 2, 3, 4],
        mask_id=4,
        padding_id=0,
        number_of_classes=V,
        mask_rate=mask_rate,
        seed=seed,
    )


@pytest.fixture(scope="module")
def ask() -> Ask:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=V,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    return LiveTeacher(split_model(BertForMaskedLM(config), MASKED_TOKENS, V)).targets


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "UNIT_POSITIONS", 8)


def request_of(data: MaskedLanguageModelling, facts: StoreFacts = FACTS, draws: int = DRAWS) -> CaptureRequest:
    return CaptureRequest(data, [np.arange(len(data.lengths_N))] * draws, facts, 7, 30, "ask")


def place_at(path: Path) -> Place:
    return Place(str(path), path.parent / "copies")


@pytest.fixture
def store(tmp_path: Path, ask: Ask) -> Path:
    path = tmp_path / "store"
    assert capture(request_of(open_data(tmp_path)), place_at(path), ask)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def read(store: TargetStore, batch: Batch) -> Sparse:
    targets = StoredTeacher(store).targets(batch)
    assert isinstance(targets, Sparse)
    return targets
