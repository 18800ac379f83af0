"""How big a model is: the student's shape from the teacher's, a teacher's from nothing, parameters and FLOPs.

Shapes: S tokens.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightpaff.errors import UserError
from lightpaff.models.encoder import CLASSES, HEADS, configure_head, encoder_head
from lightpaff.models.fetching import without_origin
from lightpaff.recipe import FromScratch, Shape


@dataclass(frozen=True)
class SizeNames:
    """What an architecture's config calls its sizes."""

    layers: str = "num_hidden_layers"
    hidden_size: str = "hidden_size"
    heads: str = "num_attention_heads"
    feed_forward: str = "intermediate_size"


SIZE_NAMES: dict[str, SizeNames] = {
    "bert": SizeNames(),
    "roberta": SizeNames(),
    "electra": SizeNames(),
    "distilbert": SizeNames("n_layers", "dim", "n_heads", "hidden_dim"),
    "modernbert": SizeNames(),
}

# Rotary position embeddings turn pairs of dimensions.
_EVEN_HEAD_SIZE = ("modernbert",)


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters; a tied matrix counts once.

    Attributes:
        total: of the model with its head.
        embeddings: of the tables of tokens, positions and segments.
    """

    total: int
    embeddings: int


def shape_of(config: PreTrainedConfig) -> Shape:
    """The sizes in a config, all of them given."""
    names = SIZE_NAMES[config.model_type]
    return Shape(
        layers=getattr(config, names.layers),
        hidden_size=getattr(config, names.hidden_size),
        heads=getattr(config, names.heads),
        feed_forward=getattr(config, names.feed_forward),
    )


def config_identity(config: PreTrainedConfig) -> dict[str, Any]:
    """What fingerprints say of a config: everything but where the model lay and what wrote it."""
    return without_origin(config.to_dict())


def longest_input(config: PreTrainedConfig) -> int:
    """How many tokens the position embeddings reach; RoBERTa's first positions are for padding."""
    offset = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return int(config.max_position_embeddings - offset)


def student_config(teacher_config: PreTrainedConfig, shape: Shape) -> PreTrainedConfig:
    """The teacher's config in another size: same architecture, vocabulary and positions (the paper's figure 1).

    Args:
        teacher_config: left as it is.
        shape: what is None there follows from the teacher: the hidden size is the teacher's, the heads keep the
            teacher's head size, and the feed-forward size keeps the teacher's ratio to the hidden size.

    Raises:
        UserError: names the key of the student whose size does not fit the others.
    """
    teacher = shape_of(teacher_config)
    assert teacher.hidden_size is not None
    assert teacher.heads is not None
    assert teacher.feed_forward is not None
    hidden_size = shape.hidden_size or teacher.hidden_size
    heads = shape.heads or _heads_that_keep_size(hidden_size, teacher.hidden_size // teacher.heads)
    _check_head_size(hidden_size, heads, teacher_config.model_type, "student.heads")
    feed_forward = shape.feed_forward or round(hidden_size * teacher.feed_forward / teacher.hidden_size)
    config = copy.deepcopy(teacher_config)
    if config.model_type == "modernbert":
        types = teacher_config.layer_types
        # Set before the number of layers, which the list has to have.
        config.layer_types = [types[layer % teacher.layers] for layer in range(shape.layers)]
    if config.model_type == "electra" and teacher_config.embedding_size == teacher.hidden_size:
        config.embedding_size = hidden_size
    sizes = Shape(layers=shape.layers, hidden_size=hidden_size, heads=heads, feed_forward=feed_forward)
    for field, name in vars(SIZE_NAMES[config.model_type]).items():
        setattr(config, name, getattr(sizes, field))
    return config


def scratch_config(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The config of a teacher that is made here, for `tokenizer`.

    Raises:
        UserError: names the key of teacher.from_scratch whose size does not fit the others.
    """
    architecture = from_scratch.architecture
    _check_head_size(from_scratch.hidden_size, from_scratch.heads, architecture, "teacher.from_scratch.heads")
    names = SIZE_NAMES[architecture]
    settings = {name: getattr(from_scratch, field) for field, name in vars(names).items()}
    pad, cls, sep = tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
    settings |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": pad,
        "max_position_embeddings": from_scratch.max_length,
    }
    particulars = {
        # RoBERTa counts positions from the padding id + 1.
        "roberta": {
            "bos_token_id": cls,
            "eos_token_id": sep,
            "max_position_embeddings": from_scratch.max_length + pad + 1,
        },
        "electra": {"embedding_size": from_scratch.hidden_size},
        "modernbert": {"bos_token_id": cls, "eos_token_id": sep, "cls_token_id": cls, "sep_token_id": sep},
    }
    return AutoConfig.for_model(architecture, **settings | particulars.get(architecture, {}))


def count_parameters(config: PreTrainedConfig, head: str, classes: int) -> ParameterCount:
    """Count on the meta device: takes no memory for weights."""
    model = _build_without_memory(config, head, classes)
    return ParameterCount(
        total=sum(parameter.numel() for parameter in model.parameters()),
        embeddings=sum(table.weight.numel() for table in _embedding_tables(model)),
    )


def training_flops_per_token(
    config: PreTrainedConfig, head: str, classes: int, *, sequence_length: int, target_share: float
) -> float:
    """FLOPs of one training step, forward and backward, for every token that goes in.

    6 a weight of a matrix product, 2 forward and 4 backward (Kaplan et al. 2020, section 2.1), and 12 * layers *
    hidden size * S for attention (Chowdhery et al. 2022, PaLM, appendix B). Embedding tables are looked up, not
    multiplied. Of the head, only the share of the tokens that are target positions counts.

    Args:
        config: of the model.
        head: `masked_tokens` or `classes`.
        classes: V.
        sequence_length: S, padding included.
        target_share: the target positions' share of the tokens (0.15 for MLM, 1/S for classification).
    """
    model = _build_without_memory(config, head, classes)
    head_parameters = encoder_head(config, head).parameters
    shape = shape_of(config)
    assert shape.hidden_size is not None
    weights = 0.0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            share = target_share if f"{name}.".startswith(head_parameters) else 1.0
            weights += share * module.weight.numel()
    # ModernBERT's local layers count in full: the plain attention computes every pair and masks it.
    return 6 * weights + 12 * shape.layers * shape.hidden_size * sequence_length


def forward_flops_per_token(
    config: PreTrainedConfig, head: str, classes: int, *, sequence_length: int, target_share: float
) -> float:
    """FLOPs of the forward pass alone: a third of training (see `training_flops_per_token`)."""
    training = training_flops_per_token(
        config, head, classes, sequence_length=sequence_length, target_share=target_share
    )
    return training / 3


def _build_without_memory(config: PreTrainedConfig, head: str, classes: int) -> PreTrainedModel:
    config = copy.deepcopy(config)
    if head == CLASSES:
        configure_head(config, head, classes)
    with torch.device("meta"):
        return HEADS[head].from_config(config)


def _embedding_tables(model: PreTrainedModel) -> list[nn.Embedding]:
    return [module for module in model.base_model.modules() if isinstance(module, nn.Embedding)]


def _heads_that_keep_size(hidden_size: int, head_size: int) -> int:
    if hidden_size % head_size:
        raise UserError(
            f"student.hidden_size is {hidden_size}, no multiple of the teacher's head size {head_size}; "
            f"set student.heads to a divisor of {hidden_size}"
        )
    return hidden_size // head_size


def _check_head_size(hidden_size: int, heads: int, architecture: str, key: str) -> None:
    if hidden_size % heads:
        raise UserError(f"{key} is {heads}, which does not divide the hidden size {hidden_size}; set a divisor of it")
    head_size = hidden_size // heads
    if architecture in _EVEN_HEAD_SIZE and head_size % 2:
        raise UserError(
            f"{key} is {heads}, which makes heads of {head_size} (hidden size {hidden_size}); "
            f"{architecture} needs an even head size, so set another number"
        )
