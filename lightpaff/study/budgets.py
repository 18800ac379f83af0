"""Equal budgets: how many optimiser steps each arm takes in each stage, and its teacher."""

from dataclasses import dataclass
from pathlib import Path

from lightpaff.errors import UserError
from lightpaff.pipeline.build import TrainingStep
from lightpaff.pipeline.context import RunContext
from lightpaff.pipeline.probe import measure_asking, measure_tokens_per_second
from lightpaff.pipeline.workload import captured_tokens, flops_of, workload_of
from lightpaff.study.cells import STAGES, lay_out
from lightpaff.study.definition import TEACHER_TRAINING, Match, Study, own_budgets

Budgets = dict[str, dict[str, int]]
"""Steps by the arm and the section: of each stage, and `TEACHER_TRAINING`."""


@dataclass(frozen=True)
class _Cost:
    """Of one stage of an arm: its own steps, what one of them costs, and what it costs whatever their number is."""

    steps: int
    a_step: float
    once: float = 0.0

    @property
    def total(self) -> float:
        return self.once + self.steps * self.a_step


def find_budgets(study: Study, directory: Path) -> Budgets:
    """The steps of every arm: what the reference arm spends in a stage, less what the arm's teacher is asked once, over
    what one step of the arm costs. Times are measured. Teachers take the same number of steps, however few their rows.

    Raises:
        UserError: an arm's teacher alone costs more than all that the reference arm spends.
    """
    costs = {arm: _costs(study, arm, directory) for arm in study.arms}
    reference = costs[study.reference_arm]
    budgets: Budgets = {}
    for arm, own in costs.items():
        kept = own_budgets(study.arms[arm])
        budgets[arm] = {
            section: cost.steps if section in kept or section not in reference else _as_many(reference[section], cost)
            for section, cost in own.items()
        }
        if scarce := [section for section, steps in budgets[arm].items() if steps < 1]:
            raise UserError(
                f"arm '{arm}' of the study {study.name}: asking its teacher alone costs more than '"
                f"{study.reference_arm}' spends in {scarce[0]}; give the arm {scarce[0]}.training.steps, or the study "
                "match: steps"
            )
    return budgets


def _as_many(reference: _Cost, own: _Cost) -> int:
    return round((reference.total - own.once) / own.a_step)


def _costs(study: Study, arm: str, directory: Path) -> dict[str, _Cost]:
    """By the section."""
    cell = lay_out(study, arm, study.seeds[0], directory, None)
    found = {STAGES[training.stage]: _cost(study.match, cell.context, training) for training in cell.trainings}
    for training in cell.graph.trainings:
        if not training.arm.is_small and training.task is not None:
            found[TEACHER_TRAINING] = _Cost(workload_of(cell.context, training).steps, 1.0)
    return found


def _cost(match: Match, context: RunContext, training: TrainingStep) -> _Cost:
    workload = workload_of(context, training)
    steps = workload.steps
    if match == "steps":
        return _Cost(steps, 1.0)
    if match == "tokens":
        return _Cost(steps, workload.tokens / steps)
    if match == "flops":
        flops = flops_of(context, training, workload)
        return _Cost(steps, (flops.own + flops.live) / steps, flops.once)
    seconds = workload.tokens / measure_tokens_per_second(context, training)
    captured = training.supervision and training.supervision.captured
    if not captured or not (tokens := captured_tokens(training, workload)):
        return _Cost(steps, seconds / steps)
    return _Cost(steps, seconds / steps, tokens / measure_asking(context, training, captured.encoding))
