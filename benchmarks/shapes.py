"""How well `lightpaff shapes` predicts what a student takes once it is trained and exported.

    python benchmarks/shapes.py runs/demo                         # all exports of a run: readable tables
    python benchmarks/shapes.py runs/demo/exports/onnx-int8 --length 32 --length 128 --rounds 5
    python benchmarks/shapes.py runs/demo --json > rows.jsonl     # rows as JSON lines, the tables on standard error

Each round does three things, for all exports and lengths one after the other, so that minutes lie between them:

- predicted: what `lightpaff shapes` says of the student's config. Its reference's time is established anew, and a model
  with random weights is built, exported and measured in turn with the reference.
- trained: the trained export, measured in the same way against the same time of the reference.
- alone: the trained export's median as `lightpaff benchmark` gives it, which drifts with the machine.

A prediction is good if the mean of trained / predicted over the rounds is within 10 % of 1.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedConfig

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.deployment.contenders import Contender
from lightpaff.deployment.measuring import MeasureSettings, describe_machine, measure
from lightpaff.deployment.shape_building import build_contender, open_contender
from lightpaff.deployment.shape_grid import name_shape
from lightpaff.deployment.shape_measuring import REFERENCE, Reference, measure_config, measure_contender
from lightpaff.deployment.shape_plan import MeasuringPlan, check_length, work_of
from lightpaff.deployment.shape_search import Timing, find_middle
from lightpaff.errors import UserError
from lightpaff.models.opening import read_config
from lightpaff.models.shapes import student_config
from lightpaff.pipeline.delivery import EXPORTS
from lightpaff.pipeline.run import RUN, STEPS
from lightpaff.pipeline.shapes_run import list_candidates
from lightpaff.progress import console as progress_console
from lightpaff.progress import results_console
from lightpaff.report import formats
from lightpaff.runtimes import runtime_of

LENGTHS = (32, 128)
TOLERANCE = 0.10
_STUDENT, _MODEL = "student", "model"
_TEACHER_STEP = "fine-tune the teacher on "


@dataclass(frozen=True)
class Subject:
    """A trained student's export, measured with one length of the input.

    Attributes:
        name: of the export.
        directory: of the export.
        config: of the student.
        plan: how it is measured.
        reference: the export that takes turns with it.
        reference_shape: such as 4 x 512: the one that `lightpaff shapes` takes for students of the same teacher.
    """

    name: str
    directory: Path
    config: PreTrainedConfig
    plan: MeasuringPlan
    reference: Contender
    reference_shape: str


@dataclass(frozen=True)
class Row:
    """What a round gave for one export and one length; times in milliseconds.

    Attributes:
        predicted_ms: by `lightpaff shapes`; `trained_ms` and `alone_ms` are the trained export's, see above.
        trained_ratio: trained / predicted; `alone_ratio` likewise.
        is_within: whether `trained_ratio` is within the tolerance.
        written: tokens that the trained export wrote, on average, of `new_tokens`; 0 for a classifier.
        predicted_bytes: of the weights on disk, as `trained_bytes`.
    """

    export: str
    runtime: str
    quantisation: str
    threads: int
    length: int
    new_tokens: int
    beams: int
    round: int
    reference: str
    reference_ms: float
    predicted_ms: float
    trained_ms: float
    alone_ms: float
    trained_ratio: float
    alone_ratio: float
    is_within: bool
    written: float
    predicted_bytes: int
    trained_bytes: int


@dataclass(frozen=True)
class Summary:
    """All rounds of an export and a length: the mean, least and greatest ratio, and whether the mean is good enough."""

    export: str
    length: int
    rounds: int
    mean: float
    low: float
    high: float
    alone_mean: float
    alone_low: float
    alone_high: float
    rounds_within: int
    is_within: bool


def main() -> None:
    """Build, measure and print."""
    arguments = parse_arguments()
    console = Console(stderr=True, highlight=False, width=120) if arguments.json else results_console()
    try:
        with tempfile.TemporaryDirectory(prefix="lightpaff-reference-") as folder:
            subjects = list_subjects(arguments, Path(folder))
            rows = [
                row
                for number in range(1, arguments.rounds + 1)
                for row in measure_round(subjects, number, arguments.seconds)
            ]
    except UserError as error:
        sys.exit(str(error))
    summaries = summarise(rows)
    if arguments.json:
        print_rows(rows, summaries)
    console.print(rounds_table(rows))
    console.print(summary_table(summaries))


def parse_arguments() -> argparse.Namespace:
    """The command line; `threads` is no 0."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("exports", nargs="+", type=Path, metavar="EXPORT", help="of trained students; or whole runs")
    parser.add_argument("--model", type=Path, metavar="DIR", help="the student itself; default: the run's")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="its teacher, a model; default: the run's")
    parser.add_argument("--length", action="append", type=int, help="in tokens; may be repeated; default 32 and 128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 (the default) is all cores")
    parser.add_argument("--new-tokens", type=int, default=32, help="of models that write")
    parser.add_argument("--beams", type=int, default=4, help="of encoder-decoders")
    parser.add_argument("--seconds", type=float, default=20.0, help="for a trained export alone")
    parser.add_argument("--json", action="store_true", help="rows as JSON lines on standard output")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is below 1")
    arguments.threads = arguments.threads or os.cpu_count() or 1
    arguments.length = list(dict.fromkeys(arguments.length or LENGTHS))
    return arguments


def list_subjects(arguments: argparse.Namespace, folder: Path) -> list[Subject]:
    """Every export with every length; the references are built in the folder.

    Raises:
        UserError: an export, its student or a reference cannot be had, or a length is beyond what a student reads.
    """
    subjects = []
    for number, directory in enumerate(find_exports(arguments.exports)):
        config = read_config(arguments.model or find_student(directory))
        teacher = read_config(arguments.teacher or find_teacher(directory))
        plans = [make_plan(directory, config, length, arguments) for length in arguments.length]
        middle = find_middle(list_candidates(teacher, plans[0])).shape
        progress_console.print(f"Building the reference of {directory}, {name_shape(middle)}")
        own_folder = folder / str(number)
        own_folder.mkdir()
        reference = build_contender(student_config(teacher, middle), plans[0], own_folder, REFERENCE)
        subjects += [Subject(str(directory), directory, config, plan, reference, name_shape(middle)) for plan in plans]
    return subjects


def find_exports(paths: Iterable[Path]) -> list[Path]:
    """The directories of exports: those given, and all of the runs given.

    Raises:
        UserError: a path is neither, or a run without exports.
    """
    found = []
    for path in paths:
        if (path / CARD).is_file():
            found.append(path)
            continue
        if not (path / RUN).is_file():
            raise UserError(f"{path}: holds no {CARD} or {RUN}; give the directory of an export or of a run")
        own = sorted(card.parent for card in (path / EXPORTS).rglob(CARD))
        if not own:
            raise UserError(f"{path}: this run has no exports; make one with lightpaff export")
        found += own
    return found


def find_run(export: Path) -> Path:
    """The run that an export is in.

    Raises:
        UserError: it is in none.
    """
    for folder in export.absolute().parents:
        if folder.name == EXPORTS and (folder.parent / RUN).is_file():
            return folder.parent
    raise UserError(f"{export}: is in no run; name the student that it was made of with --model, and its --teacher")


def find_student(export: Path) -> Path:
    """The student that a run's export was made of."""
    run = find_run(export)
    return run / _STUDENT / export.absolute().parent.relative_to(run / EXPORTS)


def find_teacher(export: Path) -> Path:
    """A teacher of the run that an export is in, fine-tuned for some task.

    Raises:
        UserError: it is not there any more.
    """
    run = find_run(export)
    steps = json.loads((run / RUN).read_text(encoding="utf-8")).get("steps", {})
    for name, folder in steps.items():
        model: Path = run.parent / STEPS / folder / _MODEL
        if name.startswith(_TEACHER_STEP) and model.is_dir():
            return model
    raise UserError(f"{run}: its teacher is not there; name it with --teacher")


def make_plan(directory: Path, config: PreTrainedConfig, length: int, arguments: argparse.Namespace) -> MeasuringPlan:
    """How an export and its prediction are measured: in the export's own runtime and precision."""
    card, work = ExportCard.read(directory), work_of(config)
    plan = MeasuringPlan(
        work=work,
        runtime=runtime_of(card.format),
        quantisation=card.quantisation,
        length=length,
        new_tokens=0 if work == "classes" else arguments.new_tokens,
        beams=arguments.beams if work == "target_tokens" else 1,
        threads=arguments.threads,
    )
    check_length(config, plan)
    return plan


def measure_round(subjects: Sequence[Subject], number: int, seconds: float) -> list[Row]:
    """Predict for all, then measure all that was trained, then measure it alone."""
    progress_console.print(f"Round {number}: predicting")
    references = [
        Reference(subject.reference, measure_contender(subject.reference, subject.plan, None)) for subject in subjects
    ]
    predicted = [
        measure_config(subject.config, subject.plan, reference)
        for subject, reference in zip(subjects, references, strict=True)
    ]
    progress_console.print(f"Round {number}: measuring what was trained")
    trained = [
        measure_contender(open_trained(subject), subject.plan, reference)
        for subject, reference in zip(subjects, references, strict=True)
    ]
    progress_console.print(f"Round {number}: measuring it alone")
    alone = [measure_alone(subject, seconds) for subject in subjects]
    return [
        make_row(subject, number, reference.timing, prediction, measured, milliseconds)
        for subject, reference, prediction, measured, milliseconds in zip(
            subjects, references, predicted, trained, alone, strict=True
        )
    ]


def open_trained(subject: Subject) -> Contender:
    """The trained export, with the threads of its plan."""
    return open_contender(subject.directory, subject.plan, "trained")


def measure_alone(subject: Subject, seconds: float) -> float:
    """The trained export's median in milliseconds, as `lightpaff benchmark` measures it."""
    settings = MeasureSettings(
        batch_sizes=(1,),
        lengths=(subject.plan.length,),
        new_tokens=subject.plan.new_tokens,
        beams=subject.plan.beams,
        seconds=seconds,
    )
    [row] = measure([open_trained(subject)], settings)
    return row.median_ms


def make_row(
    subject: Subject, number: int, reference: Timing, predicted: Timing, trained: Timing, alone_ms: float
) -> Row:
    """One round of one export and length."""
    plan = subject.plan
    trained_ratio = trained.median_ms / predicted.median_ms
    return Row(
        export=subject.name,
        runtime=plan.runtime,
        quantisation=plan.quantisation,
        threads=plan.threads,
        length=plan.length,
        new_tokens=plan.new_tokens,
        beams=plan.beams,
        round=number,
        reference=subject.reference_shape,
        reference_ms=reference.median_ms,
        predicted_ms=predicted.median_ms,
        trained_ms=trained.median_ms,
        alone_ms=alone_ms,
        trained_ratio=trained_ratio,
        alone_ratio=alone_ms / predicted.median_ms,
        is_within=abs(trained_ratio - 1) <= TOLERANCE,
        written=trained.written,
        predicted_bytes=predicted.bytes,
        trained_bytes=trained.bytes,
    )


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """One for every export and length, in their order."""
    cells = dict.fromkeys((row.export, row.length) for row in rows)
    return [summarise_cell([row for row in rows if (row.export, row.length) == cell]) for cell in cells]


def summarise_cell(rows: Sequence[Row]) -> Summary:
    """Of one export and one length."""
    trained, alone = [row.trained_ratio for row in rows], [row.alone_ratio for row in rows]
    mean = float(np.mean(trained))
    return Summary(
        export=rows[0].export,
        length=rows[0].length,
        rounds=len(rows),
        mean=mean,
        low=min(trained),
        high=max(trained),
        alone_mean=float(np.mean(alone)),
        alone_low=min(alone),
        alone_high=max(alone),
        rounds_within=sum(row.is_within for row in rows),
        is_within=abs(mean - 1) <= TOLERANCE,
    )


def print_rows(rows: Sequence[Row], summaries: Sequence[Summary]) -> None:
    """JSON lines on standard output: `row` says which kind each is."""
    machine = describe_machine()
    lines: list[Row | Summary] = [*rows, *summaries]
    for one in lines:
        kind = "round" if isinstance(one, Row) else "summary"
        print(json.dumps({"row": kind, **asdict(one), "machine": machine}, allow_nan=False))
    sys.stdout.flush()


def rounds_table(rows: Sequence[Row]) -> Table:
    """Every round."""
    columns = ("export", "length", "round", "predicted", "trained", "trained / predicted", "alone / predicted", "")
    table = make_table(*columns)
    for row in rows:
        table.add_row(
            row.export,
            str(row.length),
            str(row.round),
            formats.milliseconds(row.predicted_ms),
            formats.milliseconds(row.trained_ms),
            f"{row.trained_ratio:.3f}",
            f"{row.alone_ratio:.3f}",
            describe_doubts(row),
        )
    return table


def make_table(*columns: str) -> Table:
    """A table whose first column, of paths, is the one to be broken."""
    table = Table(box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place > 0, overflow="fold")
    return table


def describe_doubts(row: Row) -> str:
    """What speaks against a round; empty for a good one."""
    return f"wrote {row.written:.1f} of {row.new_tokens} tokens" if row.written < row.new_tokens else ""


def summary_table(summaries: Sequence[Summary]) -> Table:
    """All rounds of every export and length; in brackets the least and the greatest."""
    percent = f"{100 * TOLERANCE:.0f} %"
    columns = (
        "export",
        "length",
        "trained / predicted",
        "alone / predicted",
        f"rounds within {percent}",
        "the mean is",
    )
    table = make_table(*columns)
    for one in summaries:
        table.add_row(
            one.export,
            str(one.length),
            f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]",
            f"{one.alone_mean:.3f} [{one.alone_low:.3f}, {one.alone_high:.3f}]",
            f"{one.rounds_within} of {one.rounds}",
            f"within {percent}" if one.is_within else f"not within {percent}",
        )
    return table


if __name__ == "__main__":
    main()
