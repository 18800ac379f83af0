"""What shapes are measured as: a runtime, a precision, a length and so on, chosen from what is installed."""

from collections.abc import Collection
from dataclasses import dataclass

from transformers import PreTrainedConfig

from lightpaff.deployment.exporters import refusal_of
from lightpaff.errors import UserError
from lightpaff.models.families import architecture_of
from lightpaff.models.shapes import longest_input
from lightpaff.runtimes import RUNTIMES, Quantisation, Runtime, Work, runtimes_for

_CLASSES = 2
"""Of a random classifier; how many there are changes nothing."""

_LEAST_BYTES: dict[tuple[Runtime, Quantisation], int] = {("pytorch", "bf16"): 4}
"""A parameter's, where it is not what `_BYTES` says: in PyTorch bf16 is autocast."""
_BYTES: dict[Quantisation, int] = {"none": 4, "bf16": 2, "int8": 1}

Refusals = dict[Runtime, str]
"""Why a runtime cannot be taken."""


@dataclass(frozen=True)
class MeasuringPlan:
    """How shapes are measured.

    Attributes:
        work: of the architecture.
        runtime: that the models are exported for.
        quantisation: of their weights.
        length: of the one input, in tokens.
        new_tokens: that a decoder or encoder-decoder writes, exactly; 0 for a classifier.
        beams: of an encoder-decoder; 1 for the others.
        threads: 1 or more.
    """

    work: Work
    runtime: Runtime
    quantisation: Quantisation
    length: int
    new_tokens: int
    beams: int
    threads: int

    @property
    def least_bytes_of_parameter(self) -> int:
        """How much of the disk a parameter takes at least."""
        return _LEAST_BYTES.get((self.runtime, self.quantisation), _BYTES[self.quantisation])


def work_of(config: PreTrainedConfig) -> Work:
    """What models of the architecture are measured at."""
    works: tuple[Work, ...] = ("classes", "next_tokens", "target_tokens")
    return next(work for work in works if work in architecture_of(config).heads)


def classes_of(work: Work, config: PreTrainedConfig) -> int:
    """Of the head: two, or the vocabulary's size."""
    return _CLASSES if work == "classes" else int(config.vocab_size)


def exporting_runtimes() -> set[Runtime]:
    """The runtimes that are installed together with what exports to them need."""
    return {runtime for runtime, row in RUNTIMES.items() if row.is_installed(to_export=True)}


def find_refusals(work: Work, students: Collection[PreTrainedConfig], installed: Collection[Runtime]) -> Refusals:
    """Why those of the installed runtimes that take none of the students do not take one of them."""
    reasons = {runtime: _why_none(runtime, students) for runtime in runtimes_for(work) if runtime in installed}
    return {runtime: why for runtime, why in reasons.items() if why}


def refusal_in(runtime: Runtime, config: PreTrainedConfig) -> str:
    """Why an installed runtime does not take a model of the config; empty where nothing speaks against it."""
    return refusal_of(RUNTIMES[runtime].format, config)


def _why_none(runtime: Runtime, students: Collection[PreTrainedConfig]) -> str:
    why = ""
    for config in students:
        if not (why := refusal_in(runtime, config)):
            break
    return why


def choose_runtime(
    work: Work,
    runtime: Runtime | None,
    quantisation: Quantisation | None,
    installed: Collection[Runtime],
    refusals: Refusals,
) -> tuple[Runtime, Quantisation]:
    """The runtime that is asked for, or the fastest that is installed; the precision likewise.

    Args:
        work: of the teacher's architecture.
        runtime: None takes the fastest.
        quantisation: None takes the fastest.
        installed: see `exporting_runtimes`.
        refusals: see `find_refusals`.

    Raises:
        UserError: the runtime is not installed, not for this work, takes no student, or has no such precision.
    """
    fit = [
        one
        for one in runtimes_for(work)
        if one not in refusals and (quantisation is None or quantisation in RUNTIMES[one].quantisations)
    ]
    remedy = 'pip install "lightpaff[export]"'
    if runtime is None:
        # PyTorch is no runtime to put a student into: it has to be asked for.
        found = next((one for one in fit if one in installed and one != "pytorch"), None)
        if found is None:
            wanted = " or ".join(one for one in fit if one != "pytorch") or "--runtime pytorch"
            raise UserError(f"no runtime to measure in: {wanted} is needed; {remedy}, or take --runtime pytorch")
        runtime = found
    if runtime not in runtimes_for(work):
        raise UserError(f"--runtime {runtime}: does not run such models; take {' or '.join(runtimes_for(work))}")
    if runtime not in installed:
        raise UserError(f"--runtime {runtime}: is not installed; {remedy}")
    if runtime in refusals:
        raise UserError(f"--runtime {runtime}: takes none of the students ({refusals[runtime]}); take another")
    if quantisation is not None and quantisation not in RUNTIMES[runtime].quantisations:
        known = " or ".join(RUNTIMES[runtime].quantisations)
        raise UserError(f"--quantise {quantisation}: {runtime} has no such models; take {known}")
    return runtime, quantisation or RUNTIMES[runtime].quantisations[0]


def check_length(config: PreTrainedConfig, plan: MeasuringPlan) -> None:
    """Refuse inputs that the teacher's positions do not reach.

    Raises:
        UserError: names the option and the most tokens.
    """
    longest = longest_input(config)
    if longest is None:
        return
    read = plan.length + (plan.new_tokens if plan.work == "next_tokens" else 0)
    if read > longest:
        told = "" if read == plan.length else f" and --new-tokens {plan.new_tokens}"
        raise UserError(f"--length is {plan.length}{told}: the teacher reads {longest} tokens at most; give less")
    if plan.work == "target_tokens" and plan.new_tokens > longest:
        raise UserError(f"--new-tokens is {plan.new_tokens}: the teacher writes {longest} tokens at most; give less")
