"""How a student starts: from random weights, or from a part of its teacher.

A student that starts from the teacher's layers needs far fewer tokens (Minitron, arXiv 2407.14679).
"""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lightpaff.errors import UserError
from lightpaff.files import write_whole
from lightpaff.models.building import build_model
from lightpaff.models.families import architecture_of, attention_of, head_of
from lightpaff.models.narrowing import check_narrowing, is_narrower, narrow
from lightpaff.models.opening import configure_head, open_headed, quiet_transformers, read_config, seeded, set_dropout
from lightpaff.models.shapes import shape_of
from lightpaff.models.weights import WEIGHTS, read_tensors, tensor_names

_POOLER = re.compile(r"(.*\.)?pooler\.dense\..*")
_WITH_POOLER = ("bert",)
"""The architectures whose classifier reads the trunk's own pooler, by the prefix of their trunk's tensors."""


def evenly_spaced(teacher_layers: int, student_layers: int) -> list[int]:
    """Which of the teacher's layers a student takes: the first, the last, and evenly between; one layer is the first.

    12 layers to 6 are 0, 2, 4, 7, 9, 11, DistilBERT's own choice (Sanh et al. 2019); 6 to 3 are 0, 2, 5. The first
    layer reads the embeddings (ModernBERT's has no norm before its attention) and the last feeds the head, so both
    stay in place. Of two as near it is the lower one, with which the demo's student ends nearer to its teacher.
    """
    assert 1 <= student_layers <= teacher_layers
    gaps = max(student_layers - 1, 1)
    # Integers, rounded half down: Python's round would take halves to even numbers.
    return [(2 * layer * (teacher_layers - 1) + gaps - 1) // (2 * gaps) for layer in range(student_layers)]


def taken_layers(
    student_config: PreTrainedConfig, teacher_config: PreTrainedConfig, named: Mapping[str, list[int]]
) -> dict[str, list[int]]:
    """Which of the teacher's layers a student takes, by the size that says how many there are (`layers`,
    `decoder_layers`): those that are named there, else those that `evenly_spaced` chooses.

    Raises:
        UserError: the teacher has no such layer.
    """
    student, teacher = shape_of(student_config), shape_of(teacher_config)
    taken = {}
    for size in [layers.count for layers in architecture_of(student_config).layers]:
        found = getattr(teacher, size)
        taken[size] = named.get(size) or evenly_spaced(found, getattr(student, size))
        if taken[size][-1] >= found:
            raise UserError(
                f"student.teacher_{size} names layer {taken[size][-1]}, and the teacher's are 0 to {found - 1}; take "
                "others"
            )
    return taken


def keep_kinds(config: PreTrainedConfig, teacher_config: PreTrainedConfig, taken: Mapping[str, list[int]]) -> None:
    """Write into a student's config that each layer keeps the kind of attention, local or global, of the one it is."""
    if kinds := getattr(teacher_config, "layer_types", None):
        config.layer_types = [kinds[layer] for layer in taken["layers"]]


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
    named_layers: Mapping[str, list[int]] = {},
    calibration: Iterable[dict[str, Tensor]] = (),
) -> PreTrainedModel:
    """Make a student in float32 on the CPU, in evaluation mode.

    Args:
        config: its architecture and sizes (see `shapes.student_config`); left as it is.
        head: one of the architecture's: `masked_tokens`, `classes`, `next_tokens` or `target_tokens`.
        classes: V.
        initialisation: `random`, or `teacher`: everything but the layers is the teacher's, and so are the layers
            that are taken; of a narrower student, cut to its widths (`narrowing.py`).
        teacher_path: the teacher's directory, for `teacher`.
        seed: of the random weights, and of a head that the teacher's directory lacks.
        attention: transformers' `attn_implementation`.
        dropout: every dropout probability; None leaves the config's.
        named_layers: see `taken_layers`.
        calibration: inputs of the teacher's trunk, on the CPU, that tell what a narrower student takes.

    Raises:
        UserError: the student cannot be cut out of the teacher, or has more layers.
    """
    assert initialisation in ("random", "teacher")
    config = copy.deepcopy(config)
    configure_head(config, head, classes)
    set_dropout(config, dropout)
    head_of(config, head)  # Refuses what cannot be split before anything is built.
    if initialisation == "random":
        return _build_random(config, head, seed, attention)
    assert teacher_path is not None
    teacher_config = read_config(teacher_path)
    check_sizes(config, teacher_config)
    taken = taken_layers(config, teacher_config, named_layers)
    keep_kinds(config, teacher_config, taken)
    chosen = {layers.path: taken[layers.count] for layers in architecture_of(config).layers}
    opened = open_headed(teacher_path, head, classes, device="cpu", attention=attention, seed=seed)
    student = _build_random(config, head, seed, attention)
    _untie_as_in_teacher(student, opened.model)
    is_cut = is_narrower(config, teacher_config)
    tensors = narrow(opened, config, calibration) if is_cut else opened.model.state_dict()
    student.load_state_dict(_without_spare_rows(_select_layers(tensors, chosen), student))
    return student


def carry_pooler(source: Path, destination: Path) -> None:
    """Copy a pooler into a directory without one: BERT's, pre-trained with it, is no part of its head of words, but its
    classifier starts from it.

    Args:
        source: the directory of the model that `destination` was made from; of another width, nothing is copied.
        destination: a directory with one safetensors file.
    """
    names = [name for name in tensor_names(source) if _POOLER.match(name)]
    tensors, prefix = load_file(destination / WEIGHTS), read_config(destination).model_type
    if prefix not in _WITH_POOLER or any(_POOLER.match(name) for name in tensors):
        return
    if is_narrower(read_config(destination), read_config(source)):
        return
    for name, tensor in read_tensors(source, names).items():
        tensors[f"{prefix}.{name.removeprefix(f'{prefix}.')}"] = tensor.float()
    write_whole(destination / WEIGHTS, save(tensors, {"format": "pt"}))


def _build_random(config: PreTrainedConfig, head: str, seed: int, attention: str) -> PreTrainedModel:
    with quiet_transformers(), seeded(seed):
        model = build_model(config, head, dtype=torch.float32, attn_implementation=attention_of(config, attention))
    return model.eval()


def _untie_as_in_teacher(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """A teacher's file may hold a projection of its own whatever its config says."""
    if _is_tied(student) and not _is_tied(teacher):
        projection = student.get_output_embeddings()
        projection.weight = nn.Parameter(torch.empty_like(projection.weight))
        for name in ("tie_word_embeddings", "scale_decoder_outputs"):
            if hasattr(teacher.config, name):
                setattr(student.config, name, getattr(teacher.config, name))


def _is_tied(model: PreTrainedModel) -> bool:
    projection = model.get_output_embeddings()
    return projection is not None and projection.weight is model.get_input_embeddings().weight


def _select_layers(teacher: dict[str, Tensor], chosen: dict[str, list[int]]) -> dict[str, Tensor]:
    """The teacher's tensors under the names that they have in a student with only the chosen layers."""
    new_names = {
        f"{path}.{layer}": f"{path}.{place}" for path, layers in chosen.items() for place, layer in enumerate(layers)
    }
    paths = "|".join(re.escape(path) for path in chosen)
    layer_name = re.compile(rf"((?:{paths})\.\d+)(\..*)")
    tensors = {}
    for name, tensor in teacher.items():
        if (match := layer_name.fullmatch(name)) is None:
            tensors[name] = tensor
        elif match[1] in new_names:
            tensors[new_names[match[1]] + match[2]] = tensor
    return tensors


def _without_spare_rows(tensors: dict[str, Tensor], student: PreTrainedModel) -> dict[str, Tensor]:
    """Without a padded vocabulary's last rows, which are no tokens (see `shapes.student_config`)."""
    sizes = {name: tensor.shape for name, tensor in student.state_dict().items()}
    return {name: tensor[tuple(slice(size) for size in sizes[name])] for name, tensor in tensors.items()}


def check_sizes(student_config: PreTrainedConfig, teacher_config: PreTrainedConfig) -> None:
    """Check that a student can start from the teacher's layers.

    Raises:
        UserError: it cannot be cut out of the teacher, or has more layers.
    """
    student, teacher = shape_of(student_config), shape_of(teacher_config)
    remedy = "set student.initialisation to random"
    check_narrowing(student_config, teacher_config)
    for field in ("layers", "decoder_layers"):
        wanted, found = getattr(student, field) or 0, getattr(teacher, field) or 0
        if wanted > found:
            raise UserError(
                f"student.{field} is {wanted} and the teacher has {found}: there are too few to start from; "
                f"set student.{field} to {found} or less, or {remedy}"
            )
