"""From data to the student in one call: `lightpaff distil` and `lightpaff.distil`."""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightpaff import ranks
from lightpaff.deployment import load
from lightpaff.errors import UserError, one_line
from lightpaff.files import sha256_of_file, whole_file, write_json_whole
from lightpaff.pipeline.run import RunResult, run
from lightpaff.recipe import Recipe, fingerprint_of
from lightpaff.report.rows import ReportData
from lightpaff.start.new import StudentBudget, new_recipe
from lightpaff.start.parts import Files

Rows = str | Path | Iterable[Mapping[str, Any]]
"""A file, or rows by their columns: a list of dicts, a `datasets.Dataset`."""


@dataclass(frozen=True)
class Distilled:
    """What a call of `distil` leaves; called with a text (or a pair), it answers as the student does.

    Attributes:
        student: a transformers directory.
        export: the delivered export; None where there is none.
        report: the page.
        recipe: the recipe that was written and run.
        data: everything on the page.
    """

    student: Path
    export: Path | None
    report: Path
    recipe: Path
    data: ReportData

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """By the model and the metric, on the reported split: means over the seeds. Accuracies and the like are
        fractions."""
        facts = self.data.tasks[0]
        found: dict[str, dict[str, float]] = {}
        for row in self.data.rows:
            if row.split == facts.split:
                # The mean over seeds comes behind the seeds.
                found.setdefault(row.arm, {})[row.metric] = row.value
        return found

    @cached_property
    def _answers(self) -> Any:
        if self.export is None:
            raise UserError(f"{self.student}: no export was delivered; open the student with transformers")
        return load(self.export)

    def __call__(self, *texts: Any, **options: Any) -> Any:
        """See `lightpaff.deployment.load`.

        Raises:
            UserError: there is no export.
        """
        return self._answers(*texts, **options)


def distil(
    train: Rows,
    *,
    teacher: str | Path | None = None,
    validation: Rows | None = None,
    test: Rows | None = None,
    unlabelled: Rows | Sequence[Rows] | None = None,
    columns: dict[str, str] | None = None,
    max_latency: str | None = None,
    size: str | None = None,
    output: str | Path = "runs/distilled",
    overrides: list[str] | None = None,
    command: str = "",
) -> Distilled | None:
    """Look at the data, write a recipe for it beside the run, unless an earlier call did, and run it. The same call
    goes on where a stopped one was; another one takes the place of one that was refused before it began.

    Args:
        train: labelled rows, texts, or pairs of texts.
        teacher: a directory, a Hub id, or what `teacher.source` takes; None: a usual one.
        validation, test: of the same columns; a tenth of `train` where both, or validation, are left out.
        unlabelled: more rows of the same columns, whose labels nobody looks at.
        columns: where the guess is wrong: text, text_pair, label, source, target, group.
        max_latency, size: what the student may take, such as 10ms and 5x: see `StudentBudget`.
        output: the run's directory; the recipe is OUTPUT.yaml, rows that are no file are kept in OUTPUT-data.
        overrides: of the recipe's keys, as --set has them.
        command: how the report says that it can be made again.

    Returns:
        None in ranks other than the first.

    Raises:
        UserError: for bad input, in one line.
        StoppedError: after Ctrl-C.
    """
    directory = Path(output)
    recipe = directory.with_name(f"{directory.name}.yaml")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as written:
        folder = Path(written)
        files = _as_files({"train": train, "validation": validation, "test": test}, unlabelled, folder)
        own = [_told(path, folder) for path in (*files.parts.values(), *files.unlabelled)]
        asked = fingerprint_of([[*files.parts], own, str(teacher), columns, *filter(None, (max_latency, size))])
        record = directory.with_name(f"{directory.name}-asked.json")
        is_made = recipe.exists() and record.exists() and json.loads(record.read_text()) == asked
        if not is_made and recipe.exists() and not _is_to_spare(recipe, record, directory):
            raise UserError(
                f"{recipe}: was made for other data, teacher, columns or size; give another output, or delete it"
            )
        if not is_made and ranks.count() > 1:
            raise UserError("several ranks: write the recipe first with lightpaff new, then launch lightpaff run")
        if not is_made:
            recipe.unlink(missing_ok=True)
            record.unlink(missing_ok=True)
            with _kept(files, folder, directory.with_name(f"{directory.name}-data")) as kept:
                budget = StudentBudget(max_latency, size)
                new_recipe(kept, None if teacher is None else str(teacher), recipe, columns, budget)
            write_json_whole(record, asked)
    result = run(Recipe.load(recipe, overrides), directory, command)
    return None if result is None else _distilled(result, recipe)


def _told(path: Path, folder: Path) -> Any:
    """What says whether the data is the same as before: of rows their content, of a file its place, size and time."""
    if path.parent == folder:
        return sha256_of_file(path)
    found = path.stat() if path.exists() else None
    return [str(path), found and found.st_size, found and found.st_mtime_ns]


def _is_to_spare(recipe: Path, record: Path, directory: Path) -> bool:
    """Whether an earlier call made the recipe, nobody changed it since, and its run was refused before it began."""
    is_untouched = record.exists() and recipe.stat().st_mtime_ns <= record.stat().st_mtime_ns
    return is_untouched and not directory.exists()


@contextlib.contextmanager
def _kept(files: Files, written: Path, folder: Path) -> Iterator[Files]:
    """What was written from rows, moved to where the recipe finds it; gone again where no recipe comes of it."""
    moved: list[Path] = []

    def kept(path: Path) -> Path:
        if path.parent != written:
            return path
        folder.mkdir(parents=True, exist_ok=True)
        moved.append(path.replace(folder / path.name))
        return moved[-1]

    try:
        parts = {part: kept(path) for part, path in files.parts.items()}
        yield Files(**parts, unlabelled=[kept(path) for path in files.unlabelled])
    except BaseException:
        for path in moved:
            path.unlink()
        with contextlib.suppress(OSError):  # Somebody else's files may be there too.
            folder.rmdir()
        raise


def _as_files(parts: Mapping[str, Rows | None], unlabelled: Rows | Sequence[Rows] | None, folder: Path) -> Files:
    more: list[Any] = [unlabelled]
    if isinstance(unlabelled, list | tuple) and not _is_rows(unlabelled):
        more = list(unlabelled)
    own = {part: _as_file(rows, folder, part) for part, rows in parts.items() if rows is not None}
    texts = [_as_file(one, folder, f"unlabelled-{n}") for n, one in enumerate(more) if one is not None]
    return Files(**own, unlabelled=texts)


def _is_rows(value: Sequence[Any]) -> bool:
    return bool(value) and isinstance(value[0], Mapping)


def _as_file(rows: Rows, folder: Path, name: str) -> Path:
    if isinstance(rows, str | Path):
        return Path(rows)
    path, number = folder / f"{name}.jsonl", 0
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, start=1):
            file.write(f"{_line_of(row, f'{name}, row {number}')}\n")
        if not number:
            raise UserError(f"{name}: holds no rows; give some")
    return path


def _line_of(row: Any, place: str) -> str:
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: is a {type(row).__name__}; give rows by their columns, such as a list of dicts")
    try:
        return json.dumps(dict(row))
    except (TypeError, ValueError) as error:
        name = next((name for name, value in row.items() if not _is_json({name: value})), "")
        raise UserError(
            f"{place}: column '{name}' holds a {type(row.get(name)).__name__}, which is no JSON ({one_line(error)}); "
            "make it text or a number, or leave it out"
        ) from error


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _distilled(result: RunResult, recipe: Path) -> Distilled:
    exports = sorted((result.directory / "exports").glob("*/")) if (result.directory / "exports").exists() else []
    return Distilled(result.student, exports[0] if exports else None, result.page, recipe, result.report)
