"""One page over all runs and studies below a folder, each with its first sentences and a link."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightpaff.errors import UserError
from lightpaff.files import write_whole
from lightpaff.report.page import PAGE
from lightpaff.report.rows import report_from_json
from lightpaff.report.templates import render
from lightpaff.report.verdict import Sentence, write_verdict

_SENTENCES = 3


@dataclass(frozen=True)
class Entry:
    """One run or study; `problem` in place of what cannot be read."""

    name: str
    title: str
    created: str
    page: str
    sentences: list[Sentence]
    problem: str = ""


def write_gallery(folder: Path) -> Path:
    """Write `folder`/index.html over all reports below it, the newest first; its path.

    Raises:
        UserError: there is none.
    """
    entries = sorted(_entries(folder), key=lambda entry: entry.created, reverse=True)
    if not entries:
        raise UserError(f"{folder}: holds no report of a run or study; give the folder that the runs are in")
    write_whole(folder / PAGE, render("gallery.html.jinja", entries=entries))
    return folder / PAGE


def _entries(folder: Path) -> Iterator[Entry]:
    for page in sorted(folder.glob(f"**/report/{PAGE}")):
        run, study = page.parent / "report_data.json", page.parent / "study.json"
        path = study if study.exists() else run
        place = str(page.relative_to(folder))
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            yield _study(content, place) if path == study else _run(content, place)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError) as error:
            yield Entry(page.parent.parent.name, "", "", place, [], problem=f"{path.name}: {error}")


def _run(content: dict[str, Any], page: str) -> Entry:
    data = report_from_json(content)
    return Entry(data.name, data.title, data.created, page, write_verdict(data)[:_SENTENCES])


def _study(content: dict[str, Any], page: str) -> Entry:
    sentences = [Sentence(**one) for one in content["answer"]][:_SENTENCES]
    name, title, created = (str(content[key]) for key in ("name", "title", "created"))
    return Entry(name, title, created, page, sentences)
