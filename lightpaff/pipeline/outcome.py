"""From the results of a run's steps to what its report shows."""

import datetime
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from lightpaff.data.sources import ResolvedSource
from lightpaff.data.task_data import TaskRows
from lightpaff.evaluation.agreement import agreement, mean_kl
from lightpaff.evaluation.calibration import expected_calibration_error
from lightpaff.evaluation.intervals import bootstrap_interval, paired_difference
from lightpaff.evaluation.metrics import Predictions
from lightpaff.evaluation.outputs import Outputs
from lightpaff.evaluation.tags import TagPredictions
from lightpaff.evaluation.texts import GeneratedTexts
from lightpaff.machine import describe_busyness
from lightpaff.models.initialisation import taken_layers
from lightpaff.models.opening import read_config
from lightpaff.models.shapes import count_parameters, shape_of
from lightpaff.models.weights import float32_bytes
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.few_classes import read_labels
from lightpaff.objectives.table import TASK_OBJECTIVES, WITH_FEW_CLASSES
from lightpaff.objectives.translate import Translation
from lightpaff.pipeline.arms import CONTROL, STUDENT, TEACHER, Arm
from lightpaff.pipeline.build import Graph, TaskSteps, TrainingStep
from lightpaff.pipeline.choosing import chosen_seed
from lightpaff.pipeline.context import RunContext, evaluation_splits, task_objective
from lightpaff.pipeline.data_steps import CARD, read_warnings
from lightpaff.pipeline.delivery import ExportPlan
from lightpaff.pipeline.environment import (
    describe_environment,
    describe_maker,
    describe_runtime,
)
from lightpaff.pipeline.graph import DoneStep, Step
from lightpaff.pipeline.measuring_steps import read_latency
from lightpaff.pipeline.online import export_lines, online_lines
from lightpaff.pipeline.online_steps import read_online
from lightpaff.pipeline.training_steps import MADE_WITH, TRAINING
from lightpaff.pipeline.workload import flops_of, workload_of
from lightpaff.recipe_training import Distillation
from lightpaff.report.metrics import METRICS
from lightpaff.report.rows import (
    AgreementLine,
    Comparison,
    ComputeLine,
    Curve,
    DataCard,
    Disagreement,
    ReportData,
    Row,
    Sample,
    SpeedRatio,
    StepLine,
    TaskFacts,
    ValidationPoint,
)
from lightpaff.report.rows import Arm as ReportedArm

_DISAGREEMENTS_SHOWN = 12
_SAMPLES_SHOWN = 12
_COMPARED: list[tuple[ReportedArm, ReportedArm]] = [
    ("student", "teacher"),
    ("student", "control"),
    ("control", "teacher"),
    ("student", "tfidf"),
    ("teacher", "tfidf"),
]


@dataclass(frozen=True)
class Finished:
    """A run whose steps are all done."""

    context: RunContext
    graph: Graph
    done: dict[str, DoneStep]
    exports: ExportPlan
    failures: list[str]
    command: str


def report_data(finished: Finished) -> ReportData:
    """Everything that the report shows of a finished run."""
    context, graph = finished.context, finished.graph
    recipe = context.recipe
    return ReportData(
        name=recipe.name,
        title=f"{recipe.name}: a teacher{', its student and the control' if recipe.control else ' and its student'}",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        summary=_summary(finished),
        tasks=[_task_facts(context, steps) for steps in graph.tasks],
        rows=[row for steps in graph.tasks for row in _rows(finished, steps)],
        curves=[_curve(training) for training in graph.trainings],
        disagreements=[line for steps in graph.tasks for line in _disagreements(context, steps)],
        samples=[line for steps in graph.tasks for line in _samples(context, steps)],
        data_cards=list(_data_cards(finished)),
        comparisons=[line for steps in graph.tasks for line in _comparisons(context, steps)],
        agreement=[line for steps in graph.tasks for line in _agreement(context, steps)],
        speed_ratios=[_speed_ratio(finished, steps) for steps in graph.tasks],
        steps=list(_step_lines(finished)),
        compute=[_compute_line(context, training) for training in graph.trainings],
        environment={
            **describe_environment(context.hardware),
            "seeds": f"pre-training {recipe.seeds.pretraining}, fine-tuning {recipe.seeds.fine_tuning}",
            "recipe fingerprint": recipe.fingerprint(),
        },
        recipe_yaml=yaml.safe_dump(recipe.model_dump(mode="json", exclude_none=True), sort_keys=False),
        command=finished.command,
        exports=[line for steps in graph.tasks for line in export_lines(steps)],
        online=[line for steps in graph.tasks for line in online_lines(steps)],
    )


def read_predictions(context: RunContext, steps: TaskSteps, step: Step, split: str) -> Outputs:
    """A model's outputs for a split, with the gold ones."""
    data = task_objective(context, steps.task, steps.rows, split)
    return TASK_OBJECTIVES[steps.task.objective].read_outputs(step.directory / split, data)


def _summary(finished: Finished) -> dict[str, str]:
    context = finished.context
    recipe = context.recipe
    teacher = context.inputs.teacher.origin if context.inputs.teacher else "pre-trained here"
    pretraining = recipe.pretraining
    facts = {
        "teacher": f"{teacher}, {_describe(context.inputs.teacher_config)}",
        "student": f"{_describe(context.inputs.student_config)}, started from {_describe_start(context)}",
        "distillation in pre-training": (
            _describe_distillation(pretraining.distillation) if pretraining else "no pre-training stage"
        ),
        "distillation in fine-tuning": _describe_distillation(recipe.fine_tuning.distillation),
    }
    for task, fetched in context.inputs.task_teachers.items():
        facts[f"teacher of {task}"] = f"{fetched.origin}, {_describe(context.inputs.task_teacher_configs[task])}"
    if recipe.control:
        facts["control"] = "the same student, labelled rows and steps, with λ = 0 in both stages"
    for name, overrides in recipe.arms.items():
        told = ", ".join(f"{key}: {value}" for key, value in overrides.items())
        facts[name] = f"the student with {told}" if told else "the student once more"
    if told := "; ".join([*([finished.exports.note] if finished.exports.note else []), *finished.failures]):
        facts["exports"] = told
    measured = [finished.done[steps.online.fingerprint] for steps in finished.graph.tasks if steps.online]
    shares = [done.facts.get("busy", 0.0) for done in measured]
    if told := describe_busyness(max(shares, default=0.0)):
        facts["while the speed was measured"] = told.replace("is busy", "was busy").replace("use", "used")
    for steps in finished.graph.tasks:
        if len(recipe.seeds.fine_tuning) > 1:
            seed = chosen_seed(steps.chosen)
            facts[f"delivered student, {steps.task.name}"] = f"seed {seed}, the best on the validation set"
    return facts


def _describe(config: Any) -> str:
    shape = shape_of(config)
    layers = f"{shape.layers}-{shape.decoder_layers}" if shape.decoder_layers else str(shape.layers)
    size = f"{layers} x {shape.hidden_size}, {shape.heads} heads, {shape.feed_forward} feed-forward"
    return f"{config.model_type} {size}"


def _describe_distillation(distillation: Distillation) -> str:
    return f"λ = {distillation.weight:g}, temperature {distillation.temperature:g}, {distillation.divergence}"


def _describe_start(context: RunContext) -> str:
    student, inputs = context.recipe.student, context.inputs
    if student.initialisation != "teacher":
        return "random weights" if student.initialisation == "random" else student.initialisation
    taken = taken_layers(inputs.student_config, inputs.teacher_config, student.named_layers)
    told = [f"{size.replace('_', ' ')} {', '.join(map(str, layers))}" for size, layers in taken.items()]
    return f"{' and '.join(told)} of its teacher"


def _task_facts(context: RunContext, steps: TaskSteps) -> TaskFacts:
    task, objective = steps.task, TASK_OBJECTIVES[steps.task.objective]
    teacher = read_predictions(context, steps, _teacher_step(steps), evaluation_splits(task)[-1])
    words = objective.answer_words(task)
    return TaskFacts(
        task.name,
        task.objective,
        task.metric_names[0],
        evaluation_splits(task)[-1],
        classes=len(read_labels(steps.rows.directory)) if task.objective in ("classify", "tag") else None,
        timed=objective.describe_timing(task),
        counted=objective.counted,
        answer=words.one,
        answers=words.several,
        difference=words.difference,
        labelled=task.objective in WITH_FEW_CLASSES,
        notes={**objective.notes(task, teacher), **_whose_f1(steps), **_units(teacher)},
        warnings=read_warnings(steps.rows),
    )


def _units(outputs: Outputs) -> dict[str, str]:
    """What the intervals draw, where that is not single rows."""
    units = len(np.unique(outputs.units_N))
    if units == len(outputs):
        return {}
    return {"intervals": f"{len(outputs):,} rows in {units:,} groups, of which each is drawn whole"}


def _whose_f1(steps: TaskSteps) -> dict[str, str]:
    if "f1" not in steps.task.metric_names:
        return {}
    labels = read_labels(steps.rows.directory)
    whose = f"of the class '{labels[1]}'" if len(labels) == 2 else f"the unweighted mean over {len(labels)} classes"
    return {METRICS["f1"].name: whose}


def _rows(finished: Finished, steps: TaskSteps) -> Iterator[Row]:
    """One row an arm, seed, split and metric; with several seeds also their mean."""
    context = finished.context
    latency = _read_speed(finished, steps)
    for split in evaluation_splits(steps.task):
        for arm in finished.graph.arms:
            own = {seed: step for (name, seed), step in steps.predictions.items() if name == arm.name}
            read = {seed: read_predictions(context, steps, step, split) for seed, step in own.items()}
            costs = {**_size(context, steps, arm, next(iter(own))), **_speed(latency, arm), "command": finished.command}
            for metric in steps.task.metric_names:
                for seed, outputs in read.items():
                    yield _row(arm.name, steps, split, metric, [outputs], seed=seed, **costs)
                if len(read) > 1:
                    yield _row(arm.name, steps, split, metric, list(read.values()), **costs)
        if steps.baseline is None:
            continue
        predictions = read_predictions(context, steps, steps.baseline, split)
        facts = finished.done[steps.baseline.fingerprint].facts
        for metric in steps.task.metric_names:
            costs = {"parameters": facts["parameters"], "runtime": "scikit-learn", "command": finished.command}
            yield _row("tfidf", steps, split, metric, [predictions], **costs)


def _row(arm: Any, steps: TaskSteps, split: str, metric: Any, several: list[Outputs], **more: Any) -> Row:
    """Of one seed's outputs, or of several: their mean."""
    values = [outputs.score(metric) for outputs in several]
    interval = bootstrap_interval(metric, several)
    return Row(
        arm,
        steps.task.name,
        split,
        metric,
        value=statistics.fmean(values),
        interval=(interval.low, interval.high),
        spread=statistics.stdev(values) if len(values) > 1 else None,
        examples=len(several[0]),
        constant=all(outputs.is_constant for outputs in several),
        **more,
    )


def _size(context: RunContext, steps: TaskSteps, arm: Arm, seed: int) -> dict[str, int]:
    folder = steps.models[arm.name, seed].path
    data = task_objective(context, steps.task, steps.rows, "validation")
    return {
        "parameters": count_parameters(read_config(folder), data.head, data.number_of_classes).total,
        "bytes": float32_bytes(folder),
    }


def _read_speed(finished: Finished, steps: TaskSteps) -> dict[str, Any]:
    """How fast teacher and student are, as `read_latency` has it; where exports are measured beside them, of that."""
    if steps.latency is not None:
        return read_latency(steps.latency)
    assert steps.online is not None
    rows = read_online(steps.online)
    by_model = {
        name: sorted((row for row in rows if row.contender == name), key=lambda row: row.batch_size)
        for name in ("teacher", "student")
    }
    first = by_model["student"][0]
    return {
        "runtime": describe_runtime(finished.context.hardware.device),
        "models": {
            name: {
                "median_ms": own[0].median_ms,
                "p95_ms": own[0].p95_ms,
                "throughput": own[-1].throughput_per_s,
            }
            for name, own in by_model.items()
        },
        "ratios": {"student": {"value": first.ratio, "low": first.ratio_low, "high": first.ratio_high}},
    }


def _speed(latency: dict[str, Any], arm: Arm) -> dict[str, Any]:
    own = latency["models"]["student" if arm.is_small else "teacher"]
    return {**{name: own[name] for name in ("median_ms", "p95_ms", "throughput")}, "runtime": latency["runtime"]}


def _curve(training: TrainingStep) -> Curve:
    progress = json.loads((training.step.directory / TRAINING).read_text())
    history = progress["history"]
    is_distilled = any(record["divergence"] for record in history)
    return Curve(
        arm=training.arm.name,
        stage=training.stage,
        task=training.task.name if training.task else None,
        seed=training.seed,
        steps=[record["step"] for record in history],
        training_loss=[record["loss"] for record in history],
        nll=[record["nll"] for record in history],
        divergence=[record["divergence"] for record in history] if is_distilled else [],
        validation=[
            ValidationPoint(record["step"], name, value)
            for record in progress["evaluations"]
            for name, value in record.items()
            if name not in ("step", "score", "loss")
        ],
    )


def _disagreements(context: RunContext, steps: TaskSteps) -> Iterator[Disagreement]:
    """The rows on which teacher and delivered student differ, the surest student first."""
    split = evaluation_splits(steps.task)[-1]
    data = task_objective(context, steps.task, steps.rows, split)
    # Before any outputs are read, which takes its time where answers are spans.
    if not (isinstance(data, Classification) and data.number_of_classes > 1):
        return
    teacher = read_predictions(context, steps, _teacher_step(steps), split)
    student = read_predictions(context, steps, steps.predictions[STUDENT, chosen_seed(steps.chosen)], split)
    assert isinstance(teacher, Predictions)
    assert isinstance(student, Predictions)
    texts = list(TaskRows.open(steps.rows.directory / f"{split}.arrow").texts())
    labels = read_labels(steps.rows.directory)
    differing = [row for row in range(len(texts)) if teacher.classes_N[row] != student.classes_N[row]]
    differing.sort(key=lambda row: -student.probabilities_NV[row].max())
    for row in differing[:_DISAGREEMENTS_SHOWN]:
        yield Disagreement(
            task=steps.task.name,
            text=texts[row][0],
            text_pair=texts[row][1],
            label=labels[int(teacher.labels_N[row])],
            teacher_label=labels[teacher.classes_N[row]],
            teacher_probability=float(teacher.probabilities_NV[row].max()),
            student_label=labels[student.classes_N[row]],
            student_probability=float(student.probabilities_NV[row].max()),
        )


def _samples(context: RunContext, steps: TaskSteps) -> Iterator[Sample]:
    """Rows from all over the split, with what each model wrote."""
    split, seed = evaluation_splits(steps.task)[-1], chosen_seed(steps.chosen)
    data = task_objective(context, steps.task, steps.rows, split)
    if not isinstance(data, Translation):
        return
    written = {arm: _texts(context, steps, arm, seed, split) for arm in (TEACHER, STUDENT, CONTROL)}
    sources, references = data.sources(), data.references()
    shown = min(_SAMPLES_SHOWN, len(sources))
    for row in (len(sources) * place // shown for place in range(shown)):
        control = written["control"]
        yield Sample(
            task=steps.task.name,
            source=sources[row],
            references=references[row],
            teacher=written["teacher"][row],
            student=written["student"][row],
            control=control[row] if control else None,
        )


def _texts(context: RunContext, steps: TaskSteps, arm: str, seed: int, split: str) -> list[str]:
    """What an arm wrote; of the teacher, whatever its seed; nothing of an arm that was not trained."""
    step = _teacher_step(steps) if arm == TEACHER else steps.predictions.get((arm, seed))
    if step is None:
        return []
    outputs = read_predictions(context, steps, step, split)
    assert isinstance(outputs, GeneratedTexts)
    return outputs.hypotheses


def _teacher_step(steps: TaskSteps) -> Step:
    return next(step for (arm, _), step in steps.predictions.items() if arm == TEACHER)


def _step_lines(finished: Finished) -> Iterator[StepLine]:
    """What was done; a training that was made elsewhere, or otherwise, says with what."""
    here = describe_maker(finished.context.hardware.device)
    for step in finished.graph.steps:
        done = finished.done[step.fingerprint]
        maker = done.facts.get(MADE_WITH, here)
        detail = "" if maker == here else "made with torch {torch}, threads: {threads}, {processor}".format(**maker)
        yield StepLine(done.step.name, done.seconds, done.reused, detail)


def _data_cards(finished: Finished) -> Iterator[DataCard]:
    """The cards of the data steps, under this run's names and paths: the steps may be those of an earlier run."""
    graph, sources = finished.graph, finished.context.inputs.sources
    if graph.corpus is not None:
        card = json.loads((graph.corpus.directory / CARD).read_text())
        yield _data_card("pre-training text", sources.corpus, card)
    for steps in graph.tasks:
        task = steps.task.name
        for card in json.loads((steps.rows.directory / CARD).read_text()):
            own: list[ResolvedSource] = sources.tasks[task].of(card["split"])
            unlabelled = sources.tasks[task].unlabelled if card["split"] == "train" else []
            yield _data_card(f"{task}, {card['split']}", [*own, *unlabelled], card)


def _data_card(name: str, sources: list[ResolvedSource], card: dict[str, Any]) -> DataCard:
    paths = ", ".join(source.source.path for source in sources)
    return DataCard(name, {"sources": paths, **card["facts"]}, card["dropped"])


def _comparisons(context: RunContext, steps: TaskSteps) -> Iterator[Comparison]:
    """Student against teacher, control and baseline, control against teacher, on the reported split."""
    split, metric = evaluation_splits(steps.task)[-1], steps.task.metric_names[0]
    seeds = context.recipe.seeds.fine_tuning
    several: dict[ReportedArm, list[Outputs]] = {
        "teacher": [read_predictions(context, steps, _teacher_step(steps), split)],
    }
    if steps.baseline is not None:
        several["tfidf"] = [read_predictions(context, steps, steps.baseline, split)]
    arms = list(dict.fromkeys(arm for arm, _ in steps.predictions if arm != TEACHER))
    for arm in arms:
        several[arm] = [read_predictions(context, steps, steps.predictions[arm, seed], split) for seed in seeds]
    others = [arm for arm in arms if arm not in (STUDENT, CONTROL)]
    pairs = [(STUDENT, arm) for arm in others] + [(arm, CONTROL) for arm in others]
    for first, second in (*_COMPARED, *pairs):
        if first in several and second in several:
            found = paired_difference(metric, several[first], several[second])
            yield Comparison(
                steps.task.name,
                split,
                metric,
                first,
                second,
                found.value,
                found.low,
                found.high,
            )


def _agreement(context: RunContext, steps: TaskSteps) -> Iterator[AgreementLine]:
    """How far student and control say what the teacher says: means over the fine-tuning seeds."""
    split = evaluation_splits(steps.task)[-1]
    teacher = _classified(read_predictions(context, steps, _teacher_step(steps), split))
    if teacher is None:
        return
    is_classification = teacher.logits_NV.shape[1] > 1
    error = expected_calibration_error(teacher) if is_classification else None
    yield AgreementLine(steps.task.name, split, "teacher", calibration_error=error)
    for arm in dict.fromkeys(arm for arm, _ in steps.predictions if arm != TEACHER):
        read = [read_predictions(context, steps, step, split) for (a, _), step in steps.predictions.items() if a == arm]
        own = [classified for outputs in read if (classified := _classified(outputs)) is not None]
        if own:
            yield AgreementLine(
                steps.task.name,
                split,
                arm,
                agreement=statistics.fmean(agreement(teacher, seed) for seed in own),
                mean_kl=statistics.fmean(mean_kl(teacher, seed) for seed in own) if is_classification else None,
                calibration_error=(
                    statistics.fmean(expected_calibration_error(seed) for seed in own) if is_classification else None
                ),
            )


def _classified(outputs: Outputs) -> Predictions | None:
    """Rows, or words, with their logits; None where there are none."""
    outputs = outputs.words if isinstance(outputs, TagPredictions) else outputs
    return outputs if isinstance(outputs, Predictions) else None


def _speed_ratio(finished: Finished, steps: TaskSteps) -> SpeedRatio:
    latency = _read_speed(finished, steps)
    found = latency["ratios"]["student"]
    runtime = latency["runtime"]
    return SpeedRatio(
        steps.task.name, "student", runtime, "teacher", runtime, found["value"], found["low"], found["high"]
    )


def _compute_line(context: RunContext, training: TrainingStep) -> ComputeLine:
    flops = flops_of(context, training, workload_of(context, training))
    task = training.task.name if training.task else None
    return ComputeLine(training.arm.name, training.stage, task, flops.own, flops.teacher)
