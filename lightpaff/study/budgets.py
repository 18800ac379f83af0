"""Equal budgets: how many optimiser steps each arm takes in each stage."""

from pathlib import Path

from lightpaff.pipeline.build import TrainingStep
from lightpaff.pipeline.context import RunContext
from lightpaff.pipeline.probe import measure_tokens_per_second
from lightpaff.pipeline.workload import flops_of, workload_of
from lightpaff.study.cells import STAGES, lay_out
from lightpaff.study.definition import Match, Study, own_budget_stages

Budgets = dict[str, dict[str, int]]
"""Steps by the arm and the recipe's section."""


def find_budgets(study: Study, directory: Path) -> Budgets:
    """The steps of every arm: what the reference arm spends in a stage, over what one step of the arm costs. Times are
    measured."""
    costs = {arm: _costs(study, arm, directory) for arm in study.arms}
    reference = costs[study.reference_arm]
    budgets: Budgets = {}
    for arm, own in costs.items():
        kept = own_budget_stages(study, arm)
        budgets[arm] = {
            stage: steps if stage in kept or stage not in reference else _as_many(reference[stage], cost)
            for stage, (steps, cost) in own.items()
        }
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
