"""Exports of finished runs: written, checked against the student, used and measured by the commands a user types."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from lightpaff.deployment import load


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_classifier(
    finished_run: Any, run_cli: Callable[..., Any], step_directory: Callable[[Path, str], Path]
) -> None:
    output = finished_run.output
    outcome = run_cli("export", output, "--to", "onnx")
    assert outcome.code == 0, outcome.stderr
    directory = output / "exports" / "onnx"
    assert (directory / "README.md").is_file()
    texts = [row["sentence"] for row in read_lines(finished_run.folder / "validation.jsonl")]
    answers = load(directory, threads=1)(texts)
    predicted = step_directory(output, "predict with the student on toy, seed 0")
    logits_NV = load_file(predicted / "validation.safetensors")["logits_NV"].numpy()
    labels = ["0", "1"]
    assert [answer.label for answer in answers] == [labels[number] for number in logits_NV.argmax(axis=1)]
    highest_N = np.exp(logits_NV - logits_NV.max(axis=1, keepdims=True))
    probabilities = (highest_N / highest_N.sum(axis=1, keepdims=True)).max(axis=1)
    assert [answer.probability for answer in answers] == pytest.approx(probabilities.tolist(), abs=1e-4)


def test_what_transformers_opens_is_cut_where_the_card_says(
    finished_run: Any, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = finished_run.output
    outcome = run_cli("export", output, "--to", "transformers")
    assert outcome.code == 0, outcome.stderr
    directory = output / "exports" / "transformers"
    longest = json.loads((directory / "export.json").read_text())["max_length"]
    for place in (directory, output / "student"):
        assert json.loads((place / "tokenizer_config.json").read_text())["model_max_length"] == longest
    readme = (directory / "README.md").read_text()
    assert f"| texts are cut to | {longest} tokens |" in readme
    assert "learnt from a large teacher's predictions in pre-training and in fine-tuning" in readme
    monkeypatch.chdir(directory)
    exec(readme.split("```python\n")[1].split("```")[0].replace("A text to read.", "bright film " * 200), {})


@pytest.mark.needs("ctranslate2")
def test_translator(
    finished_encoder_decoder_run: Any, run_cli: Callable[..., Any], step_directory: Callable[[Path, str], Path]
) -> None:
    output = finished_encoder_decoder_run.output
    outcome = run_cli("export", output, "--to", "ctranslate2", "--tolerance", "100")
    assert outcome.code == 0, outcome.stderr
    assert "BLEU" in outcome.stdout
    assert (output / "exports" / "ctranslate2" / "model.bin").is_file()


@pytest.mark.needs("ctranslate2")
def test_language_model_and_its_benchmark(finished_decoder_run: Any, run_cli: Callable[..., Any]) -> None:
    output = finished_decoder_run.output
    outcome = run_cli("export", output, "--to", "ctranslate2", "--tolerance", "0.01")
    assert outcome.code == 0, outcome.stderr
    options = ("--batch", 1, "--length", 8, "--new-tokens", 2, "--seconds", 0, "--threads", 1, "--json")
    outcome = run_cli("benchmark", output, *options)
    assert outcome.code == 0, outcome.stderr
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert {(row["contender"], row["runtime"]) for row in rows} == {
        ("teacher", "pytorch"),
        ("student", "pytorch"),
        ("ctranslate2", "ctranslate2"),
    }
    assert all(row["median_ms"] > 0 and row["peak_bytes"] > row["bytes"] > 0 for row in rows)
    assert next(row for row in rows if row["contender"] == "teacher")["ratio"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--to", "ctranslate2"),
            "--to ctranslate2: does not take the family encoder; take onnx or openvino or transformers",
        ),
        (("--to", "onnx", "--task", "other"), "--task is other: the run has toy; name one of them"),
        (("--to", "onnx", "--quantise", "bf16"), "--quantise bf16: quantise is bf16, but onnx takes int8 or none"),
    ],
)
def test_refusals(arguments: tuple[str, ...], expected: str, finished_run: Any, run_cli: Callable[..., Any]) -> None:
    outcome = run_cli("export", finished_run.output, *arguments)
    assert outcome.code == 2
    assert expected in outcome.message


def test_a_folder_that_is_no_run(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    for command in (("export", tmp_path, "--to", "onnx"), ("benchmark", tmp_path)):
        outcome = run_cli(*command)
        assert outcome.code == 2
        assert "holds no run.json" in outcome.message


def test_an_output_that_is_something_else_is_kept(
    finished_run: Any, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("dear reader")
    outcome = run_cli("export", finished_run.output, "--to", "onnx", "--output", tmp_path)
    assert outcome.code == 2
    assert "is there already and holds no export; give another place" in outcome.message
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("tolerance", ["inf", "nan"])
def test_a_tolerance_is_a_number(tolerance: str, finished_run: Any, run_cli: Callable[..., Any]) -> None:
    outcome = run_cli("export", finished_run.output, "--to", "onnx", "--tolerance", tolerance)
    assert outcome.code == 2
    assert "--tolerance" in outcome.message
