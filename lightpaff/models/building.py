"""Models made from a config, with random weights."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lightpaff.models.families import architecture_of, head_of


def build_model(config: PreTrainedConfig, head: str, **settings: Any) -> PreTrainedModel:
    """A model with a head, where torch's default device is.

    Args:
        config: of the model; it becomes the model's own.
        head: one of its architecture's.
        settings: transformers' own for `from_config`.

    Raises:
        UserError: the architecture is not supported, or has a setting that is not.
    """
    model: PreTrainedModel = head_of(config, head).auto_class.from_config(config, **settings)
    if architecture_of(config).has_own_projection(config):
        own = torch.empty_like(model.get_input_embeddings().weight)
        # T5's embeddings are wide, and a first logit of a tenth as much is what training begins with.
        nn.init.normal_(own, std=own.shape[1] ** -0.5)
        model.get_output_embeddings().weight = nn.Parameter(own)
    return model
