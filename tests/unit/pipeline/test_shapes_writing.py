from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import BartConfig, BertConfig, ModernBertConfig

from lightpaff.errors import UserError
from lightpaff.pipeline.shapes_run import parse_latency, parse_size
from lightpaff.pipeline.shapes_writing import check_recipe, edit_student, write_shape
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Shape

CHOICE = Shape(layers=3, hidden_size=512, heads=8, feed_forward=2048)
BLOCK = """\
# What this is for.
name: tiny   # short
teacher: {source: some/teacher}

student:
  # About a fifth.
  layers: 6        # of 12
  initialisation: teacher
  heads:
tasks:
  - {name: toy, train: train.jsonl, validation: validation.jsonl}
fine_tuning: {training: {steps: 5, learning_rate: 1.0e-3}}
"""


def test_block_with_comments() -> None:
    edited = edit_student(BLOCK, {"layers": 3, "hidden_size": 512, "heads": 8, "initialisation": "random"})
    assert edited.splitlines() == [
        *BLOCK.splitlines()[:6],
        "  layers: 3        # of 12",
        "  hidden_size: 512",
        "  initialisation: random",
        "  heads: 8",
        *BLOCK.splitlines()[9:],
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ends_of_lines(end: str) -> None:
    assert edit_student(f"a: 1{end}student:{end}    layers: 6{end}b: 2", {"layers": 3, "heads": 8}) == (
        f"a: 1{end}student:{end}    layers: 3{end}    heads: 8{end}b: 2"
    )
    assert edit_student(f"student:{end}  layers: 6", {"heads": 8}) == f"student:{end}  layers: 6{end}  heads: 8"


def test_in_braces() -> None:
    text = "student: {heads: 4, layers: 6, initialisation: random}  # small\nname: x\n"
    assert edit_student(text, {"layers": 3, "hidden_size": 512, "heads": 8}) == (
        "student: {heads: 8, layers: 3, hidden_size: 512, initialisation: random}  # small\nname: x\n"
    )


def test_a_recipe_gets_a_shape(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BLOCK)
    check_recipe(path, BertConfig())
    [_] = write_shape(path, CHOICE, BertConfig())
    assert Recipe.load(path).student.model_dump(exclude_none=True) == {
        **CHOICE.model_dump(exclude_none=True),
        "initialisation": "teacher",
    }
    assert [line for line in path.read_text().splitlines() if "#" in line] == [
        "# What this is for.",
        "name: tiny   # short",
        "  # About a fifth.",
        "  layers: 3        # of 12",
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_student_that_cannot_be_cut_out_of_the_teacher_starts_at_random(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BLOCK)
    told = write_shape(path, CHOICE, ModernBertConfig())
    assert Recipe.load(path).student.initialisation == "random"
    assert "student.initialisation is now random (student.feed_forward is 2048 and the teacher's 1152: a" in told[1]


def test_a_student_that_something_else_shares_is_left_alone(tmp_path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(BLOCK)
    text = yaml.safe_dump({key: content[key] for key in ("name", "tasks", "fine_tuning")})
    shared = "{layers: 6, hidden_size: 512, heads: 8, feed_forward: 64}"
    text += f"teacher:\n  from_scratch: &sizes {shared}\n  pretraining: {{steps: 1, learning_rate: 1.0}}\n"
    text += "student: *sizes\npretraining: {corpus: [a.txt], training: {steps: 1, learning_rate: 1.0}}\n"
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"cannot be edited.*set by hand layers: 3, hidden_size: 512"):
        write_shape(path, CHOICE, BertConfig())
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": {"layers": 2, "initialisation": "some/model"}}, "a ready-made model with sizes of its own"),
        ({"student": {"heads": 2}}, "key 'student.layers' is missing"),
        (
            {"student": {"layers": 2, "initialisation": "teacher", "teacher_layers": [0, 3]}},
            "student.teacher_layers names layers, and another shape may have another number",
        ),
    ],
)
def test_refusals(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(BLOCK), **change}))
    with pytest.raises(UserError, match=message):
        check_recipe(path, BertConfig())


def test_more_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        check_recipe(tmp_path / "recipe.yaml", BertConfig())
    (tmp_path / "recipe.yaml").write_text(BLOCK)
    with pytest.raises(UserError, match="is a bart, but the recipe's family is encoder"):
        check_recipe(tmp_path / "recipe.yaml", BartConfig())


@pytest.mark.parametrize(("text", "expected"), [("10ms", 10), ("0.5s", 500), ("10", 10), (" 2.5 MS ", 2.5)])
def test_latency(text: str, expected: float) -> None:
    assert parse_latency(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("5x", 20), ("5", 20), ("30MB", 30e6), ("0.5gb", 5e8), ("10 kB", 1e4)])
def test_size(text: str, expected: float) -> None:
    assert parse_size(text, 100) == expected


@pytest.mark.parametrize("text", ["", "x", "10m", "-1ms", "0", "1.2.3", "nan"])
def test_wrong_amounts(text: str) -> None:
    with pytest.raises(UserError, match="--max-latency is"):
        parse_latency(text)
    with pytest.raises(UserError, match="--size is"):
        parse_size(text, 100)
