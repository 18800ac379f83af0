"""How fast a model of some shape would be as an export, in times that do not drift.

A machine's speed drifts by tens of per cent within minutes, above all that of a virtual one. So a shape is measured in
turn with a reference, always the same export: both drift alike. Their ratio says how long the shape would have taken
when the reference's own time was measured, which is what counts.
"""

import importlib.metadata
import tempfile
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from transformers import PreTrainedConfig

from lightpaff.deployment.contenders import Contender
from lightpaff.deployment.measuring import MeasureSettings, describe_machine, measure
from lightpaff.deployment.shape_building import build_contender
from lightpaff.deployment.shape_plan import MeasuringPlan
from lightpaff.deployment.shape_search import Timing
from lightpaff.models.families import architecture_of
from lightpaff.models.shapes import config_identity
from lightpaff.runtimes import RUNTIMES

REFERENCE = "reference"
"""Its name among contenders."""
LEAST_TEACHER_ROUNDS = 3
"""A large teacher takes seconds for each."""

_PROCEDURE = 3
"""Raised whenever what is done here would give other numbers."""
_SECONDS = 3.0
"""Of taking turns."""
_LEAST_ROUNDS = 5
_MOST_PROCESSES = 5
_AGREEMENT = 1.05
"""Each shape is measured in at least two fresh processes, one after the other, and in more until two of them agree so
well: their mean counts."""
_BYTES_OF_FLOAT32 = 4
_NEEDED_MEMORY = 3
"""Times the weights in float32."""


@dataclass(frozen=True)
class Reference:
    """What shapes are measured in turn with.

    Attributes:
        contender: the export of a shape, there for as long as something is measured.
        timing: what it takes: the times of shapes are ratios to it.
    """

    contender: Contender
    timing: Timing


def describe_measurement(
    config: PreTrainedConfig, plan: MeasuringPlan, reference: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that a measurement depends on, as JSON: what it is kept under.

    Args:
        config: of what is measured.
        plan: how it is measured.
        reference: see `describe_reference`; None for the reference itself.
    """
    machine = describe_machine()
    identity = config_identity(config)
    for name in architecture_of(config).dropouts:
        identity.pop(name, None)
    packages = ("lightpaff", *RUNTIMES[plan.runtime].made_with)
    return {
        "procedure": _PROCEDURE,
        "config": identity,
        "plan": vars(plan),
        "reference": reference,
        "processor": machine["processor"],
        "cores": machine["cores"],
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def describe_reference(measurement: dict[str, Any], timing: Timing) -> dict[str, Any]:
    """What the times of shapes depend on of their reference: what it is (`describe_measurement`), and its time."""
    return {**measurement, "median_ms": timing.median_ms}


def measure_config(
    config: PreTrainedConfig, plan: MeasuringPlan, reference: Reference, least_rounds: int = _LEAST_ROUNDS
) -> Timing:
    """Build a model of the config, export it, and measure it one input at a time, in turn with the reference.

    Raises:
        UserError: the architecture cannot be exported, or the runtime fails.
    """
    with tempfile.TemporaryDirectory(prefix="lightpaff-shape-") as folder:
        return measure_contender(build_contender(config, plan, Path(folder), "shape"), plan, reference, least_rounds)


def has_memory_for(parameters: int) -> bool:
    """Whether a model of so many parameters can be built, saved and opened here."""
    available: int = psutil.virtual_memory().available
    return _NEEDED_MEMORY * _BYTES_OF_FLOAT32 * parameters <= available


def measure_contender(
    contender: Contender, plan: MeasuringPlan, reference: Reference | None, least_rounds: int = _LEAST_ROUNDS
) -> Timing:
    """Measure an export in turn with the reference, in fresh processes until two of them agree.

    Args:
        contender: is not named `REFERENCE`.
        plan: says what it is given to do.
        reference: None where this is the reference to be: it is measured alone, and drift is not dealt with.
        least_rounds: of taking turns, in every process.

    Returns:
        The mean of the two that agree best; steady where these agree, and the reference was steady.

    Raises:
        UserError: the runtime fails.
    """
    settings = MeasureSettings(
        batch_sizes=(1,),
        lengths=(plan.length,),
        new_tokens=plan.new_tokens,
        beams=plan.beams,
        seconds=_SECONDS,
        least_rounds=least_rounds,
    )
    timings: list[Timing] = []
    is_steady = False
    while len(timings) < _MOST_PROCESSES and not is_steady:
        timings = sorted([*timings, _measure_in_turn(contender, settings, reference)], key=lambda one: one.median_ms)
        pairs = list(pairwise(timings))
        closest = min(pairs, key=lambda pair: pair[1].median_ms / pair[0].median_ms, default=None)
        is_steady = closest is not None and closest[1].median_ms <= _AGREEMENT * closest[0].median_ms
    assert closest is not None
    one, other = closest
    return replace(
        one,
        median_ms=(one.median_ms + other.median_ms) / 2,
        p95_ms=(one.p95_ms + other.p95_ms) / 2,
        is_steady=is_steady and (reference is None or reference.timing.is_steady),
    )


def _measure_in_turn(contender: Contender, settings: MeasureSettings, reference: Reference | None) -> Timing:
    """What one process gives, in the reference's time.

    That is by the ratio of the medians, as `lightpaff benchmark` tells it (`speed_ratio`), not by the median of the
    rounds' ratios. Drift leaves both as they are; but what disturbs a single run, such as an interrupt, spoils a
    median only where it hits half of a model's runs, and the ratio of a round whichever of its two runs it hits.
    """
    if reference is None:
        [own] = measure([contender], settings)
        return Timing(own.bytes, own.median_ms, own.p95_ms, own.rounds, own.written)
    beside, own = measure([reference.contender, contender], settings)
    scale = reference.timing.median_ms / beside.median_ms
    return Timing(own.bytes, scale * own.median_ms, scale * own.p95_ms, own.rounds, own.written)
