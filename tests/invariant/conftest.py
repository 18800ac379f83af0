"""One tiny training job, made anew whenever a test asks for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

from lightpaff.data.tagged_words import TaggedRows
from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.models.architecture import CLASSES, MASKED_TOKENS, NEXT_TOKENS, TARGET_TOKENS, TOKEN_CLASSES
from lightpaff.models.headed import HeadedModel
from lightpaff.models.opening import split_model
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.clm import CausalLanguageModelling
from lightpaff.objectives.mlm import MaskedLanguageModelling
from lightpaff.objectives.mssm import MaskedSequenceToSequence
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.tag import Tagging
from lightpaff.objectives.translate import Translation
from lightpaff.recipe_training import Distillation, Training
from lightpaff.targets.capture import CaptureRequest, capture
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.store import StoreFacts, TargetStore
from lightpaff.targets.teacher import LiveTeacher, StoredTeacher, Teacher
from lightpaff.training.device import Hardware
from lightpaff.training.loop import TrainingJob

CPU = torch.device("cpu")
VOCABULARY, SPECIAL_IDS, MASK_ID = 40, [0, 1, 2, 3, 4], 4
EXAMPLES = 24
LABELS = {
    "classes": np.arange(EXAMPLES) % 3,
    "partly labelled": np.where(np.arange(EXAMPLES) % 4 == 1, NO_GOLD_LABEL, np.arange(EXAMPLES) % 3),
    "scores": np.linspace(-1, 1, EXAMPLES, dtype=np.float32),
    "partly scored": np.where(np.arange(EXAMPLES) % 4 == 1, np.nan, np.linspace(-1, 1, EXAMPLES)).astype(np.float32),
}
HEADS = {"mlm": MASKED_TOKENS, "clm": NEXT_TOKENS, "mssm": TARGET_TOKENS, "translate": TARGET_TOKENS}
"""What a job learns, by its name: tokens, or else classes or scores (`LABELS`), or classes of words."""


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
        is_stored, kind = kind.endswith(" stored"), kind.removesuffix(" stored")
        data = make_data(kind, self.folder)
        job = TrainingJob(
            description="tiny",
            model=make_model(kind, model_seed, dropout).to(dtype),
            data=data,
            example_ids=np.arange(EXAMPLES),
            teacher=make_teacher(kind, data, self.folder, dtype, is_stored),
            settings=Training.model_validate({"learning_rate": 3e-3, "batch_size": 8, "evaluations": 1, **settings}),
            distillation=Distillation(weight=weight, temperature=2.0),
            draws=2 if is_stored else None,
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
    """A maker of jobs on the same 24 examples of 6 to 17 tokens, by kind (see `HEADS` and `LABELS`; with " stored"
    behind it, the teacher was asked before)."""
    return JobMaker(tmp_path)


def weights_as_score(model: HeadedModel) -> dict[str, float]:
    """A score that every step changes, and that costs no forward pass."""
    return {"score": float(sum(p.detach().double().abs().sum() for p in model.parameters())), "loss": 0.0}


def make_data(kind: str, folder: Path) -> Objective:
    random = np.random.default_rng(0)
    rows = [[2, *random.integers(5, VOCABULARY, size=4 + number % 12).tolist(), 3] for number in range(EXAMPLES)]
    columns = {
        "document_starts": [[0, number % 5 + 1] for number in range(EXAMPLES)],
        "language_id": [number % 3 - 1 for number in range(EXAMPLES)],
        "ordinary_tokens": [4 + number % 12 for number in range(EXAMPLES)],
        "target_ids": [row[2:] for row in reversed(rows)],
        "teacher_ids": [[*row[:3], 3] for row in rows],
        # The last word of each row has a class and no token.
        "starts": [[*range(1, len(row) - 1), -1] for row in rows],
        "tags": [[NO_GOLD_LABEL if word % 4 == 1 else word % 3 for word in range(len(row) - 1)] for row in rows],
    }
    types = {
        name: pa.int32() if isinstance(column[0], int) else pa.large_list(pa.int32())
        for name, column in columns.items()
    }
    path = folder / "rows.arrow"
    write_token_table(path, [{"input_ids": rows, **columns}], types)
    if kind in LABELS:
        return Classification(
            TokenTable(path),
            LABELS[kind],
            number_of_classes=classes_of(kind),
            padding_id=0,
            first_lengths_N=np.full(EXAMPLES, 5),
        )
    return _DATA[kind](path)


def _partly_tagged_words(path: Path) -> Objective:
    rows = TaggedRows(*(TokenTable(path, column) for column in ("input_ids", "tags", "starts")))
    return Tagging(rows, ["O", "B-place", "I-place"], padding_id=0)


def _masked_tokens(path: Path) -> Objective:
    return MaskedLanguageModelling(
        TokenTable(path),
        special_ids=SPECIAL_IDS,
        mask_id=MASK_ID,
        padding_id=0,
        number_of_classes=VOCABULARY,
        mask_rate=0.3,
        seed=5,
    )


def _packed_documents(path: Path) -> Objective:
    starts = TokenTable(path, "document_starts")
    return CausalLanguageModelling(TokenTable(path), starts, padding_id=0, number_of_classes=VOCABULARY)


def _fragments(path: Path) -> Objective:
    return MaskedSequenceToSequence(
        TokenTable(path),
        special_ids=SPECIAL_IDS,
        mask_id=MASK_ID,
        padding_id=0,
        start_id=2,
        number_of_classes=VOCABULARY,
        fragment_ratio=0.5,
        seed=5,
    )


def _pairs(path: Path, ratio: float = 0.5) -> Objective:
    """That share of the targets are the teacher's."""
    return Translation(
        TokenTable(path),
        TokenTable(path, "target_ids"),
        start_id=2,
        padding_id=0,
        number_of_classes=VOCABULARY,
        teacher_targets=TokenTable(path, "teacher_ids"),
        teacher_ratio=ratio,
        seed=5,
    )


_DATA = {
    "mlm": _masked_tokens,
    "clm": _packed_documents,
    "mssm": _fragments,
    "translate": _pairs,
    "partly tagged": _partly_tagged_words,
}


def classes_of(kind: str) -> int:
    return VOCABULARY if kind in HEADS else 1 if "score" in kind else 3


def make_model(kind: str, seed: int, dropout: float = 0.0, layers: int = 2) -> HeadedModel:
    torch.manual_seed(seed)
    head = HEADS.get(kind, TOKEN_CLASSES if kind == "partly tagged" else CLASSES)
    return split_model(_MODELS[head](classes_of(kind), dropout, layers), head, classes_of(kind))


# Weights large enough that teacher, student and labels pull in different directions.
_SPREAD = 0.3


def _make_encoder(
    classes: int, dropout: float, layers: int, model: Any = BertForSequenceClassification
) -> PreTrainedModel:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=_SPREAD,
        num_labels=classes,
        attn_implementation="eager",
    )
    made: PreTrainedModel = model(config)
    return made


def _make_decoder(classes: int, dropout: float, layers: int) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=layers,
        n_head=2,
        n_inner=24,
        n_positions=32,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        initializer_range=_SPREAD,
        bos_token_id=2,
        eos_token_id=3,
        attn_implementation="eager",
    )
    return GPT2LMHeadModel(config)


def _make_encoder_decoder(classes: int, dropout: float, layers: int) -> PreTrainedModel:
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        init_std=_SPREAD,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        attn_implementation="eager",
    )
    return BartForConditionalGeneration(config)


_MODELS: dict[str, Callable[[int, float, int], PreTrainedModel]] = {
    CLASSES: _make_encoder,
    TOKEN_CLASSES: partial(_make_encoder, model=BertForTokenClassification),
    MASKED_TOKENS: partial(_make_encoder, model=BertForMaskedLM),
    NEXT_TOKENS: _make_decoder,
    TARGET_TOKENS: _make_encoder_decoder,
}


def make_teacher(kind: str, data: Objective, folder: Path, dtype: torch.dtype, is_stored: bool) -> Teacher:
    """Live for tokens, unless they shall be stored, of two maskings; stored for classes and scores."""
    live = LiveTeacher(make_model(kind, seed=2, layers=3).to(dtype))
    if kind in HEADS and not is_stored:
        return live
    encoding = (
        Encoding("sampled", VOCABULARY, 6, temperature=2.0) if kind in HEADS else Encoding("dense", classes_of(kind))
    )
    ids = [np.arange(EXAMPLES)] * (2 if is_stored else 1)
    facts = StoreFacts({"teacher": "tiny"}, encoding, {})
    place = Place(str(folder / f"store of {kind}"), folder)
    # Both texts that a target may be.
    variants = [data] if kind != "translate" else [_pairs(folder / "rows.arrow", ratio) for ratio in (0.0, 1.0)]
    for variant in variants:
        capture(CaptureRequest(variant, ids, facts, 7, 64, "ask"), place, live.targets)
    return StoredTeacher(TargetStore(place, facts))


@pytest.fixture
def largest_difference() -> Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], float]:
    """Of two sets of weights with the same names."""

    def compare(weights: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> float:
        assert weights.keys() == others.keys()
        return max(float((weights[name] - others[name]).abs().max()) for name in weights)

    return compare
