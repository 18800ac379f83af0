"""What a report is made of: typed rows of plain values, which go to JSON and come back the same.

The pipeline fills a `ReportData`; everything else in this room only reads it. Scores are fractions (0.925; BLEU, chrF
and ROUGE too), correlations or perplexities, times are in the unit their name says, sizes are in bytes.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lightpaff.errors import UserError

Arm = str
"""`teacher`, `student`, `control`, `tfidf`, or a name that the recipe gives."""
Stage = Literal["pre-training", "fine-tuning"]

Content = TypeVar("Content")


class _Checked:
    """How the dataclasses below are read from JSON: no unknown keys, no NaN."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Row(_Checked):
    """One score of one model, with what the model costs."""

    arm: Arm
    task: str
    split: str
    metric: str
    """One of `lightpaff.report.metrics.METRICS`."""
    value: float
    interval: tuple[float, float] | None = None
    """95 %, over the evaluation rows; of a mean over several seeds: over rows and seeds."""
    seed: int | None = None
    """None: the mean over the fine-tuning seeds, or nothing random was involved."""
    spread: float | None = None
    """The standard deviation over the seeds; only where several were run."""
    examples: int = 0
    """How many evaluation rows the score is about."""
    parameters: int | None = None
    bytes: int | None = None
    """Of the weights, in float32."""
    median_ms: float | None = None
    """Of one measurement: what that is, `TaskFacts.timed` says."""
    p95_ms: float | None = None
    throughput: float | None = None
    """Examples a second, in batches."""
    runtime: str = ""
    """Such as "pytorch float32, 2 threads". A model that runs in several ways has rows for each."""
    command: str = ""
    """What makes this row again."""
    constant: bool = False
    """The model gave every row the same answer (class, score or text): its score says nothing about the rows."""


@dataclass(frozen=True)
class TaskFacts(_Checked):
    """What a task is, and which of its rows count."""

    name: str
    objective: str
    metric: str
    """The metric that the headline speaks of."""
    split: str
    """The split that is reported. Where it is "validation", it chose the checkpoint too, and the page says so."""
    classes: int | None = None
    """None for a task without classes."""
    timed: str = "one example at a time"
    """What one latency measurement is, such as "32 tokens after a prompt of 32, greedy"."""
    counted: str = "rows"
    """What the scores and their intervals are over: rows, sentences, documents, windows."""
    answer: str = "class"
    """What a row is given, as in: every row the same class."""
    answers: str = "answers"
    """What a student and its export have in common, as in: same answers."""
    difference: str = ""
    """What the largest difference between the two is of; empty where there are no numbers."""
    labelled: bool = True
    """Whether its rows have labels, which can be missing, and not only text."""
    notes: dict[str, str] = field(default_factory=dict)
    """How the scores came about, such as BLEU: its sacreBLEU signature; shown under the task's table."""
    warnings: list[str] = field(default_factory=list)
    """What makes the scores say less than they seem to, such as test rows that are training rows."""


@dataclass(frozen=True)
class ValidationPoint(_Checked):
    """One evaluation during a training."""

    step: int
    metric: str
    value: float


@dataclass(frozen=True)
class Curve(_Checked):
    """The course of one training; the lists of losses are as long as `steps`, or empty where there is none."""

    arm: Arm
    stage: Stage
    task: str | None
    """None in pre-training."""
    seed: int
    steps: list[int]
    training_loss: list[float]
    """What was minimised: (1-λ)·nll + λ·T²·divergence, as a mean over the targets."""
    nll: list[float]
    """Negative log likelihood of the gold classes or tokens, in nats."""
    divergence: list[float]
    """KL(teacher || student), or what the recipe has in its place, at temperature T, in nats; empty where there is
    no teacher."""
    validation: list[ValidationPoint]


@dataclass(frozen=True)
class Disagreement(_Checked):
    """One evaluation row about which teacher and delivered student differ (of several seeds the one that did best on
    the validation set); probabilities are those of their own answers."""

    task: str
    text: str
    text_pair: str | None
    label: str
    teacher_label: str
    teacher_probability: float
    student_label: str
    student_probability: float


@dataclass(frozen=True)
class Sample(_Checked):
    """What the models write about one evaluation row: the student is the delivered one."""

    task: str
    source: str
    """The prompt of a continuation, or the text to translate."""
    references: list[str]
    teacher: str
    student: str
    control: str | None = None
    """None where no control was trained."""


@dataclass(frozen=True)
class DataCard(_Checked):
    """Where data came from, how much there is, and what was dropped for which reason."""

    name: str
    facts: dict[str, str | int | float]
    dropped: dict[str, int]


@dataclass(frozen=True)
class Comparison(_Checked):
    """First arm minus second arm on the same rows, with the 95 % interval of the paired difference.

    Where several seeds of an arm were run, its mean counts, and the interval is also over those seeds."""

    task: str
    split: str
    metric: str
    first_arm: Arm
    second_arm: Arm
    difference: float
    """In the metric's own unit: of a perplexity, less than 0 speaks for the first."""
    low: float
    high: float


@dataclass(frozen=True)
class AgreementLine(_Checked):
    """How far a model says what its teacher says, and whether its confidence can be believed.

    Means over the fine-tuning seeds where several were run."""

    task: str
    split: str
    arm: Arm
    agreement: float | None = None
    """The share of rows with the teacher's answer; for a regression the correlation. None for the teacher itself."""
    mean_kl: float | None = None
    """In nats."""
    calibration_error: float | None = None
    """Expected calibration error, 15 bins, 0 to 1."""


@dataclass(frozen=True)
class SpeedRatio(_Checked):
    """How many times as fast the first is as the second, by the median latency, with its 95 % interval."""

    task: str
    first_arm: Arm
    first_runtime: str
    second_arm: Arm
    second_runtime: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class ExportLine(_Checked):
    """An export beside the student that it was made from, on one split."""

    task: str
    name: str
    """Format and precision, such as "onnx-int8"."""
    split: str
    metric: str
    """The task's first."""
    student: float
    export: float
    loss: float
    """What the export loses, in per cent of the student's score; of a perplexity, how much higher it is. Less than 0:
    it gains."""
    tolerance: float
    """The most that it may lose on the validation set, likewise."""
    delivered: bool
    """False: a loss above the tolerance was shown, and the run did not put it into its directory."""
    examples: int
    agreement: float | None = None
    """The share of rows with the same answer or text; None for a regression or a perplexity."""
    largest_difference: float | None = None
    """Of a logit, or of a window's log likelihood a token, in nats; None for texts."""
    loss_low: float | None = None
    loss_high: float | None = None
    """The 95 % interval of the loss, paired over the rows."""
    judgement: str = ""
    """What became of it, and why: delivered, undecided (too few rows, and delivered) or refused."""


@dataclass(frozen=True)
class OnlineLine(_Checked):
    """How a model answers online, in a process of its own, in turn with the others of its task on the same inputs."""

    task: str
    model: str
    """teacher, student, or an export's name such as "onnx-int8"."""
    runtime: str
    """Such as "ONNX Runtime int8"."""
    threads: int
    batch_size: int
    mean_length: float
    """Of the task's own inputs, in tokens."""
    bytes: int
    """Of its weights on disk."""
    size_ratio: float
    """How many times as small as the baseline."""
    median_ms: float
    """Of a whole batch, as are the percentiles."""
    p95_ms: float
    p99_ms: float
    throughput: float
    """Rows a second."""
    ratio: float
    """How many times as fast as the baseline, which has 1; with its 95 % interval."""
    low: float
    high: float
    peak_bytes: int
    """The most memory that its process held."""
    load_seconds: float
    cost_per_million: float
    """Requests."""
    price_per_core_hour: float
    baseline: str
    """Whom the ratios are against: the teacher in PyTorch."""
    written: float = 0.0
    """Tokens of an answer, on average; 0 where none are written, and in older reports."""


@dataclass(frozen=True)
class StepLine(_Checked):
    """A step of the pipeline."""

    name: str
    seconds: float
    """When it was done; 0 is fine for a step that was only looked up."""
    reused: bool = False
    """Done in an earlier run, and kept."""
    detail: str = ""


@dataclass(frozen=True)
class ComputeLine(_Checked):
    """What a training took, in floating point operations."""

    arm: Arm
    stage: Stage
    task: str | None
    training_flops: float
    teacher_flops: float = 0.0
    """To ask the teacher for its soft targets."""


@dataclass(frozen=True)
class ReportData(_Checked):
    """Everything that the report shows.

    Beside rows of the same arm, task, split, metric and runtime that differ in the seed is their mean, which has none.
    """

    name: str
    title: str
    created: str
    """UTC, ISO 8601."""
    summary: dict[str, str]
    """A few facts in words, such as teacher: "bert-base-uncased, 12 layers x 768"."""
    tasks: list[TaskFacts]
    rows: list[Row]
    curves: list[Curve]
    disagreements: list[Disagreement]
    samples: list[Sample]
    data_cards: list[DataCard]
    comparisons: list[Comparison]
    agreement: list[AgreementLine]
    speed_ratios: list[SpeedRatio]
    steps: list[StepLine]
    compute: list[ComputeLine]
    environment: dict[str, str]
    """Versions, hardware, seeds, the recipe's fingerprint."""
    recipe_yaml: str
    command: str
    """What makes this report again."""
    exports: list[ExportLine] = field(default_factory=list)
    online: list[OnlineLine] = field(default_factory=list)


_REPORT = TypeAdapter(ReportData)


def report_to_json(data: ReportData) -> dict[str, Any]:
    """The whole report as plain dicts and lists for `json.dumps`.

    Raises:
        UserError: when a value is not finite (JSON has no NaN) or of another type than declared.
    """
    return dict(_REPORT.dump_python(_check(_REPORT, asdict(data), "report data"), mode="json"))


def report_from_json(content: dict[str, Any], name: str = "report_data.json") -> ReportData:
    """The whole report again; `name` is what an error calls it.

    Raises:
        UserError: names the first field that is missing, unknown or of another type.
    """
    return _check(_REPORT, content, name)


def _check(adapter: TypeAdapter[Content], content: object, name: str) -> Content:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        found = repr(problem["input"])[:80]
        message = f"{name}: {place}: {problem['msg']}; found {found}. Make the report again from its run"
        raise UserError(message) from error
