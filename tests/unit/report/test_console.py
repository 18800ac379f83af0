import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lightpaff.report.console import print_summary
from lightpaff.report.rows import ReportData


def printed(data: ReportData, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_summary(data, console, Path("runs/demo/report/index.html"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_verdict_and_path_are_printed(report_data: ReportData) -> None:
    text = printed(report_data, 140)
    for expected in ("parameters", "91.1 ± 0.2", "[91.8, 93.7]", "+ Distillation paid", "runs/demo/report/index.html"):
        assert expected in text


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_gets_whole_columns(report_data: ReportData, width: int) -> None:
    text = printed(report_data, width)
    assert "parameters" not in text
    assert "…" not in text
    for expected in ("accuracy", "of teacher", "latency", "faster", "98.2 %"):
        assert expected in text


def test_brackets_in_names_are_not_styles(report_data: ReportData) -> None:
    assert "[red]boom" in printed(replace(report_data, title="[red]boom"), 100)


def test_a_report_without_rows_is_printed(report_data: ReportData) -> None:
    assert "the report is at" in printed(replace(report_data, rows=[], comparisons=[], steps=[]), 80)


@pytest.mark.parametrize("width", [80, 140])
def test_perplexities_fit_into_the_terminal(clm_data: ReportData, width: int) -> None:
    text = printed(clm_data, width)
    for expected in ("perplexity per word", "41.20", "+8.4 %", "+ Distillation paid"):
        assert expected in text


@pytest.mark.parametrize("width", [80, 140])
def test_exports_are_told_shortly(exported_data: ReportData, width: int) -> None:
    text = printed(exported_data, width)
    for expected in ("imdb, online", "onnx-int8", "ONNX Runtime int8", "20.0×", "[19.0, 20.8]", "25.7 MB", "refused"):
        assert expected in text
    assert "cost of 1M" not in text


def test_without_exports_the_terminal_says_nothing_of_them(report_data: ReportData) -> None:
    assert "online" not in printed(report_data, 140)
