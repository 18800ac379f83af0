"""Shapes: P target positions, V classes, N examples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.errors import UserError
from lightpaff.evaluation.metrics import read_logits, write_logits
from lightpaff.models.architecture import CLASSES
from lightpaff.models.headed import HeadedModel
from lightpaff.models.opening import split_model
from lightpaff.objectives.answers import ask_logits
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.model_answers import ModelAnswers
from lightpaff.targets.soft_targets import Projected
from lightpaff.targets.teacher import LiveTeacher, NoTeacher, StoredTeacher

CPU = torch.device("cpu")
EXAMPLES, V = 11, 3
ONE_EACH = np.ones(EXAMPLES, np.int64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Classification:
    random = np.random.default_rng(0)
    rows = [[2, *random.integers(5, 30, size=random.integers(1, 12)).tolist(), 3] for _ in range(EXAMPLES)]
    path = tmp_path_factory.mktemp("tables") / "rows.arrow"
    write_token_table(path, [{"input_ids": rows}], {})
    labels = np.arange(EXAMPLES) % V
    return Classification(TokenTable(path), labels, number_of_classes=V, padding_id=0, first_lengths_N=None)


@pytest.fixture
def model() -> HeadedModel:
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.3,
        num_labels=V,
        attn_implementation="eager",
    )
    return split_model(BertForSequenceClassification(config), CLASSES, V)


def test_a_stored_teacher_says_what_a_live_one_says(data: Classification, model: HeadedModel, tmp_path: Path) -> None:
    path = tmp_path / "soft_targets.safetensors"
    write_logits(path, ask_logits(ModelAnswers(model, CPU), data, 30).numpy())
    stored, live = StoredTeacher(path, ONE_EACH, CPU), LiveTeacher(model)
    for ids in ([0], [10, 3, 7], list(range(EXAMPLES)), [4, 4]):
        batch = data.batch(np.array(ids), draw=5)
        logits_PV = stored.targets(batch).logits_PV
        assert logits_PV.shape == (len(ids), V)
        torch.testing.assert_close(logits_PV, live.targets(batch).chunk(0, len(ids)).logits_PV, atol=1e-5, rtol=1e-5)


def test_predictions_do_not_depend_on_the_batch(data: Classification, model: HeadedModel) -> None:
    answers = ModelAnswers(model, CPU)
    one_by_one, together = ask_logits(answers, data, 1), ask_logits(answers, data, 10_000)
    assert one_by_one.shape == (EXAMPLES, V)
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=1e-5)
    assert one_by_one.std(0).min() > 1e-3


def test_progress_is_told(data: Classification, model: HeadedModel) -> None:
    answers = ModelAnswers(model, CPU)
    shown = ask_logits(answers, data, 10_000, "predict")
    assert torch.equal(shown, ask_logits(answers, data, 10_000))


def test_a_live_teacher_is_frozen_and_without_dropout(data: Classification, model: HeadedModel) -> None:
    model.train()
    teacher = LiveTeacher(model)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    batch = data.batch(np.arange(3), draw=0)
    first, second = teacher.targets(batch), teacher.targets(batch)
    assert isinstance(first, Projected)
    assert not first.features_PD.requires_grad
    assert torch.equal(first.features_PD, second.features_PD)


def test_chunks_are_parts_of_the_whole(data: Classification, model: HeadedModel, tmp_path: Path) -> None:
    batch = data.batch(np.arange(5), draw=0)
    live = LiveTeacher(model).targets(batch)
    expected = model.logits(batch.inputs, batch.positions_P)
    for targets in (live, live.chunk(0, 5)):
        parts = [targets.chunk(start, stop).logits_PV for start, stop in ((0, 2), (2, 4), (4, 5))]
        torch.testing.assert_close(torch.cat(parts), expected)


def test_nobody_is_asked(data: Classification) -> None:
    assert NoTeacher().targets(data.batch(np.arange(2), draw=0)) is None  # type: ignore[func-returns-value]


def test_a_store_comes_back(tmp_path: Path) -> None:
    # Not contiguous: safetensors would refuse it.
    logits_NV = torch.randn(V, EXAMPLES).T
    write_logits(tmp_path / "store", logits_NV.numpy())
    assert torch.equal(torch.from_numpy(read_logits(tmp_path / "store")), logits_NV)


@pytest.mark.parametrize("examples", [0, EXAMPLES - 1, EXAMPLES + 1])
def test_a_store_of_other_data_is_refused(tmp_path: Path, examples: int) -> None:
    write_logits(tmp_path / "store", np.zeros((EXAMPLES, V), np.float32))
    with pytest.raises(
        UserError, match=f"store: holds soft targets of {EXAMPLES} positions, but the data has {examples};"
    ) as caught:
        StoredTeacher(tmp_path / "store", np.ones(examples, np.int64), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_text("not a store at all"),
        lambda path: save_file({"other": torch.zeros(1)}, path),
    ],
    ids=["absent", "empty", "cut", "text", "other"],
)
def test_what_is_no_store_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "store"
    write_logits(path, np.zeros((EXAMPLES, V), np.float32))
    damage(path)
    with pytest.raises(UserError, match="store: is no store of soft targets; delete its folder and run again"):
        StoredTeacher(path, ONE_EACH, CPU)
