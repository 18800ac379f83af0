"""From data to the student in one call: `lightpaff distil` and `lightpaff.distil`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightpaff import ranks
from lightpaff.deployment import load
from lightpaff.errors import UserError
from lightpaff.files import write_json_whole, write_whole
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
    goes on where a stopped one was.

    Args:
        train: labelled rows, texts, or pairs of texts.
        teacher: a directory, a Hub id, or what `teacher.source` takes; None: a usual one.
        validation, test: of the same columns; left out, a tenth of `train` each.
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
    asked = fingerprint_of(
        [*map(_told, (train, validation, test, unlabelled)), str(teacher), columns, *filter(None, (max_latency, size))]
    )
    record = directory.with_name(f"{directory.name}-asked.json")
    if recipe.exists() and (not record.exists() or json.loads(record.read_text()) != asked):
        raise UserError(
            f"{recipe}: was made for other data, teacher, columns or size; give another output, or delete it"
        )
    if not recipe.exists() and ranks.count() > 1:
        raise UserError("several ranks: write the recipe first with lightpaff new, then launch lightpaff run")
    if not recipe.exists():
        folder = directory.with_name(f"{directory.name}-data")
        more: list[Any] = [unlabelled]
        if isinstance(unlabelled, list | tuple) and not _is_rows(unlabelled):
            more = list(unlabelled)
        files = Files(
            _as_file(train, folder, "train"),
            None if validation is None else _as_file(validation, folder, "validation"),
            None if test is None else _as_file(test, folder, "test"),
            [_as_file(one, folder, f"unlabelled-{n}") for n, one in enumerate(more) if one is not None],
        )
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json_whole(record, asked)
        budget = StudentBudget(max_latency, size)
        new_recipe(files, None if teacher is None else str(teacher), recipe, columns, budget)
    result = run(Recipe.load(recipe, overrides), directory, command)
    return None if result is None else _distilled(result, recipe)


def _told(rows: Any) -> Any:
    """What says whether the data is the same as before: a file's place, size and time; rows themselves."""
    if rows is None:
        return None
    if isinstance(rows, str | Path):
        found = Path(rows).stat() if Path(rows).exists() else None
        return [str(rows), found and found.st_size, found and found.st_mtime_ns]
    if isinstance(rows, list | tuple) and not _is_rows(rows):
        return [_told(one) for one in rows]
    return [{name: str(value) for name, value in row.items()} for row in rows]


def _is_rows(value: Sequence[Any]) -> bool:
    return bool(value) and isinstance(value[0], Mapping)


def _as_file(rows: Rows, folder: Path, name: str) -> Path:
    if isinstance(rows, str | Path):
        return Path(rows)
    lines = [json.dumps(dict(row), ensure_ascii=False) for row in rows]
    if not lines:
        raise UserError(f"{name}: holds no rows; give some")
    path = folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, "\n".join(lines) + "\n")
    return path


def _distilled(result: RunResult, recipe: Path) -> Distilled:
    exports = sorted((result.directory / "exports").glob("*/")) if (result.directory / "exports").exists() else []
    return Distilled(result.student, exports[0] if exports else None, result.page, recipe, result.report)
