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
from lightpaff.report.metrics import METRICS
from lightpaff.report.online import (
    OnlineModel,
    exports_of,
    fastest_export,
    online_baseline,
    online_models,
    online_score,
    tell_loss,
)
from lightpaff.report.rows import Comparison, ReportData, TaskFacts

Kind = Literal["good", "bad", "neutral", "caution"]

FAIR_SHARE, POOR_SHARE = 0.9, 0.5
"""Of the teacher's quality: below the first nothing is praised, below the second it is told as a fault."""

_SAME_WORK = 0.1
"""By so much of the baseline's tokens another may write more or less, and its time is still compared as it is."""

_MANY_SEEDS = 10
"""From here on the spread of the seeds is known well enough to say no more about it."""


@dataclass(frozen=True)
class Sentence:
    """One finding. Its kind says whether it speaks for the student, against it, neither, or limits what is said."""

    kind: Kind
    text: str


def write_verdict(data: ReportData) -> list[Sentence]:
    """The findings of every task, then what limits them."""
    findings = [sentence for task in data.tasks for sentence in _task_findings(data, task)]
    return findings + _limits(data)


def _task_findings(data: ReportData, task: TaskFacts) -> list[Sentence]:
    models = measured_models(data, task)
    prefix = f"{task.name}: " if len(data.tasks) > 1 else ""
    candidates = [
        _compare_with_control(data, task, models),
        _compare_with_teacher(data, task, models),
        _tell_exports(data, task),
        _compare_with_words(data, task, models, "teacher"),
        _compare_with_words(data, task, models, "student"),
    ]
    return [
        Sentence(found.kind, prefix + found.text if prefix else _capitalised(found.text))
        for found in candidates
        if found is not None
    ]


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _compare_with_teacher(data: ReportData, task: TaskFacts, models: list[MeasuredModel]) -> Sentence | None:
    teacher, student = reference_teacher(models), headline_student(models)
    if teacher is None or student is None:
        return None
    if student.value(task.metric) is None or teacher.value(task.metric) is None:
        return None
    if constant := [model.arm for model in (teacher, student) if model.is_constant]:
        scores = f"{METRICS[task.metric].name} {_score(student, task)} against {_score(teacher, task)}"
        return Sentence("bad", f"{tell_constant([f'the {arm}' for arm in constant], task.answer, scores)}.")
    difference = find_comparison(data, task, "student", "teacher")
    has_higher = METRICS[task.metric].is_higher_better
    told = (_tell_share if has_higher else _tell_excess)(task, teacher, student, difference)
    costs = _describe_costs(task, teacher, student)
    if costs and has_higher:
        told = formats.joined([told, *costs])
    elif costs:
        told += f". It {formats.joined(costs)}"
    # Few rows say nothing against a student; that is no praise either.
    is_close = difference is not None and turn_gain(difference)[1] >= 0 and _is_fair(task, teacher, student)
    # To be as good as a teacher that counting words beats is no praise.
    is_worth_it = all(_beats_words(data, task, arm) for arm in ("teacher", "student"))
    return Sentence("good" if is_close and is_worth_it else "neutral", f"{told}.")


def tell_constant(models: list[str], answer: str, scores: str) -> str:
    """What is to be said of models that have learnt nothing."""
    return (
        f"{formats.joined(models)} {'give' if len(models) > 1 else 'gives'} every row the same {answer}, so the scores "
        f"({scores}) say nothing about the task: train longer, with another learning rate or more rows"
    )


def _is_fair(task: TaskFacts, teacher: MeasuredModel, student: MeasuredModel) -> bool:
    share = _turned_share(task, student.value(task.metric), teacher.value(task.metric))
    return share is not None and share >= FAIR_SHARE


def _beats_words(data: ReportData, task: TaskFacts, arm: Literal["teacher", "student"]) -> bool:
    """Whether an arm is measurably better than word counts; True where nobody counted words."""
    found = find_comparison(data, task, arm, "tfidf")
    return found is None or turn_gain(found)[0] > 0


def _tell_share(task: TaskFacts, teacher: MeasuredModel, student: MeasuredModel, difference: Comparison | None) -> str:
    """Where higher is better: which share of the teacher's score the student reaches."""
    metric = METRICS[task.metric]
    gap = f"; {_tell_difference(difference)}" if difference else ""
    scores = f"{_score(student, task)} against {_score(teacher, task)}{gap}"
    share = share_of_teacher(teacher, student, task.metric)
    if share is None:
        return f"the student scores {metric.name} {scores}"
    return f"the student reaches {metric.write_share(share)} of the teacher's {metric.name} ({scores})"


def _tell_excess(task: TaskFacts, teacher: MeasuredModel, student: MeasuredModel, difference: Comparison | None) -> str:
    """Where lower is better: how far the student's score is above the teacher's."""
    metric = METRICS[task.metric]
    interval = student.rows[task.metric].interval
    own = f"{_score(student, task)} {metric.write_interval(*interval)}" if interval else _score(student, task)
    told = f"the student's {metric.name} is {own} against the teacher's {_score(teacher, task)}"
    if (share := share_of_teacher(teacher, student, task.metric)) is not None:
        told += f": {_tell_change(share)}"
    if difference is None:
        return told
    value = metric.write_difference(difference.difference)
    return f"{told} ({value} {metric.write_signed_interval(difference.low, difference.high)})"


def _tell_change(share: float) -> str:
    change = formats.percent(abs(share - 1))
    return "the same" if change == formats.percent(0) else f"{change} {'higher' if share > 1 else 'lower'}"


def _describe_costs(task: TaskFacts, teacher: MeasuredModel, student: MeasuredModel) -> list[str]:
    parts = []
    if (smaller := size_ratio(teacher, student)) is not None:
        parts.append(f"has {formats.percent(1 / smaller)} of the teacher's size")
    if (faster := speed_ratio(teacher, student)) is not None:
        parts.append(f"answers {formats.ratio(faster)} times as fast ({_times(teacher, student)}; {task.timed})")
    return parts


def _tell_exports(data: ReportData, task: TaskFacts) -> Sentence | None:
    """What the fastest delivered export is worth online, and which exports were refused."""
    refused = _tell_refused(data, task)
    export, baseline = fastest_export(data, task), online_baseline(online_models(data, task))
    if export is None or baseline is None:
        return Sentence("bad", f"{refused}.") if refused else None
    first, against = export.first, baseline.first
    told = (
        f"online, the export {export.name} ({first.runtime}) has {formats.percent(1 / first.size_ratio)} of the size "
        f"of the {baseline.name} in {against.runtime} ({formats.megabytes(first.bytes)} against "
        f"{formats.megabytes(against.bytes)}), answers {formats.ratio(first.ratio)} times as fast "
        f"{formats.ratio_interval(first.low, first.high)} ({formats.milliseconds(first.median_ms)} against "
        f"{formats.milliseconds(against.median_ms)}) and {_tell_quality(data, task, export.name)}"
    )
    kind: Kind = "good" if first.low > 1 else "bad" if first.high < 1 else "neutral"
    kind = _without_praise(kind, export_share(data, task, export.name))
    more = [_tell_written(export, baseline), _tell_undecided(data, task), refused]
    return Sentence(kind, f"{'; '.join(filter(None, [told, *more]))}.")


def _tell_written(export: OnlineModel, baseline: OnlineModel) -> str:
    """Where the times are of unequal work: how much each wrote; empty elsewhere."""
    own, reference = export.first.written, baseline.first.written
    if abs(own - reference) <= _SAME_WORK * reference:
        return ""
    return (
        f"the work was not the same: it wrote {formats.tokens(own)} tokens an answer, the {baseline.name} "
        f"{formats.tokens(reference)}"
    )


def _without_praise(kind: Kind, share: float | None) -> Kind:
    """A fast answer that is wrong is no good one."""
    if share is None or kind != "good":
        return kind
    return "good" if share >= FAIR_SHARE else "bad" if share < POOR_SHARE else "neutral"


def export_share(data: ReportData, task: TaskFacts, name: str) -> float | None:
    """An export's quality as a share of its teacher's, turned so that 1 and more is as good."""
    return _turned_share(task, online_score(data, task, name), online_score(data, task, "teacher"))


def _turned_share(task: TaskFacts, own: float | None, reference: float | None) -> float | None:
    """The same of two scores; None where one is missing or not above 0."""
    if own is None or reference is None or own <= 0 or reference <= 0:
        return None
    return own / reference if METRICS[task.metric].is_higher_better else reference / own


def _tell_undecided(data: ReportData, task: TaskFacts) -> str:
    """Which exports were delivered although the rows are too few to tell what they lose; empty where none was."""
    told = [
        f"the export {line.name} is undecided: {line.judgement.removeprefix('undecided: ')}"
        for line in exports_of(data, task)
        if line.split == "validation" and line.judgement.startswith("undecided")
    ]
    return "; ".join(told)


def _tell_quality(data: ReportData, task: TaskFacts, name: str) -> str:
    metric = METRICS[task.metric]
    own, reference = online_score(data, task, name), online_score(data, task, "teacher")
    assert own is not None, "the fastest export has a score"
    told = f"has {metric.name} {metric.write(own)}"
    if count_seeds(data, "student", task) > 1:
        told += " with the seed that is best on the validation set"
    if reference is None or reference <= 0:
        return told
    share = own / reference
    if metric.is_higher_better:
        return f"{told} ({metric.write_share(share)} of the teacher's)"
    change = _tell_change(share)
    return f"{told} ({change} {'as' if change == 'the same' else 'than'} the teacher's)"


def _tell_refused(data: ReportData, task: TaskFacts) -> str:
    """Which exports lost too much on the validation set, and how much; empty where none did."""
    told = [
        f"the export {line.name} was refused: "
        + (line.judgement.removeprefix("refused: ") or f"it loses {tell_loss(line)}, more than {line.tolerance:g} %")
        for line in exports_of(data, task)
        if not line.delivered and line.split == "validation"
    ]
    return "; ".join(told)


def _compare_with_control(data: ReportData, task: TaskFacts, models: list[MeasuredModel]) -> Sentence | None:
    arms = {model.arm for model in models}
    if "student" not in arms:
        return None
    if "control" not in arms:
        return Sentence("caution", "no control was trained, so whether distillation paid is not known.")
    silent = {model.arm: model for model in models if model.is_constant}
    if "student" in silent:
        return None
    if "control" in silent:
        return Sentence("bad", f"{tell_constant(['the control'], task.answer, _score(silent['control'], task))}.")
    gain = find_comparison(data, task, "student", "control")
    if gain is None:
        return Sentence("caution", "the student was not compared with the control row by row: see the scores.")
    told = _tell_difference(gain)
    low, high = turn_gain(gain)
    seeds = count_seeds(data, "student", task)
    mean = f" (mean over {seeds} seeds)" if seeds > 1 else ""
    if low > 0:
        return Sentence("good", f"distillation paid: {told} against the same student trained without it{mean}.")
    if high < 0:
        return Sentence("bad", f"distillation did harm: {told} against the same student trained without it{mean}.")
    return Sentence("neutral", f"distillation made no measurable difference here: {told}{mean}.")


def _compare_with_words(
    data: ReportData, task: TaskFacts, models: list[MeasuredModel], arm: Literal["teacher", "student"]
) -> Sentence | None:
    if not {arm, "tfidf"} <= {model.arm for model in models}:
        return None
    found = find_comparison(data, task, arm, "tfidf")
    if found is None:
        return None
    low, high = turn_gain(found)
    if arm == "student" and low > 0:
        return None  # That the student beats word counts too goes without saying; that it does not must be said.
    told = _tell_difference(found)
    if low > 0:
        return Sentence("good", f"the {arm} beats a linear model over word counts (TF-IDF): {told}.")
    if high < 0:
        return Sentence("bad", f"a linear model over word counts (TF-IDF) beats the {arm}: {told}.")
    return Sentence("bad", f"the {arm} is not measurably better than a linear model over word counts (TF-IDF): {told}.")


def _limits(data: ReportData) -> list[Sentence]:
    prefixes = {task.name: f"{task.name}: " if len(data.tasks) > 1 else "" for task in data.tasks}
    limits = [
        Sentence("bad", _capitalised(f"{prefixes[task.name]}{warning}."))
        for task in data.tasks
        for warning in task.warnings
    ]
    if on_validation := [task.name for task in data.tasks if task.split == "validation"]:
        where = f" ({formats.joined(on_validation)})" if len(data.tasks) > 1 else ""
        text = f"Reported on the validation set{where}, which also chose the checkpoints: expect less on new text."
        limits.append(Sentence("caution", text))
    if any(row.arm == "student" for row in data.rows):
        limits.append(Sentence("caution", _describe_seeds(data)))
    if (effort := _effort_against_control(data)) is not None and effort >= 1.05:
        text = (
            f"Asking the teacher made training the student {formats.ratio(effort)} times the work of training the "
            f"control (in FLOPs); the control had the same {name_training_rows(data)} and steps, not the same compute."
        )
        limits.append(Sentence("caution", text))
    return limits


def name_training_rows(data: ReportData) -> str:
    """What student and control both learn from."""
    return "labelled rows" if any(task.labelled for task in data.tasks) else "text"


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


def _score(model: MeasuredModel, task: TaskFacts) -> str:
    return METRICS[task.metric].write(model.rows[task.metric].value)


def _times(teacher: MeasuredModel, student: MeasuredModel) -> str:
    return f"{formats.milliseconds(student.median_ms or 0)} against {formats.milliseconds(teacher.median_ms or 0)}"


def _tell_difference(found: Comparison) -> str:
    return METRICS[found.metric].tell_difference(found.difference, found.low, found.high)


def turn_gain(found: Comparison) -> tuple[float, float]:
    """The interval of a difference, turned so that more than 0 is better."""
    return METRICS[found.metric].as_gain(found.low, found.high)
