"""A tagger, from a CoNLL file to an export that finds entities in texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lightpaff.deployment import load
from lightpaff.errors import UserError

GOOD = ["bright", "clever", "funny", "gentle", "grand"]
OTHER = ["bada", "kenor", "mipel", "torsim", "lunvot", "bavot"]


def _write(file: Path, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    sentences = []
    for _ in range(rows):
        words = [str(word) for word in random.choice(OTHER, size=5)]
        tags = ["O"] * 5
        place = int(random.integers(4))
        words[place], tags[place] = str(random.choice(GOOD)), "B-praise"
        if random.random() < 0.5:
            words[place + 1], tags[place + 1] = str(random.choice(GOOD)), "I-praise"
        sentences.append("".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)))
    file.write_text("\n".join(sentences))


def test_entities(
    ready_recipe: Any,
    run_recipe: Callable[[Any], dict[str, Any]],
    run_cli: Callable[..., Any],
    step_directory: Callable[[Path, str], Path],
) -> None:
    for seed, split in enumerate(("train", "validation")):
        _write(ready_recipe.folder / f"{split}.conll", 60, seed)
    ready_recipe.content["tasks"] = [
        {"name": "toy", "objective": "tag", "train": "train.conll", "validation": "validation.conll", "max_length": 32}
    ]
    ready_recipe.content["fine_tuning"]["training"] |= {"steps": 80, "learning_rate": 5e-3}
    report = run_recipe(ready_recipe)
    scores = {row["metric"]: row["value"] for row in report["rows"] if row["arm"] == "student"}
    assert scores["accuracy"] > 0.7
    assert {line["arm"] for line in report["agreement"]} == {"teacher", "student", "control"}

    output = ready_recipe.folder / "runs" / ready_recipe.content["name"]
    outcome = run_cli("export", output, "--to", "onnx", "--tolerance", "0")
    assert outcome.code == 0, outcome.stderr
    directory = output / "exports" / "onnx"
    tagger: Any = load(directory, threads=1)
    # As the check read them: word by word, and as a text.
    sentence = (ready_recipe.folder / "validation.conll").read_text().split("\n\n")[0]
    words = [line.split("\t")[0] for line in sentence.splitlines()]
    [of_words], [of_text] = tagger([words]), tagger(" ".join(words))
    assert of_words == of_text
    text = " ".join(words)
    assert all(found.text == text[found.start : found.end] for found in of_text)
    assert all(found.label == "praise" and 0 < found.probability <= 1 for found in of_text)
    predicted = step_directory(output, "predict with the student on toy, seed 0")
    logits_TV = load_file(predicted / "validation.safetensors")["logits_NV"]
    assert len(of_text) == sum(logits_TV[: len(words)].argmax(axis=1) == 1)
    # Much longer than the 32 tokens that the model reads at once.
    [of_long] = tagger([words * 10])
    assert len(of_long) >= 8 * len(of_words)
    assert of_long[-1].end > 9 * len(text)
    with pytest.raises(UserError, match="texts: number 1 is 3; give a string, or a list of words"):
        tagger([3])
    usage = (directory / "README.md").read_text()
    assert "pipeline_tag: token-classification\ntags:\n- lightpaff" in usage
    assert "praise" in usage
