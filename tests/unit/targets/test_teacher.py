"""Shapes: P target positions, V classes, N examples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.models.architecture import CLASSES
from lightpaff.models.headed import HeadedModel
from lightpaff.models.opening import split_model
from lightpaff.objectives.answers import ask_logits
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.model_answers import ModelAnswers
from lightpaff.targets.capture import CaptureRequest, capture
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Dense, Projected
from lightpaff.targets.store import StoreFacts, TargetStore
from lightpaff.targets.teacher import LiveTeacher, NoTeacher, StoredTeacher

CPU = torch.device("cpu")
EXAMPLES, V = 11, 3


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
    live = LiveTeacher(model)
    place, facts = Place(str(tmp_path / "store"), tmp_path), StoreFacts({}, Encoding("dense", V), {})
    capture(CaptureRequest(data, [np.arange(EXAMPLES)], facts, 0, 30, "ask"), place, live.targets)
    stored = StoredTeacher(TargetStore(place, facts))
    for ids in ([0], [10, 3, 7], list(range(EXAMPLES)), [4, 4]):
        batch = data.batch(np.array(ids), draw=5)
        targets = stored.targets(batch)
        assert isinstance(targets, Dense)
        logits_PV = targets.logits_PV
        assert logits_PV.shape == (len(ids), V)
        torch.testing.assert_close(logits_PV, live.targets(batch).chunk(0, len(ids)).logits_PV, atol=1e-5, rtol=1e-5)


def test_predictions_do_not_depend_on_the_batch(data: Classification, model: HeadedModel) -> None:
    answers = ModelAnswers(model, CPU)
    one_by_one, together = ask_logits(answers, data, 1), ask_logits(answers, data, 10_000)
    assert one_by_one.shape == (EXAMPLES, V)
    torch.testing.assert_close(one_by_one, together, atol=1e-5, rtol=1e-5)
    assert one_by_one.std(0).min() > 1e-3


def test_likelihoods_are_of_logits_that_are_not_rounded(data: Classification, model: HeadedModel) -> None:
    batch = data.batch(np.arange(EXAMPLES), draw=0)
    answers = ModelAnswers(model, CPU)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found_P = answers.nll(batch)
        logits_PV = model.logits(batch.inputs, batch.positions_P)
    assert logits_PV.dtype == torch.float32
    expected_P = torch.nn.functional.cross_entropy(logits_PV, batch.labels_P, reduction="none")
    np.testing.assert_allclose(found_P, expected_P.numpy(), rtol=1e-6)


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
