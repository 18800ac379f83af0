"""How the loop chooses the best checkpoint: by `score`, higher is better, and where that is equal by `loss`.

Shapes: N examples.
"""

import math

import numpy as np
import torch

from lightpaff.data.batch_order import sequential_batches
from lightpaff.evaluation.likelihoods import LARGEST_EXPONENT
from lightpaff.models.architecture import NEXT_TOKENS
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.answers import ask_logits
from lightpaff.objectives.model_answers import ModelAnswers
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import WITH_FEW_CLASSES
from lightpaff.recipe_sections import Task
from lightpaff.training.device import Hardware
from lightpaff.training.loss import distillation_loss

_VALIDATION_DRAW = 2**31
"""A corruption that no epoch draws: the held-out text is masked in the same places every time."""


def validate_task(
    data: Objective, task: Task, tokens_at_once: int, hardware: Hardware, model: HeadedModel
) -> dict[str, float]:
    """The task's metrics, or the likelihood of its targets, as the objective is chosen by."""
    if task.objective in WITH_FEW_CLASSES:
        return validate_classes(data, task, tokens_at_once, hardware, model)
    return validate_tokens(data, np.arange(len(data.lengths_N)), tokens_at_once, hardware, model)


@torch.no_grad()
def validate_tokens(
    data: Objective, example_ids: np.ndarray, tokens_at_once: int, hardware: Hardware, model: HeadedModel
) -> dict[str, float]:
    """The mean negative log likelihood of the targets of these examples, in nats; its negative is the score. Where
    every token is a target (NEXT_TOKENS), also the perplexity, its exponential."""
    nll = torch.zeros((), dtype=torch.float64, device=hardware.device)
    count = 0
    for ids in sequential_batches(data.lengths_N, example_ids, tokens_at_once):
        batch = data.batch(ids, draw=_VALIDATION_DRAW).to(hardware.device)
        with hardware.autocast():
            features_PD = model.features(batch.inputs, batch.positions_P)
            sums = distillation_loss(features_PD, model.weight_VD, model.bias_V, batch.labels_P, None, weight=0.0)
        nll += sums.nll
        count += len(batch.positions_P)
    mean = float(nll) / count
    values = {"score": -mean, "loss": mean, "nll": mean}
    if data.head == NEXT_TOKENS:
        values["perplexity"] = math.exp(min(mean, LARGEST_EXPONENT))
    return values


def validate_classes(
    data: Objective, task: Task, tokens_at_once: int, hardware: Hardware, model: HeadedModel
) -> dict[str, float]:
    """The task's metrics on the validation rows; the first one is the score. The loss is the mean negative log
    likelihood of the gold classes in nats, or the mean squared error of the scores."""
    with hardware.autocast():
        logits_TV = ask_logits(ModelAnswers(model, hardware.device), data, tokens_at_once)
    outputs = WITH_FEW_CLASSES[task.objective].outputs_of(logits_TV.numpy(), data)
    values: dict[str, float] = {name: outputs.score(name) for name in task.metric_names}
    # Metrics look at the order of the logits, and would give a diverged model a number.
    if not logits_TV.isfinite().all():
        return {"score": math.nan, "loss": math.nan, **values}
    return {"score": values[task.metric_names[0]], "loss": outputs.loss, **values}
