"""Reports as real runs give them; all numbers are made up.

`report_data`: classification, two stages, one task, two seeds of student and control, an int8 export.
`clm_data`: language modelling, with perplexities; `translation_data`: BLEU and chrF. Both without the TF-IDF arm.
`with_exports` adds exports and how fast they are.
"""

import math
from dataclasses import replace

import pytest

from lightpaff.report.rows import (
    AgreementLine,
    Arm,
    Comparison,
    ComputeLine,
    Curve,
    DataCard,
    Disagreement,
    ExportLine,
    OnlineLine,
    ReportData,
    Row,
    Sample,
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
    """With several seeds, their mean follows them."""
    rows = []
    for metric, shift in (("accuracy", 0.0), ("f1", 0.002)):
        rows += [
            make_row("teacher", metric, 0.9273 + shift, 0),
            make_row("student", metric, 0.9093 + shift, 0),
            make_row("student", metric, 0.9121 + shift, 1),
            replace(make_row("student", metric, 0.9107 + shift), interval=None, spread=0.00198),
            make_row("student", metric, 0.9087 + shift, 0, INT8),
            make_row("control", metric, 0.8942 + shift, 0),
            make_row("control", metric, 0.8981 + shift, 1),
            replace(make_row("control", metric, 0.89615 + shift), interval=None, spread=0.002758),
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
        divergence=[0.6 * value for value in nll] if has_kl else [],
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
        tasks=[TaskFacts("imdb", "classify", "accuracy", "test", 2, difference="of a logit")],
        rows=make_rows(),
        curves=make_curves(),
        disagreements=DISAGREEMENTS,
        samples=[],
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


def make_text_rows(task: str, metrics: dict[str, dict[Arm, float]], half: float, examples: int) -> list[Row]:
    costs: dict[Arm, tuple[int, int, float]] = {
        "teacher": (124_439_808, 497_774_208, 1904.0),
        "student": (33_200_640, 132_820_000, 402.5),
        "control": (33_200_640, 132_820_000, 402.5),
    }
    return [
        Row(
            *(arm, task, "test", metric, value, (value - half * value, value + half * value), 0),
            examples=examples,
            parameters=costs[arm][0],
            bytes=costs[arm][1],
            median_ms=costs[arm][2],
            p95_ms=1.1 * costs[arm][2],
            throughput=30_000 / costs[arm][2],
            runtime=PYTORCH,
            command=COMMAND,
        )
        for metric, values in metrics.items()
        for arm, value in values.items()
    ]


def make_text_curve(arm: Arm, stage: Stage, task: str, metrics: dict[str, tuple[float, float]]) -> Curve:
    """The validation goes from the first to the second number of each metric."""
    steps = list(range(10, 410, 10))
    nll = [3.6 + 4 * math.exp(-step / 120) for step in steps]
    validation = [
        ValidationPoint(step, metric, end * (start / end) ** math.exp(1 - step / 100))
        for step in (100, 200, 300, 400)
        for metric, (start, end) in metrics.items()
    ]
    kl = [value / 3 for value in nll] if arm == "student" else []
    return Curve(arm, stage, task if stage == "fine-tuning" else None, 0, steps, nll, nll, kl, validation)


@pytest.fixture(scope="session")
def clm_data() -> ReportData:
    return make_clm_data()


def make_clm_data() -> ReportData:
    perplexities: dict[str, dict[Arm, float]] = {
        "word_perplexity": {"teacher": 38.0, "student": 41.2, "control": 44.4},
        "perplexity": {"teacher": 21.3, "student": 22.9, "control": 1240.0},
    }
    validation = {"nll": (6.8, 3.7), "perplexity": (900.0, 41.0)}
    return replace(
        make_report_data(),
        name="wikitext-4x512",
        title="A GPT-2 student of 4 layers",
        summary={"teacher": "gpt2, 12 layers x 768", "student": "4 layers x 512, from random weights"},
        tasks=[
            TaskFacts(
                *("wikitext", "clm", "word_perplexity", "test"),
                timed="32 tokens after a prompt of 32, greedy",
                counted="documents",
                labelled=False,
                difference="of a window's log likelihood a token, in nats",
                notes={"windows": "256 tokens, stride 128"},
            )
        ],
        rows=make_text_rows("wikitext", perplexities, 0.02, 62),
        curves=[
            make_text_curve("student", "pre-training", "wikitext", {"nll": (9.0, 4.0), "perplexity": (8100.0, 55.0)}),
            *(make_text_curve(arm, "fine-tuning", "wikitext", validation) for arm in ("teacher", "student", "control")),
        ],
        disagreements=[],
        samples=[
            Sample(
                "wikitext",
                "The bridge was begun in 1901 and",
                [" opened four years later,\nwhen the second pier stood."],
                " completed in 1904 by the same engineers.",
                " was the first of the bridge in the city.",
                " the the bridge of the bridge.",
            )
        ],
        comparisons=[
            Comparison("wikitext", "test", "word_perplexity", "student", "control", -3.2, -4.1, -2.25),
            Comparison("wikitext", "test", "word_perplexity", "student", "teacher", 3.2, 2.61, 3.9),
        ],
        agreement=[],
        speed_ratios=[SpeedRatio("wikitext", "student", PYTORCH, "teacher", PYTORCH, 4.73, 4.6, 4.9)],
    )


@pytest.fixture(scope="session")
def translation_data() -> ReportData:
    return make_translation_data()


def make_translation_data() -> ReportData:
    scores: dict[str, dict[Arm, float]] = {
        "bleu": {"teacher": 0.312, "student": 0.289, "control": 0.271},
        "chrf": {"teacher": 0.567, "student": 0.548, "control": 0.533},
    }
    return replace(
        make_report_data(),
        name="de-en-3x256",
        title="A translator of 3 + 3 layers",
        summary={"teacher": "marian, 6 + 6 layers x 512", "student": "marian, 3 + 3 layers x 256"},
        tasks=[
            TaskFacts(
                *("de-en", "translate", "bleu", "test"),
                timed="one sentence, beam 4",
                counted="sentences",
                **{"answer": "text", "answers": "texts", "labelled": False},
                notes={"BLEU": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.5.1"},
            )
        ],
        rows=make_text_rows("de-en", scores, 0.03, 1000),
        curves=[make_text_curve(arm, "fine-tuning", "de-en", {"nll": (4.1, 1.9)}) for arm in ("student", "control")],
        disagreements=[],
        samples=[
            Sample(
                *("de-en", "Das Haus steht am See.", ["The house stands by the lake.", "The house is at the lake."]),
                *("The house is on the lake.", "The house stands on the sea.", None),
            )
        ],
        comparisons=[
            Comparison("de-en", "test", "bleu", "student", "control", 0.018, 0.009, 0.027),
            Comparison("de-en", "test", "bleu", "student", "teacher", -0.023, -0.031, -0.015),
        ],
        agreement=[],
        speed_ratios=[SpeedRatio("de-en", "student", PYTORCH, "teacher", PYTORCH, 4.73, 4.6, 4.9)],
    )


PYTORCH_ONLINE = "PyTorch float32"
RUNTIMES = {
    "onnx-int8": "ONNX Runtime int8",
    "openvino-bf16": "OpenVINO bf16",
    "ctranslate2-int8": "CTranslate2 int8",
    "transformers-bf16": "PyTorch bf16",
}


def make_online_lines(task: str, model: str, runtime: str, size: int, median_ms: float) -> list[OnlineLine]:
    """At batch sizes 1 and 32; the teacher has 438 MB and takes 80 ms, then 2400 ms."""
    ends = (1.0, 1.0) if model == "teacher" else (0.95, 1.04)
    return [
        OnlineLine(
            task=task,
            model=model,
            runtime=runtime,
            threads=2,
            batch_size=batch_size,
            mean_length=127.6,
            bytes=size,
            size_ratio=437_958_648 / size,
            median_ms=milliseconds,
            p95_ms=1.15 * milliseconds,
            p99_ms=1.4 * milliseconds,
            throughput=1000 * batch_size / milliseconds,
            ratio=teacher_ms / milliseconds,
            low=ends[0] * teacher_ms / milliseconds,
            high=ends[1] * teacher_ms / milliseconds,
            peak_bytes=size + 200_000_000 + 1_000_000 * batch_size,
            load_seconds=1.3,
            cost_per_million=2 * milliseconds * 0.04 / 3.6,
            price_per_core_hour=0.04,
            baseline="teacher",
        )
        for batch_size, milliseconds, teacher_ms in ((1, median_ms, 80.0), (32, 30 * median_ms, 2400.0))
    ]


def with_exports(data: ReportData, exports: dict[str, tuple[float, float, float]], student: float) -> ReportData:
    """The report of a run with exports.

    Args:
        exports: by name: the score, the loss (points or per cent; more than 0.5 is refused), the latency in ms.
        student: its score.
    """
    task = data.tasks[0]
    # A regression and a perplexity have no same answers, and texts no largest difference.
    agreement = 0.991 if task.objective in ("classify", "translate") else None
    difference = None if task.objective == "translate" else 0.0832
    checks = [
        ExportLine(
            *(task.name, name, split, task.metric, student, score, loss, 0.5, loss <= 0.5),
            examples=3000,
            agreement=agreement,
            largest_difference=difference,
        )
        for name, (score, loss, _) in exports.items()
        for split in ("validation", "test")
    ]
    online = make_online_lines(task.name, "teacher", PYTORCH_ONLINE, 437_958_648, 80.0)
    online += make_online_lines(task.name, "student", PYTORCH_ONLINE, 101_201_928, 13.0)
    for name, (_, _, milliseconds) in exports.items():
        online += make_online_lines(task.name, name, RUNTIMES[name], 25_733_120, milliseconds)
    return replace(data, exports=checks, online=online)


@pytest.fixture(scope="session")
def exported_data(report_data: ReportData) -> ReportData:
    """One export was refused, though it is the fastest."""
    exports = {"onnx-int8": (0.9108, 0.13, 4.0), "openvino-bf16": (0.899, 1.31, 3.2)}
    return with_exports(report_data, exports, 0.9121)


@pytest.fixture(scope="session")
def exported_clm_data(clm_data: ReportData) -> ReportData:
    exports = {"ctranslate2-int8": (41.4, 0.485, 5.1), "transformers-bf16": (41.19, -0.02, 9.9)}
    return with_exports(clm_data, exports, 41.2)


@pytest.fixture(scope="session")
def exported_translation_data(translation_data: ReportData) -> ReportData:
    return with_exports(translation_data, {"ctranslate2-int8": (0.2874, 0.16, 5.1)}, 0.289)
