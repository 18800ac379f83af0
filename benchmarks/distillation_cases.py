"""What the benchmarks of training take steps on: models of the usual shapes with random weights, random tokens, and the
step that everybody writes.

Shapes: B examples, S tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.models.shapes import forward_flops_per_token, training_flops_per_token
from lightpaff.objectives.batch import NO_GOLD_LABEL, Batch
from lightpaff.objectives.clm import CausalLanguageModelling
from lightpaff.objectives.mlm import MaskedLanguageModelling
from lightpaff.objectives.mssm import MaskedSequenceToSequence
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.translate import Translation

Way = Literal["naive", "live", "stored"]
LAMBDA = 0.9
_AUTO = {"mlm": AutoModelForMaskedLM, "clm": AutoModelForCausalLM}
_BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
_GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_layer": 12,
    "n_embd": 768,
    "n_head": 12,
    "n_positions": 512,
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}
_BART = {
    "model_type": "bart",
    "vocab_size": 32000,
    "d_model": 768,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
    "max_position_embeddings": 256,
    "dropout": 0.0,
}
_SMALL_BART = {**_BART, "d_model": 512, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "decoder_layers": 2} | {
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
}


@dataclass(frozen=True)
class Case:
    """What a step works on."""

    name: str
    teacher: dict[str, Any]
    student: dict[str, Any]
    batch_size: int
    length: int


_SMALL_BERT = {**_BERT, "num_hidden_layers": 3, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
CASES = {
    "cpu": [
        Case("mlm", _BERT, _SMALL_BERT, 16, 128),
        Case("clm", _GPT2, {**_GPT2, "n_layer": 4}, 4, 512),
        Case("mssm", _BART, _SMALL_BART, 16, 128),
        Case("translate", _BART, _SMALL_BART, 32, 32),
    ],
    "cuda": [
        Case("mlm", _BERT, _SMALL_BERT, 256, 128),
        Case("clm", {**_GPT2, "n_layer": 24, "n_embd": 1024, "n_head": 16}, {**_GPT2, "n_layer": 4}, 16, 512),
        Case("mssm", _BART, _SMALL_BART, 128, 128),
        Case("translate", _BART, _SMALL_BART, 256, 32),
    ],
}
_STEPS_CAPTURED = {"cpu": 4, "cuda": 32}
"""Batches of examples; they come again."""


def count_above_0(text: str) -> int:
    """A number of rounds, steps or threads, for argparse.

    Raises:
        ValueError: it is none.
    """
    if (count := int(text)) < 1:
        raise ValueError(text)
    return count


def naive_step(
    student: nn.Module, teacher: nn.Module, optimiser: torch.optim.Optimizer, *, bf16: bool
) -> Callable[[dict[str, Tensor], Tensor], float]:
    """The step that everybody writes: both models whole, all their logits, and torch's own losses.

    It is meant to be fair: the same data, optimiser and mean, no dropout; but for a GPU, in float32. A function of
    (inputs, labels B x S, -100 where nothing is predicted) that takes one step, and gives the loss.
    """
    student.train()
    teacher.eval()

    def step(inputs: dict[str, Tensor], labels_BS: Tensor) -> float:
        with torch.autocast(labels_BS.device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                teacher_logits = teacher(**inputs).logits
            logits = student(**inputs).logits
        is_target = labels_BS != -100
        hard = functional.cross_entropy(logits[is_target].float(), labels_BS[is_target])
        soft = functional.kl_div(
            functional.log_softmax(logits[is_target].float(), dim=-1),
            functional.softmax(teacher_logits[is_target].float(), dim=-1),
            reduction="batchmean",
        )
        loss = (1 - LAMBDA) * hard + LAMBDA * soft
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    return step


def as_users_have_it(batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The same batch as inputs and labels of one shape."""
    inputs = {name: tensor for name, tensor in batch.inputs.items() if name not in ("position_ids",)}
    inputs.pop("decoder_position_ids", None)
    shape = inputs.get("decoder_input_ids", inputs["input_ids"]).shape
    labels = torch.full(shape, NO_GOLD_LABEL, device=batch.labels_P.device).flatten()
    labels[batch.positions_P] = batch.labels_P
    return inputs, labels.view(shape)


def make_model(objective: str, settings: dict[str, Any], attention: str) -> PreTrainedModel:
    """A model with random weights."""
    settings = dict(settings)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    auto = _AUTO.get(objective, AutoModelForSeq2SeqLM)
    model: PreTrainedModel = auto.from_config(config, attn_implementation=attention)
    return model


def make_data(case: Case, folder: Path, device: str, batches: int | None = None) -> Objective:
    """Random tokens in the shape of the case; so many batches, or as many as are captured for the steps."""
    count, classes = case.batch_size * (batches or _STEPS_CAPTURED[device]), case.teacher["vocab_size"]
    random = np.random.default_rng(0)
    inner = case.length - (2 if case.name == "mlm" else 1)
    rows = random.integers(5, classes, size=(count, inner + (case.name == "clm") * 2)).tolist()
    path = folder / f"{case.name}.arrow"
    if case.name == "clm":
        write_token_table(path, [{"input_ids": rows, "starts": [[0]] * count}], {"starts": pa.large_list(pa.int32())})
        return CausalLanguageModelling(
            TokenTable(path), TokenTable(path, "starts"), padding_id=0, number_of_classes=classes
        )
    if case.name == "mlm":
        write_token_table(path, [{"input_ids": [[2, *row, 3] for row in rows]}], {})
        kinds = {"special_ids": list(range(5)), "mask_id": 4, "padding_id": 0, "number_of_classes": classes}
        return MaskedLanguageModelling(TokenTable(path), mask_rate=0.15, seed=0, **kinds)
    rows = [[*row, 2] for row in rows]
    if case.name == "translate":
        write_token_table(
            path, [{"input_ids": rows, "target_ids": rows[::-1]}], {"target_ids": pa.large_list(pa.int32())}
        )
        return Translation(
            TokenTable(path), TokenTable(path, "target_ids"), start_id=2, padding_id=1, number_of_classes=classes
        )
    facts = {"language_id": [-1] * count, "ordinary_tokens": [inner] * count}
    write_token_table(path, [{"input_ids": rows, **facts}], {name: pa.int32() for name in facts})
    return MaskedSequenceToSequence(
        TokenTable(path),
        special_ids=list(range(5)),
        mask_id=4,
        padding_id=1,
        start_id=2,
        number_of_classes=classes,
        fragment_ratio=0.5,
        seed=0,
    )


def flops_of(case: Case, data: Objective) -> dict[Way, float]:
    """Floating point operations of a step, by the way it is taken: what must be computed, not what was."""
    tokens, targets = int(data.lengths_N[0]), int(data.targets_N[0])
    shape: dict[str, Any] = {"sequence_length": case.length, "target_share": targets / tokens}
    told = (data.head, data.number_of_classes)
    student, teacher = (make_model(case.name, own, "eager").config for own in (case.student, case.teacher))
    own = training_flops_per_token(student, *told, **shape) * tokens * case.batch_size
    asking = forward_flops_per_token(teacher, *told, **shape) * tokens * case.batch_size
    return {"naive": own + asking, "live": own + asking, "stored": own}
