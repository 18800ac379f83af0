"""The README.md of an export."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from lightpaff.deployment.card import ExportCard, Kind
from lightpaff.deployment.model_card import usage_example, write_model_card
from lightpaff.recipe_sections import Task
from lightpaff.runtimes import RUNTIMES, Format, Quantisation, runtime_of

STAGES = ["pre-training", "fine-tuning"]
TRANSLATION = {"objective": "translate", "languages": {"source": "en", "target": "ne"}}
TABLE = "| model | accuracy |\n|---|---|\n| student | 0.91 |"


def make_card(format_: Format, kind: Kind, quantisation: Quantisation = "none", **settings: object) -> ExportCard:
    return ExportCard(format_, quantisation, kind, 128, longest_input=512, source_sha256="ab" * 32, **settings)  # type: ignore[arg-type]


def make_task(**keys: object) -> Task:
    return Task.model_validate({"name": "toy", "train": "train.jsonl", "validation": "validation.jsonl", **keys})


def card_text(folder: Path, card: ExportCard, task: Task, stages: list[str]) -> str:
    write_model_card(folder, card, {}, TABLE, usage_example(card), task=task, stages=stages)
    return (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("format_", get_args(Format))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_front_matter_is_yaml_and_the_example_is_python(format_: Format, kind: Kind, tmp_path: Path) -> None:
    quantisation = RUNTIMES[runtime_of(format_)].quantisations[0]
    card = make_card(format_, kind, quantisation, decoder_start="<ne>", source_prefix="<en>", max_target_length=64)
    text = card_text(tmp_path, card, make_task(**TRANSLATION), STAGES)
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": format_,
        "pipeline_tag": {
            "next_tokens": "text-generation",
            "target_tokens": "translation",
            "token_classes": "token-classification",
            "spans": "question-answering",
        }.get(kind, "text-classification"),
        "tags": ["lightpaff", "distillation", *([] if format_ == "transformers" else ["int8"])],
    }
    assert TABLE in body
    example = body.split("```python\n")[1].split("```")[0]
    compile(example, "README.md", "exec")
    assert not re.search(r"\{\w*\}", example)


def test_facts_are_told(tmp_path: Path) -> None:
    card = make_card("onnx", "classes", labels=["bad", "good"], made_with={"onnx": "1.23"})
    write_model_card(
        tmp_path, card, {"name": "sst2 student", "teacher": "a | b\nc"}, "", "print()", task=make_task(), stages=[]
    )
    text = (tmp_path / "README.md").read_text("utf-8")
    for line in ("# sst2 student", "| teacher | a \\| b c |", "| labels | bad, good |", "| made with onnx | 1.23 |"):
        assert f"{line}\n" in text
    assert "## Measured" not in text
    assert "decoder starts" not in text
    assert "| before they are tokenised | texts are brought into Unicode's form NFC" in text


@pytest.mark.parametrize(
    ("stages", "told", "tags"),
    [
        (STAGES, "learnt from a large teacher's predictions in pre-training and in fine-tuning.", ["distillation"]),
        (STAGES[1:], "learnt from a large teacher's predictions in fine-tuning.", ["distillation"]),
        ([], "This is a classifier of texts, trained by LightPAFF without a teacher's predictions.", []),
    ],
)
def test_only_stages_that_took_place_are_told(stages: list[str], told: str, tags: list[str], tmp_path: Path) -> None:
    text = card_text(tmp_path, make_card("onnx", "classes"), make_task(), stages)
    assert told in text
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == ["lightpaff", *tags]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"languages": {"source": "en", "target": "ne"}, "metrics": ["rouge1"]}, "translation"),
        ({"languages": {"source": "en", "target": "en"}, "metrics": ["rougeL"]}, "summarization"),
        ({"metrics": ["bleu", "rouge2"]}, "summarization"),
        ({"languages": {"source": "en", "target": "en"}}, "text2text-generation"),
        ({}, "text2text-generation"),
    ],
)
def test_what_writes_is_called_by_its_task(keys: dict[str, object], expected: str, tmp_path: Path) -> None:
    card = make_card("ctranslate2", "target_tokens", max_target_length=64)
    text = card_text(tmp_path, card, make_task(objective="translate", **keys), STAGES)
    assert yaml.safe_load(text.split("---\n")[1])["pipeline_tag"] == expected


def test_weights_are_told_as_each_format_keeps_them(tmp_path: Path) -> None:
    told = {
        (row.format, quantisation): card_text(
            tmp_path, make_card(row.format, "classes", quantisation), make_task(), STAGES
        ).partition("the weights are ")[2]
        for row in RUNTIMES.values()
        for quantisation in row.quantisations
    }
    assert told["openvino", "bf16"].startswith("float16, ")
    assert told["ctranslate2", "bf16"].startswith("bfloat16.")
    assert "for every 32 weights" in told["onnx", "int8"]
    assert all(text.startswith("float32.") for (_, quantisation), text in told.items() if quantisation == "none")
