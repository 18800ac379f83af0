from dataclasses import replace

import pytest

from lightpaff.report.cards import headline_cards
from lightpaff.report.rows import Arm, Comparison, ReportData, TaskFacts
from lightpaff.report.verdict import write_verdict


def with_comparison(data: ReportData, first: Arm, second: Arm, low: float, high: float) -> ReportData:
    others = [one for one in data.comparisons if (one.first_arm, one.second_arm) != (first, second)]
    new = Comparison("imdb", "test", "accuracy", first, second, (low + high) / 2, low, high)
    return replace(data, comparisons=[*others, new])


def without(data: ReportData, arm: Arm) -> ReportData:
    return replace(data, rows=[row for row in data.rows if row.arm != arm])


def test_quality_size_and_speed_are_told_against_the_teacher(report_data: ReportData) -> None:
    first = write_verdict(report_data)[1]
    assert first.text == (
        "The student reaches 98.2 % of the teacher's accuracy (91.1 against 92.7; −1.7 points [−2.5, −0.8]), "
        "has 23.1 % of the teacher's size and answers 6.2 times as fast "
        "(13.2 ms against 81.4 ms; one example at a time)."
    )
    assert first.kind == "neutral"


@pytest.mark.parametrize(
    ("low", "high", "kind", "text"),
    [
        (0.006, 0.024, "good", "Distillation paid: +1.5 points [+0.6, +2.4] against"),
        (
            -0.009,
            0.011,
            "neutral",
            "Distillation made no measurable difference here: +0.1 points [−0.9, +1.1] (mean",
        ),
        (-0.030, -0.010, "bad", "Distillation did harm: −2.0 points [−3.0, −1.0]"),
    ],
)
def test_the_control_is_told_as_it_is(report_data: ReportData, low: float, high: float, kind: str, text: str) -> None:
    data = with_comparison(report_data, "student", "control", low, high)
    (found,) = [one for one in write_verdict(data) if one.text.startswith("Distillation")]
    assert found.kind == kind
    assert found.text.startswith(text)
    assert headline_cards(data)[-1].kind == kind


def test_without_a_control_nothing_is_claimed(report_data: ReportData) -> None:
    data = without(replace(report_data, comparisons=[]), "control")
    texts = [one.text for one in write_verdict(data)]
    assert "No control was trained, so whether distillation paid is not known." in texts
    assert not any("paid:" in text for text in texts)
    assert len(headline_cards(data)) == 3


@pytest.mark.parametrize(
    ("arm", "low", "high", "expected"),
    [
        ("teacher", 0.01, 0.03, "The teacher beats a linear model over word counts (TF-IDF): +2.0 points"),
        ("teacher", -0.03, -0.01, "A linear model over word counts (TF-IDF) beats the teacher: −2.0 points"),
        ("student", -0.01, 0.03, "The student is not measurably better than a linear model over word counts"),
    ],
)
def test_word_counts_are_the_floor(report_data: ReportData, arm: Arm, low: float, high: float, expected: str) -> None:
    texts = [one.text for one in write_verdict(with_comparison(report_data, arm, "tfidf", low, high))]
    assert any(text.startswith(expected) for text in texts)


def test_one_seed_and_the_validation_set_limit_what_is_said(report_data: ReportData) -> None:
    assert not any("One fine-tuning seed" in one.text for one in write_verdict(report_data))
    rows = [row for row in report_data.rows if row.seed in (0, None)]
    tasks = [TaskFacts("imdb", "classify", "accuracy", "validation", 2)]
    limits = [one.text for one in write_verdict(replace(report_data, rows=rows, tasks=tasks)) if one.kind == "caution"]
    assert any("One fine-tuning seed" in text for text in limits)
    assert any("which also chose the checkpoints" in text for text in limits)


def test_several_seeds_are_told_with_what_had_but_one(report_data: ReportData) -> None:
    texts = [one.text for one in write_verdict(report_data)]
    expected = (
        "2 fine-tuning seeds: the intervals cover the choice of the evaluation rows and of these seeds, roughly, since "
        "so few say little about others; the teacher was fine-tuned with one seed and pre-training had one seed."
    )
    assert expected in texts
    assert any(text.endswith("against the same student trained without it (mean over 2 seeds).") for text in texts)
    without_pretraining = replace(report_data, curves=[one for one in report_data.curves if one.task is not None])
    assert not any("pre-training had one seed" in one.text for one in write_verdict(without_pretraining))
    one_seed = replace(report_data, rows=[row for row in report_data.rows if row.seed in (0, None)])
    assert not any("mean over" in one.text for one in write_verdict(one_seed))


def test_the_work_of_asking_the_teacher_is_told(report_data: ReportData) -> None:
    effort = (1.31 + 3.2 + 2 * (0.42 + 1.6)) / (1.31 + 2 * 0.42)
    texts = [one.text for one in write_verdict(report_data)]
    assert any(f"{effort:.1f} times the work of training the control" in text for text in texts)
    assert not any("the work of" in one.text for one in write_verdict(replace(report_data, compute=[])))


def test_cards_take_the_mean_over_tasks(report_data: ReportData) -> None:
    rows = [replace(row, task="sst2") for row in report_data.rows]
    tasks = [*report_data.tasks, replace(report_data.tasks[0], name="sst2")]
    data = replace(report_data, rows=report_data.rows + rows, tasks=tasks)
    quality, size, speed, _ = headline_cards(data)
    assert (quality.value, quality.detail) == ("98.2 %", "mean of 2 tasks")
    assert (size.value, size.detail) == ("4.3×", "101 MB against 438 MB")
    assert (speed.value, speed.detail) == ("6.2×", "mean of 2 tasks")
    assert write_verdict(data)[1].text.startswith("imdb: the student reaches")


def test_a_teacher_without_a_positive_score_has_no_share(report_data: ReportData) -> None:
    rows = [replace(row, value=-0.1) if row.arm == "teacher" else row for row in report_data.rows]
    data = replace(report_data, rows=rows)
    assert write_verdict(data)[1].text.startswith("The student scores accuracy 91.1 against −10.0")
    assert not any("reached" in card.label for card in headline_cards(data))


def test_a_perplexity_is_told_with_lower_as_better(clm_data: ReportData) -> None:
    second, first = write_verdict(clm_data)[:2]
    assert first.text == (
        "The student's perplexity per word is 41.20 [40.38, 42.02] against the teacher's 38.00: 8.4 % higher "
        "(+3.20 [+2.61, +3.90]). It has 26.7 % of the teacher's size and answers 4.7 times as fast "
        "(402 ms against 1904 ms; 32 tokens after a prompt of 32, greedy)."
    )
    assert first.kind == "neutral"
    assert second.kind == "good"
    assert second.text == (
        "Distillation paid: −3.20 [−4.10, −2.25] in perplexity per word (lower is better) against the same student "
        "trained without it."
    )


def test_a_higher_perplexity_than_the_control_is_harm(clm_data: ReportData) -> None:
    worse = Comparison("wikitext", "test", "word_perplexity", "student", "control", 3.0, 1.0, 5.0)
    data = replace(clm_data, comparisons=[worse])
    (found,) = [one for one in write_verdict(data) if one.text.startswith("Distillation")]
    assert (found.kind, headline_cards(data)[-1].kind) == ("bad", "bad")
    assert found.text.startswith("Distillation did harm: +3.00 [+1.00, +5.00] in perplexity per word")


def test_a_student_that_is_not_measurably_above_the_teacher_is_close(clm_data: ReportData) -> None:
    level = Comparison("wikitext", "test", "word_perplexity", "student", "teacher", 0.4, -0.2, 1.0)
    assert write_verdict(replace(clm_data, comparisons=[level]))[1].kind == "good"


def test_few_rows_are_no_praise(report_data: ReportData) -> None:
    """An interval so wide that it says nothing against a student says nothing for it either."""
    level = with_comparison(report_data, "student", "teacher", -0.5, 0.1)
    assert write_verdict(level)[1].kind == "good"
    rows = [replace(row, value=0.6 * row.value) if row.arm == "student" else row for row in level.rows]
    sentence = write_verdict(replace(level, rows=rows))[1]
    assert sentence.text.startswith("The student reaches 58.9 % of the teacher's accuracy")
    assert sentence.kind == "neutral"


def test_cards_of_perplexities(clm_data: ReportData) -> None:
    quality, _, speed, gain = headline_cards(clm_data)
    assert (quality.value, quality.label) == ("+8.4 %", "perplexity per word against the teacher's; lower is better")
    assert (quality.detail, quality.kind) == ("41.20 against 38.00", "neutral")
    assert speed.label == "as fast, 32 tokens after a prompt of 32, greedy"
    assert (gain.value, gain.kind) == ("−3.20", "good")
    assert gain.label == "perplexity per word (lower is better) from distillation, against the control"


def test_perplexities_of_several_tasks_are_not_averaged(clm_data: ReportData) -> None:
    task, other = clm_data.tasks[0], replace(clm_data.tasks[0], name="news")
    rows = [replace(row, task="news", value=2 * row.value) for row in clm_data.rows]
    level = Comparison("news", "test", "word_perplexity", "student", "control", -0.5, -1.5, 0.5)
    data = replace(clm_data, tasks=[task, other], rows=clm_data.rows + rows, comparisons=[*clm_data.comparisons, level])
    quality, *_, gain = headline_cards(data)
    assert (quality.value, quality.detail) == ("+8.4 %", "mean of 2 tasks")
    assert (gain.value, gain.label) == ("1 of 2", "tasks in which distillation measurably paid")


def test_a_translation_is_told_in_points_of_bleu(translation_data: ReportData) -> None:
    first = write_verdict(translation_data)[1]
    assert first.text.startswith(
        "The student reaches 92.6 % of the teacher's BLEU (28.9 against 31.2; −2.3 points [−3.1, −1.5])"
    )
    assert first.text.endswith("; one sentence, beam 4).")


@pytest.mark.parametrize("fixture", ["clm_data", "translation_data"])
def test_text_tasks_speak_neither_of_word_counts_nor_of_labels(fixture: str, request: pytest.FixtureRequest) -> None:
    texts = " ".join(one.text for one in write_verdict(request.getfixturevalue(fixture)))
    assert "TF-IDF" not in texts
    assert "the control had the same text and steps" in texts


def test_the_fastest_delivered_export_is_told_against_the_teacher_in_pytorch(exported_data: ReportData) -> None:
    student, online = write_verdict(exported_data)[1:3]
    assert student.text.startswith("The student reaches 98.2 % of the teacher's accuracy")
    assert online.kind == "good"
    assert online.text == (
        "Online, the export onnx-int8 (ONNX Runtime int8) has 5.9 % of the size of the teacher in PyTorch float32 "
        "(25.7 MB against 438 MB), answers 20.0 times as fast [19.0, 20.8] (4.0 ms against 80.0 ms) and has accuracy "
        "91.1 with the seed that is best on the validation set (98.2 % of the teacher's); the export openvino-bf16 was "
        "refused: it loses 1.31 %, more than 0.5 %."
    )


def test_cards_are_of_the_fastest_delivered_export(exported_data: ReportData, report_data: ReportData) -> None:
    quality, size, speed, gain = headline_cards(exported_data)
    assert (quality.value, quality.detail) == ("98.2 %", "91.1 against 92.7, onnx-int8")
    assert (size.value, size.detail) == ("17.0×", "25.7 MB against 438 MB, onnx-int8")
    assert (speed.value, speed.detail) == ("20.0×", "4.0 ms against 80.0 ms")
    assert speed.label == "as fast online, ONNX Runtime int8 against PyTorch float32"
    assert gain == headline_cards(report_data)[-1]


def test_where_every_export_was_refused_the_student_is_the_headline(
    exported_data: ReportData, report_data: ReportData
) -> None:
    data = replace(exported_data, exports=[line for line in exported_data.exports if not line.delivered])
    assert headline_cards(data) == headline_cards(report_data)
    told = write_verdict(data)[2]
    assert told.kind == "bad"
    assert told.text == "The export openvino-bf16 was refused: it loses 1.31 %, more than 0.5 %."


def test_without_exports_nothing_is_said_of_them(exported_data: ReportData, report_data: ReportData) -> None:
    for data in (report_data, replace(exported_data, online=[], exports=exported_data.exports[:2])):
        assert write_verdict(data) == write_verdict(report_data)
        assert headline_cards(data) == headline_cards(report_data)


def test_the_headline_is_of_exports_only_where_every_task_has_one(exported_data: ReportData) -> None:
    rows = [replace(row, task="sst2") for row in exported_data.rows]
    tasks = [*exported_data.tasks, replace(exported_data.tasks[0], name="sst2")]
    data = replace(exported_data, rows=exported_data.rows + rows, tasks=tasks)
    assert headline_cards(data)[2].label == "as fast, one example at a time"
    online = [replace(line, task="sst2") for line in exported_data.online]
    exports = [replace(line, task="sst2") for line in exported_data.exports]
    data = replace(data, online=data.online + online, exports=data.exports + exports)
    assert (headline_cards(data)[2].value, headline_cards(data)[2].detail) == ("20.0×", "mean of 2 tasks")
    assert "sst2: online, the export onnx-int8" in " ".join(one.text for one in write_verdict(data))


def test_a_slow_export_is_told_as_it_is(exported_data: ReportData) -> None:
    slow = [
        replace(line, ratio=0.8, low=0.7, high=0.9) if line.model == "onnx-int8" else line
        for line in exported_data.online
    ]
    assert write_verdict(replace(exported_data, online=slow))[2].kind == "bad"


def test_an_export_with_a_perplexity_is_told_with_lower_as_better(exported_clm_data: ReportData) -> None:
    assert write_verdict(exported_clm_data)[2].text.endswith(
        "and has perplexity per word 41.40 (8.9 % higher than the teacher's)."
    )
    quality, *_ = headline_cards(exported_clm_data)
    assert (quality.value, quality.kind) == ("+8.9 %", "neutral")
    assert quality.detail == "41.40 against 38.00, ctranslate2-int8"


def test_an_export_that_translates_is_told_in_points_of_bleu(exported_translation_data: ReportData) -> None:
    assert write_verdict(exported_translation_data)[2].text.endswith("and has BLEU 28.7 (92.1 % of the teacher's).")


def with_constant(data: ReportData, *arms: str) -> ReportData:
    return replace(data, rows=[replace(row, constant=row.arm in arms) for row in data.rows])


@pytest.mark.parametrize(
    ("arms", "beginning"),
    [
        (("student",), "The student gives every row the same class"),
        (("teacher", "student"), "The teacher and the student give every row the same class"),
    ],
)
def test_models_that_answer_one_class_are_not_praised(
    arms: tuple[str, ...], beginning: str, report_data: ReportData
) -> None:
    data = with_constant(report_data, *arms)
    first = write_verdict(data)[0]
    assert first.kind == "bad"
    assert first.text.startswith(beginning)
    assert "%" not in first.text
    card = headline_cards(data)[0]
    assert (card.value, card.kind) == ("one answer", "bad")
    assert not [one for one in write_verdict(data) if "distillation paid" in one.text]


def test_a_control_that_answers_one_class_shows_nothing(report_data: ReportData) -> None:
    data = with_constant(report_data, "control")
    assert write_verdict(data)[0].kind == "bad"
    assert write_verdict(data)[0].text.startswith("The control gives every row the same class")
    assert not [card for card in headline_cards(data) if "from distillation" in card.label]


@pytest.mark.parametrize(("share", "kind"), [(0.98, "good"), (0.8, "neutral"), (0.3, "bad")])
def test_a_fast_export_of_little_quality_is_not_praised(share: float, kind: str, exported_data: ReportData) -> None:
    exports = [replace(line, export=0.927 * share) for line in exported_data.exports]
    [told] = [one for one in write_verdict(replace(exported_data, exports=exports)) if one.text.startswith("Online")]
    assert told.kind == kind


def test_an_undecided_export_is_told(exported_data: ReportData) -> None:
    exports = [
        replace(line, judgement="undecided: it loses 0.8 % [-0.4, 2.1]: too few rows to tell")
        for line in exported_data.exports
        if line.delivered
    ]
    [told] = [one for one in write_verdict(replace(exported_data, exports=exports)) if one.text.startswith("Online")]
    assert "the export onnx-int8 is undecided: it loses 0.8 % [-0.4, 2.1]: too few rows to tell" in told.text


@pytest.mark.parametrize(
    ("written", "is_told"), [(0.0, True), (17.9, True), (18.1, False), (21.9, False), (22.1, True)]
)
def test_unequal_work_is_told(written: float, is_told: bool, exported_translation_data: ReportData) -> None:
    data = exported_translation_data
    online = [replace(line, written=20.0 if line.model == "teacher" else written) for line in data.online]
    told = " ".join(one.text for one in write_verdict(replace(data, online=online)))
    assert ("the work was not the same: it wrote" in told) is is_told
    assert (f"{written} tokens an answer, the teacher 20.0" in told) is is_told
    assert "the work was not" not in " ".join(one.text for one in write_verdict(data))
