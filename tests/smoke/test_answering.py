"""Extractive question answering, from a SQuAD file to an export that answers with text, place and score."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightpaff.deployment import load
from lightpaff.errors import UserError

NAMES = ["bright", "clever", "funny", "gentle", "grand"]
OTHER = ["bada", "kenor", "mipel", "torsim", "lunvot", "bavot"]


def _write(file: Path, questions: int, seed: int, share_without: float = 0.0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    paragraphs = []
    for number in range(questions):
        words = [str(word) for word in random.choice(OTHER, size=12)]
        answer = str(random.choice(NAMES))
        answers = []
        if random.random() >= share_without:
            place = int(random.integers(12))
            words[place] = answer
            answers = [{"text": answer, "answer_start": len(" ".join(words[:place])) + (place > 0)}]
        asked = {"id": str(number), "question": "lunvot bada?", "answers": answers, "is_impossible": not answers}
        paragraphs.append({"context": " ".join(words), "qas": [asked]})
    file.write_text(json.dumps({"version": "2.0", "data": [{"title": "toy", "paragraphs": paragraphs}]}))
    return paragraphs


@pytest.mark.parametrize("share_without", [0.0, 0.3])
def test_answers(
    share_without: float, ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]], run_cli: Callable[..., Any]
) -> None:
    _write(ready_recipe.folder / "train.json", 80, 0, share_without)
    paragraphs = _write(ready_recipe.folder / "validation.json", 40, 1, share_without)
    ready_recipe.content["name"] = f"answers-{share_without:g}"
    ready_recipe.content["tasks"] = [
        {"name": "toy", "objective": "answer", "train": "train.json", "validation": "validation.json", "max_length": 24}
    ]
    ready_recipe.content["fine_tuning"]["training"] |= {"steps": 150, "learning_rate": 5e-3}
    report = run_recipe(ready_recipe)
    scores = {(row["arm"], row["metric"]): row["value"] for row in report["rows"]}
    assert scores["student", "exact_match"] > 0.5
    assert scores["student", "answer_f1"] >= scores["student", "exact_match"]

    output = ready_recipe.folder / "runs" / ready_recipe.content["name"]
    outcome = run_cli("export", output, "--to", "onnx", "--tolerance", "0")
    assert outcome.code == 0, outcome.stderr
    extract: Any = load(output / "exports" / "onnx", threads=1)
    pairs = [(paragraph["qas"][0]["question"], paragraph["context"]) for paragraph in paragraphs]
    found = extract(pairs)
    assert all(
        answer.text == context[answer.start : answer.end] for answer, (_, context) in zip(found, pairs, strict=True)
    )
    assert all(0 < answer.score <= 1 for answer in found)
    gold = [[answer["text"] for answer in paragraph["qas"][0]["answers"]] or [""] for paragraph in paragraphs]
    right = np.mean([answer.text in texts for answer, texts in zip(found, gold, strict=True)])
    assert right == pytest.approx(scores["student", "exact_match"])
    assert any(answer.text == "" for answer in found) == (share_without > 0)
    with pytest.raises(UserError, match="questions: number 1 is 'why'; give tuples of a question and its context"):
        extract(["why"])
