"""Who takes part in a benchmark: models in directories, each with the runtime that can run it."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.deployment.pieces import PIECES
from lightpaff.errors import UserError
from lightpaff.machine import count_cores
from lightpaff.runtimes import RUNTIMES, WORKS, Quantisation, Runtime, Work, runtime_of

_WORK_OF_HEADS: tuple[Work, ...] = ("next_tokens", "target_tokens")
"""An architecture that writes has one of these heads; an encoder whose directory lacks its head gets one at random."""


@dataclass(frozen=True)
class Contender:
    """A model in a runtime.

    Attributes:
        name: unlike any other contender's.
        directory: of the model.
        runtime: that runs it.
        threads: that it may use, 1 or more.
        bytes: of its weights on disk; of a plain model in float32, however it is stored.
        quantisation: `none` is float32; in PyTorch `bf16` is autocast over float32 weights.
        work: what it does: `classes` for classifiers and scorers.
        longest: the most tokens that it reads; None where there is no end.
        vocabulary: token ids are below this.
    """

    name: str
    directory: Path
    runtime: Runtime
    threads: int
    bytes: int
    quantisation: Quantisation
    work: Work
    longest: int | None
    vocabulary: int


def installed_runtimes() -> set[Runtime]:
    """The runtimes whose packages are installed; nothing is imported."""
    return {runtime for runtime, row in RUNTIMES.items() if row.is_installed()}


def find_contenders(
    directories: Mapping[str, Path],
    installed: Collection[Runtime] | None = None,
    *,
    threads: int = 0,
    pytorch: Sequence[Literal["none", "bf16"]] = ("none",),
) -> tuple[list[Contender], list[str]]:
    """Who can take part, in the order given, and a note for each directory that cannot.

    Args:
        directories: by name, plain transformers directories (they run in PyTorch) and exports (each in its own
            runtime).
        installed: the runtimes to use; None finds out.
        threads: for each; 0 is all cores.
        pytorch: a plain directory takes part once with each of these: `none` is float32, `bf16` autocast.

    Raises:
        UserError: a directory holds neither an export nor a model of a known architecture.
    """
    usable = installed_runtimes() if installed is None else installed
    cores = threads or count_cores()
    contenders, notes = [], []
    for name, directory in directories.items():
        found = (
            [_export(name, directory, cores)]
            if (directory / CARD).is_file()
            else [_plain_model(name, directory, cores, precision) for precision in pytorch]
        )
        for contender in found:
            if contender.runtime in usable:
                contenders.append(contender)
            else:
                packages = " and ".join(RUNTIMES[contender.runtime].runs_with)
                notes.append(f"{name} is left out: its runtime needs {packages}, not all of which are installed")
    return contenders, notes


def _export(name: str, directory: Path, threads: int) -> Contender:
    card = ExportCard.read(directory)
    runtime = runtime_of(card.format)
    return Contender(
        name=name,
        directory=directory,
        runtime=runtime,
        threads=threads,
        bytes=_bytes_of(directory, runtime),
        quantisation=card.quantisation,
        work=WORKS[card.kind],
        longest=card.longest_input,
        vocabulary=_vocabulary_of(directory / card.tokenizer),
    )


def _plain_model(name: str, directory: Path, threads: int, precision: Literal["none", "bf16"]) -> Contender:
    # Where only exports take part, transformers need not be there.
    from lightpaff.models.families import architecture_of
    from lightpaff.models.opening import finetuned_head, read_config
    from lightpaff.models.weights import float32_bytes

    config = read_config(directory)
    architecture = architecture_of(config)
    return Contender(
        name=name if precision == "none" else f"{name} {precision}",
        directory=directory,
        runtime="pytorch",
        threads=threads,
        bytes=float32_bytes(directory),
        quantisation=precision,
        work=next((work for work in _WORK_OF_HEADS if work in architecture.heads), WORKS[finetuned_head(config)]),
        longest=architecture.longest_input(config),
        vocabulary=int(config.vocab_size),
    )


def _bytes_of(directory: Path, runtime: Runtime) -> int:
    patterns = RUNTIMES[runtime].weights
    files = {file for pattern in patterns for file in directory.glob(pattern)}
    if not files:
        raise UserError(f"{directory}: holds none of {', '.join(patterns)}; save or export the model anew")
    return sum(file.stat().st_size for file in files)


def _vocabulary_of(file: Path) -> int:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        # A list of [token, score] in a Unigram model, a table token -> id in the others.
        known = content["vocabulary"] if file.name == PIECES else content["model"]["vocab"]
        ids = known.values() if isinstance(known, dict) else range(len(known))
        return 1 + max(int(id_) for id_ in [*ids, *(added["id"] for added in content.get("added_tokens", []))])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: tells no vocabulary ({error}); export the model anew") from error
