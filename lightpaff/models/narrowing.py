"""A narrower student cut out of its teacher: which of the teacher's hidden dimensions, attention heads and feed-forward
units it takes.

As in Minitron (Muralidharan et al. 2024, section 2.2), what counts is how active they are on some text: a hidden
dimension by the mean magnitude of what the norms put out, a head by the mean length of what it gives to the output
projection, a unit by the mean magnitude of its activation. Hidden dimensions are the same everywhere, since layers add
to one stream; heads and units are chosen layer by layer.

Shapes: T tokens, D hidden, H heads, U feed-forward units.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightpaff.errors import UserError
from lightpaff.models.families import architecture_of
from lightpaff.models.headed import HeadedModel
from lightpaff.models.shapes import shape_of

_SIZES = ("hidden_size", "heads", "feed_forward")


@dataclass(frozen=True)
class Widths:
    """Where an architecture has heads and units, as patterns of the names of its linear modules.

    Attributes:
        into_heads: whose outputs are the heads' (queries, keys, values).
        out_of_heads: whose inputs are the heads'.
        into_units: whose outputs are the feed-forward units.
        out_of_units: whose inputs are the feed-forward units.
        fused: how many times `into_heads` holds all heads, one after the other.
    """

    into_heads: str
    out_of_heads: str
    into_units: str
    out_of_units: str
    fused: int = 1


_BERT = Widths(
    r"attention\.self\.(query|key|value)", r"attention\.output\.dense", r"intermediate\.dense", r"\d+\.output\.dense"
)
_BART = Widths(r"(self|encoder)_attn\.[qkv]_proj", r"(self|encoder)_attn\.out_proj", r"fc1", r"fc2")
_LLAMA = Widths(r"self_attn\.[qkv]_proj", r"self_attn\.o_proj", r"mlp\.(gate|up)_proj", r"mlp\.down_proj")
WIDTHS = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": Widths(r"attention\.[qkv]_lin", r"attention\.out_lin", r"ffn\.lin1", r"ffn\.lin2"),
    "gpt2": Widths(r"attn\.c_attn", r"attn\.c_proj", r"mlp\.c_fc", r"mlp\.c_proj", fused=3),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "mistral": _LLAMA,
    "bart": _BART,
    "mbart": _BART,
}
"""The architectures that narrower students can be cut out of."""


def is_narrower(student_config: PreTrainedConfig, teacher_config: PreTrainedConfig) -> bool:
    """Whether a student differs from its teacher in more than the number of layers."""
    student, teacher = shape_of(student_config), shape_of(teacher_config)
    return any(getattr(student, field) != getattr(teacher, field) for field in _SIZES)


def check_narrowing(student_config: PreTrainedConfig, teacher_config: PreTrainedConfig) -> None:
    """Check that a student of these sizes can be cut out of the teacher.

    Raises:
        UserError: a size is larger than the teacher's, the heads' size is another, or the architecture is not known.
    """
    student, teacher = shape_of(student_config), shape_of(teacher_config)
    remedy = "set student.initialisation to random"
    for field in _SIZES:
        wanted, found = getattr(student, field), getattr(teacher, field)
        if wanted > found:
            raise UserError(
                f"student.{field} is {wanted} and the teacher's {found}: a student that starts from its teacher is not "
                f"wider; lower it, or {remedy}"
            )
    if not is_narrower(student_config, teacher_config):
        return
    if teacher_config.model_type not in WIDTHS:
        raise UserError(
            f"student.initialisation: a narrower student cannot be cut out of {teacher_config.model_type} "
            f"({', '.join(WIDTHS)} can be); leave hidden_size, heads and feed_forward out, or {remedy}"
        )
    for called in vars(architecture_of(teacher_config).sizes).values():
        found = {name: getattr(teacher_config, name) for name in called}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in found.items())
            raise UserError(
                f"student.initialisation: no narrower student can be cut out of a teacher whose sides differ ({told}); "
                f"leave hidden_size, heads and feed_forward out, or {remedy}"
            )
    if student.hidden_size == getattr(teacher_config, "embedding_size", None) != teacher.hidden_size:
        raise UserError(
            f"student.hidden_size is {student.hidden_size}, as wide as the teacher's embeddings, where "
            f"{teacher_config.model_type} has no projection of them to cut; take another, or {remedy}"
        )
    if _head_size(student_config) != _head_size(teacher_config):
        raise UserError(
            f"student.heads is {student.heads}, which makes heads of {_head_size(student_config)}, and the teacher's "
            f"have {_head_size(teacher_config)}: whole heads are taken; leave student.heads out, or {remedy}"
        )
    if _group_size(student_config) != _group_size(teacher_config):
        raise UserError(
            f"student.heads is {student.heads}: {_group_size(student_config)} of them would share keys and values, and "
            f"{_group_size(teacher_config)} of the teacher's do; take another number, or {remedy}"
        )


def narrow(
    teacher: HeadedModel, student_config: PreTrainedConfig, batches: Iterable[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The teacher's weights under their names, cut to the student's widths; layers are all there.

    Args:
        teacher: on the CPU.
        student_config: see `check_narrowing`.
        batches: inputs of the trunk, to see what is active.
    """
    model, config = teacher.model, teacher.model.config
    watch = _Watch(model, WIDTHS[config.model_type], _head_size(config), _hidden_size(config))
    with watch, torch.no_grad():
        for inputs in batches:
            teacher.layout.trunk(model, inputs)
    assert watch.units, "what is active shows only on some text"
    hidden_D = _most(watch.hidden, _hidden_size(student_config))
    sizes = shape_of(student_config)
    assert sizes.heads is not None
    assert sizes.feed_forward is not None
    groups = sizes.heads // _group_size(student_config)
    heads = {name: _most(_grouped(activity, _group_size(config)), groups) for name, activity in watch.heads.items()}
    units = {name: _most(activity, int(sizes.feed_forward)) for name, activity in watch.units.items()}
    return _Cut(model, WIDTHS[config.model_type], hidden_D, heads, units).tensors()


class _Watch:
    """While entered, notes how active what passes through a model is; sums over batches."""

    def __init__(self, model: PreTrainedModel, widths: Widths, head_size: int, hidden_size: int) -> None:
        self.hidden: Tensor = torch.zeros(hidden_size)
        self.heads: dict[str, Tensor] = {}
        self.units: dict[str, Tensor] = {}
        self._head_size = head_size
        self._hooks = []
        for name, module in model.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, Tensor) and weight.shape == (hidden_size,):
                self._hooks.append(module.register_forward_hook(self._see_hidden))
            elif _is(widths.out_of_heads, name):
                self._hooks.append(module.register_forward_pre_hook(partial(self._see_heads, name)))
            elif _is(widths.out_of_units, name):
                self._hooks.append(module.register_forward_pre_hook(partial(self._see_units, name)))

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see_hidden(self, module: nn.Module, given: Any, put_out: Tensor) -> None:
        self.hidden += put_out.flatten(0, -2).abs().mean(0)

    def _see_heads(self, name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        lengths_H = given[0].reshape(-1, given[0].shape[-1] // self._head_size, self._head_size).norm(dim=2).mean(0)
        self.heads[name] = self.heads.get(name, 0) + lengths_H

    def _see_units(self, name: str, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        self.units[name] = self.units.get(name, 0) + given[0].flatten(0, -2).abs().mean(0)


@dataclass(frozen=True)
class _Cut:
    """`heads` (groups of them that share keys and values) and `units` by the name of the module that takes them."""

    model: PreTrainedModel
    widths: Widths
    hidden_D: Tensor
    heads: dict[str, Tensor]
    units: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        found = {}
        for name, tensor in self.model.state_dict().items():
            module_name, _, parameter = name.rpartition(".")
            for dimension, kept in enumerate(self._kept(module_name, parameter, tensor)):
                if kept is not None:
                    tensor = tensor.index_select(dimension, kept)
            if getattr(self.model.config, "scale_embedding", False) and module_name.endswith("embed_positions"):
                # Tokens are multiplied by the root of the hidden size, which is now the student's.
                tensor = tensor * (len(self.hidden_D) / _hidden_size(self.model.config)) ** 0.5
            found[name] = tensor.contiguous()
        return found

    def _kept(self, name: str, parameter: str, tensor: Tensor) -> list[Tensor | None]:
        """Of every dimension what is kept; None: everything."""
        module = self.model.get_submodule(name)
        kept = [self.hidden_D if size == _hidden_size(self.model.config) else None for size in tensor.shape]
        if isinstance(module, nn.Embedding):
            kept[0] = None
        # Outputs come first, but in GPT-2's own linear modules.
        first, last = (-1, 0) if isinstance(module, Conv1D) else (0, -1)
        widths = self.widths
        if _is(widths.into_heads, name):
            kept[first] = self._into_heads(name, tensor.shape[first])
        elif _is(widths.into_units, name):
            kept[first] = self.units[_sibling(name, self.units)]
        elif parameter == "weight" and _is(widths.out_of_heads, name):
            kept[last] = self._members(self.heads[name], tensor.shape[last])
        elif parameter == "weight" and _is(widths.out_of_units, name):
            kept[last] = self.units[name]
        return kept

    def _into_heads(self, name: str, size: int) -> Tensor:
        one = size // self.widths.fused
        members = self._members(self.heads[_sibling(name, self.heads)], one)
        return torch.cat([members + number * one for number in range(self.widths.fused)])

    def _members(self, groups: Tensor, size: int) -> Tensor:
        """The dimensions of some groups of heads, of a module that has `size` of them for all groups."""
        config = self.model.config
        each = size // (int(shape_of(config).heads or 0) // _group_size(config))
        return (groups.unsqueeze(1) * each + torch.arange(each)).flatten()


def _is(pattern: str, name: str) -> bool:
    return re.search(rf"(^|\.){pattern}$", name) is not None


def _sibling(name: str, takers: dict[str, Tensor]) -> str:
    """The module, among those that take heads or units, with the longest common beginning: that of the same layer."""
    path = name.split(".")
    return max(takers, key=lambda other: [part == own for part, own in zip(other.split("."), path, strict=False)])


def _most(activity: Tensor, count: int) -> Tensor:
    """The places of the most active, ascending."""
    return activity.topk(count).indices.sort().values


def _grouped(activity_H: Tensor, size: int) -> Tensor:
    return activity_H.view(-1, size).sum(1)


def _hidden_size(config: PreTrainedConfig) -> int:
    return int(shape_of(config).hidden_size or 0)


def _head_size(config: PreTrainedConfig) -> int:
    explicit = getattr(config, "head_dim", None)
    return int(explicit) if explicit else _hidden_size(config) // int(shape_of(config).heads or 1)


def _group_size(config: PreTrainedConfig) -> int:
    """Heads that share keys and values."""
    shared = getattr(config, "num_key_value_heads", None)
    return int(shape_of(config).heads or 1) // int(shared) if shared else 1
