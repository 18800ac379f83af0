"""What the numbers allow to say, in plain sentences: as much as the intervals carry and no more."""

from dataclasses import dataclass
from typing import Literal

from lightpaff.report import formats
from lightpaff.report.measured import (
    MeasuredModel,
    count_seeds,
    find_comparison,
    headline_student,
    measured_models,
    reference_teacher,
    share_of_teacher,
    size_ratio,
    speed_ratio,
)
from lightpaff.report.rows import Comparison, ReportData, TaskFacts

Kind = Literal["good", "bad", "neutral", "caution"]

_MANY_SEEDS = 10
"""From here on the spread of the seeds is known well enough to say no more about it."""


@dataclass(frozen=True)
class Sentence:
    """One finding. Its kind says whether it speaks for the student, against it, neither, or limits what is said."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Card:
    """A big number with what it is about and what it was computed from."""

    value: str
    label: str
    detail: str
    kind: Kind = "good"


def write_verdict(data: ReportData) -> list[Sentence]:
    """The findings of every task, then what limits them."""
    findings = [sentence for task in data.tasks for sentence in _task_findings(data, task)]
    return findings + _limits(data)


def headline_cards(data: ReportData) -> list[Card]:
    """Quality kept, size, speed and the gain over the control; a mean over the tasks where there are several."""
    cards = [_quality_card(data), _size_card(data), _speed_card(data), _gain_card(data)]
    return [card for card in cards if card is not None]


def _task_findings(data: ReportData, task: TaskFacts) -> list[Sentence]:
    models = measured_models(data, task)
    prefix = f"{task.name}: " if len(data.tasks) > 1 else ""
    candidates = [
        _compare_with_teacher(data, task, models),
        _compare_with_control(data, task, models),
        _compare_with_words(data, task, models, "teacher"),
        _compare_with_words(data, task, models, "student"),
    ]
    return [
        Sentence(found.kind, prefix + (found.text[0].upper() + found.text[1:] if not prefix else found.text))
        for found in candidates
        if found is not None
    ]


def _compare_with_teacher(data: ReportData, task: TaskFacts, models: list[MeasuredModel]) -> Sentence | None:
    teacher, student = reference_teacher(models), headline_student(models)
    if teacher is None or student is None:
        return None
    own, reference = student.value(task.metric), teacher.value(task.metric)
    if own is None or reference is None:
        return None
    difference = find_comparison(data, task, "student", "teacher")
    gap = f"; {_points_with_interval(difference)}" if difference else ""
    share = share_of_teacher(teacher, student, task.metric)
    scores = f"{formats.points(own)} against {formats.points(reference)}{gap}"
    if share is None:
        quality = f"scores {task.metric} {scores}"
    else:
        quality = f"keeps {formats.percent(share)} of the teacher's {task.metric} ({scores})"
    parts = [quality, *_describe_costs(teacher, student)]
    is_close = difference is not None and difference.high >= 0
    return Sentence("good" if is_close else "neutral", f"the student {formats.joined(parts)}.")


def _describe_costs(teacher: MeasuredModel, student: MeasuredModel) -> list[str]:
    parts = []
    if (smaller := size_ratio(teacher, student)) is not None:
        parts.append(f"has {formats.percent(1 / smaller)} of its size")
    if (faster := speed_ratio(teacher, student)) is not None:
        times = f"{formats.milliseconds(student.median_ms or 0)} against {formats.milliseconds(teacher.median_ms or 0)}"
        parts.append(f"answers {formats.ratio(faster)} times as fast ({times} for one example)")
    return parts


def _compare_with_control(data: ReportData, task: TaskFacts, models: list[MeasuredModel]) -> Sentence | None:
    arms = {model.arm for model in models}
    if "student" not in arms:
        return None
    if "control" not in arms:
        return Sentence("caution", "no control was trained, so whether distillation paid is not known.")
    gain = find_comparison(data, task, "student", "control")
    if gain is None:
        return Sentence("caution", "the student was not compared with the control row by row: see the scores.")
    told = _points_with_interval(gain)
    seeds = count_seeds(data, "student", task)
    mean = f" (mean over {seeds} seeds)" if seeds > 1 else ""
    if gain.low > 0:
        return Sentence("good", f"distillation paid: {told} over the same student trained without it{mean}.")
    if gain.high < 0:
        return Sentence("bad", f"distillation did harm: {told} against the same student trained without it{mean}.")
    return Sentence("neutral", f"distillation made no measurable difference here: {told}{mean}.")


def _compare_with_words(
    data: ReportData, task: TaskFacts, models: list[MeasuredModel], arm: Literal["teacher", "student"]
) -> Sentence | None:
    if not {arm, "tfidf"} <= {model.arm for model in models}:
        return None
    found = find_comparison(data, task, arm, "tfidf")
    if found is None or (arm == "student" and found.low > 0):
        return None  # That the student beats word counts too goes without saying; that it does not must be said.
    told = _points_with_interval(found)
    if found.low > 0:
        return Sentence("good", f"the {arm} beats a linear model over word counts (TF-IDF): {told}.")
    if found.high < 0:
        return Sentence("bad", f"a linear model over word counts (TF-IDF) beats the {arm}: {told}.")
    return Sentence("bad", f"the {arm} is not measurably better than a linear model over word counts (TF-IDF): {told}.")


def _limits(data: ReportData) -> list[Sentence]:
    limits = []
    if on_validation := [task.name for task in data.tasks if task.split == "validation"]:
        where = f" ({formats.joined(on_validation)})" if len(data.tasks) > 1 else ""
        text = f"Reported on the validation set{where}, which also chose the checkpoints: expect less on new text."
        limits.append(Sentence("caution", text))
    if any(row.arm == "student" for row in data.rows):
        limits.append(Sentence("caution", _describe_seeds(data)))
    if (effort := _effort_against_control(data)) is not None and effort >= 1.05:
        text = (
            f"Asking the teacher made training the student {formats.ratio(effort)} times the work of training the "
            "control (in FLOPs); the control had the same labelled rows and steps, not the same compute."
        )
        limits.append(Sentence("caution", text))
    return limits


def _describe_seeds(data: ReportData) -> str:
    """Which random choices the intervals cover, and which they do not."""
    seeds = count_seeds(data, "student")
    if seeds < 2:
        return "One fine-tuning seed: the intervals cover the choice of the evaluation rows, not of the seed."
    text = f"{seeds} fine-tuning seeds: the intervals cover the choice of the evaluation rows and of these seeds"
    if seeds < _MANY_SEEDS:
        text += ", roughly, since so few say little about others"
    only_once = []
    if any(row.arm == "teacher" for row in data.rows) and count_seeds(data, "teacher") < 2:
        only_once.append("the teacher was fine-tuned with one seed")
    if any(curve.stage == "pre-training" for curve in data.curves):
        only_once.append("pre-training had one seed")
    return f"{text}; {formats.joined(only_once)}." if only_once else f"{text}."


def _effort_against_control(data: ReportData) -> float | None:
    student = sum(line.training_flops + line.teacher_flops for line in data.compute if line.arm == "student")
    control = sum(line.training_flops + line.teacher_flops for line in data.compute if line.arm == "control")
    return student / control if student and control else None


def _quality_card(data: ReportData) -> Card | None:
    shares, details = [], []
    for task, teacher, student in _headline_pairs(data):
        share = share_of_teacher(teacher, student, task.metric)
        own, reference = student.value(task.metric), teacher.value(task.metric)
        if share is not None and own is not None and reference is not None:
            shares.append(share)
            details.append(f"{formats.points(own)} against {formats.points(reference)}")
    if not shares:
        return None
    metrics = {task.metric for task in data.tasks}
    label = f"of the teacher's {metrics.pop() if len(metrics) == 1 else 'score'} kept"
    detail = details[0] if len(shares) == 1 else f"mean of {len(shares)} tasks"
    return Card(formats.percent(sum(shares) / len(shares)), label, detail)


def _size_card(data: ReportData) -> Card | None:
    for _, teacher, student in _headline_pairs(data):
        if (smaller := size_ratio(teacher, student)) is not None:
            detail = ""
            if teacher.bytes and student.bytes:
                detail = f"{formats.megabytes(student.bytes)} against {formats.megabytes(teacher.bytes)}"
            return Card(f"{formats.ratio(smaller)}\N{MULTIPLICATION SIGN}", "smaller", detail)
    return None


def _speed_card(data: ReportData) -> Card | None:
    pairs = [(teacher, student) for _, teacher, student in _headline_pairs(data)]
    timed = [
        (faster, student, teacher)
        for teacher, student in pairs
        if (faster := speed_ratio(teacher, student)) is not None
    ]
    if not timed:
        return None
    _, student, teacher = timed[0]
    detail = f"{formats.milliseconds(student.median_ms or 0)} against {formats.milliseconds(teacher.median_ms or 0)}"
    if len(timed) > 1:
        detail = f"mean of {len(timed)} tasks"
    mean = sum(faster for faster, _, _ in timed) / len(timed)
    return Card(f"{formats.ratio(mean)}\N{MULTIPLICATION SIGN}", "as fast, one example at a time", detail)


def _gain_card(data: ReportData) -> Card | None:
    gains = [gain for task in data.tasks if (gain := find_comparison(data, task, "student", "control")) is not None]
    if not gains:
        return None
    mean = sum(gain.difference for gain in gains) / len(gains)
    if len(gains) == 1:
        detail = f"95 % interval {formats.signed_interval(gains[0].low, gains[0].high)}"
    else:
        detail = f"measurable in {sum(gain.low > 0 for gain in gains)} of {len(gains)} tasks"
    is_gain, is_loss = any(gain.low > 0 for gain in gains), any(gain.high < 0 for gain in gains)
    # A number that chance could have made must not look like a success.
    kind: Kind = "bad" if is_loss and not is_gain else "good" if is_gain and not is_loss else "neutral"
    return Card(formats.signed_points(mean), "points from distillation, against the control", detail, kind)


def _headline_pairs(data: ReportData) -> list[tuple[TaskFacts, MeasuredModel, MeasuredModel]]:
    pairs = []
    for task in data.tasks:
        models = measured_models(data, task)
        teacher, student = reference_teacher(models), headline_student(models)
        if teacher is not None and student is not None:
            pairs.append((task, teacher, student))
    return pairs


def _points_with_interval(found: Comparison) -> str:
    return f"{formats.signed_points(found.difference)} points {formats.signed_interval(found.low, found.high)}"
