"""What a study's page leads with, and how it is drawn."""

import re
from dataclasses import replace
from typing import Any

import pytest

from lightpaff.study.comparing import ArmRow, ComparedDifference, ExportRow, NoiseLine, ReferenceRow, StudyData
from lightpaff.study.page import render_markdown, render_page, write_study
from lightpaff.study.tables import answer, score_table


def arm_row(arm: str, mean: float, **changes: Any) -> ArmRow:
    row = ArmRow(
        arm=arm,
        keys={},
        task="toy",
        split="test",
        metric="matthews",
        values={1: mean},
        mean=mean,
        spread=None,
        interval=(mean - 0.1, mean + 0.1),
        minus_baseline=None if arm == "none" else ComparedDifference(0.1, 0.05, 0.15, 0.01),
        minus_teacher=ComparedDifference(-0.1, -0.2, 0.0, 0.05),
        teacher=0.8,
        share=mean / 0.8,
        closed=None,
        steps={"fine_tuning": 5},
        flops=1e9,
        teacher_flops=0.0,
        seconds=1.0,
        parameters=10,
        teacher_parameters=40,
        median_ms=2.0,
        teacher_median_ms=8.0,
    )
    return replace(row, **changes)


def data_of(*rows: ArmRow, **changes: Any) -> StudyData:
    data = StudyData(
        name="toy",
        title="Does it <i>pay</i>?",
        created="2026-11-30T09:00:00+00:00",
        baseline="none",
        reference="both",
        match="steps",
        x=None,
        examples={"toy": "12 rows"},
        answers={"toy": "class"},
        warnings={"toy": []},
        rows=list(rows),
        references=[ReferenceRow("teacher", "toy", "matthews", 0.8, (0.7, 0.9), 1000, 100.0)],
        environment={},
        command="lightpaff study toy.yaml",
        study_yaml="",
    )
    return replace(data, **changes)


def lead(**changes: Any) -> str:
    return answer(data_of(arm_row("none", 0.5), arm_row("both", 0.6, **changes)))[0].text


def test_size_and_speed_are_against_the_arm_s_own_teacher() -> None:
    assert "it has 75.0 % of the teacher's Matthews correlation; with 4.0× fewer parameters; and is 4.0× as" in lead()
    assert "with 1.5× as many parameters" in lead(teacher_parameters=10, parameters=15)


def test_a_share_that_means_nothing_is_left_out() -> None:
    assert "of the teacher's" not in lead(share=None)
    table = score_table(data_of(arm_row("none", 0.5), arm_row("both", 0.6, share=None)), "toy")
    place = table.columns.index("of the teacher's")
    assert [line.cells[place].text for line in table.lines][:2] == ["62.5 %", "–"]


def test_other_teachers_are_told_of_where_they_are_as_good() -> None:
    told = [
        [sentence.text for sentence in answer(data_of(arm_row("none", 0.5), arm_row("both", 0.6, **other)))]
        for other in ({}, {"has_another_teacher": True})
    ]
    assert [any("differ in their teachers" in text for text in texts) for texts in told] == [False, True]


@pytest.mark.parametrize(("score", "is_told"), [(0.61, True), (0.59, False)])
def test_word_counts_that_do_as_well_are_told_of(score: float, is_told: bool) -> None:
    counts = ReferenceRow("tfidf", "toy", "matthews", score, (0.5, 0.7))
    texts = [one.text for one in answer(data_of(arm_row("none", 0.5), arm_row("both", 0.6), references=[counts]))]
    assert ("toy: a linear model over word counts (TF-IDF) is as good as 'both' or better." in texts) is is_told


def test_models_that_have_learnt_nothing_are_told_of() -> None:
    rows = arm_row("none", 0.0, constant=["'none'", "the teacher"]), arm_row("both", 0.0, constant=["the teacher"])
    sentence = answer(data_of(*rows))[0]
    assert sentence.kind == "bad"
    assert sentence.text.startswith(
        "Not to be told: 'none' and the teacher give every row the same class, so the scores"
    )


def test_markdown_has_no_markup_of_names() -> None:
    text = render_markdown(data_of(arm_row("none", 0.5), arm_row("a <b> *c*", 0.6), reference="a <b> *c*"))
    assert "# Does it \\<i\\>pay\\</i\\>?" in text
    assert "'a \\<b\\> \\*c\\*' against" in text


def test_plots_for_both_widths_are_on_one_page_in_any_script() -> None:
    page = render_page(data_of(arm_row("none", 0.5), arm_row("蒸留 & <b>", 0.6), reference="蒸留 & <b>"))
    assert page.count("<svg") == 4, "arms, and latency, for two widths each"
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "蒸留 &amp; &lt;b&gt;</text>" in page
    assert "<b>" not in page


def test_numbers_of_plots_are_plain() -> None:
    noise = [NoiseLine("both", "toy", "word_perplexity", at, mean, mean, mean) for at, mean in ((0.0, 90), (0.4, 4e3))]
    exports = [ExportRow("both", "toy", "matthews", "onnx-int8", 0.6, "delivered", 0.9, 1000, 9.0)]
    page = render_page(data_of(arm_row("none", 0.5), arm_row("both", 0.6), noise=noise, exports=exports))
    assert {">100</text>", ">1,000</text>", ">3,000</text>"} <= set(re.findall(">[\\d,]+</text>", page))
    assert "mathdefault" not in page


def test_one_seed_is_no_mean_and_no_yes() -> None:
    data = data_of(arm_row("none", 0.5), arm_row("both", 0.6))
    assert score_table(data, "toy").caption.startswith(
        "Of one seed; brackets are 95 % intervals over 12 rows of the test set. p:"
    )
    assert answer(data)[0].kind == "neutral"
    assert answer(data)[0].text.startswith("With this one seed, yes: 'both' against 'none' is +10.0 points")


SEEDS = {1: 0.6, 2: 0.6, 3: 0.6}


def test_several_seeds_are_in_the_intervals() -> None:
    data = data_of(arm_row("none", 0.5, values=SEEDS), arm_row("both", 0.6, values=SEEDS))
    assert "over 12 rows of the test set and the seeds. p:" in score_table(data, "toy").caption
    assert (answer(data)[0].kind, answer(data)[0].text[:4]) == ("good", "Yes:")


def test_why_an_interval_above_0_is_no_yes() -> None:
    told = lead(values=SEEDS, minus_baseline=ComparedDifference(0.1, 0.01, 0.19, 0.07))
    assert told.startswith("Not measurably: 'both' against 'none' is +10.0 points [+1.0, +19.0] (p 0.07, corrected for")


def test_exports_are_praised_as_far_as_they_were_checked() -> None:
    told = {}
    for verdict in ("delivered", "undecided", "refused"):
        exports = [ExportRow("both", "toy", "matthews", "onnx-int8", 0.1, verdict, 0.9, 1000, 9.0)]
        told[verdict] = answer(data_of(arm_row("none", 0.5), arm_row("both", 0.6), exports=exports))[0].text
    assert "; as onnx-int8 9.0× as fast" in told["delivered"]
    assert "; as onnx-int8 (undecided: too few rows to check it) 9.0× as fast" in told["undecided"]
    assert "onnx-int8" not in told["refused"]


def test_what_the_rows_are_worth_is_told() -> None:
    rows = arm_row("none", 0.5, split="validation"), arm_row("both", 0.6, split="validation")
    texts = [one.text for one in answer(data_of(*rows, warnings={"toy": ["3 of 12 rows are training rows"]}))]
    assert "3 of 12 rows are training rows." in texts
    assert any(text.startswith("toy: reported on the validation set, which also chose") for text in texts)
    assert not any("validation" in one.text for one in answer(data_of(arm_row("none", 0.5), arm_row("both", 0.6))))


def test_budgets_are_equal_in_the_stages_that_both_have() -> None:
    assert "at equal steps; " in lead()
    steps = {"pretraining": 5, "fine_tuning": 5}
    assert "at equal steps in fine_tuning alone: one of them has another stage too" in lead(steps=steps)


def test_nothing_is_written_of_a_page_that_cannot_be_drawn(tmp_path: Any) -> None:
    data = data_of(arm_row("none", 0.5), arm_row("both", 0.6), x="nowhere")
    with pytest.raises(KeyError):
        write_study(data, tmp_path / "report")
    assert not (tmp_path / "report").exists()
