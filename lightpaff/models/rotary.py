"""Rotary position embeddings, as transformers' configs say them."""

from typing import Any

from transformers import PreTrainedConfig


def rope_settings(config: PreTrainedConfig) -> dict[str, dict[str, Any]]:
    """By the kind of layer, how its positions are turned (`rope_type`, `rope_theta`, ...); under "" where all layers
    are alike, and empty where nothing is turned."""
    found = getattr(config, "rope_parameters", None) or {}
    return {"": found} if "rope_type" in found else found


def rope_types(config: PreTrainedConfig) -> set[str]:
    """How the positions of the layers are turned: `default`, `linear`, `llama3`, `dynamic`, ..."""
    kinds = getattr(config, "layer_types", None) or []
    return {part["rope_type"] for kind, part in rope_settings(config).items() if not kind or kind in kinds}
