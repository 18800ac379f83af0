"""A study: its budgets, its cells, and what they say; several processes may work on one together.

STUDY/study.json          what this directory is: see `lightpaff.study.record`
STUDY/report/             index.html, study.md, study.json
STUDY/../steps/           the steps, each done once, for all studies there
"""

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightpaff.errors import UserError
from lightpaff.pipeline.build import in_order
from lightpaff.pipeline.context import RunContext
from lightpaff.pipeline.delivery import plan_exports
from lightpaff.pipeline.graph import DoneStep, Step, run_step, try_step
from lightpaff.pipeline.plan import Plan, make_plan
from lightpaff.pipeline.run import MAY_FAIL, steps_beside
from lightpaff.progress import console, each_line_once
from lightpaff.report import formats
from lightpaff.study.budgets import find_budgets
from lightpaff.study.cells import Cell, lay_out_all, lay_out_without, require_same_rows
from lightpaff.study.comparing import StudyData, compare
from lightpaff.study.definition import Study, require_same_evaluation
from lightpaff.study.noise import noise_steps
from lightpaff.study.page import write_study
from lightpaff.study.record import STUDY, claim, known_budgets


@dataclass(frozen=True)
class StudyResult:
    """What a finished study leaves: its page, and what is on it."""

    page: Path
    data: StudyData


def run_study(study: Study, output: Path | None = None, command: str = "") -> StudyResult:
    """Do what is not done of a study, and write its page. The same call in another process helps; a stopped one goes
    on.

    Args:
        study: see `load_study`.
        output: its directory; left out, `studies/NAME-RECIPE`, with the task where one is named, under `runs`.
        command: how the page says that it can be made again.

    Raises:
        UserError: for bad input, in one line.
        StoppedError: after Ctrl-C.
    """
    directory = study_directory(study, output)
    require_same_evaluation(study)
    with each_line_once():
        budgets = claim(study, directory)
        cells = list(lay_out_all(study, directory, budgets))
    require_same_rows(study, cells)
    steps = [(cell.arm, step) for cell in cells for step in cell.steps]
    _say_what_is_left(study, [step for _, step in steps])
    done = _do_whole(steps, directory)
    cells = [_measured_without_what_failed(cell, done, directory) for cell in cells]
    noise = noise_steps(study, cells)
    done |= _do_whole([(one.arm, one.step) for one in noise], directory)
    data = compare(study, budgets, cells, done, noise, command or f"lightpaff study {study.name}")
    return StudyResult(write_study(data, directory / "report"), data)


@dataclass(frozen=True)
class StudyPlan:
    """What a study will cost.

    Attributes:
        arms: every arm's plan, with the first seed.
        seconds: what is left over all arms and seeds; steps that they share count once.
    """

    arms: list[tuple[str, Plan, RunContext]]
    seconds: float


def plan_study(study: Study, output: Path | None = None) -> StudyPlan:
    """What is left of a study, whether it has begun or not; prepares the data and probes the speed, trains nothing and
    takes no directory.

    Raises:
        UserError: for bad input, in one line.
    """
    directory = study_directory(study, output)
    require_same_evaluation(study)
    with each_line_once():
        budgets = known_budgets(study, directory) or find_budgets(study, directory)
        cells = list(lay_out_all(study, directory, budgets))
    require_same_rows(study, cells)
    speeds: dict[str, dict[Any, float]] = {arm: {} for arm in study.arms}
    arms = []
    left: dict[str, float] = {}
    for cell in cells:
        plan = make_plan(cell.context, cell.graph, plan_exports(cell.context), speeds[cell.arm])
        left |= {step.fingerprint: plan.left.get(step.fingerprint, 0.0) for step in cell.steps}
        if cell.seed == study.seeds[0]:
            arms.append((cell.arm, plan, cell.context))
    return StudyPlan(arms, sum(left.values()))


def study_directory(study: Study, output: Path | None) -> Path:
    """Where a study goes.

    Raises:
        UserError: where steps are.
    """
    name = "-".join(filter(None, (study.name, Path(study.recipe).stem, study.task)))
    directory = output or Path("runs") / "studies" / name
    steps_beside(directory)
    return directory


def do_all(steps: list[Step]) -> tuple[dict[str, DoneStep], dict[str, str]]:
    """Do steps that come after their inputs, each once; what another process does is left to it, and waited for only
    when there is nothing else to do. What fails, and what needs it, is told of and left out.

    Returns:
        What is done, by its fingerprint; and why the rest failed, but for exports, which a study can do without.
    """
    failed: dict[str, str] = {}
    left = deque({step.fingerprint: step for step in steps}.values())
    done: dict[str, DoneStep] = {}
    skipped = 0
    while left:
        is_stuck = skipped >= len(left)
        # With nothing else to do, whoever has the first of those that could be done will end.
        step = next((one for one in left if is_stuck and _is_ready(one, done)), left[0])
        left.remove(step)
        try:
            found = run_step(step) if is_stuck else try_step(step) if _is_ready(step, done) else None
        except UserError as error:
            if step.kind not in MAY_FAIL:
                failed[step.fingerprint] = f"{step.name}: {error}"
            console.print(f"{step.name} failed: {error}")
            left = deque(one for one in left if step.fingerprint not in (own.fingerprint for own in in_order([one])))
            continue
        if found is None:
            left.append(step)
            skipped += 1
        else:
            done[step.fingerprint] = found
            skipped = 0
    return done, failed


def _do_whole(steps: list[tuple[str, Step]], directory: Path) -> dict[str, DoneStep]:
    """Do steps, each with its arm, of which none may be missing.

    Raises:
        UserError: some failed, when all others are done; names the arms of the first.
    """
    done, failed = do_all([step for _, step in steps])
    for fingerprint, why in failed.items():
        arms = dict.fromkeys(f"'{arm}'" for arm, step in steps if step.fingerprint == fingerprint)
        raise UserError(
            f"{formats.joined(list(arms))}: {why}; change or leave out what failed, delete {directory / STUDY} and run "
            "again: all else is done and kept"
        )
    return done


def _measured_without_what_failed(cell: Cell, done: dict[str, DoneStep], directory: Path) -> Cell:
    """A cell without the exports that could not be made: the others are measured, which is put into `done`."""
    left_out: list[str] = []
    while failed := [step.name for step in cell.steps if step.fingerprint not in done and _is_ready(step, done)]:
        left_out += failed
        cell = lay_out_without(cell, left_out)
        done |= _do_whole([(cell.arm, step) for step in cell.steps], directory)
    return cell


def _is_ready(step: Step, done: dict[str, DoneStep]) -> bool:
    return all(needed.fingerprint in done or needed.state == "done" for needed in step.inputs)


def _say_what_is_left(study: Study, steps: list[Step]) -> None:
    by_fingerprint = {step.fingerprint: step for step in steps}
    left = [step for step in by_fingerprint.values() if step.state != "done"]
    trainings = sum(step.kind in ("pretrain", "finetune") for step in left)
    console.print(
        f"{study.name}: {len(study.arms)} arms, {len(study.seeds)} seeds; {len(left)} of {len(by_fingerprint)} steps "
        f"to do, {trainings} of them trainings (lightpaff plan says how long they take)"
    )
