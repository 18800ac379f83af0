"""A student chosen before any training, by the command that a user types."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import BertConfig

from lightpaff.deployment import shape_measuring
from lightpaff.pipeline import shapes_run
from lightpaff.recipe import Recipe


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTPAFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shape_measuring, "_SECONDS", 0.0)
    monkeypatch.setattr(shape_measuring, "PROCESSES", 1)
    monkeypatch.setattr(shapes_run, "busy_share", lambda seconds: 0.0)


def test_from_a_recipe_into_it(tiny_recipe: Any, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    path = tiny_recipe.write()
    options = ("--size", "3x", "--length", 16, "--threads", 1, "--output", tmp_path / "found")
    asked = ("shapes", path, "--max-latency", "10s", *options, "--write", path)
    outcome = run_cli(*asked, "--json")
    assert outcome.code == 0, outcome.stderr
    assert "Looking for the student of the bert of tiny (2 × 32" in outcome.stderr
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    [chosen] = [row for row in rows if row["recommended"]]
    assert chosen["size_ratio"] >= 3
    assert chosen["runtime"] == "onnx"
    assert chosen["quantisation"] == "int8"
    assert chosen["teacher_median_ms"] > 0
    assert chosen["layer_parameters"] == max(row["layer_parameters"] for row in rows if row["fits"])
    [(reference, milliseconds)] = {(row["reference"], row["reference_median_ms"]) for row in rows}
    assert f"{reference}, the reference that takes turns with all: " in outcome.stderr
    assert milliseconds > 0
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in rows)
    student = Recipe.load(path).student
    sizes = ("layers", "hidden_size", "heads", "feed_forward")
    assert {size: getattr(student, size) for size in sizes} == {size: chosen[size] for size in sizes}
    assert (tmp_path / "found" / "shapes.svg").read_text().startswith("<svg")
    again = run_cli(*asked)
    assert again.code == 0, again.stderr
    assert "recommended" in again.stdout


@pytest.mark.slow
def test_a_new_recipe_gets_a_student_that_fits(finished_run: Any, run_cli: Callable[..., Any], tmp_path: Path) -> None:
    teacher = next(iter((finished_run.output.parent / "steps").glob("pretrain-*/model")))
    path = tmp_path / "recipe.yaml"
    asked = ("new", finished_run.folder / "train.jsonl", "--teacher", teacher, "--output", path)
    refused = run_cli(*asked, "--max-latency", "0.000001ms")
    assert refused.code == 2
    assert "the nearest," in refused.message
    assert not path.exists()
    told = run_cli(*asked, "--size", "2x")
    assert told.code == 0, told.stderr
    student = Recipe.load(path).student
    assert student.heads is not None
    assert f"student is now layers {student.layers}, hidden_size {student.hidden_size}" in told.stdout


def test_nothing_fits(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    config = BertConfig(vocab_size=90, hidden_size=32, num_attention_heads=2, num_hidden_layers=2, intermediate_size=64)
    config.save_pretrained(tmp_path / "teacher")
    outcome = run_cli(
        *("shapes", tmp_path / "teacher", "--max-latency", "0.000001ms"),
        *("--length", 8, "--threads", 1, "--output", tmp_path / "found"),
    )
    assert outcome.code == 2
    assert "the nearest, 1 × 16, takes" in outcome.message
    assert not (tmp_path / "found").exists()


def test_refusals(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    config = BertConfig(vocab_size=90, hidden_size=32, num_attention_heads=2, max_position_embeddings=64)
    config.save_pretrained(tmp_path)
    (tmp_path / "empty.yaml").write_text(yaml.safe_dump({"name": "x"}))
    for options, expected in (
        (("--max-latency", "soon"), "--max-latency is soon"),
        (("--max-latency", "1ms"), "--length is 128: the teacher reads 64 tokens at most"),
        (("--max-latency", "1ms", "--length", 8, "--write", tmp_path / "none.yaml"), "no such recipe"),
        (("--max-latency", "1ms", "--runtime", "ctranslate2"), "--runtime ctranslate2: does not run such models"),
    ):
        outcome = run_cli("shapes", tmp_path, *options)
        assert outcome.code == 2
        assert expected in outcome.message
    outcome = run_cli("shapes", tmp_path / "empty.yaml", "--max-latency", "1ms")
    assert "is missing" in outcome.message
    outcome = run_cli("shapes", "no/such-model", "--max-latency", "1ms")
    assert "cannot be had from the Hub" in outcome.message
