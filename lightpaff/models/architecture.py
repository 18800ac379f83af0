"""What the package knows about an architecture of transformers: where it splits, what its config calls its sizes, where
its layers are. A family is a file that holds a table of these.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lightpaff.models.headed import HeadLayout
from lightpaff.recipe_sections import FromScratch, Shape

MASKED_TOKENS = "masked_tokens"
CLASSES = "classes"
TOKEN_CLASSES = "token_classes"
SPANS = "spans"
NEXT_TOKENS = "next_tokens"
TARGET_TOKENS = "target_tokens"


@dataclass(frozen=True)
class Head:
    """One head of one architecture.

    Attributes:
        auto_class: transformers' auto class that builds the architecture with this head.
        layout: where the model splits.
        parameters: the name prefixes of the tensors that belong to the head and not to the trunk.
        stored: the prefixes of those that every file with this head holds (a tied projection is not stored).
        foreign: a prefix that tells another head of the same architecture, where `stored` does not.
        predicts_tokens: its classes are the vocabulary, and its projection may be tied to the embeddings.
        target_parameters: the name prefixes of what runs at (about) the target positions only, besides the head: the
            decoder of an encoder-decoder.
    """

    auto_class: Any
    layout: HeadLayout
    parameters: tuple[str, ...]
    stored: tuple[str, ...]
    foreign: str | None = None
    predicts_tokens: bool = True
    target_parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class SizeNames:
    """What an architecture's config calls its sizes; the first name is read, all of them are written."""

    layers: tuple[str, ...] = ("num_hidden_layers",)
    hidden_size: tuple[str, ...] = ("hidden_size",)
    heads: tuple[str, ...] = ("num_attention_heads",)
    feed_forward: tuple[str, ...] = ("intermediate_size",)
    decoder_layers: tuple[str, ...] = ()
    """Only of encoder-decoders."""


@dataclass(frozen=True)
class LayerList:
    """Where a list of layers is: the attribute path, which is also the prefix of its tensors' names, and the field of
    `Shape` that says how many there are (`layers` or `decoder_layers`)."""

    path: str
    count: str = "layers"


def _as_many_as_embeddings(config: PreTrainedConfig) -> int:
    return int(config.max_position_embeddings)


def _nothing_more(config: PreTrainedConfig, teacher_config: PreTrainedConfig, shape: Shape) -> None:
    """The sizes are all there is."""


def _nothing_unlike(config: PreTrainedConfig) -> str:
    return ""


def _tied_as_configured(config: PreTrainedConfig) -> bool:
    return False


def _no_particulars(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Architecture:
    """One model type of transformers.

    Attributes:
        heads: by name: `masked_tokens`, `classes`, `token_classes`, `spans`, `next_tokens`, `target_tokens`.
        layers: its lists of layers.
        dropouts: the names of its dropout probabilities in its config.
        longest_input: how many tokens its positions reach; None where they have no end.
        sizes: what its config calls its sizes.
        before_resizing: changes what else depends on the sizes in a student's config (a copy of the teacher's, sizes
            not yet written); gets that config, the teacher's, and the complete new sizes.
        scratch_settings: what else a config made from nothing needs, from the recipe and the tokenizer.
        needs_even_head_size: rotary position embeddings turn pairs of dimensions.
        unlike: the setting of a config by which a model computes what the table does not say; empty where none does.
        layer_halves: of an encoder's layer, the attribute path of what looks at all positions, and that of the module
            after it, from which on none sees another; None where the halves are not modules.
        has_sdpa: transformers has its attention as torch's fused one too; else only the plain one.
        has_own_projection: whether the projection is a matrix of its own though transformers ties every such config.
    """

    heads: dict[str, Head]
    layers: tuple[LayerList, ...]
    dropouts: tuple[str, ...]
    longest_input: Callable[[PreTrainedConfig], int | None] = _as_many_as_embeddings
    sizes: SizeNames = field(default_factory=SizeNames)
    before_resizing: Callable[[PreTrainedConfig, PreTrainedConfig, Shape], None] = _nothing_more
    scratch_settings: Callable[[FromScratch, PreTrainedTokenizerBase], dict[str, Any]] = _no_particulars
    needs_even_head_size: bool = False
    unlike: Callable[[PreTrainedConfig], str] = _nothing_unlike
    layer_halves: tuple[str, str] | None = None
    has_sdpa: bool = True
    has_own_projection: Callable[[PreTrainedConfig], bool] = _tied_as_configured
