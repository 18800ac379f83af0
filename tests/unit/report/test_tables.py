from dataclasses import replace

import pytest

from lightpaff.report.rows import ReportData
from lightpaff.report.tables import (
    UNKNOWN,
    Cell,
    agreement_table,
    comparison_table,
    compute_table,
    keep_columns,
    latency_table,
    main_table,
    reading,
)


def test_the_main_table_says_what_was_measured(report_data: ReportData) -> None:
    table = main_table(report_data, report_data.tasks[0])
    lines = {line.cells[0].text: dict(zip(table.columns, line.cells, strict=True)) for line in table.lines[:2]}
    assert lines["Teacher"]["accuracy"] == Cell("92.7", "[91.8, 93.7]")
    student = {name: cell.text for name, cell in lines["Student"].items()}
    assert student == {
        "model": "Student",
        "accuracy": "91.1 ± 0.2",
        "F1": "91.3 ± 0.2",
        "of teacher": "98.2 %",
        "parameters": "25.3M",
        "size": "101 MB",
        "smaller": "4.3×",
        "latency": "13.2 ms",
        "faster": "6.2×",
    }
    assert "3,000 rows of the test set" in table.caption
    assert "over 2 seeds" in table.caption


def test_columns_without_any_value_are_left_out(report_data: ReportData) -> None:
    rows = [replace(row, median_ms=None, parameters=None, interval=None) for row in report_data.rows]
    table = main_table(replace(report_data, rows=rows), report_data.tasks[0])
    assert table.columns == ["model", "accuracy", "F1", "of teacher", "size", "smaller"]
    assert "intervals" not in table.caption
    assert latency_table(replace(report_data, rows=rows), report_data.tasks[0]).lines == []


def test_a_measured_ratio_brings_its_interval(report_data: ReportData) -> None:
    lines = latency_table(report_data, report_data.tasks[0]).lines
    assert [line.cells[-1] for line in lines] == [
        Cell(UNKNOWN),
        Cell("6.2×", "[6.1, 6.2]"),
        Cell("19.9×", "[19.3, 20.2]"),
        Cell("6.1×"),
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.02, "better"),
        (-0.02, -0.01, "worse"),
        (-0.01, 0.01, "no measurable difference"),
        (0.0, 0.01, "no measurable difference"),
    ],
)
def test_an_interval_is_read_with_care(low: float, high: float, expected: str) -> None:
    assert reading(low, high) == expected


def test_comparisons_name_their_task_only_among_several(report_data: ReportData) -> None:
    assert comparison_table(report_data).lines[0].cells[0] == Cell("Student − control", "accuracy")
    several = replace(report_data, tasks=[*report_data.tasks, replace(report_data.tasks[0], name="sst2")])
    assert comparison_table(several).lines[0].cells[0].note == "imdb, accuracy"


def test_compute_adds_seeds_up(report_data: ReportData) -> None:
    lines = {line.cells[0]: line.cells[1:] for line in compute_table(report_data).lines}
    assert [cell.text for cell in lines[Cell("Student", "fine-tuning, imdb, 2 seeds")]] == [
        "840 TFLOP",
        "3.2 PFLOP",
        "4.04 PFLOP",
    ]
    assert [cell.text for cell in lines[Cell("Control", "pre-training")]] == ["1.31 PFLOP", UNKNOWN, "1.31 PFLOP"]


def test_a_narrow_table_keeps_its_first_column(report_data: ReportData) -> None:
    table = keep_columns(main_table(report_data, report_data.tasks[0]), ["faster", "size", "nothing"])
    assert table.columns == ["model", "size", "faster"]
    assert [len(line.cells) for line in table.lines] == [3] * 5


def test_captions_say_what_was_averaged_and_timed(report_data: ReportData) -> None:
    assert agreement_table(report_data).caption == "Student and control: the mean over the 2 seeds."
    assert "over the rows and over the 2 seeds" in comparison_table(report_data).caption
    assert "tokenising is not in these times" in latency_table(report_data, report_data.tasks[0]).caption
    one_seed = replace(report_data, rows=[row for row in report_data.rows if row.seed in (0, None)])
    assert agreement_table(one_seed).caption == ""
    assert "seed" not in comparison_table(one_seed).caption


def test_perplexities_are_written_as_they_are(clm_data: ReportData) -> None:
    table = main_table(clm_data, clm_data.tasks[0])
    assert table.columns[:4] == ["model", "perplexity per word", "perplexity per token", "against teacher"]
    assert [[cell.text for cell in line.cells[1:4]] for line in table.lines] == [
        ["38.00", "21.30", UNKNOWN],
        ["41.20", "22.90", "+8.4 %"],
        ["44.40", "1,240", "+16.8 %"],
    ]
    assert table.lines[0].cells[1].note == "[37.24, 38.76]"
    assert table.caption.startswith("Perplexities: lower is better; measured on 62 documents of the test set")
    assert "points" not in table.caption
    assert "Timed: 32 tokens after" in latency_table(clm_data, clm_data.tasks[0]).caption


def test_a_lower_perplexity_reads_as_better(clm_data: ReportData) -> None:
    table = comparison_table(clm_data)
    assert [[cell.text for cell in line.cells[1:]] for line in table.lines] == [
        ["−3.20", "[−4.10, −2.25]", "better"],
        ["+3.20", "[+2.61, +3.90]", "worse"],
    ]
    assert table.caption == (
        "Paired on the same documents; 95 % bootstrap interval over the documents; in the metric's own unit, where "
        "lower is better."
    )


def test_bleu_is_in_points(translation_data: ReportData) -> None:
    table = main_table(translation_data, translation_data.tasks[0])
    assert table.columns[:4] == ["model", "BLEU", "chrF", "of teacher"]
    assert [cell.text for cell in table.lines[1].cells[1:4]] == ["28.9", "54.8", "92.6 %"]


def test_what_no_model_has_is_no_column_of_the_agreement(report_data: ReportData) -> None:
    lines = [replace(line, mean_kl=None, calibration_error=None) for line in report_data.agreement]
    table = agreement_table(replace(report_data, agreement=lines))
    assert table.columns == ["model", "same answer as the teacher"]
