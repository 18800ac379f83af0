"""The README.md of an export."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from lightpaff.deployment.card import ExportCard, Kind
from lightpaff.deployment.model_card import usage_example, write_model_card
from lightpaff.runtimes import Format

TABLE = "| model | accuracy |\n|---|---|\n| student | 0.91 |"


def make_card(format_: Format, kind: Kind, **settings: object) -> ExportCard:
    return ExportCard(format_, "int8", kind, max_length=128, longest_input=512, source_sha256="ab" * 32, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("format_", get_args(Format))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_front_matter_is_yaml_and_the_example_is_python(format_: Format, kind: Kind, tmp_path: Path) -> None:
    card = make_card(format_, kind, decoder_start="<ne>", source_prefix="<en>", max_target_length=64)
    write_model_card(tmp_path, card, {}, TABLE, usage_example(card))
    text = (tmp_path / "README.md").read_text("utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": format_,
        "pipeline_tag": {
            "next_tokens": "text-generation",
            "target_tokens": "translation",
            "token_classes": "token-classification",
            "spans": "question-answering",
        }.get(kind, "text-classification"),
        "tags": ["lightpaff", "distillation", "int8"],
    }
    assert TABLE in body
    example = body.split("```python\n")[1].split("```")[0]
    compile(example, "README.md", "exec")
    assert not re.search(r"\{\w*\}", example)


def test_facts_are_told(tmp_path: Path) -> None:
    card = make_card("onnx", "classes", labels=["bad", "good"], made_with={"onnx": "1.23"})
    write_model_card(tmp_path, card, {"name": "sst2 student", "teacher": "a | b\nc"}, "", "print()")
    text = (tmp_path / "README.md").read_text("utf-8")
    for line in ("# sst2 student", "| teacher | a \\| b c |", "| labels | bad, good |", "| made with onnx | 1.23 |"):
        assert f"{line}\n" in text
    assert "## Measured" not in text
    assert "decoder starts" not in text
    assert "| before they are tokenised | texts are brought into Unicode's form NFC" in text
