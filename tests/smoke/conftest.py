"""Runs that share their steps: the teacher of the finished run serves them all."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

ReadReport = Callable[[Path], dict[str, Any]]
METRICS = {
    "classify": {"accuracy", "f1"},
    "regress": {"pearson", "spearman"},
    "tag": {"entity_f1", "accuracy"},
    "answer": {"answer_f1", "exact_match"},
    "clm": {"word_perplexity", "perplexity"},
    "translate": {"bleu", "chrf"},
}


@pytest.fixture(scope="session")
def read_report() -> ReadReport:
    """The content of a run's report."""

    def read(output: Path) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((output / "report" / "report_data.json").read_text())
        return content

    return read


@pytest.fixture(scope="session")
def check_report() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Check of (report, recipe): every arm has every metric on every split, with an interval and what the arm costs."""

    def check(report: dict[str, Any], recipe: dict[str, Any]) -> None:
        small = {"student", *recipe.get("arms", {})} | ({"control"} if recipe.get("control", True) else set())
        for task, facts in zip(recipe["tasks"], report["tasks"], strict=True):
            rows = [row for row in report["rows"] if row["task"] == task["name"]]
            splits = ["validation", "test"] if "test" in task else ["validation"]
            assert facts["split"] == splits[-1]
            baseline = {"tfidf"} if facts["objective"] in ("classify", "regress") else set()
            assert {(row["arm"], row["metric"], row["split"]) for row in rows} == {
                (arm, metric, split)
                for arm in {"teacher"} | small | baseline
                for metric in METRICS[facts["objective"]]
                for split in splits
            }
            for row in rows:
                assert row["interval"][0] <= row["value"] <= row["interval"][1]
                assert row["parameters"] > 0
                if row["arm"] != "tfidf":
                    assert row["bytes"] > 0
                    assert 0 < row["median_ms"] <= row["p95_ms"]
                    assert row["throughput"] > 0
        assert all(ratio["low"] <= ratio["ratio"] <= ratio["high"] for ratio in report["speed_ratios"])

    return check


@pytest.fixture(scope="session")
def run_recipe(
    run_cli: Callable[..., Any], read_report: ReadReport, check_report: Callable[..., None]
) -> Callable[[Any], dict[str, Any]]:
    """Run a recipe into runs/NAME beside it and return its report, which is checked."""

    def run(recipe: Any) -> dict[str, Any]:
        name = recipe.content["name"]
        output = recipe.folder / "runs" / name
        outcome = run_cli("run", recipe.write(f"{name}.yaml"), "--output", output)
        assert outcome.code == 0, outcome.stderr
        report = read_report(output)
        check_report(report, recipe.content)
        return report

    return run


@pytest.fixture(scope="session")
def step_directory() -> Callable[[Path, str], Path]:
    """Where a step of a finished run left its result: (the run's output, the step's name)."""

    def find(output: Path, step: str) -> Path:
        steps: dict[str, str] = json.loads((output / "run.json").read_text())["steps"]
        return output.parent / "steps" / steps[step]

    return find


@pytest.fixture(scope="session")
def step_model(finished_run: Any, step_directory: Callable[[Path, str], Path]) -> Callable[[str], Path]:
    """The model directory that a step of the finished run left, by the step's name."""
    return lambda step: step_directory(finished_run.output, step) / "model"


@pytest.fixture
def ready_recipe(finished_run: Any, step_model: Callable[[str], Path], request: pytest.FixtureRequest) -> Any:
    """Fine-tuning only, with the finished run's pre-trained teacher as a ready-made one."""
    content = deepcopy(finished_run.content)
    content["teacher"] = {"source": str(step_model("pre-train the teacher"))}
    content["pretraining"] = None
    content["name"] = request.node.name.replace("[", "-").replace("]", "")
    return type(finished_run)(finished_run.folder, content)


@pytest.fixture(scope="session")
def served_export(finished_run: Any, run_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier in ONNX."""
    folder = tmp_path_factory.mktemp("exports")
    told = run_cli("export", finished_run.output, "--to", "onnx", "--output", folder / "toy")
    assert told.code == 0, told.stderr
    return folder / "toy"


@pytest.fixture(scope="session")
def served_writer(
    finished_decoder_run: Any, run_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    told = run_cli("export", finished_decoder_run.output, "--to", "onnx", "--output", folder / "toy")
    assert told.code == 0, told.stderr
    return folder / "toy"
