"""How fast a model of some shape would be as an export: built with random weights, exported, measured.

How long a model takes does not depend on the values of its weights, with one exception that is dealt with here: an
encoder-decoder may end its text early. Random ones made here never do.
"""

import importlib.metadata
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lightpaff.deployment.card import ExportCard, Format, Quantisation
from lightpaff.deployment.contenders import Contender, find_contenders, installed_runtimes
from lightpaff.deployment.measuring import Measurement, MeasureSettings, describe_machine, measure
from lightpaff.deployment.runtimes import Runtime, Work
from lightpaff.deployment.shape_search import Timing
from lightpaff.errors import UserError
from lightpaff.models.architecture import TARGET_TOKENS
from lightpaff.models.families import architecture_of
from lightpaff.models.initialisation import create_student
from lightpaff.models.opening import quiet_transformers
from lightpaff.models.shapes import config_identity, longest_input

_CLASSES = 2
"""Of a random classifier; how many there are changes nothing."""
_PROCEDURE = 2
"""Raised whenever what is done here would give other numbers."""
_SECONDS = 4.0
"""A processor may run short bursts faster than it can go on."""
_LEAST_ROUNDS = 7
_MOST_PROCESSES = 5
_AGREEMENT = 1.05
"""Each shape is measured in at least two processes, one after the other, and in more until two of them agree so well:
their mean counts."""
_BYTES_OF_FLOAT32 = 4
_NEEDED_MEMORY = 3
"""Times a teacher's float32 weights, for building, saving and opening it."""

_PACKAGES: dict[Runtime, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript", "torch", "transformers"),
    "openvino": ("onnx", "onnxscript", "openvino", "torch", "transformers"),
    "ctranslate2": ("ctranslate2",),
    "pytorch": ("torch", "transformers"),
}
"""Whose versions decide how fast an export is."""
_QUANTISATIONS: dict[Runtime, tuple[Quantisation, ...]] = {
    "onnx": ("int8", "none"),
    "openvino": ("bf16", "none"),
    "ctranslate2": ("int8", "bf16", "none"),
    "pytorch": ("none", "bf16"),
}
"""What an export can be in, the fastest first."""
_RUNTIMES: dict[Work, tuple[Runtime, ...]] = {
    "classes": ("onnx", "openvino", "pytorch"),
    "next_tokens": ("ctranslate2", "pytorch"),
    "target_tokens": ("ctranslate2", "pytorch"),
}
"""Which runtimes do a work, the fastest first."""
_LEAST_BYTES: dict[tuple[Runtime, Quantisation], int] = {("pytorch", "bf16"): 4}
"""A parameter's, where it is not what `_BYTES` says: in PyTorch bf16 is autocast."""
_BYTES: dict[Quantisation, int] = {"none": 4, "bf16": 2, "int8": 1}


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
    return {
        runtime
        for runtime in installed_runtimes()
        if all(importlib.util.find_spec(package) is not None for package in _PACKAGES[runtime])
    }


def choose_runtime(
    work: Work, runtime: Runtime | None, quantisation: Quantisation | None, installed: Collection[Runtime]
) -> tuple[Runtime, Quantisation]:
    """The runtime that is asked for, or the fastest that is installed; the precision likewise.

    Raises:
        UserError: the runtime is not installed, not for this work, or has no such precision.
    """
    fit = [one for one in _RUNTIMES[work] if quantisation is None or quantisation in _QUANTISATIONS[one]]
    remedy = 'pip install "lightpaff[export]"'
    if runtime is None:
        # PyTorch is no runtime to put a student into: it has to be asked for.
        found = next((one for one in fit if one in installed and one != "pytorch"), None)
        if found is None:
            wanted = " or ".join(one for one in fit if one != "pytorch") or "--runtime pytorch"
            raise UserError(f"no runtime to measure in: {wanted} is needed; {remedy}, or take --runtime pytorch")
        runtime = found
    if runtime not in _RUNTIMES[work]:
        raise UserError(f"--runtime {runtime}: does not run such models; take {' or '.join(_RUNTIMES[work])}")
    if runtime not in installed:
        raise UserError(f"--runtime {runtime}: is not installed; {remedy}")
    if quantisation is not None and quantisation not in _QUANTISATIONS[runtime]:
        known = " or ".join(_QUANTISATIONS[runtime])
        raise UserError(f"--quantise {quantisation}: {runtime} has no such models; take {known}")
    return runtime, quantisation or _QUANTISATIONS[runtime][0]


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


def describe_measurement(config: PreTrainedConfig, plan: MeasuringPlan) -> dict[str, Any]:
    """Everything that a measurement depends on, as JSON: what it is kept under."""
    machine = describe_machine()
    identity = config_identity(config)
    for name in architecture_of(config).dropouts:
        identity.pop(name, None)
    packages = ("lightpaff", *_PACKAGES[plan.runtime])
    return {
        "procedure": _PROCEDURE,
        "config": identity,
        "plan": vars(plan),
        "processor": machine["processor"],
        "cores": machine["cores"],
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def measure_config(config: PreTrainedConfig, plan: MeasuringPlan) -> Timing:
    """Build a model of the config, export it, and measure it one input at a time.

    Raises:
        UserError: the architecture cannot be exported, or the runtime fails.
    """
    with tempfile.TemporaryDirectory(prefix="lightpaff-shape-") as folder:
        model, export = Path(folder) / "model", Path(folder) / "export"
        _save_random_model(config, plan.work, model)
        directory = _export(model, export, plan, longest_input(config))
        found, _ = find_contenders({"shape": directory}, [plan.runtime], threads=plan.threads, pytorch=_precision(plan))
        return _measure_often(found[0], plan)


def measure_teacher(config: PreTrainedConfig, plan: MeasuringPlan, parameters: int) -> Timing | None:
    """The baseline: a model of the teacher's config in PyTorch; None where the memory is too small for it.

    Args:
        config: of the teacher.
        plan: of PyTorch in float32.
        parameters: of the teacher.
    """
    if _NEEDED_MEMORY * _BYTES_OF_FLOAT32 * parameters > psutil.virtual_memory().available:
        return None
    return measure_config(config, plan)


def _precision(plan: MeasuringPlan) -> tuple[Any, ...]:
    return ("bf16" if plan.quantisation == "bf16" else "none",)


def _measure_often(contender: Contender, plan: MeasuringPlan) -> Timing:
    settings = MeasureSettings(
        batch_sizes=(1,),
        lengths=(plan.length,),
        new_tokens=plan.new_tokens,
        beams=plan.beams,
        seconds=_SECONDS,
        least_rounds=_LEAST_ROUNDS,
    )
    rows: list[Measurement] = []
    is_steady = False
    while len(rows) < _MOST_PROCESSES and not is_steady:
        rows = sorted([*rows, *measure([contender], settings)], key=lambda row: row.median_ms)
        pairs = list(pairwise(rows))
        closest = min(pairs, key=lambda pair: pair[1].median_ms / pair[0].median_ms, default=None)
        is_steady = closest is not None and closest[1].median_ms <= _AGREEMENT * closest[0].median_ms
    assert closest is not None
    one, other = closest
    return Timing(
        one.bytes,
        (one.median_ms + other.median_ms) / 2,
        (one.p95_ms + other.p95_ms) / 2,
        one.rounds,
        one.written,
        is_steady,
    )


def _save_random_model(config: PreTrainedConfig, work: Work, destination: Path) -> None:
    config = type(config).from_dict(config.to_dict())
    tokenizer = _make_tokenizer_for(config, work)
    classes = classes_of(work, config)
    model = create_student(config, work, classes, initialisation="random", teacher_path=None, seed=0, attention="sdpa")
    if work == TARGET_TOKENS:
        _never_end(model, config.eos_token_id)
    with quiet_transformers():
        model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)


def _make_tokenizer_for(config: PreTrainedConfig, work: Work) -> PreTrainedTokenizerFast:
    """A tokenizer with a word for every row of the table; the config of a model that writes gets its special tokens.

    Runtimes are given token ids: the words only have to be there.
    """
    if work == "classes":
        return make_tokenizer(config.vocab_size)
    config.eos_token_id, config.pad_token_id, first = _special_ids(config)
    if work == TARGET_TOKENS:
        config.decoder_start_token_id = first
    return make_tokenizer(config.vocab_size, config.eos_token_id, config.pad_token_id)


def make_tokenizer(rows: int, end: int = 1, padding: int = 0) -> PreTrainedTokenizerFast:
    """A tokenizer of `rows` words without a meaning, good for every family."""
    names = {end: "<end>", padding: "<padding>"}
    words = {names.get(id_, f"word{id_}"): id_ for id_ in range(rows)}
    backend = Tokenizer(WordLevel(words, unk_token="<padding>"))
    backend.add_special_tokens([AddedToken(name, special=True) for name in names.values()])
    roles = {"pad_token": "<padding>", "unk_token": "<padding>", "eos_token": "<end>", "bos_token": "<end>"}
    roles |= {"cls_token": "<end>", "sep_token": "<end>", "mask_token": "<padding>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


def _special_ids(config: PreTrainedConfig) -> tuple[int, int, int]:
    """The end of a text, the padding (another token), and what a decoder beside an encoder begins with."""
    end, padding = config.eos_token_id, config.pad_token_id
    end = end[0] if isinstance(end, list) else end
    last = config.vocab_size - 1
    end = end if end is not None and 0 <= end <= last else last
    if padding is None or not 0 <= padding <= last or padding == end:
        padding = 0 if end != 0 else 1
    first = getattr(config, "decoder_start_token_id", None)
    return int(end), int(padding), int(padding if first is None else first)


def _never_end(model: PreTrainedModel, end: int) -> None:
    """Keep the end token from being written: a row of zeros gives it a middling logit, far from a beam's first ones."""
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[end] = 0


def _to_onnx(model: Path, destination: Path, quantisation: Quantisation) -> None:
    from lightpaff.deployment.export_onnx import export_onnx

    export_onnx(model, destination, quantisation)


def _to_openvino(model: Path, destination: Path, quantisation: Quantisation) -> None:
    from lightpaff.deployment.export_openvino import export_openvino

    export_openvino(model, destination, quantisation)


def _to_ctranslate2(model: Path, destination: Path, quantisation: Quantisation) -> None:
    from lightpaff.deployment.export_ctranslate2 import export_ctranslate2

    export_ctranslate2(model, destination, quantisation)


_EXPORTERS: dict[Runtime, tuple[Format, Callable[[Path, Path, Quantisation], None]]] = {
    "onnx": ("onnx", _to_onnx),
    "openvino": ("openvino", _to_openvino),
    "ctranslate2": ("ctranslate2", _to_ctranslate2),
}


def _export(model: Path, destination: Path, plan: MeasuringPlan, longest: int | None) -> Path:
    """The directory to measure: for PyTorch, the model's own."""
    if plan.runtime == "pytorch":
        return model
    format_, export = _EXPORTERS[plan.runtime]
    destination.mkdir()
    export(model, destination, plan.quantisation)
    shutil.copy(model / "tokenizer.json", destination)
    ExportCard(
        format=format_,
        quantisation=plan.quantisation,
        kind=plan.work,
        max_length=plan.length,
        longest_input=longest,
        source_sha256="random weights",
    ).write(destination)
    return destination
