"""What an export answers is what its student answers, for any text that it is sent; or it says which is none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightpaff.deployment import load
from lightpaff.errors import UserError


@pytest.fixture(scope="module")
def pair_run(finished_run: Any, run_cli: Callable[..., Any]) -> Path:
    """A finished run of a task of pairs, with an export of its student."""
    content = json.loads(json.dumps(finished_run.content))
    recipe = type(finished_run)(finished_run.folder, content)
    steps = json.loads((finished_run.output / "run.json").read_text())["steps"]
    teacher = finished_run.output.parent / "steps" / steps["pre-train the teacher"] / "model"
    columns = {"text": "first", "text_pair": "second", "label": "same"}
    names = {"train": "train_pairs.jsonl", "validation": "validation_pairs.jsonl"}
    recipe.set("name", "pairs-online").set("teacher", {"source": str(teacher)}).set("pretraining", None)
    recipe.set("tasks", [{"name": "pairs", **names, "columns": columns, "max_length": 24}])
    recipe.set("exports", [{"to": "onnx", "tolerance": 100}])
    output: Path = recipe.folder / "runs" / "pairs-online"
    outcome = run_cli("run", recipe.write("pairs-online.yaml"), "--output", output)
    assert outcome.code == 0, outcome.stderr
    return output


@pytest.fixture(scope="module")
def single_export(finished_run: Any, run_cli: Callable[..., Any]) -> Path:
    directory: Path = finished_run.folder / "single-export"
    outcome = run_cli("export", finished_run.output, "--to", "onnx", "--tolerance", "100", "--output", directory)
    assert outcome.code == 0, outcome.stderr
    return directory


def test_a_pair_is_one_pair(pair_run: Path) -> None:
    classify: Any = load(pair_run / "exports" / "onnx", threads=1)
    pair = ("bright film", "awful boring film")
    tokenizer = AutoTokenizer.from_pretrained(pair_run / "student")
    model = AutoModelForSequenceClassification.from_pretrained(pair_run / "student").eval()
    with torch.no_grad():
        logits_V = model(**tokenizer(*pair, return_tensors="pt")).logits[0].numpy()
    expected = np.exp(logits_V.max() - logits_V.max()) / np.exp(logits_V - logits_V.max()).sum()
    for asked in (pair, [pair], [list(pair)]):
        [answer] = classify(asked)
        assert answer.label == model.config.id2label[int(logits_V.argmax())]
        assert answer.probability == pytest.approx(expected, abs=1e-5)
    assert len(classify([pair, pair])) == 2
    assert json.loads((pair_run / "exports" / "onnx" / "export.json").read_text())["pairs"] is True


@pytest.mark.parametrize("asked", ["one text", ["one text"], [("a", "b"), "c"], [("a", "b", "c")]])
def test_a_single_text_is_no_pair(asked: Any, pair_run: Path) -> None:
    classify: Any = load(pair_run / "exports" / "onnx", threads=1)
    with pytest.raises(
        UserError, match=r"texts: number \d is .*, and this model reads pairs; give tuples of two texts"
    ):
        classify(asked)


def test_the_example_of_a_pair_model_runs(pair_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = pair_run / "exports" / "onnx"
    code = (directory / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert '("A text to read.", "Another beside it.")' in code
    monkeypatch.chdir(directory)
    exec(code, {})


@pytest.mark.parametrize(
    "spoilt", ["bright \ud83d film", "bright\tfilm\n", "  bright   film ", "bri\x00ght film", "bright\u00a0film"]
)
def test_texts_are_cleaned_as_in_training(spoilt: str, single_export: Path) -> None:
    classify: Any = load(single_export, threads=1)
    assert classify([spoilt]) == classify(["bright film"])


@pytest.mark.parametrize("value", [None, float("nan"), 3, b"bright film", {"text": "bright film"}])
def test_what_is_no_text_is_told_by_its_number(value: Any, single_export: Path) -> None:
    classify: Any = load(single_export, threads=1)
    with pytest.raises(UserError, match=r"texts: number 2 is .*, not text; give a string"):
        classify(["bright film", value])
    with pytest.raises(UserError, match=r"texts: number 1 is .*, not text; give a string"):
        classify(value)


def test_long_texts_are_cut_where_the_tokenizer_says(single_export: Path, tmp_path: Path) -> None:
    import shutil

    directory = Path(shutil.copytree(single_export, tmp_path / "left"))
    card = json.loads((directory / "export.json").read_text())
    assert card["truncation_side"] == "right"
    (directory / "export.json").write_text(json.dumps({**card, "truncation_side": "left"}))
    # A token each, wherever they stand.
    text = "!" * 40 + "?" * 40
    left: Any = load(directory, threads=1)
    right: Any = load(single_export, threads=1)
    assert left([text]) == right(["?" * 40])
    assert right([text]) == right(["!" * 40])
    assert left([text]) != right([text])
