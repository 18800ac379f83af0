"""How a student starts: from random weights, or from a part of its teacher.

A student that starts from the teacher's layers needs far fewer tokens (Minitron, arXiv 2407.14679).
"""

import copy
import re
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from lightpaff.errors import UserError
from lightpaff.models.encoder import (
    HEADS,
    configure_head,
    encoder_head,
    open_headed,
    quiet_transformers,
    read_config,
    seeded,
    set_dropout,
)
from lightpaff.models.shapes import shape_of

LAYER_LISTS: dict[str, str] = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "electra": "electra.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "modernbert": "model.layers",
}
"""Where an architecture keeps its layers, as the attribute path and as the prefix of its tensors' names."""


def evenly_spaced(teacher_layers: int, student_layers: int) -> list[int]:
    """Which of the teacher's layers a student takes: the first, the last, and evenly between; one layer is the first.

    12 layers to 6 are 0, 2, 4, 7, 9, 11, DistilBERT's own choice (Sanh et al. 2019); 6 to 3 are 0, 3, 5. The first
    layer reads the embeddings (ModernBERT's has no norm before its attention) and the last feeds the head, so both
    stay in place.
    """
    assert 1 <= student_layers <= teacher_layers
    gaps = max(student_layers - 1, 1)
    # Integers, rounded half up: Python's round would take halves to even numbers.
    return [(2 * layer * (teacher_layers - 1) + gaps) // (2 * gaps) for layer in range(student_layers)]


def create_student(
    config: PreTrainedConfig,
    head: str,
    classes: int,
    *,
    initialisation: str,
    teacher_path: Path | None,
    seed: int,
    attention: str,
    dropout: float | None = None,
    labels: list[str] | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Make a student in float32 on the CPU, in evaluation mode.

    Args:
        config: its architecture and sizes (see `shapes.student_config`); left as it is.
        head: `masked_tokens` or `classes`.
        classes: V.
        initialisation: `random`, or `teacher`: everything but the layers is the teacher's, and so are the layers
            that `evenly_spaced` chooses.
        teacher_path: the teacher's directory, for `teacher`.
        seed: of the random weights, and of a head that the teacher's directory lacks.
        attention: transformers' `attn_implementation`.
        dropout: every dropout probability; None leaves the config's.
        labels: the names of the classes, in order.
        trust_remote_code: run Python code that lies in the teacher's directory.

    Raises:
        UserError: the student's sizes are not the teacher's, or it has more layers.
    """
    assert initialisation in ("random", "teacher")
    config = copy.deepcopy(config)
    configure_head(config, head, classes, labels)
    set_dropout(config, dropout)
    encoder_head(config, head)  # Refuses what cannot be split before anything is built.
    if initialisation == "random":
        return _build_random(config, head, seed, attention)
    assert teacher_path is not None
    teacher_config = read_config(teacher_path, trust_remote_code=trust_remote_code)
    check_sizes(config, teacher_config)
    chosen = evenly_spaced(shape_of(teacher_config).layers, shape_of(config).layers)
    if config.model_type == "modernbert":
        # A layer keeps the kind of attention, local or global, that it was trained with.
        config.layer_types = [teacher_config.layer_types[layer] for layer in chosen]
    teacher = open_headed(
        teacher_path,
        head,
        classes,
        device="cpu",
        attention=attention,
        labels=labels,
        seed=seed,
        trust_remote_code=trust_remote_code,
    ).model
    student = _build_random(config, head, seed, attention)
    student.load_state_dict(_select_layers(teacher, chosen))
    return student


def _build_random(config: PreTrainedConfig, head: str, seed: int, attention: str) -> PreTrainedModel:
    with quiet_transformers(), seeded(seed):
        model = HEADS[head].from_config(config, dtype=torch.float32, attn_implementation=attention)
    return model.eval()


def _select_layers(teacher: PreTrainedModel, chosen: list[int]) -> dict[str, Tensor]:
    """The teacher's tensors under the names that they have in a student with only the chosen layers."""
    place_of = {str(layer): str(place) for place, layer in enumerate(chosen)}
    layer_name = re.compile(rf"({re.escape(LAYER_LISTS[teacher.config.model_type])}\.)(\d+)(\..*)")
    tensors = {}
    for name, tensor in teacher.state_dict().items():
        if (match := layer_name.fullmatch(name)) is None:
            tensors[name] = tensor
        elif match[2] in place_of:
            tensors[match[1] + place_of[match[2]] + match[3]] = tensor
    return tensors


def check_sizes(student_config: PreTrainedConfig, teacher_config: PreTrainedConfig) -> None:
    """Check that a student can start from the teacher's layers.

    Raises:
        UserError: its hidden size, heads or feed-forward size are not the teacher's, or it has more layers.
    """
    student, teacher = shape_of(student_config), shape_of(teacher_config)
    remedy = "set student.initialisation to random"
    for field in ("hidden_size", "heads", "feed_forward"):
        wanted, found = getattr(student, field), getattr(teacher, field)
        if wanted != found:
            raise UserError(
                f"student.{field} is {wanted} and the teacher's {found}: a student that starts from its teacher has "
                f"the teacher's sizes; leave student.{field} out, or {remedy}"
            )
    if student.layers > teacher.layers:
        raise UserError(
            f"student.layers is {student.layers} and the teacher has {teacher.layers}: there are too few to start "
            f"from; set student.layers to {teacher.layers} or less, or {remedy}"
        )
