"""The cells of a study, one an arm and seed: each is a recipe laid out as steps, which cells share where they can."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightpaff.errors import UserError
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.clm import SlidingWindows
from lightpaff.pipeline.build import Graph, TrainingStep, build_graph, in_order
from lightpaff.pipeline.context import RunContext, evaluation_splits, task_objective
from lightpaff.pipeline.delivery import plan_exports
from lightpaff.pipeline.graph import Step
from lightpaff.pipeline.run import open_context, prepare
from lightpaff.study.definition import Study, arm_recipe

STAGES = {"pre-training": "pretraining", "fine-tuning": "fine_tuning"}
"""A training's stage, and the recipe's section."""


@dataclass(frozen=True)
class Cell:
    """One arm with one seed.

    Attributes:
        steps: what is to be done for it, each after its inputs.
    """

    arm: str
    seed: int
    context: RunContext
    graph: Graph
    steps: list[Step]

    @property
    def trainings(self) -> list[TrainingStep]:
        """The student's."""
        return [training for training in self.graph.trainings if training.arm.is_small]


def lay_out(study: Study, arm: str, seed: int, directory: Path, budgets: dict[str, int] | None) -> Cell:
    """One cell of a study that is kept in `directory`; its data is prepared, and nothing is trained."""
    recipe = arm_recipe(study, arm, seed, budgets)
    context = open_context(recipe, directory)
    is_measured = study.latency and seed == study.seeds[0]
    graph, _ = prepare(context, plan_exports(context).exports if is_measured else [])
    return Cell(arm, seed, context, graph, list(in_order(_ends(graph, is_measured))))


def lay_out_without(cell: Cell, left_out: list[str]) -> Cell:
    """A measured cell again, without the last steps of these names, and what needs them."""
    graph = build_graph(cell.context, plan_exports(cell.context).exports, left_out)
    return replace(cell, graph=graph, steps=list(in_order(_ends(graph, is_measured=True))))


def lay_out_all(study: Study, directory: Path, budgets: dict[str, dict[str, int]]) -> Iterator[Cell]:
    """Seed by seed: after the first seed there is a whole table, of one seed."""
    for seed in study.seeds:
        for arm in study.arms:
            yield lay_out(study, arm, seed, directory, budgets[arm])


def require_same_rows(study: Study, cells: list[Cell]) -> None:
    """Refuse arms whose evaluation rows, once prepared, are not the baseline's.

    Raises:
        UserError: names the arm and the task.
    """
    firsts = {cell.arm: cell for cell in cells if cell.seed == study.seeds[0]}
    expected = _targets(firsts[study.baseline])
    for arm, cell in firsts.items():
        for steps, own, other in zip(cell.graph.tasks, _targets(cell), expected, strict=True):
            if not np.array_equal(own, other):
                raise UserError(
                    f"arm '{arm}' of the study {study.name}: the evaluation rows of {steps.task.name} are not those of "
                    f"the baseline '{study.baseline}': its training rows have other classes (name all in labels), or "
                    "its teacher's tokenizer makes other windows (take one tokenizer for all arms)"
                )


def _targets(cell: Cell) -> list[np.ndarray]:
    """What rows of the tasks are paired by: classes and scores; of texts in windows, the tokens that each scores.
    Nothing where answers are compared as text or by name, which no arm can change: tags, spans, what is written."""
    found = []
    for steps in cell.graph.tasks:
        data = task_objective(cell.context, steps.task, steps.rows, evaluation_splits(steps.task)[-1])
        windows = data.targets_N if isinstance(data, SlidingWindows) else np.empty(0)
        found.append(data.labels_N if isinstance(data, Classification) else windows)
    return found


def _ends(graph: Graph, is_measured: bool) -> list[Step]:
    ends = []
    for task in graph.tasks:
        ends += [*task.predictions.values(), *([task.baseline] if task.baseline else [])]
        if is_measured:
            ends += [export.checked for export in task.exports]
            ends += [step for step in (task.latency, task.online) if step is not None]
    return ends
