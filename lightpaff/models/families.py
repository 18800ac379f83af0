"""All architectures of all families, and which family an architecture is of."""

from transformers import PreTrainedConfig, PreTrainedModel

from lightpaff.errors import UserError
from lightpaff.models import decoder, encoder, encoder_decoder
from lightpaff.models.architecture import MASKED_TOKENS, NEXT_TOKENS, TARGET_TOKENS, Architecture, Head
from lightpaff.models.last_layer import LastLayer
from lightpaff.recipe_families import Family

_TABLES: dict[Family, dict[str, Architecture]] = {
    "encoder": encoder.ARCHITECTURES,
    "decoder": decoder.ARCHITECTURES,
    "encoder-decoder": encoder_decoder.ARCHITECTURES,
}

ARCHITECTURES: dict[str, Architecture] = {
    model_type: architecture for table in _TABLES.values() for model_type, architecture in table.items()
}
"""What is known, by transformers' model_type."""

PRETRAINING_HEADS: dict[Family, str] = {
    "encoder": MASKED_TOKENS,
    "decoder": NEXT_TOKENS,
    "encoder-decoder": TARGET_TOKENS,
}
"""The head that a family is pre-trained with."""


_INSTEAD = {"gemma3": "this Gemma 3 reads pictures too: take one for text alone, a gemma3_text (gemma-3-1b, -270m)"}
"""What to take in place of an architecture that is near to a known one."""


def check_model_type(model_type: str | None, name: str) -> None:
    """Check that an architecture is supported.

    Args:
        model_type: transformers' name of the architecture, as the config of the model says it.
        name: of the model, for the error.

    Raises:
        UserError: names the known ones.
    """
    if model_type not in ARCHITECTURES:
        instead = _INSTEAD.get(str(model_type), f"take a model of a known one: {', '.join(ARCHITECTURES)}")
        raise UserError(f"{name}: model_type is {model_type!r} in its config.json; {instead}")


def attention_of(config: PreTrainedConfig, wanted: str) -> str:
    """transformers' `attn_implementation` for a model: the wanted one where it has that."""
    return wanted if architecture_of(config).has_sdpa else "eager"


def check_family(config: PreTrainedConfig, family: Family, name: str) -> None:
    """Check that a model is of the recipe's family.

    Args:
        config: of the model.
        family: the recipe's.
        name: of the model, for the error.

    Raises:
        UserError: its architecture is of another family, or not supported.
    """
    check_model_type(config.model_type, name)
    if config.model_type not in _TABLES[family]:
        own = next(other for other, table in _TABLES.items() if config.model_type in table)
        raise UserError(
            f"{name}: is a {config.model_type}, but the recipe's family is {family} ({', '.join(_TABLES[family])}); "
            f"take another model, or set family to {own}"
        )


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """What is known about the architecture of a model.

    Raises:
        UserError: it is not supported.
    """
    check_model_type(config.model_type, config.name_or_path or config.model_type)
    return ARCHITECTURES[config.model_type]


def head_of(config: PreTrainedConfig, head: str) -> Head:
    """What is known about a head of the architecture of a model, which has to be of a family with such a head.

    Raises:
        UserError: the architecture or a setting of its config is not supported, or it pools all tokens where one is
            needed.
    """
    architecture = architecture_of(config)
    heads = architecture.heads
    assert head in heads, f"a {config.model_type} has no head {head}"
    if unlike := architecture.unlike(config):
        raise UserError(f"{config.name_or_path or config.model_type}: its config.json has {unlike}; take another model")
    return heads[head]


def last_layer_of(model: PreTrainedModel) -> LastLayer | None:
    """An encoder's last layer; None where it does not fall into two modules, or all that it computes is needed.

    Raises:
        UserError: the architecture is not supported.
    """
    architecture, config = architecture_of(model.config), model.config
    # Chunks of a feed-forward have to come out even.
    if architecture.layer_halves is None or getattr(config, "chunk_size_feed_forward", None):
        return None
    last = config.num_hidden_layers - 1
    # DeBERTa's convolution looks at all that the first layer gives.
    if last == 0 and getattr(config, "conv_kernel_size", None):
        return None
    path = f"{architecture.layers[0].path}.{last}"
    attention, rest = (f"{path}.{half}" for half in architecture.layer_halves)
    return LastLayer(path, attention, model.get_submodule(rest))
