"""One tiny training job, made anew whenever a test asks for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedModel

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.models.encoder import CLASSES, MASKED_TOKENS, split_model
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.mlm import MaskedLanguageModelling
from lightpaff.objectives.objective import Objective
from lightpaff.recipe import Distillation, Training
from lightpaff.targets.teacher import LiveTeacher, StoredTeacher, Teacher, predict, store_targets
from lightpaff.training.device import Hardware
from lightpaff.training.loop import TrainingJob

CPU = torch.device("cpu")
VOCABULARY, SPECIAL_IDS, MASK_ID = 40, [0, 1, 2, 3, 4], 4
EXAMPLES = 24
LABELS = {
    "mlm": None,
    "classes": np.arange(EXAMPLES) % 3,
    "partly labelled": np.where(np.arange(EXAMPLES) % 4 == 1, NO_GOLD_LABEL, np.arange(EXAMPLES) % 3),
    "scores": np.linspace(-1, 1, EXAMPLES, dtype=np.float32),
    "partly scored": np.where(np.arange(EXAMPLES) % 4 == 1, np.nan, np.linspace(-1, 1, EXAMPLES)).astype(np.float32),
}
CLASSES_OF = {"mlm": VOCABULARY, "classes": 3, "partly labelled": 3, "scores": 1, "partly scored": 1}
"""What a job learns, by its name: masked tokens, classes or scores."""


@dataclass(frozen=True)
class JobMaker:
    """Makes jobs that differ in nothing but what is asked for.

    Models are in float64 unless another type is asked for: in float32, Adam turns the rounding errors of gradients that
    are 0 (those of attention's key biases) into whole steps.
    """

    folder: Path
    made: list[TrainingJob] = field(default_factory=list)

    def __call__(
        self,
        kind: str,
        *,
        weight: float,
        dropout: float = 0.0,
        model_seed: int = 1,
        dtype: torch.dtype = torch.float64,
        checkpoints: str | None = None,
        validate: Callable[[HeadedModel], dict[str, float]] | None = None,
        **settings: Any,
    ) -> TrainingJob:
        data = make_data(kind, self.folder)
        job = TrainingJob(
            description="tiny",
            model=make_model(kind, model_seed, dropout).to(dtype),
            data=data,
            example_ids=np.arange(EXAMPLES),
            teacher=make_teacher(kind, data, self.folder, dtype),
            settings=Training.model_validate({"learning_rate": 3e-3, "batch_size": 8, "evaluations": 1, **settings}),
            distillation=Distillation(weight=weight, temperature=2.0),
            seed=3,
            validate=validate or weights_as_score,
            checkpoints=self.folder / (checkpoints or f"checkpoints {len(self.made)}"),
            fingerprint="the same",
            hardware=Hardware(CPU, "float32"),
        )
        self.made.append(job)
        return job


@pytest.fixture
def make_job(tmp_path: Path) -> JobMaker:
    """A maker of jobs on the same 24 examples of 6 to 17 tokens, by kind (see `LABELS`)."""
    return JobMaker(tmp_path)


def weights_as_score(model: HeadedModel) -> dict[str, float]:
    """A score that every step changes, and that costs no forward pass."""
    return {"score": float(sum(parameter.detach().double().abs().sum() for parameter in model.parameters()))}


def make_data(kind: str, folder: Path) -> Objective:
    path = folder / "rows.arrow"
    random = np.random.default_rng(0)
    rows = [[2, *random.integers(5, VOCABULARY, size=4 + number % 12).tolist(), 3] for number in range(EXAMPLES)]
    write_token_table(path, [{"input_ids": rows}], {})
    labels_N = LABELS[kind]
    if labels_N is None:
        return MaskedLanguageModelling(
            TokenTable(path),
            special_ids=SPECIAL_IDS,
            mask_id=MASK_ID,
            padding_id=0,
            number_of_classes=VOCABULARY,
            mask_rate=0.3,
            seed=5,
        )
    return Classification(
        TokenTable(path),
        labels_N,
        number_of_classes=CLASSES_OF[kind],
        padding_id=0,
        first_lengths_N=np.full(EXAMPLES, 5),
    )


def make_model(kind: str, seed: int, dropout: float = 0.0, layers: int = 2) -> HeadedModel:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # Large enough that teacher, student and labels pull in different directions.
        initializer_range=0.3,
        num_labels=CLASSES_OF[kind],
        attn_implementation="eager",
    )
    model: PreTrainedModel = BertForMaskedLM(config) if kind == "mlm" else BertForSequenceClassification(config)
    return split_model(model, MASKED_TOKENS if kind == "mlm" else CLASSES, CLASSES_OF[kind])


def make_teacher(kind: str, data: Objective, folder: Path, dtype: torch.dtype) -> Teacher:
    """Live for masked tokens, stored for classes and scores."""
    teacher = make_model(kind, seed=2, layers=3).to(dtype)
    if kind == "mlm":
        return LiveTeacher(teacher)
    path = folder / "soft_targets.safetensors"
    store_targets(predict(teacher, data, 64, CPU), path)
    return StoredTeacher(path, EXAMPLES, CPU)


@pytest.fixture
def largest_difference() -> Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], float]:
    """Of two sets of weights with the same names."""

    def compare(weights: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> float:
        assert weights.keys() == others.keys()
        return max(float((weights[name] - others[name]).abs().max()) for name in weights)

    return compare
