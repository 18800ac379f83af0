"""The report's big numbers: what the student keeps of the teacher, what it saves, and what distillation gave."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from lightpaff.report import formats
from lightpaff.report.measured import (
    find_comparison,
    headline_student,
    measured_models,
    reference_teacher,
    share_of_teacher,
    size_ratio,
    speed_ratio,
)
from lightpaff.report.metrics import METRICS
from lightpaff.report.online import fastest_export, online_baseline, online_models, online_score
from lightpaff.report.rows import ReportData, TaskFacts
from lightpaff.report.verdict import FAIR_SHARE, POOR_SHARE, Kind, turn_gain


@dataclass(frozen=True)
class Card:
    """A big number with what it is about and what it was computed from."""

    value: str
    label: str
    detail: str
    kind: Kind = "good"


def headline_cards(data: ReportData) -> list[Card]:
    """Quality kept, size, speed and the gain over the control; a mean over the tasks where there are several.

    Quality, size and speed are those of the fastest delivered export where every task has one, else of the student in
    PyTorch."""
    headlines = _find_headlines(data)
    cards = [_quality_card(data, headlines), _size_card(headlines), _speed_card(headlines), _gain_card(data)]
    return [card for card in cards if card is not None]


@dataclass(frozen=True)
class _Headline:
    """What the cards say of a task; None where it is not known."""

    task: TaskFacts
    share: float | None
    scores: str
    smaller: float | None
    sizes: str
    faster: float | None
    times: str
    way: str
    """How it was timed."""


def _find_headlines(data: ReportData) -> list[_Headline]:
    students = [found for task in data.tasks if (found := _student_headline(data, task)) is not None]
    exports = [found for task in data.tasks if (found := _export_headline(data, task)) is not None]
    return exports if len(exports) == len(data.tasks) else students


def _student_headline(data: ReportData, task: TaskFacts) -> _Headline | None:
    models = measured_models(data, task)
    teacher, student = reference_teacher(models), headline_student(models)
    if teacher is None or student is None:
        return None
    own, reference = student.value(task.metric), teacher.value(task.metric)
    return _Headline(
        task,
        share_of_teacher(teacher, student, task.metric),
        _against(own, reference, METRICS[task.metric].write),
        size_ratio(teacher, student),
        _against(student.bytes, teacher.bytes, formats.megabytes),
        speed_ratio(teacher, student),
        _against(student.median_ms, teacher.median_ms, formats.milliseconds),
        f"as fast, {task.timed}",
    )


def _export_headline(data: ReportData, task: TaskFacts) -> _Headline | None:
    export, baseline = fastest_export(data, task), online_baseline(online_models(data, task))
    if export is None or baseline is None:
        return None
    own, reference = online_score(data, task, export.name), online_score(data, task, baseline.name)
    metric, first, against = METRICS[task.metric], export.first, baseline.first
    return _Headline(
        task,
        own / reference if own is not None and reference is not None and reference > 0 else None,
        f"{_against(own, reference, metric.write)}, {export.name}",
        first.size_ratio,
        f"{_against(first.bytes, against.bytes, formats.megabytes)}, {export.name}",
        first.ratio,
        f"{_against(first.median_ms, against.median_ms, formats.milliseconds)}",
        f"as fast online, {first.runtime} against {against.runtime}",
    )


def _against(own: float | None, reference: float | None, write: Callable[..., str]) -> str:
    return "" if own is None or reference is None else f"{write(own)} against {write(reference)}"


def _quality_card(data: ReportData, headlines: list[_Headline]) -> Card | None:
    known = [(found, found.share) for found in headlines if found.share is not None]
    if not known:
        return None
    metric = METRICS[known[0][0].task.metric]
    name = metric.name if len({task.metric for task in data.tasks}) == 1 else "score"
    # A family's metrics all go one way. Ratios of what can be many times as much have a geometric mean.
    average = statistics.fmean if metric.is_higher_better else statistics.geometric_mean
    mean = average(share for _, share in known)
    detail = known[0][0].scores if len(known) == 1 else f"mean of {len(known)} tasks"
    value = metric.write_share(mean)
    if any(_is_constant(data, found.task, "teacher", "student") for found in headlines):
        return Card("one answer", f"for every row: {name} says nothing", detail, "bad")
    if metric.is_higher_better:
        kind: Kind = "good" if mean >= FAIR_SHARE else "neutral" if mean >= POOR_SHARE else "bad"
        return Card(value, f"of the teacher's {name} reached", detail, kind)
    return Card(value, f"{name} against the teacher's; lower is better", detail, "neutral" if mean > 1 else "good")


def _is_constant(data: ReportData, task: TaskFacts, *arms: str) -> bool:
    return any(model.is_constant for model in measured_models(data, task) if model.arm in arms)


def _size_card(headlines: list[_Headline]) -> Card | None:
    for found in headlines:
        if found.smaller is not None:
            return Card(formats.times(found.smaller), "smaller", found.sizes)
    return None


def _speed_card(headlines: list[_Headline]) -> Card | None:
    timed = [(found, found.faster) for found in headlines if found.faster is not None]
    if not timed:
        return None
    ways = list(dict.fromkeys(found.way for found in headlines))
    label = ways[0] if len(ways) == 1 else ways[0].partition(",")[0]
    detail = timed[0][0].times if len(timed) == 1 else f"mean of {len(timed)} tasks"
    return Card(formats.times(statistics.fmean(faster for _, faster in timed)), label, detail)


def _gain_card(data: ReportData) -> Card | None:
    gains = [
        gain
        for task in data.tasks
        if (gain := find_comparison(data, task, "student", "control")) is not None
        and not _is_constant(data, task, "student", "control")
    ]
    if not gains:
        return None
    turned = [turn_gain(gain) for gain in gains]
    paid, harmed = sum(low > 0 for low, _ in turned), sum(high < 0 for _, high in turned)
    # A number that chance could have made must not look like a success.
    kind: Kind = "bad" if harmed and not paid else "good" if paid and not harmed else "neutral"
    metric, first = METRICS[gains[0].metric], gains[0]
    if len(gains) == 1:
        unit = "points" if metric.unit == "points" else metric.directed_name
        detail = f"95 % interval {metric.write_signed_interval(first.low, first.high)}"
        value, label = metric.write_difference(first.difference), f"{unit} from distillation, against the control"
    elif metric.unit == "points":
        detail = f"measurable in {paid} of {len(gains)} tasks"
        mean = sum(gain.difference for gain in gains) / len(gains)
        value, label = formats.signed_points(mean), "points from distillation, against the control"
    else:
        # Perplexities of different texts have no common scale to take a mean on.
        value, label, detail = f"{paid} of {len(gains)}", "tasks in which distillation measurably paid", ""
    return Card(value, label, detail, kind)
