"""How big a model is: the student's shape from the teacher's, a teacher's from nothing, parameters and FLOPs.

Shapes: S tokens.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from lightpaff.errors import UserError
from lightpaff.models.architecture import SizeNames
from lightpaff.models.building import build_model
from lightpaff.models.families import ARCHITECTURES, architecture_of, head_of, last_layer_of
from lightpaff.models.fetching import without_origin
from lightpaff.models.headed import embedding_tables, token_tables
from lightpaff.models.opening import configure_head
from lightpaff.recipe_sections import FromScratch, Shape

_VOCABULARY_SIZES = ("vocab_size", "decoder_vocab_size")
_USUAL_FEED_FORWARD = 4
"""Times the hidden size, where a config leaves the feed-forward size out (GPT-2)."""


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters; a tied matrix counts once.

    Attributes:
        total: of the model with its head.
        embeddings: of the tables of tokens, positions and segments.
        layers: of the stacked layers alone: no table, no projection to the vocabulary, nothing else of a head. Quality
            grows with these rather than with the total (Kaplan et al. 2020, Scaling Laws, section 3.2).
    """

    total: int
    embeddings: int
    layers: int


def shape_of(config: PreTrainedConfig) -> Shape:
    """The sizes in a config, all of them given; `decoder_layers` is None without a decoder of its own.

    Raises:
        UserError: the architecture is not supported.
    """
    sizes = {field: getattr(config, names[0]) for field, names in vars(architecture_of(config).sizes).items() if names}
    sizes["feed_forward"] = sizes["feed_forward"] or _USUAL_FEED_FORWARD * sizes["hidden_size"]
    return Shape(**sizes)


def config_identity(config: PreTrainedConfig) -> dict[str, Any]:
    """What fingerprints say of a config: everything but where the model lay and what wrote it."""
    return without_origin(config.to_dict())


def longest_input(config: PreTrainedConfig) -> int | None:
    """How many tokens a model's positions reach; None where they have no end (T5)."""
    return architecture_of(config).longest_input(config)


def student_config(teacher_config: PreTrainedConfig, shape: Shape, vocabulary: int | None = None) -> PreTrainedConfig:
    """The teacher's config in another size: same architecture, vocabulary and positions (the paper's figure 1).

    Args:
        teacher_config: left as it is.
        vocabulary: the tokenizer's ids: no probability goes to rows beyond them, which a padded output layer has and
            no loss trains. Left out, the teacher's rows.
        shape: what is None there follows from the teacher: the hidden size is the teacher's, the heads keep the
            teacher's head size, and the feed-forward size keeps the teacher's ratio to the hidden size. The decoder of
            an encoder-decoder gets as many layers as the encoder.

    Raises:
        UserError: names the key of the student whose size does not fit the others.
    """
    architecture = architecture_of(teacher_config)
    sizes = _complete_shape(shape, teacher_config)
    config = copy.deepcopy(teacher_config)
    if kinds := getattr(teacher_config, "layer_types", None):
        # Set before the number of layers, which the list has to have.
        config.layer_types = [kinds[layer % len(kinds)] for layer in range(sizes.layers)]
    architecture.before_resizing(config, teacher_config, sizes)
    for name, size in _settings_of(sizes, architecture.sizes, teacher_config).items():
        setattr(config, name, size)
    if vocabulary is not None:
        # A padding that the tokenizer does not know is no input, but needs its row.
        rows = max(vocabulary, 1 + (getattr(config, "pad_token_id", None) or 0))
        for name in (name for name in _VOCABULARY_SIZES if getattr(config, name, None) is not None):
            setattr(config, name, rows)
    return config


def scratch_config(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The config of a teacher that is made here, for `tokenizer`.

    Raises:
        UserError: names the key of teacher.from_scratch whose size does not fit the others.
    """
    model_type = from_scratch.architecture
    architecture = ARCHITECTURES[model_type]
    _check_head_size(from_scratch.hidden_size, from_scratch.heads, model_type, "teacher.from_scratch.heads")
    decoder_layers = from_scratch.decoder_layers or from_scratch.layers
    sizes = Shape(
        layers=from_scratch.layers,
        decoder_layers=decoder_layers if architecture.sizes.decoder_layers else None,
        hidden_size=from_scratch.hidden_size,
        heads=from_scratch.heads,
        feed_forward=from_scratch.feed_forward,
    )
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if architecture.longest_input(AutoConfig.for_model(model_type)) is not None:
        common["max_position_embeddings"] = from_scratch.max_length
    settings = _settings_of(sizes, architecture.sizes) | common
    return AutoConfig.for_model(model_type, **settings | architecture.scratch_settings(from_scratch, tokenizer))


def count_parameters(config: PreTrainedConfig, head: str, classes: int) -> ParameterCount:
    """Count on the meta device: takes no memory for weights."""
    model = _build_without_memory(config, head, classes)
    tables = embedding_tables(model)
    return ParameterCount(
        total=sum(parameter.numel() for parameter in model.parameters()),
        embeddings=sum(weight.numel() for weight in tables),
        layers=sum(weight.numel() for weight in _layer_weights(model) - tables),
    )


def training_flops_per_token(
    config: PreTrainedConfig,
    head: str,
    classes: int,
    *,
    sequence_length: int,
    target_share: float,
    freeze_embeddings: bool = False,
) -> float:
    """FLOPs of one training step, forward and backward, for every token that goes in.

    6 a weight of a matrix product, 2 forward and 4 backward (Kaplan et al. 2020, section 2.1), and 12 * layers *
    hidden size * S for attention (Chowdhery et al. 2022, PaLM, appendix B). Embedding tables are looked up, not
    multiplied. Of the head, and of an encoder's last layer after its attention, only the share of the tokens that are
    target positions counts.

    The tokens of an encoder-decoder are those of both sides, and those of the decoder are the target positions: its
    decoder counts for their share of the tokens, and its encoder for the rest. Attention from the decoder to the
    encoder is left out, but for its weights.

    Args:
        config: of the model.
        head: a head of its architecture.
        classes: V.
        sequence_length: S, padding included; of an encoder-decoder, of either side.
        target_share: the target positions' share of the tokens (0.15 for MLM, 1/S for classification).
        freeze_embeddings: whether an output layer that is tied to the table of tokens gets no gradient.
    """
    model = _build_without_memory(config, head, classes)
    known = head_of(config, head)
    trunk_share = 1 - target_share if known.target_parameters else 1.0
    last_layer = None if known.layout.spans else last_layer_of(model)
    frozen = token_tables(model) if freeze_embeddings else set()
    weights = 0.0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            at_targets = f"{name}.".startswith((*known.parameters, *known.target_parameters)) or (
                last_layer is not None and last_layer.is_read_alone(name)
            )
            share = target_share if at_targets else trunk_share
            weights += share * module.weight.numel() * (2 / 3 if any(module.weight is table for table in frozen) else 1)
    shape = shape_of(config)
    assert shape.hidden_size is not None
    layers = trunk_share * shape.layers + target_share * (shape.decoder_layers or 0)
    # ModernBERT's local layers count in full: the plain attention computes every pair and masks it.
    return 6 * weights + 12 * layers * shape.hidden_size * sequence_length


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
    configure_head(config, head, classes)
    with torch.device("meta"):
        return build_model(config, head)


def _layer_weights(model: PreTrainedModel) -> set[torch.Tensor]:
    """Of the stacks of layers, which are the models' only lists; T5's hold tables of positions too."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return {weight for stack in stacks for weight in stack.parameters()}


def _settings_of(sizes: Shape, names: SizeNames, teacher_config: PreTrainedConfig | None = None) -> dict[str, int]:
    """What a config says; where the teacher's decoder has other heads or units than its encoder, in its proportion."""
    settings = {}
    for field, called in vars(names).items():
        size, theirs = getattr(sizes, field), [getattr(teacher_config, name, 1) or 1 for name in called]
        for name, own in zip(called, theirs, strict=True):
            settings[name], rest = divmod(size * own, theirs[0])
            if rest:
                raise UserError(
                    f"student.{field} is {size} ({called[0]}), and the teacher has {theirs[0]} there and {own} for "
                    f"{name}: take a size in which that proportion is a whole number"
                )
    return settings


def _complete_shape(shape: Shape, teacher_config: PreTrainedConfig) -> Shape:
    """The student's sizes, with those that follow from the teacher's."""
    teacher = shape_of(teacher_config)
    assert teacher.hidden_size is not None
    assert teacher.heads is not None
    assert teacher.feed_forward is not None
    hidden_size = shape.hidden_size or teacher.hidden_size
    heads = shape.heads or _heads_that_keep_size(hidden_size, teacher.hidden_size, teacher.heads)
    # Heads as wide as the teacher's need no check: T5's and Qwen's do not even have to fill the hidden size.
    if heads * teacher.hidden_size != teacher.heads * hidden_size:
        _check_head_size(hidden_size, heads, teacher_config.model_type, "student.heads")
    return Shape(
        layers=shape.layers,
        decoder_layers=teacher.decoder_layers and (shape.decoder_layers or shape.layers),
        hidden_size=hidden_size,
        heads=heads,
        feed_forward=shape.feed_forward or round(hidden_size * teacher.feed_forward / teacher.hidden_size),
    )


def _heads_that_keep_size(hidden_size: int, teacher_hidden_size: int, teacher_heads: int) -> int:
    heads, rest = divmod(hidden_size * teacher_heads, teacher_hidden_size)
    if rest:
        raise UserError(
            f"student.hidden_size is {hidden_size}, no multiple of the teacher's head size "
            f"{teacher_hidden_size / teacher_heads:g}; set student.heads to a divisor of {hidden_size}"
        )
    return heads


def _check_head_size(hidden_size: int, heads: int, model_type: str, key: str) -> None:
    if hidden_size % heads:
        raise UserError(f"{key} is {heads}, which does not divide the hidden size {hidden_size}; set a divisor of it")
    head_size = hidden_size // heads
    if ARCHITECTURES[model_type].needs_even_head_size and head_size % 2:
        raise UserError(
            f"{key} is {heads}, which makes heads of {head_size} (hidden size {hidden_size}); "
            f"{model_type} needs an even head size, so set another number"
        )
