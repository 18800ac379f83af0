"""The page over all runs and studies, where a file of one holds what no program wrote."""

import json
from pathlib import Path

import pytest

from lightpaff.report.gallery import write_gallery


def test_one_odd_study_does_not_take_the_page_from_the_others(tmp_path: Path) -> None:
    for name, created in (("first", "2025-01-01"), ("odd", 5), ("last", "2026-01-01")):
        report = tmp_path / name / "report"
        report.mkdir(parents=True)
        (report / "index.html").touch()
        content = {"name": name, "title": name, "created": created, "answer": []}
        (report / "study.json").write_text(json.dumps(content))
    page = write_gallery(tmp_path).read_text()
    places = [page.index(f'href="{name}/report/index.html"') for name in ("last", "first")]
    assert places == sorted(places)
    assert 'href="odd/report/index.html"' in page


@pytest.mark.parametrize(
    "content",
    ["[]", "5", '{"answer": 3}', '{"answer": [5]}', '{"answer": {"a": 1}}', pytest.param("[" * 100_000, id="deep")],
)
def test_what_is_no_study_is_said_of_it(content: str, tmp_path: Path) -> None:
    report = tmp_path / "odd" / "report"
    report.mkdir(parents=True)
    (report / "index.html").touch()
    (report / "study.json").write_text(content)
    assert "study.json: " in write_gallery(tmp_path).read_text()
