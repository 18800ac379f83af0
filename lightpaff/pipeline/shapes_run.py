"""`lightpaff shapes`: which student has the largest layers within a latency and a size, before any training."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedConfig

from lightpaff.deployment.benchmark_table import describe_runtime
from lightpaff.deployment.measuring import describe_machine
from lightpaff.deployment.shape_grid import list_shapes, name_shape
from lightpaff.deployment.shape_measuring import build_reference, has_memory_for, measure_config
from lightpaff.deployment.shape_plan import (
    MeasuringPlan,
    check_length,
    choose_runtime,
    classes_of,
    exporting_runtimes,
    find_refusals,
    refusal_in,
    work_of,
)
from lightpaff.deployment.shape_search import (
    MOST_MEASURED,
    Budget,
    Candidate,
    MeasuredShape,
    Timing,
    find_middle,
    recommend_shape,
    search_shapes,
)
from lightpaff.deployment.shape_table import ShapeSearch, draw_shapes, render_shapes
from lightpaff.errors import UserError
from lightpaff.files import write_whole
from lightpaff.machine import busy_share, count_cores, describe_busyness
from lightpaff.models.shapes import count_parameters, shape_of, student_config
from lightpaff.pipeline.shapes_teacher import TeacherConfig, find_teacher_config
from lightpaff.pipeline.shapes_writing import check_recipe, write_shape
from lightpaff.progress import Advance, progress_bar
from lightpaff.progress import console as progress_console
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Shape
from lightpaff.report import formats
from lightpaff.runtimes import Quantisation, Runtime

SHAPES = "shapes"
PLOT = "shapes.svg"

_BYTES_OF_FLOAT32 = 4
_USUALLY_MEASURED = (5, 10)
_SECONDS_EACH = 20
_REFERENCE_AND_TEACHER = 2
"""Are measured besides."""
_MILLISECONDS = {"": 1.0, "ms": 1.0, "s": 1000.0}
_BYTES = {"kb": 1e3, "mb": 1e6, "gb": 1e9}


@dataclass(frozen=True)
class ShapesRequest:
    """What is asked for.

    Attributes:
        teacher: a model's directory, Hub id, wheel or GGUF file, or a recipe.
        max_latency: of one input: `10ms`, `0.5s`, or `10` in milliseconds.
        size: on disk: `5x` or `5` for so many times as small as the teacher in float32, or `30MB`.
        runtime, quantise: None is the fastest that is installed.
        length: of the input, in tokens.
        new_tokens, beams: of models that write.
        threads: 0 is all cores.
        write: a recipe whose student gets the shape.
        output: where the plot goes; None is `shapes`.
    """

    teacher: str
    max_latency: str
    size: str
    runtime: Runtime | None = None
    quantise: Quantisation | None = None
    length: int = 128
    new_tokens: int = 32
    beams: int = 4
    threads: int = 0
    write: Path | None = None
    output: Path | None = None


@dataclass(frozen=True)
class ShapesResult:
    """What was found.

    Attributes:
        search: everything measured, and the recommended shape.
        plot: an SVG file.
        written: sentences about what was changed in the recipe; none without one.
    """

    search: ShapeSearch
    plot: Path
    written: list[str]


def find_shapes(request: ShapesRequest) -> ShapesResult:
    """Search, draw, and write the recommended shape into the recipe.

    Raises:
        UserError: something asked for does not fit, or no shape fits into the budget.
    """
    milliseconds = parse_latency(request.max_latency)
    teacher = find_teacher_config(request.teacher)
    plan = _plan(request, teacher.config)
    recipe = None if request.write is None else check_recipe(request.write, teacher.config)
    whole = _candidate(teacher.config, shape_of(teacher.config), plan)
    teacher_bytes = _BYTES_OF_FLOAT32 * whole.parameters
    budget = Budget(milliseconds, parse_size(request.size, teacher_bytes))
    candidates = list_candidates(teacher.config, plan)
    _announce(teacher, whole, budget, plan, len(candidates))
    _warn_if_busy()
    with tempfile.TemporaryDirectory(prefix="lightpaff-reference-") as folder:
        search = _search(teacher, whole, candidates, budget, plan, Path(folder))
    plot = (request.output or Path(SHAPES)) / PLOT
    write_whole(plot, draw_shapes(search))
    written: list[str] = []
    if request.write is not None:
        assert isinstance(recipe, Recipe)
        written = write_shape(request.write, search.recommended.candidate.shape, teacher.config)
    return ShapesResult(search, plot, written)


def list_candidates(teacher_config: PreTrainedConfig, plan: MeasuringPlan) -> list[Candidate]:
    """The students that a teacher could have in the plan's runtime, with what they hold and take on disk."""
    return [
        _candidate(config, shape, plan)
        for shape, config in _list_students(teacher_config).items()
        if not refusal_in(plan.runtime, config)
    ]


def print_shapes(result: ShapesResult, console: Console) -> None:
    """Show what was found."""
    console.print(render_shapes(result.search))
    console.print(str(result.plot), soft_wrap=True)
    print_written(result, console)


def print_written(result: ShapesResult, console: Console) -> None:
    """Show what was changed in the recipe, if one was given."""
    for sentence in result.written:
        console.print(sentence, soft_wrap=True)


def parse_latency(text: str) -> float:
    """Milliseconds of `10ms`, `0.5s` or `10`.

    Raises:
        UserError: it is none of these.
    """
    match = re.fullmatch(r"([\d.]+)\s*(ms|s|)", text.strip().lower())
    value = _positive(match[1]) if match else None
    if match is None or value is None:
        raise UserError(f"--max-latency is {text}: write it as 10ms or 0.5s; a number alone is milliseconds")
    return value * _MILLISECONDS[match[2]]


def parse_size(text: str, teacher_bytes: int) -> float:
    """Bytes of `30MB`, or of `5x` or `5`: so many times as small as the teacher.

    Raises:
        UserError: it is none of these.
    """
    match = re.fullmatch(r"([\d.]+)\s*(x|kb|mb|gb|)", text.strip().lower())
    value = _positive(match[1]) if match else None
    if match is None or value is None:
        raise UserError(f"--size is {text}: write it as 5x (so many times as small as the teacher) or 30MB")
    return value * _BYTES[match[2]] if match[2] in _BYTES else teacher_bytes / value


def _positive(digits: str) -> float | None:
    try:
        value = float(digits)
    except ValueError:
        return None
    return value if value > 0 else None


def _plan(request: ShapesRequest, config: PreTrainedConfig) -> MeasuringPlan:
    work, installed = work_of(config), exporting_runtimes()
    refusals = find_refusals(work, list(_list_students(config).values()), installed)
    runtime, quantisation = choose_runtime(work, request.runtime, request.quantise, installed, refusals)
    plan = MeasuringPlan(
        work=work,
        runtime=runtime,
        quantisation=quantisation,
        length=request.length,
        new_tokens=0 if work == "classes" else request.new_tokens,
        beams=request.beams if work == "target_tokens" else 1,
        threads=request.threads or count_cores(),
    )
    check_length(config, plan)
    return plan


def _list_students(teacher_config: PreTrainedConfig) -> dict[Shape, PreTrainedConfig]:
    return {shape: student_config(teacher_config, shape) for shape in list_shapes(shape_of(teacher_config))}


def _candidate(config: PreTrainedConfig, shape: Shape, plan: MeasuringPlan) -> Candidate:
    count = count_parameters(config, plan.work, classes_of(plan.work, config))
    return Candidate(shape, count.total, count.layers, plan.least_bytes_of_parameter * count.total)


def _search(
    teacher: TeacherConfig,
    whole: Candidate,
    candidates: list[Candidate],
    budget: Budget,
    plan: MeasuringPlan,
    folder: Path,
) -> ShapeSearch:
    def measure_candidate(candidate: Candidate) -> Timing:
        timing = reference.timing
        if candidate.shape != middle:
            timing = measure_config(student_config(teacher.config, candidate.shape), plan, reference)
        progress_console.print(_describe_timing(candidate, timing, budget))
        advance(1)
        return timing

    with _progress() as advance:
        middle = find_middle(candidates).shape
        reference = build_reference(student_config(teacher.config, middle), plan, folder)
        told = formats.milliseconds(reference.timing.median_ms)
        progress_console.print(f"{name_shape(middle)}, the reference that takes turns with all: {told}")
        measured = search_shapes(candidates, budget, measure_candidate)
        recommended = recommend_shape(measured, budget)
        progress_console.print("The teacher in PyTorch, for comparison")
        baseline = None
        if has_memory_for(whole.parameters):
            as_trained = replace(plan, runtime="pytorch", quantisation="none")
            baseline = measure_config(teacher.config, as_trained, reference)
    return ShapeSearch(
        name=teacher.name,
        teacher=whole,
        teacher_bytes=_BYTES_OF_FLOAT32 * whole.parameters,
        baseline=baseline,
        measured=measured,
        recommended=recommended,
        budget=budget,
        candidates=len(candidates),
        runtime=describe_runtime(plan.runtime, plan.quantisation),
        conditions=_describe_conditions(plan),
        facts={
            **vars(plan),
            "reference": name_shape(middle),
            "reference_median_ms": reference.timing.median_ms,
            "machine": describe_machine(),
        },
    )


def _warn_if_busy() -> None:
    if told := describe_busyness(busy_share(seconds=1.0)):
        progress_console.print(f"Warning: {told}; what is measured now is too slow", soft_wrap=True)


@contextlib.contextmanager
def _progress() -> Iterator[Advance]:
    """A bar in a terminal; in a log, the lines about every shape are enough."""
    if progress_console.is_terminal:
        with progress_bar("measure", None, "shapes") as advance:
            yield advance
    else:
        yield lambda amount, note="": None


def _describe_timing(candidate: Candidate, timing: Timing, budget: Budget) -> str:
    verdict = "fits" if MeasuredShape(candidate, timing).fits(budget) else "over the budget"
    median, size = formats.milliseconds(timing.median_ms), formats.megabytes(timing.bytes)
    return f"{name_shape(candidate.shape)}: {median}, {size}, {verdict}"


def _announce(teacher: TeacherConfig, whole: Candidate, budget: Budget, plan: MeasuringPlan, candidates: int) -> None:
    few, many = (min(number, candidates, MOST_MEASURED) for number in _USUALLY_MEASURED)
    least, most = (_SECONDS_EACH * (number + _REFERENCE_AND_TEACHER) for number in (few, many))
    progress_console.print(
        f"Looking for the student of {teacher.name} ({name_shape(whole.shape)}, {formats.count(whole.parameters)} "
        f"parameters) with the most parameters in its layers within {formats.milliseconds(budget.milliseconds)} and "
        f"{formats.megabytes(int(budget.bytes))}, as "
        f"{describe_runtime(plan.runtime, plan.quantisation)}, {_describe_conditions(plan)}. Of "
        f"{candidates} shapes, {few} to {many} are built with random weights and measured, which takes about "
        f"{formats.duration(least)} to {formats.duration(most)}.",
        soft_wrap=True,
    )


def _describe_conditions(plan: MeasuringPlan) -> str:
    written = f", {plan.new_tokens} tokens written" if plan.new_tokens else ""
    beams = f" with {plan.beams} beams" if plan.beams > 1 else ""
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    return f"1 input of {plan.length} tokens{written}{beams}, {threads}"
