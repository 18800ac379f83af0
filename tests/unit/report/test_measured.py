from dataclasses import replace

import pytest

from lightpaff.report.measured import (
    find_comparison,
    headline_student,
    measured_models,
    reference_teacher,
    share_of_teacher,
    size_ratio,
    speed_ratio,
)
from lightpaff.report.rows import ReportData


def test_models_come_in_order_with_their_seeds_summed_up(report_data: ReportData) -> None:
    models = measured_models(report_data, report_data.tasks[0])
    assert [model.arm for model in models] == ["teacher", "student", "student", "control", "tfidf"]
    assert models[1].value("accuracy") == pytest.approx((0.9093 + 0.9121) / 2)
    assert models[1].value("pearson") is None


def test_rows_of_another_split_do_not_count(report_data: ReportData) -> None:
    rows = [*report_data.rows, replace(report_data.rows[0], split="validation", value=0.1)]
    models = measured_models(replace(report_data, rows=rows), report_data.tasks[0])
    assert models[0].value("accuracy") == 0.9273


def test_the_headline_compares_like_with_like(report_data: ReportData) -> None:
    backwards = replace(report_data, rows=report_data.rows[::-1])
    models = measured_models(backwards, report_data.tasks[0])
    teacher, student = reference_teacher(models), headline_student(models)
    assert teacher is not None
    assert student is not None
    assert student.runtime == teacher.runtime
    assert size_ratio(teacher, student) == pytest.approx(437_958_648 / 101_201_928)
    assert speed_ratio(teacher, student) == pytest.approx(81.4 / 13.2)


def test_ratios_need_both_sides(report_data: ReportData) -> None:
    models = measured_models(report_data, report_data.tasks[0])
    words = models[-1]
    assert size_ratio(models[0], words) is None
    assert speed_ratio(models[0], words) is None
    assert speed_ratio(None, models[1]) is None


def test_there_is_no_share_of_a_score_that_is_not_positive(report_data: ReportData) -> None:
    rows = [replace(row, value=0.0) if row.arm == "teacher" else row for row in report_data.rows]
    models = measured_models(replace(report_data, rows=rows), report_data.tasks[0])
    assert share_of_teacher(models[0], models[1], "accuracy") is None


def test_a_comparison_is_found_either_way_round(report_data: ReportData) -> None:
    found = find_comparison(report_data, report_data.tasks[0], "teacher", "student")
    assert found is not None
    assert (found.first_arm, found.second_arm) == ("teacher", "student")
    assert (found.difference, found.low, found.high) == (0.0166, 0.0083, 0.0247)
    assert find_comparison(report_data, report_data.tasks[0], "control", "tfidf") is None
