"""How fast a model of some shape would be as an export, in times that do not drift.

A machine's speed drifts by tens of per cent within minutes, above all that of a virtual one. So a shape is measured in
turn with a reference, always the same export: both drift alike. Their ratio says how long the shape would have taken
when the reference's own time was measured, which is what counts.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
from transformers import PreTrainedConfig

from lightpaff.deployment.contenders import Contender
from lightpaff.deployment.measuring import MeasureSettings, measure
from lightpaff.deployment.shape_building import build_contender
from lightpaff.deployment.shape_plan import MeasuringPlan
from lightpaff.deployment.shape_search import Timing

REFERENCE = "reference"
"""Its name among contenders."""

PROCESSES = 3
"""In which a shape is timed; the time in the middle counts."""
_SECONDS = 2.5
"""Of taking turns, in every process."""
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


def build_reference(config: PreTrainedConfig, plan: MeasuringPlan, folder: Path) -> Reference:
    """Build the reference in an empty folder and measure it.

    Raises:
        UserError: the architecture cannot be exported, or the runtime fails.
    """
    contender = build_contender(config, plan, folder, REFERENCE)
    return Reference(contender, measure_contender(contender, plan, None))


def measure_config(config: PreTrainedConfig, plan: MeasuringPlan, reference: Reference) -> Timing:
    """Build a model of the config, export it, and measure it one input at a time, in turn with the reference.

    Raises:
        UserError: the architecture cannot be exported, or the runtime fails.
    """
    with tempfile.TemporaryDirectory(prefix="lightpaff-shape-") as folder:
        return measure_contender(build_contender(config, plan, Path(folder), "shape"), plan, reference)


def has_memory_for(parameters: int) -> bool:
    """Whether a model of so many parameters can be built, saved and opened here."""
    available: int = psutil.virtual_memory().available
    return _NEEDED_MEMORY * _BYTES_OF_FLOAT32 * parameters <= available


def measure_contender(contender: Contender, plan: MeasuringPlan, reference: Reference | None) -> Timing:
    """Measure an export in the reference's time: the middle one of what several fresh processes give.

    Each gives it by the ratio of the medians, as `lightpaff benchmark` tells it (`speed_ratio`), not by the median of
    the rounds' ratios. Drift leaves both as they are; but what disturbs a single run, such as an interrupt, spoils a
    median only where it hits half of a model's runs, and the ratio of a round whichever of its two runs it hits.

    Args:
        contender: is not named `REFERENCE`, unless it is the reference to be.
        plan: says what it is given to do.
        reference: None where this is the reference to be: it is measured alone, and drift is not dealt with.

    Raises:
        UserError: the runtime fails.
    """
    settings = MeasureSettings(
        batch_sizes=(1,),
        lengths=(plan.length,),
        new_tokens=plan.new_tokens,
        beams=plan.beams,
        seconds=_SECONDS,
    )
    timings = [_measure_in_turn(contender, settings, reference) for _ in range(PROCESSES)]
    return sorted(timings, key=lambda timing: timing.median_ms)[PROCESSES // 2]


def _measure_in_turn(contender: Contender, settings: MeasureSettings, reference: Reference | None) -> Timing:
    *beside, own = measure([*([reference.contender] if reference else []), contender], settings)
    scale = reference.timing.median_ms / beside[0].median_ms if reference else 1.0
    return Timing(own.bytes, scale * own.median_ms, scale * own.p95_ms, own.rounds, own.written)
