import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from lightpaff.report.plots import plot_comparisons, plot_learning_curves
from lightpaff.report.rows import ReportData
from lightpaff.report.score_plots import plot_quality_against_latency, plot_quality_online


def all_charts(data: ReportData) -> list[tuple[str, str]]:
    charts = [*plot_learning_curves(data), *plot_quality_against_latency(data).values(), *plot_comparisons(data)]
    return [(chart.title, chart.svg) for chart in charts]


@pytest.fixture(scope="module")
def charts(report_data: ReportData) -> list[tuple[str, str]]:
    return all_charts(report_data)


def test_there_is_a_plot_for_every_stage_and_measure(charts: list[tuple[str, str]]) -> None:
    assert [title for title, _ in charts] == [
        "pre-training: loss on gold labels",
        "pre-training: divergence from the teacher (nats)",
        "pre-training: validation accuracy (points)",
        "fine-tuning: loss on gold labels",
        "fine-tuning: divergence from the teacher (nats)",
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
    curves = [
        replace(curve, steps=[], training_loss=[], nll=[], divergence=[], validation=[]) for curve in report_data.curves
    ]
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
    assert [title for title in charts if "divergence" not in title and "loss on gold" not in title] == [
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


def test_models_online_are_named_with_their_times_on_a_logarithmic_axis(exported_data: ReportData) -> None:
    chart = plot_quality_online(exported_data)["imdb"]
    assert chart.title == "imdb: accuracy against latency online; up and to the left is better"
    labels = ["Teacher, 80.0 ms", "Student, 13.0 ms", "onnx-int8, 4.0 ms", "openvino-bf16 (refused), 3.2 ms"]
    assert re.findall(r">([^<>]+ ms)</text>", chart.svg) == labels
    assert {"5", "10", "20", "50", "100"} <= set(re.findall(r">([\d,.]+)</text>", chart.svg))


def test_the_student_online_is_the_one_that_was_exported(exported_data: ReportData) -> None:
    other = [replace(row, value=0.5) if row.arm == "student" else row for row in exported_data.rows]
    assert plot_quality_online(exported_data) == plot_quality_online(replace(exported_data, rows=other))


def test_a_lower_perplexity_is_better_online_too(exported_clm_data: ReportData) -> None:
    (chart,) = plot_quality_online(exported_clm_data).values()
    assert chart.title.endswith("perplexity per word against latency online; down and to the left is better")
    assert "ctranslate2-int8, 5.1 ms" in chart.svg


def test_without_exports_nothing_is_plotted_online(report_data: ReportData, exported_data: ReportData) -> None:
    assert plot_quality_online(report_data) == {}
    assert plot_quality_online(replace(exported_data, online=[])) == {}


def test_names_online_are_escaped(exported_data: ReportData) -> None:
    online = [replace(line, model=line.model.replace("onnx", "<script>")) for line in exported_data.online]
    exports = [replace(line, name=line.name.replace("onnx", "<script>")) for line in exported_data.exports]
    svg = plot_quality_online(replace(exported_data, online=online, exports=exports))["imdb"].svg
    assert "<script>" not in svg
    assert "&lt;script&gt;-int8" in svg


def test_scores_that_are_all_zero_are_drawn(exported_translation_data: ReportData) -> None:
    rows = [replace(row, value=0.0) for row in exported_translation_data.rows]
    exports = [replace(line, student=0.0, export=0.0) for line in exported_translation_data.exports]
    charts = plot_quality_online(replace(exported_translation_data, rows=rows, exports=exports))
    assert [chart.svg.startswith("<svg") for chart in charts.values()] == [True]
