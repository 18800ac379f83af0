from dataclasses import replace

from lightpaff.report.markdown import render_markdown, render_table
from lightpaff.report.rows import DataCard, ReportData
from lightpaff.report.tables import Cell, Line, Table


def test_tables_line_up_as_plain_text() -> None:
    table = Table(
        "A caption.", ["model", "score"], [Line([Cell("a", "fast"), Cell("9.5")]), Line([Cell("b"), Cell("10")])]
    )
    assert render_table(table) == (
        "| model    | score |\n| -------- | ----: |\n| a (fast) |   9.5 |\n| b        |    10 |\n\nA caption."
    )


def test_the_whole_report_is_there(report_data: ReportData) -> None:
    text = render_markdown(report_data)
    for expected in (
        "# A BERT student",
        "- Distillation paid",
        "| Student (pytorch",
        "## Data: imdb, train",
        "```yaml",
    ):
        assert expected in text
    assert "\n\n\n" not in text


def test_text_cannot_break_out(report_data: ReportData) -> None:
    card = DataCard("a | b", {"note": "<script>alert(1)</script>"}, {})
    text = render_markdown(replace(report_data, data_cards=[card], recipe_yaml="a: |\n  ```\n  x\n"))
    assert "## Data: a \\| b" in text
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "````yaml" in text


def test_an_empty_report_is_still_one(report_data: ReportData) -> None:
    empty = replace(report_data, rows=[], comparisons=[], agreement=[], data_cards=[], steps=[], compute=[])
    assert "## Make it again" in render_markdown(empty)


def test_samples_and_notes_are_told(translation_data: ReportData) -> None:
    evil = replace(translation_data.samples[0], source="<b>*x*\n# y [a](javascript:b)", control="c")
    text = render_markdown(replace(translation_data, samples=[*translation_data.samples, evil]))
    assert "- BLEU: nrefs:1\\|case:mixed" in text
    assert "  - reference: The house is at the lake.\n  - teacher: The house is on the lake.\n" in text
    assert "  - source: \\<b\\>\\*x\\* # y [a]\\(javascript:b)\n" in text
    assert text.count("  - control:") == 1
    assert "## Agreement" not in text


def test_without_samples_there_is_no_such_section(report_data: ReportData) -> None:
    assert "## Samples" not in render_markdown(report_data)


def test_exports_are_told_where_there_are_any(report_data: ReportData, exported_data: ReportData) -> None:
    text = render_markdown(exported_data)
    assert "### Exports" in text
    assert "refused: more than 0.5 % |" in text
    assert "### Online" in text
    assert "| onnx-int8 (ONNX Runtime int8)" in text
    assert "20.0× [19.0, 20.8]" in text
    assert not {"### Exports", "### Online"} & set(render_markdown(report_data).splitlines())
