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

_ROUNDS: dict[Match, int] = {"steps": 1, "tokens": 1, "flops": 6, "time": 1}
"""In which the steps of an arm are looked for: what they cost by the teacher can change with their number. Times are
measured, and would never agree."""
_CLOSE = 0.02
"""A share of the steps, within which two rounds have found the same."""

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
        UserError: an arm's teacher alone costs more than all that the reference arm spends, or no number of steps costs
            as much.
    """
    reference = _costs(study, study.reference_arm, directory, None)
    return {arm: _as_costly(study, arm, directory, reference) for arm in study.arms}


def _as_costly(study: Study, arm: str, directory: Path, reference: dict[str, _Cost]) -> dict[str, int]:
    """The steps of an arm. How its teacher is asked, and how often, can change with them: so that is looked up anew."""
    goals = {section: cost.total for section, cost in reference.items() if section not in own_budgets(study.arms[arm])}
    steps: dict[str, int] = {}
    before: dict[str, _Cost] = {}
    for _ in range(_ROUNDS[study.match]):
        costs = _costs(study, arm, directory, steps or None)
        found = {own: _as_many(goals.get(own, cost.total), cost, before.get(own)) for own, cost in costs.items()}
        is_only_round = _ROUNDS[study.match] == 1
        if scarce := [own for own, number in found.items() if number < 1 and (is_only_round or costs[own].steps == 1)]:
            raise UserError(
                f"arm '{arm}' of the study {study.name}: asking its teacher alone costs more than '"
                f"{study.reference_arm}' spends in {scarce[0]}; give the arm {scarce[0]}.training.steps, or the study "
                "match: steps"
            )
        steps = {own: max(number, 1) for own, number in found.items()}
        if before and all(abs(cost.steps - steps[own]) <= _CLOSE * steps[own] for own, cost in costs.items()):
            return steps
        before = costs
    if study.match != "flops":
        return steps
    raise UserError(
        f"arm '{arm}' of the study {study.name}: how its teacher is asked changes with its steps, so that none cost as "
        f"much as '{study.reference_arm}' spends; give distillation.targets.kind under set, or match: steps"
    )


def _as_many(goal: float, now: _Cost, before: _Cost | None) -> int:
    """The steps that would cost so much, if each more costs what it does now, or did since before; below 1 where none
    would."""
    rise = 0.0
    if before is not None and before.steps != now.steps:
        rise = (now.total - before.total) / (now.steps - before.steps)
    return now.steps + round((goal - now.total) / (rise if rise > 0 else now.a_step))


def _costs(study: Study, arm: str, directory: Path, steps: dict[str, int] | None) -> dict[str, _Cost]:
    """By the section, at so many steps; left out, the arm's own."""
    cell = lay_out(study, arm, study.seeds[0], directory, steps)
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
