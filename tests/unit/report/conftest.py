"""A report as a real run gives it: two stages, one task, two seeds of student and control, an int8 export."""

import math

import pytest

from lightpaff.report.rows import (
    AgreementLine,
    Arm,
    Comparison,
    ComputeLine,
    Curve,
    DataCard,
    Disagreement,
    ReportData,
    Row,
    SpeedRatio,
    Stage,
    StepLine,
    TaskFacts,
    ValidationPoint,
)

PYTORCH, INT8 = "pytorch float32, 2 threads", "onnxruntime int8, 2 threads"
COMMAND = "lightpaff run recipes/imdb.yaml --set student.layers=3"


def make_row(arm: Arm, metric: str, value: float, seed: int | None = None, runtime: str = PYTORCH) -> Row:
    costs: dict[tuple[str, str], tuple[int, int, float, float, float]] = {
        ("teacher", PYTORCH): (109_482_240, 437_958_648, 81.4, 96.2, 14.1),
        ("student", PYTORCH): (25_300_482, 101_201_928, 13.2, 16.0, 88.3),
        ("control", PYTORCH): (25_300_482, 101_201_928, 13.3, 16.1, 88.0),
        ("student", INT8): (25_300_482, 25_733_120, 4.1, 5.0, 301.5),
    }
    parameters, size, median_ms, p95_ms, throughput = costs.get((arm, runtime), (None,) * 5)
    half = 1.96 * math.sqrt(value * (1 - value) / 3000)
    return Row(
        arm=arm,
        task="imdb",
        split="test",
        metric=metric,
        value=value,
        interval=(value - half, value + half),
        seed=seed,
        examples=3000,
        parameters=parameters,
        bytes=size,
        median_ms=median_ms,
        p95_ms=p95_ms,
        throughput=throughput,
        runtime="scikit-learn" if arm == "tfidf" else runtime,
        command=COMMAND,
    )


def make_rows() -> list[Row]:
    rows = []
    for metric, shift in (("accuracy", 0.0), ("f1", 0.002)):
        rows += [
            make_row("teacher", metric, 0.9273 + shift, 0),
            make_row("student", metric, 0.9093 + shift, 0),
            make_row("student", metric, 0.9121 + shift, 1),
            make_row("student", metric, 0.9087 + shift, 0, INT8),
            make_row("control", metric, 0.8942 + shift, 0),
            make_row("control", metric, 0.8981 + shift, 1),
            make_row("tfidf", metric, 0.8796 + shift),
        ]
    return rows


def make_curve(arm: Arm, stage: Stage, seed: int, start: float, end: float) -> Curve:
    steps = list(range(10, 2010, 10))
    wobble = [0.05 * math.sin(0.9 * step + seed) * math.cos(0.37 * step) for step in steps]
    nll = [end + (start - end) * math.exp(-step / 350) + w for step, w in zip(steps, wobble, strict=True)]
    has_kl = arm == "student"
    metric = "accuracy"
    best = {"teacher": 0.927, "student": 0.911, "control": 0.896, "tfidf": 0.0}[arm]
    if stage == "pre-training":
        best -= 0.45
    return Curve(
        arm=arm,
        stage=stage,
        task="imdb" if stage == "fine-tuning" else None,
        seed=seed,
        steps=steps,
        training_loss=nll,
        nll=nll,
        kl=[0.6 * value for value in nll] if has_kl else [],
        validation=[
            ValidationPoint(step, metric, best - 0.12 * math.exp(-step / 600) - 0.003 * seed)
            for step in range(250, 2001, 250)
        ],
    )


def make_curves() -> list[Curve]:
    return [
        make_curve("student", "pre-training", 0, 9.8, 3.1),
        make_curve("control", "pre-training", 0, 9.8, 3.4),
        make_curve("teacher", "fine-tuning", 0, 0.69, 0.10),
        *(make_curve("student", "fine-tuning", seed, 0.69, 0.18) for seed in (0, 1)),
        *(make_curve("control", "fine-tuning", seed, 0.69, 0.22) for seed in (0, 1)),
    ]


DISAGREEMENTS = [
    Disagreement("imdb", text, None, label, teacher, teacher_probability, student, student_probability)
    for text, label, teacher, teacher_probability, student, student_probability in (
        (
            "I went in expecting very little and came out humming. Not a great film, but a generous one.",
            *("positive", "positive", 0.93, "negative", 0.58),
        ),
        (
            "The kind of picture that critics adore and audiences sleep through. I slept beautifully.",
            *("negative", "positive", 0.71, "negative", 0.66),
        ),
        (
            "If you have seen the trailer you have seen the jokes. " * 14,
            *("negative", "negative", 0.99, "positive", 0.52),
        ),
    )
]

DATA_CARDS = [
    DataCard(
        "Pre-training corpus",
        {"rows read": 75_000, "sequences of 128 tokens": 148_212, "tokens": 18_971_136, "licence": "research use"},
        {"empty": 12, "exact duplicate": 418, "also in an evaluation set": 37},
    ),
    DataCard(
        "imdb, train",
        {"rows": 22_000, "classes": "negative 11,004, positive 10,996", "cut at 256 tokens": "31.2 %"},
        {"exact duplicate": 96},
    ),
    DataCard("imdb, test", {"rows": 3_000, "classes": "negative 1,512, positive 1,488", "cut at 256 tokens": 0.31}, {}),
]

ENVIRONMENT = {
    "lightpaff": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "processor": "Intel Xeon, 2 threads, AVX-512",
    "precision of training": "bf16",
    "seeds": "pre-training 0; fine-tuning 0, 1",
    "recipe fingerprint": "4f0c7a5be1a0c2d9e0c94a1b6f6f6f3aa0d5d1c7b7ad1a8c40a8b9f5f2a6c1e8",
}


@pytest.fixture(scope="session")
def report_data() -> ReportData:
    return make_report_data()


def make_report_data() -> ReportData:
    return ReportData(
        name="imdb-3x512",
        title="A BERT student of 3 layers for film reviews",
        created="2026-11-22T18:30:05+00:00",
        summary={"teacher": "bert-base-uncased, 12 layers x 768", "student": "3 layers x 512, from random weights"},
        tasks=[TaskFacts("imdb", "classify", "accuracy", "test", 2)],
        rows=make_rows(),
        curves=make_curves(),
        disagreements=DISAGREEMENTS,
        data_cards=DATA_CARDS,
        comparisons=[
            Comparison("imdb", "test", "accuracy", "student", "control", 0.0146, 0.0061, 0.0229),
            Comparison("imdb", "test", "accuracy", "student", "teacher", -0.0166, -0.0247, -0.0083),
            Comparison("imdb", "test", "accuracy", "teacher", "tfidf", 0.0477, 0.0360, 0.0593),
            Comparison("imdb", "test", "accuracy", "student", "tfidf", 0.0311, 0.0203, 0.0420),
        ],
        agreement=[
            AgreementLine("imdb", "test", "teacher", None, None, 0.031),
            AgreementLine("imdb", "test", "student", 0.941, 0.087, 0.019),
            AgreementLine("imdb", "test", "control", 0.918, 0.204, 0.056),
        ],
        speed_ratios=[
            SpeedRatio("imdb", "student", PYTORCH, "teacher", PYTORCH, 6.17, 6.08, 6.25),
            SpeedRatio("imdb", "student", INT8, "teacher", PYTORCH, 19.85, 19.3, 20.2),
        ],
        steps=[
            StepLine("Read and clean the corpus", 41.2, True, "75,000 rows"),
            StepLine("Pre-train the student", 1834.0, False, "2,000 steps, 18.9M tokens"),
            StepLine("Pre-train the control", 1102.5, False, "2,000 steps, 18.9M tokens"),
            StepLine("Fine-tune the teacher", 2412.7, True, "imdb, seed 0"),
            StepLine("Fine-tune the student", 604.9, False, "imdb, seeds 0 and 1"),
            StepLine("Evaluate and measure", 96.3),
        ],
        compute=[
            ComputeLine("student", "pre-training", None, 1.31e15, 3.2e15),
            ComputeLine("control", "pre-training", None, 1.31e15),
            ComputeLine("teacher", "fine-tuning", "imdb", 4.9e15),
            *(ComputeLine("student", "fine-tuning", "imdb", 0.42e15, 1.6e15) for _ in range(2)),
            *(ComputeLine("control", "fine-tuning", "imdb", 0.42e15) for _ in range(2)),
        ],
        environment=ENVIRONMENT,
        recipe_yaml="name: imdb-3x512\nfamily: encoder\nteacher:\n  source: bert-base-uncased\nstudent:\n  layers: 3\n",
        command=COMMAND,
    )
