"""Equal budgets: how many optimiser steps each arm takes in each stage."""

import json
from pathlib import Path

from lightpaff.errors import UserError
from lightpaff.files import write_json_whole
from lightpaff.pipeline.build import TrainingStep
from lightpaff.pipeline.context import RunContext
from lightpaff.pipeline.probe import measure_tokens_per_second
from lightpaff.pipeline.workload import flops_of, workload_of
from lightpaff.study.cells import STAGES, lay_out
from lightpaff.study.definition import Match, Study, own_budget_stages

BUDGETS = "budgets.json"
Budgets = dict[str, dict[str, int]]
"""Steps by the arm and the recipe's section."""


def find_budgets(study: Study, directory: Path) -> Budgets:
    """The steps of every arm: what the reference arm spends in a stage, over what one step of the arm costs.

    They are written down: times are not measured twice, and a study that goes on has the steps that it began with.

    Raises:
        UserError: the file is of another study.
    """
    path = directory / BUDGETS
    if path.exists():
        return _read(path, study)
    costs = {arm: _costs(study, arm, directory) for arm in study.arms}
    reference = costs[study.reference_arm]
    budgets: Budgets = {}
    for arm, own in costs.items():
        kept = own_budget_stages(study, arm)
        budgets[arm] = {
            stage: steps if stage in kept or stage not in reference else _as_many(reference[stage], cost)
            for stage, (steps, cost) in own.items()
        }
    write_json_whole(path, {"study": study.fingerprint(), "steps": budgets})
    return budgets


def _as_many(reference: tuple[int, float], cost: float) -> int:
    steps, reference_cost = reference
    return max(1, round(steps * reference_cost / cost))


def _costs(study: Study, arm: str, directory: Path) -> dict[str, tuple[int, float]]:
    """Of each stage, the arm's own steps and what one of them costs."""
    cell = lay_out(study, arm, study.seeds[0], directory, None)
    found: dict[str, tuple[int, float]] = {}
    for training in cell.trainings:
        section = STAGES[training.stage]
        found[section] = (workload_of(cell.context, training).steps, _cost(study.match, cell.context, training))
    return found


def _cost(match: Match, context: RunContext, training: TrainingStep) -> float:
    """Of one step."""
    workload = workload_of(context, training)
    if match == "steps":
        return 1.0
    if match == "tokens":
        return workload.tokens / workload.steps
    if match == "time":
        return workload.tokens / workload.steps / measure_tokens_per_second(context, training)
    return sum(flops_of(context, training, workload)) / workload.steps


def _read(path: Path, study: Study) -> Budgets:
    try:
        content = json.loads(path.read_text())
        known, steps = content["study"], content["steps"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it, and the study counts anew") from error
    if known != study.fingerprint():
        raise UserError(f"{path.parent}: holds another study of that name; give another --output, or delete it")
    budgets: Budgets = steps
    return budgets
