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
        "pre-training: validation accuracy (points)",
        "fine-tuning: loss on gold labels",
        "fine-tuning: KL to the teacher (nats)",
        "fine-tuning: validation accuracy (points)",
        "imdb: accuracy against latency; up and to the left is better",
        "imdb: paired differences; right of zero the first is better",
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


def test_perplexities_are_drawn_as_they_are_with_their_direction(clm_data: ReportData) -> None:
    charts = dict(all_charts(clm_data))
    assert [title for title in charts if "KL" not in title and "loss on gold" not in title] == [
        "pre-training: validation perplexity per token",
        "fine-tuning: validation perplexity per token",
        "wikitext: perplexity per word against latency; down and to the left is better",
        "wikitext: paired differences; left of zero the first is better",
    ]
    curve = charts["pre-training: validation perplexity per token"]
    assert {"100", "1,000"} <= set(re.findall(r">([\d,]+)</text>", curve)), "a logarithmic axis in plain numbers"
    assert "difference in perplexity per word, 95 % interval" in list(charts.values())[-1]
    assert "median latency (ms): 32 tokens after a prompt of 32, greedy" in list(charts.values())[-2]


def test_where_only_the_loss_was_validated_it_is_shown(translation_data: ReportData) -> None:
    titles = [chart.title for chart in plot_learning_curves(translation_data)]
    assert titles[-1] == "fine-tuning: validation loss (nats)"
