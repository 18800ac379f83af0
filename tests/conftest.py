"""What every test needs: no network, one thread, seeded generators, tiny models, a tiny run and the command line."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

GOOD = ["bright", "clever", "funny", "gentle", "grand", "lovely", "superb", "warm"]
BAD = ["awful", "boring", "clumsy", "dull", "empty", "lazy", "sour", "weak"]
OTHER = [first + second for first in ("ba", "ke", "mi", "tor", "lun") for second in ("da", "nor", "pel", "sim", "vot")]

TINY_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "teacher": {
        "from_scratch": {
            "layers": 2,
            "hidden_size": 32,
            "heads": 2,
            "feed_forward": 64,
            "vocabulary_size": 400,
            "max_length": 32,
        },
        "pretraining": {"steps": 4, "batch_size": 16, "learning_rate": 3e-3, "evaluations": 2},
    },
    "student": {"layers": 1, "initialisation": "teacher"},
    "pretraining": {
        "corpus": ["corpus.txt"],
        "sequence_length": 16,
        "validation_fraction": 0.1,
        "training": {"steps": 4, "batch_size": 16, "learning_rate": 3e-3, "evaluations": 2},
    },
    "tasks": [{"name": "toy", "train": "train.jsonl", "validation": "validation.jsonl", "max_length": 16}],
    "fine_tuning": {"training": {"steps": 5, "batch_size": 16, "learning_rate": 3e-3, "evaluations": 2}},
    "exports": [],
    "device": "cpu",
    "precision": "float32",
}
"""Every stage, in seconds; the files are those of `write_synthetic_data`."""

_TRAINING = {"batch_size": 8, "learning_rate": 3e-3, "evaluations": 2}
_SIZES = {"layers": 2, "hidden_size": 32, "heads": 2, "feed_forward": 64, "max_length": 64}

TINY_DECODER_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "family": "decoder",
    "teacher": {
        "from_scratch": {"architecture": "gpt2", **_SIZES, "vocabulary_size": 300},
        "pretraining": {"steps": 4, **_TRAINING},
    },
    "student": {"layers": 1, "initialisation": "teacher"},
    "pretraining": {
        "objective": "clm",
        "corpus": [{"path": "stories.txt", "document": "blank-line"}],
        "sequence_length": 32,
        "validation_fraction": 0.1,
        "training": {"steps": 4, **_TRAINING},
    },
    "tasks": [
        {
            "name": "toy",
            "objective": "clm",
            "train": {"path": "train_stories.txt", "document": "blank-line"},
            "validation": {"path": "validation_stories.txt", "document": "blank-line"},
            "test": {"path": "test_stories.txt", "document": "file"},
            "max_length": 32,
            "stride": 12,
        }
    ],
    "fine_tuning": {"training": {"steps": 5, **_TRAINING}},
    "exports": [],
    "device": "cpu",
    "precision": "float32",
}
"""The same for a decoder; the files are those of `write_language_data`."""

TINY_ENCODER_DECODER_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "family": "encoder-decoder",
    "teacher": {
        "from_scratch": {"architecture": "bart", **_SIZES, "vocabulary_size": 360},
        "pretraining": {"steps": 4, **_TRAINING},
    },
    "student": {"layers": 2, "decoder_layers": 1, "initialisation": "teacher"},
    "pretraining": {
        "objective": "mssm",
        "corpus": [
            {"path": "train_translations.jsonl", "text": language, "language": language} for language in ("en", "ne")
        ],
        "sequence_length": 32,
        "validation_fraction": 0.1,
        "training": {"steps": 4, **_TRAINING},
    },
    "tasks": [
        {
            "name": "toy",
            "objective": "translate",
            "train": "train_translations.jsonl",
            "validation": "validation_translations.jsonl",
            "test": "test_translations.jsonl",
            "columns": {"source": "en", "target": "ne"},
            "languages": {"source": "en", "target": "ne"},
            "max_length": 32,
            "max_target_length": 24,
            "generation": {"beams": 2},
            "sequence_distillation": {"ratio": 0.5},
        }
    ],
    "fine_tuning": {"training": {"steps": 5, **_TRAINING}},
    "exports": [],
    "device": "cpu",
    "precision": "float32",
}
"""The same for an encoder-decoder that translates; the files are those of `write_language_data`."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def message(self) -> str:
        """The one line that says what is wrong and what to do, without the program's name."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("lightpaff: ")]
        assert len(lines) == 1, f"expected one line from lightpaff, found {lines}; all of it:\n{self.stderr}"
        assert self.stderr.endswith(f"{lines[0]}\n"), f"the line is not the last one:\n{self.stderr}"
        assert "Traceback" not in self.stderr
        return lines[0].removeprefix("lightpaff: ")


@dataclass(frozen=True)
class TinyRecipe:
    """A recipe that can be changed key by key, in a folder with its data."""

    folder: Path
    content: dict[str, Any]

    def set(self, key: str, value: Any) -> "TinyRecipe":
        """Change `key.path`; a number counts the places of a list."""
        *parents, last = (int(part) if part.isdigit() else part for part in key.split("."))
        place: Any = self.content
        for parent in parents:
            place = place[parent]
        place[last] = value
        return self

    def write(self, name: str = "recipe.yaml") -> Path:
        """The YAML file."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(self.content, sort_keys=False))
        return path

    @property
    def output(self) -> Path:
        """A place for the run beside the recipe."""
        return self.folder / "runs" / "tiny"


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def draw_sentence(random: np.random.Generator, label: int) -> str:
    """Three to eight words, of them one to three good ones for label 1, bad ones for label 0."""
    telling = random.choice(GOOD if label else BAD, size=random.integers(1, 4))
    words = [*telling, *random.choice(OTHER, size=random.integers(2, 6))]
    return " ".join(random.permutation(words))


def write_synthetic_data(folder: Path, train: int = 96, validation: int = 48) -> None:
    """Write corpus.txt, train.jsonl, validation.jsonl, unlabelled.jsonl, pairs and scores: some words decide the label.

    A pair's label says whether both sentences are of one kind; a score is the share of good words.
    """
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    corpus = [draw_sentence(random, number % 2) + " ." for number in range(300)]
    (folder / "corpus.txt").write_text("\n".join(corpus) + "\n")
    for name, count in (("train", train), ("validation", validation), ("unlabelled", 32)):
        labels = random.permutation(np.arange(count) % 2)
        rows: list[dict[str, Any]] = [
            {"sentence": draw_sentence(random, label), "label": int(label)} for label in labels
        ]
        write_rows(
            folder / f"{name}.jsonl", rows if name != "unlabelled" else [{"sentence": r["sentence"]} for r in rows]
        )
        pairs = [
            {
                "first": row["sentence"],
                "second": draw_sentence(random, kind),
                "same": "yes" if kind == row["label"] else "no",
            }
            for row, kind in zip(rows, random.integers(2, size=count), strict=True)
        ]
        write_rows(folder / f"{name}_pairs.jsonl", pairs)
        scores = [{"sentence": row["sentence"], "score": _share_of_good_words(row["sentence"])} for row in rows]
        write_rows(folder / f"{name}_scores.jsonl", scores)


def write_language_data(folder: Path) -> None:
    """Write stories (of one to four sentences, a blank line between them) and translations (every word backwards)."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("stories", 60), ("train_stories", 30), ("validation_stories", 4), ("test_stories", 4)):
        stories = [
            "\n".join(draw_sentence(random, number % 2) + "." for _ in range(random.integers(1, 5)))
            for number in range(count)
        ]
        (folder / f"{name}.txt").write_text("\n\n".join(stories) + "\n")
    for name, count in (("train", 60), ("validation", 8), ("test", 9)):
        sentences = [draw_sentence(random, number % 2) for number in range(count)]
        rows = [{"en": text, "ne": " ".join(word[::-1] for word in text.split())} for text in sentences]
        write_rows(folder / f"{name}_translations.jsonl", rows)


def _share_of_good_words(sentence: str) -> float:
    words = sentence.split()
    return sum(word in GOOD for word in words) / len(words)


def run_command(*arguments: str | Path) -> Outcome:
    """Run `lightpaff ARGUMENTS` in this process."""
    from lightpaff import cli

    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["lightpaff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    code = ended.value.code
    assert isinstance(code, int | None)
    return Outcome(code or 0, stdout.getvalue(), stderr.getvalue())


OPTIONAL_RUNTIMES = ("ctranslate2", "openvino")
"""Of the extra `export`: not on every machine (the project's own GPU machine has neither)."""


LONGEST = ("smoke/test_studies.py", "smoke/test_ranks.py", "smoke/test_shapes.py", "smoke/test_online.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: begun last, they would leave one worker without anything to do."""
    items.sort(key=lambda item: not str(item.path).endswith(LONGEST))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose marker `needs` names a package that is not installed."""
    for mark in item.iter_markers("needs"):
        for package in mark.args:
            pytest.importorskip(package)


def _is_missing_runtime(error: BaseException | None) -> bool:
    return (
        isinstance(error, ModuleNotFoundError)
        and error.name in OPTIONAL_RUNTIMES
        and importlib.util.find_spec(error.name) is None
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """A test that imports a runtime which is not installed is skipped."""
    report = yield
    if call.excinfo is not None and _is_missing_runtime(call.excinfo.value):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {call.excinfo.value}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    """The same of a whole file."""
    report = yield
    error = getattr(getattr(report, "call", None), "excinfo", None)
    cause = error.value.__cause__ if error is not None else None
    if _is_missing_runtime(cause):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {cause}")
    return report


@pytest.fixture(autouse=True)
def _seeded_and_single_threaded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def _quick_latency() -> Iterator[None]:
    from lightpaff.deployment import measuring
    from lightpaff.objectives import clm
    from lightpaff.pipeline import measuring_steps, online_steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring_steps, "_SECONDS", 0.2)
        patch.setattr(measuring_steps, "measure_latency", partial(measuring_steps.measure_latency, least_rounds=4))
        patch.setattr(online_steps, "_SECONDS", 0.0)
        # tests/unit/deployment/test_measuring.py has several.
        patch.setattr(online_steps, "PROCESSES", 1)
        patch.setattr(measuring, "PROCESSES", 1)
        patch.setattr(clm, "_NEW_TOKENS", 4)
        yield


@pytest.fixture(scope="session")
def run_cli(_quick_latency: None) -> Callable[..., Outcome]:
    """Run `lightpaff ARGUMENTS` in this process, with a short measurement of the speed."""
    return run_command


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> TinyRecipe:
    """A recipe of seconds with its data, in a folder of its own."""
    write_synthetic_data(tmp_path)
    return TinyRecipe(tmp_path, deepcopy(TINY_RECIPE))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, _quick_latency: None) -> TinyRecipe:
    """The tiny recipe run to its end, once for all tests: do not change what is in its folder."""
    folder = tmp_path_factory.mktemp("finished")
    write_synthetic_data(folder)
    return _run_to_its_end(TinyRecipe(folder, deepcopy(TINY_RECIPE)))


@pytest.fixture(scope="session")
def finished_decoder_run(tmp_path_factory: pytest.TempPathFactory, _quick_latency: None) -> TinyRecipe:
    """The tiny recipe of a decoder likewise."""
    folder = tmp_path_factory.mktemp("decoder")
    write_language_data(folder)
    return _run_to_its_end(TinyRecipe(folder, deepcopy(TINY_DECODER_RECIPE)))


@pytest.fixture(scope="session")
def finished_encoder_decoder_run(tmp_path_factory: pytest.TempPathFactory, _quick_latency: None) -> TinyRecipe:
    """The tiny recipe of an encoder-decoder likewise."""
    folder = tmp_path_factory.mktemp("encoder_decoder")
    write_language_data(folder)
    return _run_to_its_end(TinyRecipe(folder, deepcopy(TINY_ENCODER_DECODER_RECIPE)))


def _run_to_its_end(recipe: TinyRecipe) -> TinyRecipe:
    torch.set_num_threads(1)
    outcome = run_command("run", recipe.write(), "--output", recipe.output)
    assert outcome.code == 0, outcome.stderr
    return recipe
