import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from lightpaff.report.plots import plot_comparisons, plot_learning_curves, plot_quality_against_latency
from lightpaff.report.rows import ReportData


def all_charts(data: ReportData) -> list[tuple[str, str]]:
    charts = [*plot_learning_curves(data), *plot_quality_against_latency(data).values(), *plot_comparisons(data)]
    return [(chart.title, chart.svg) for chart in charts]


@pytest.fixture(scope="module")
def charts(report_data: ReportData) -> list[tuple[str, str]]:
    return all_charts(report_data)


def test_there_is_a_plot_for_every_stage_and_measure(charts: list[tuple[str, str]]) -> None:
    assert [title for title, _ in charts] == [
        "pre-training: loss on gold labels",
        "pre-training: KL to the teacher (nats)",
        "pre-training: validation accuracy",
        "fine-tuning: loss on gold labels",
        "fine-tuning: KL to the teacher (nats)",
        "fine-tuning: validation accuracy",
        "imdb: accuracy against latency",
        "imdb: paired differences",
    ]


def test_plots_are_svg_in_the_colours_of_the_page(charts: list[tuple[str, str]]) -> None:
    for _, svg in charts:
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert "#a1b2" not in svg
        assert "var(--student)" in svg
        assert "<text" in svg


def test_ids_do_not_clash_on_one_page(charts: list[tuple[str, str]]) -> None:
    ids = [name for _, svg in charts for name in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids)) > 0
    wanted = {name for _, svg in charts for name in re.findall(r'(?:url\(|href=")#([^")]+)', svg)}
    assert wanted <= set(ids)


def test_nothing_is_drawn_without_data(report_data: ReportData) -> None:
    rows = [replace(row, median_ms=None) for row in report_data.rows]
    curves = [replace(curve, steps=[], training_loss=[], nll=[], kl=[], validation=[]) for curve in report_data.curves]
    assert all_charts(replace(report_data, rows=rows, curves=curves, comparisons=[])) == []


def test_every_timed_model_is_named(report_data: ReportData) -> None:
    svg = plot_quality_against_latency(report_data)["imdb"].svg
    for name in ("Teacher, pytorch", "Student, pytorch", "Student, onnxruntime int8", "Control, pytorch", "TF-IDF"):
        assert name in svg


def test_text_in_plots_is_escaped(report_data: ReportData) -> None:
    rows = [replace(row, runtime=f"{row.runtime}<script>$x$") for row in report_data.rows]
    svg = plot_quality_against_latency(replace(report_data, rows=rows))["imdb"].svg
    assert "<script>" not in svg
    assert "&lt;script&gt;$x$" in svg
