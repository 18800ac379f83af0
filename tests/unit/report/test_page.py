import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lightpaff.errors import UserError
from lightpaff.report.page import render_page, who_is_right, write_report
from lightpaff.report.rows import Disagreement, ReportData, report_from_json

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Balance(HTMLParser):
    """Checks that every element is closed, and collects scripts and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(page: str) -> Balance:
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def page(report_data: ReportData) -> str:
    return render_page(report_data)


def test_the_page_is_well_formed_and_self_contained(page: str) -> None:
    parsed = parse(page)
    assert "script" not in parsed.seen
    assert parsed.addresses
    assert all(address.startswith("#") for address in parsed.addresses)


def test_links_within_the_page_lead_somewhere(page: str) -> None:
    assert set(re.findall(r'<a href="#([^"]+)"', page)) <= set(re.findall(r'<section id="([^"]+)"', page))


def test_everything_of_the_report_is_on_the_page(page: str) -> None:
    for expected in (
        "Distillation paid: +1.5 points",
        "98.2\N{NO-BREAK SPACE}%",
        "91.1 ± 0.2",
        "came out humming",
        "also in an evaluation set",
        "30 min 34 s",
        "4.51 PFLOP",
        "recipe fingerprint",
        "source: bert-base-uncased",
        "lightpaff run recipes/imdb.yaml",
    ):
        assert expected in page
    assert page.count("<svg") == 8


def test_text_is_always_escaped(report_data: ReportData) -> None:
    evil = "<script>alert('x')</script>"
    example = replace(report_data.disagreements[0], text=evil, text_pair=evil, label=evil, teacher_label=evil)
    card = replace(report_data.data_cards[0], name=evil, facts={evil: evil}, dropped={evil: 1})
    page = render_page(
        replace(
            report_data,
            title=evil,
            summary={evil: evil},
            rows=[replace(row, runtime=evil) for row in report_data.rows],
            curves=[],
            disagreements=[example],
            data_cards=[card],
            steps=[replace(report_data.steps[0], name=evil, detail=evil)],
            environment={evil: evil},
            recipe_yaml=evil,
            command=evil,
        )
    )
    assert "script" not in parse(page).seen
    assert page.count("&lt;script&gt;") > 12


def test_the_same_data_gives_the_same_bytes(page: str, report_data: ReportData) -> None:
    assert render_page(report_data) == page


def test_a_report_of_nothing_has_no_empty_sections(report_data: ReportData) -> None:
    empty = replace(
        report_data,
        rows=[],
        curves=[],
        disagreements=[],
        data_cards=[],
        comparisons=[],
        agreement=[],
        speed_ratios=[],
        steps=[],
        compute=[],
    )
    page = render_page(empty)
    parse(page)
    assert re.findall(r'<section id="([^"]+)"', page) == ["results", "again"]


def test_files_are_written_and_read_back(report_data: ReportData, tmp_path: Path) -> None:
    write_report(report_data, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "index.html",
        "report.json",
        "report.md",
        "report_data.json",
    ]
    everything = json.loads((tmp_path / "report_data.json").read_text())
    assert report_from_json(everything) == report_data
    assert json.loads((tmp_path / "report.json").read_text()) == everything["rows"]


def test_nothing_is_written_where_a_number_is_not_finite(report_data: ReportData, tmp_path: Path) -> None:
    rows = [replace(report_data.rows[0], value=math.nan)]
    with pytest.raises(UserError, match="finite"):
        write_report(replace(report_data, rows=rows), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [("a", "b", "teacher is right"), ("b", "a", "student is right"), ("b", "c", "both are wrong")],
)
def test_who_is_right(teacher: str, student: str, expected: str) -> None:
    assert who_is_right(Disagreement("task", "text", None, "a", teacher, 0.9, student, 0.9)) == expected


def test_the_report_room_needs_no_torch() -> None:
    code = (
        "import sys, lightpaff.report.page, lightpaff.report.console;"
        "print({'torch', 'transformers', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("fixture", ["clm_data", "translation_data"])
def test_samples_and_notes_are_on_the_page(fixture: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(fixture)
    page = render_page(data)
    parse(page)
    sections = re.findall(r'<section id="([^"]+)"', page)
    assert sections == ["results", "control", "speed", "curves", "samples", "data", "work", "again"]
    sample = data.samples[0]
    for text in (sample.source, *sample.references, sample.teacher, sample.student):
        assert f"<dd>{text.strip()}</dd>" in page
    assert ("<dt>Control</dt>" in page) == (sample.control is not None)
    for name, note in data.tasks[0].notes.items():
        assert f"{name}: {note}" in page
    assert "labelled rows" not in page
    assert "TF-IDF" not in page


def test_long_and_foreign_samples_stay_harmless(clm_data: ReportData) -> None:
    evil = "<script>alert('x')</script>"
    sample = replace(
        clm_data.samples[0], source="word " * 4000, references=[evil], teacher=evil, student="", control=""
    )
    task = replace(clm_data.tasks[0], notes={evil: evil}, timed=evil, counted=evil)
    page = render_page(replace(clm_data, tasks=[task], samples=[sample]))
    assert "script" not in parse(page).seen
    assert "word word …" in page
    assert "word " * 400 not in page


@pytest.mark.parametrize("fixture", ["exported_data", "exported_clm_data", "exported_translation_data"])
def test_exports_and_their_speed_have_a_section(fixture: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(fixture)
    page = render_page(data)
    parse(page)
    assert re.findall(r'<section id="([^"]+)"', page)[:3] == ["results", "online", "control"]
    assert '<a href="#online">Online</a>' in page
    assert "against latency online;" in page
    for export in data.exports:
        assert export.name in page
    assert ("a hollow one was refused" in page) == (fixture == "exported_data")
    unmeasured = render_page(replace(data, online=[]))
    parse(unmeasured)
    assert "against latency online;" not in unmeasured


def test_names_of_exports_are_escaped(exported_data: ReportData) -> None:
    evil = "<script>alert('x')</script>"
    page = render_page(
        replace(
            exported_data,
            exports=[replace(line, name=evil) for line in exported_data.exports],
            online=[
                replace(line, runtime=evil, model=evil if "-" in line.model else line.model)
                for line in exported_data.online
            ],
        )
    )
    assert "script" not in parse(page).seen
