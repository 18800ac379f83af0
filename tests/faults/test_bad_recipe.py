"""A bad recipe, setting or command ends in exit code 2 and one line that names the key, what was found and what to do.

The fixtures look after the rest: no traceback, an earlier run unchanged, nothing half-written.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightpaff import ranks
from tests.faults.changes import (
    Refuse,
    set_key,
)


def repeat_the_task(recipe: Any) -> None:
    recipe.set("tasks", recipe.content["tasks"] * 2)


RECIPES: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "unknown key": (
        set_key("student.depth", 4),
        ("unknown key 'student.depth'; known here: layers, decoder_layers, hidden_size, heads, feed_forward",),
    ),
    "unknown key of a source": (
        set_key("tasks.0.train", {"path": "train.jsonl", "columns": "x"}),
        ("unknown key 'tasks.0.train.0.columns'; known here: path, sha256, format",),
    ),
    "unknown key that is a number": (set_key("student.7", 4), ("student.7",)),
    "wrong type": (set_key("student.layers", "many"), ("key 'student.layers': ", "integer", "found 'many'")),
    "out of range": (
        set_key("pretraining.distillation", {"weight": 2}),
        ("key 'pretraining.distillation.weight': ", "less than or equal to 1", "found 2"),
    ),
    "not a number": (
        set_key("pretraining.training.learning_rate", float("nan")),
        ("key 'pretraining.training.learning_rate': ", "finite number"),
    ),
    "missing key": (lambda recipe: recipe.content.pop("student"), ("key 'student' is missing", "lightpaff schema")),
    "two budgets": (
        set_key("pretraining.training.epochs", 1),
        ("key 'pretraining.training': give exactly one of steps, tokens and epochs; found steps, epochs",),
    ),
    "two tasks of one name": (repeat_the_task, ("tasks need different names; found toy, toy",)),
    "no corpus": (set_key("pretraining", None), ("teacher.pretraining needs a corpus", "add the section pretraining")),
    "frozen embeddings that were never trained": (
        set_key("teacher.pretraining.freeze_embeddings", True),
        ("teacher.pretraining.freeze_embeddings: the embeddings would stay random; leave it out there",),
    ),
    "two teachers": (
        set_key("teacher.source", "somewhere"),
        ("key 'teacher': give exactly one of source and from_scratch",),
    ),
    "text as a section": (set_key("student", "small"), ("key 'student': ", "found 'small'")),
    "student wider than its teacher": (
        set_key("student.hidden_size", 64),
        ("student.hidden_size is 64 and the teacher's 32", "set student.initialisation to random"),
    ),
    "student deeper than its teacher": (
        set_key("student.layers", 3),
        ("student.layers is 3 and the teacher has 2", "set student.layers to 2 or less"),
    ),
    "layers that the teacher lacks": (
        set_key("student", {"layers": 2, "initialisation": "teacher", "teacher_layers": [0, 2]}),
        ("student.teacher_layers names layer 2, and the teacher's are 0 to 1; take others",),
    ),
    "layers of a decoder that is not there": (
        set_key("student.teacher_decoder_layers", [0]),
        ("student.teacher_decoder_layers is for the family encoder-decoder; leave it out",),
    ),
    "more layers than the student has": (
        set_key("student.teacher_layers", [0, 1]),
        ("student.teacher_layers is [0, 1], and the student has 1 layers: name as many, ascending, the first 0, or",),
    ),
    "heads that do not divide": (
        set_key("teacher.from_scratch.heads", 3),
        ("teacher.from_scratch.heads is 3, which does not divide the hidden size 32", "set a divisor"),
    ),
    "sequences longer than the teacher reads": (
        set_key("pretraining.sequence_length", 64),
        ("pretraining.sequence_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
    "rows longer than the teacher reads": (
        set_key("tasks.0.max_length", 64),
        ("tasks.toy.max_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipe(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = RECIPES[case]
    spoil(tiny_recipe)
    path = tiny_recipe.write()
    message = expect_refusal(path, *fragments)
    is_about_values = fragments[0].startswith(
        ("student.hidden", "student.layers is", "student.teacher", "teacher.from", "pretraining.seq", "tasks.")
    )
    assert is_about_values or message.startswith(f"{path}: ")


FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such recipe; give the path of a YAML file"),
    "empty": (b"", "holds NoneType, not keys and values; see the folder recipes/"),
    "a list": (b"- name: tiny\n", "holds list, not keys and values"),
    "corrupt": (b"name: [tiny\nteacher: {", "is not valid YAML: "),
    "tabs": (b"name: tiny\n\tteacher: x\n", "is not valid YAML: "),
    "a key twice": (b"name: tiny\nseeds: {}\nname: small\n", "is not valid YAML: the key 'name' stands twice"),
    "binary": (b"\0\1\2", "is not valid YAML: "),
    "not UTF-8": ("name: tïny\n".encode("latin-1"), "is not UTF-8 text (byte 7); give a YAML file"),
}


@pytest.mark.parametrize("case", FILES)
def test_recipe_file(case: str, tmp_path: Path, expect_refusal: Refuse) -> None:
    content, problem = FILES[case]
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    expect_refusal(path, f"{path}: {problem}")


def test_recipe_that_is_no_file(tmp_path: Path, expect_refusal: Refuse) -> None:
    expect_refusal(tmp_path, f"{tmp_path}: is a directory; give the path of a YAML file")
    (tmp_path / "file").touch()
    expect_refusal(tmp_path / "file" / "recipe.yaml", "recipe.yaml: cannot be read (Not a directory); give the path")


SETTINGS: dict[str, tuple[str, ...]] = {
    "student.layers": ("--set student.layers: write it as key.path=value",),
    "=4": ("--set =4: write it as key.path=value",),
    "student.depth=4": ("unknown key 'student.depth'",),
    "student.layers=many": ("key 'student.layers'", "found 'many'"),
    "student.layers.count=4": ("--set student.layers.count=4: student.layers holds a value, not keys",),
    "tasks.toy.max_length=8": ("--set tasks.toy.max_length=8: 'toy' is not a place in a list of 1; count from 0",),
    "tasks.1.max_length=8": ("--set tasks.1.max_length=8: '1' is not a place in a list of 1; count from 0",),
    "name=[": ("--set name=[: the value is not valid YAML; quote it",),
    "name=2020-13-45": ("--set name=2020-13-45: the value is not valid YAML; quote it",),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_set(setting: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    expect_refusal(tiny_recipe.write(), *SETTINGS[setting], options=("--set", setting))


COMMANDS: dict[tuple[str, ...], str] = {
    ("run",): "Missing argument 'recipe'",
    ("run", "recipe.yaml", "--quick"): "No such option: --quick",
    ("run", "recipe.yaml", "--set"): "Option '--set' requires an argument",
    ("run", "recipe.yaml", "more.yaml"): "Got unexpected extra argument(s) (more.yaml)",
    ("train",): "No such command 'train'",
}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_command_line(arguments: tuple[str, ...], run_cli: Callable[..., Any]) -> None:
    outcome = run_cli(*arguments)
    assert outcome.code == 2
    assert outcome.message == f"{COMMANDS[arguments]}; see lightpaff --help"
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "study", "targets"])
def test_ranks_are_for_runs(command: str, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    # It ends the process at once, and this one has more to test.
    monkeypatch.setattr(ranks, "leave", sys.exit)
    outcome = run_cli(command, "recipe.yaml")
    assert outcome.code == 2
    assert outcome.message == (
        f"{command}: 2 ranks were launched, and only run and distil work in several; start it without the launcher"
    )


def test_no_command(run_cli: Callable[..., Any]) -> None:
    outcome = run_cli()
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "Usage: lightpaff" in outcome.stdout
