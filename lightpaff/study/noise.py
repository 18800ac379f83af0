"""How flat the minimum is that an arm found (the paper's figure 2): its quality with noise on its parameters, and the
curvature of its loss.

Noise is normal, with a standard deviation of `deviation` times the root mean square of each tensor, so that models of
other sizes and scales compare. The curvature is the trace of the loss's Hessian in the same units: the loss rises by
half of it times the squared deviation, where that is small (Hutchinson's estimator with random signs).

Shapes: P target positions.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightpaff.data.batch_order import sequential_batches
from lightpaff.evaluation.likelihoods import LARGEST_EXPONENT
from lightpaff.files import write_json_whole
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.clm import SlidingWindows
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.pipeline.arms import STUDENT
from lightpaff.pipeline.build import TaskSteps
from lightpaff.pipeline.context import evaluation_splits, open_for_task, task_objective
from lightpaff.pipeline.data_steps import NOT_OF_THE_ROWS
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.progress import progress_bar
from lightpaff.study.cells import Cell
from lightpaff.study.definition import Noise, Study
from lightpaff.training.validation import validate_task

_NOISE = "noise.json"
_TOKENS_TOGETHER = 4096
_CURVATURE_BATCHES, _CURVATURE_DRAWS = 4, 8


@dataclass(frozen=True)
class NoisePoint:
    """One evaluation: the values are those of `validate_task`; of windows of a text, also the perplexity per word."""

    deviation: float
    draw: int
    values: dict[str, float]


@dataclass(frozen=True)
class NoiseStep:
    """The evaluations of one arm, seed and task, as a step."""

    arm: str
    seed: int
    task: str
    step: Step

    def points(self) -> list[NoisePoint]:
        """Of the done step."""
        return [NoisePoint(**point) for point in self._content()["points"]]

    def curvature(self) -> float:
        """Of the loss; see `curvature`."""
        return float(self._content()["curvature"])

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.step.directory / _NOISE).read_text())
        return content


def noise_steps(study: Study, cells: list[Cell]) -> list[NoiseStep]:
    """For every cell and task; none where the study does not ask."""
    if study.noise is None:
        return []
    return [
        NoiseStep(cell.arm, cell.seed, task.task.name, _step(study.noise, cell, task))
        for cell in cells
        for task in cell.graph.tasks
    ]


def _step(noise: Noise, cell: Cell, steps: TaskSteps) -> Step:
    context, task, source = cell.context, steps.task, steps.models[STUDENT, cell.seed]

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        model = open_for_task(context, task, steps.rows, source.path, None, 0).eval()
        checked_on = TASK_OBJECTIVES[task.objective].for_validation(task)
        data = task_objective(context, checked_on, steps.rows, evaluation_splits(task)[-1])
        points = []
        with progress_bar(step.name, len(noise.deviations) * noise.draws, "evaluations") as advance:
            for deviation in noise.deviations:
                # Without noise, all draws are the same.
                for draw in range(noise.draws if deviation else 1):
                    with disturbed(model, deviation, draw):
                        values = validate_task(data, task, _TOKENS_TOGETHER, context.hardware, model)
                    if isinstance(data, SlidingWindows):
                        nll_a_word = values["nll"] * float(data.targets_N.sum() / data.words_N.sum())
                        values["word_perplexity"] = math.exp(min(nll_a_word, LARGEST_EXPONENT))
                    points.append(NoisePoint(deviation, draw, values))
                    advance(1)
        content = {"points": [asdict(point) for point in points], "curvature": curvature(model, data)}
        write_json_whole(folders.result / _NOISE, content)
        return {}

    settings = {
        **context.settings,
        "noise": noise.model_dump(),
        "start": source.identity,
        "task": task.model_dump(exclude=NOT_OF_THE_ROWS),
    }
    name = f"disturb '{cell.arm}' on {task.name}, seed {cell.seed}"
    return Step(name, "noise", settings, (steps.rows, *source.inputs), context.root, work)


@contextmanager
def disturbed(model: nn.Module, deviation: float, draw: int) -> Iterator[None]:
    """The model with noise on its parameters; afterwards it is as before, to the bit."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    random = torch.Generator().manual_seed(draw)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=random).to(parameter)
            parameter.add_(noise, alpha=deviation * float(_size(parameter)))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name])


def curvature(model: HeadedModel, data: Objective) -> float:
    """The trace of the Hessian of the gold loss (nats a target, or squared error), each parameter in units of its
    tensor's root mean square, by random signs over some batches."""
    device = next(model.parameters()).device
    count = min(len(data.lengths_N), 32 * _CURVATURE_BATCHES)
    ids = np.arange(count) * len(data.lengths_N) // count
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found, targets = 0.0, 0
    for number, some in enumerate(sequential_batches(data.lengths_N, ids, _TOKENS_TOGETHER)):
        batch = data.batch(some, draw=0).to(device)
        # The fused kernels of attention have no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            loss, own = _gold_loss(model, batch.inputs, batch.positions_P, batch.labels_P)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        random = torch.Generator().manual_seed(number)
        for _ in range(_CURVATURE_DRAWS):
            signs = [_signs(parameter, random) for parameter in parameters]
            pairs = [(g, s) for g, s in zip(gradients, signs, strict=True) if g is not None]
            along = torch.stack([(g * s).sum() for g, s in pairs]).sum()
            products = torch.autograd.grad(along, parameters, retain_graph=True, allow_unused=True)
            found += sum(float((p * s).sum()) for p, s in zip(products, signs, strict=True) if p is not None)
        targets += own
    return found / _CURVATURE_DRAWS / max(targets, 1)


def _gold_loss(
    model: HeadedModel, inputs: dict[str, Tensor], positions_P: Tensor, labels_P: Tensor
) -> tuple[Tensor, int]:
    """Summed over the targets with a gold label; and their number."""
    logits_PV = model.logits(inputs, positions_P)
    if labels_P.is_floating_point():
        has_label_P = ~labels_P.isnan()
        return functional.mse_loss(logits_PV[has_label_P, 0], labels_P[has_label_P], reduction="sum"), int(
            has_label_P.sum()
        )
    has_label_P = labels_P != NO_GOLD_LABEL
    loss = functional.cross_entropy(logits_PV[has_label_P], labels_P[has_label_P], reduction="sum")
    return loss, int(has_label_P.sum())


def _signs(parameter: Tensor, random: torch.Generator) -> Tensor:
    """Random signs, times the tensor's size."""
    signs = torch.randint(0, 2, parameter.shape, generator=random).to(parameter) * 2 - 1
    return signs * _size(parameter)


def _size(parameter: Tensor) -> Tensor:
    return parameter.detach().square().mean().sqrt()
