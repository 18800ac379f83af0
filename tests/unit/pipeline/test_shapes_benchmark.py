import importlib.util
import io
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from transformers import BartConfig

from lightpaff.deployment import shape_measuring
from lightpaff.deployment.shape_building import build_contender
from lightpaff.deployment.shape_plan import MeasuringPlan
from lightpaff.deployment.shape_search import Timing
from lightpaff.errors import UserError

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "shapes.py"
PLAN = MeasuringPlan("target_tokens", "ctranslate2", "int8", length=8, new_tokens=4, beams=2, threads=1)


@pytest.fixture(scope="module")
def program() -> Any:
    """The benchmark, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("shapes_benchmark", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def config_of(layers: int) -> Any:
    return BartConfig(
        d_model=32,
        encoder_layers=layers,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=90,
        max_position_embeddings=32,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as it lies on the disk, with two tasks and one export."""
    parts = tmp_path_factory.mktemp("parts")
    run = parts / "runs" / "tiny"
    (run / "exports" / "toy").mkdir(parents=True)
    contender = build_contender(config_of(2), PLAN, parts, "student")
    contender.directory.rename(run / "exports" / "toy" / "ctranslate2-int8")
    config_of(2).save_pretrained(run / "student" / "toy")
    config_of(3).save_pretrained(run.parent / "steps" / "fine-tune-1" / "model")
    steps = {"prepare the rows of toy": "rows-1", "fine-tune the teacher on toy, seed 0": "fine-tune-1"}
    (run / "run.json").write_text(json.dumps({"steps": steps}))
    return run


def arguments_for(*exports: Path) -> Namespace:
    return Namespace(
        exports=exports, model=None, teacher=None, length=[8], rounds=1, threads=1, new_tokens=4, beams=2, json=True
    )


def test_a_run_is_measured_and_told_in_rows(
    program: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shape_measuring, "_SECONDS", 0.0)
    monkeypatch.setattr(shape_measuring, "PROCESSES", 1)
    subjects = program.list_subjects(arguments_for(run), tmp_path)
    [subject] = subjects
    assert subject.directory == run / "exports" / "toy" / "ctranslate2-int8"
    assert subject.config.encoder_layers == 2
    # The middle one of the students that the teacher could have: 1 to 3 layers of 16 or 32.
    assert subject.reference_shape == "1-1 × 32"
    rows = program.measure_round(subjects, 1, seconds=0.0)
    program.print_rows(rows, program.summarise(rows))
    row, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["trained_ratio"] == pytest.approx(row["trained_ms"] / row["predicted_ms"])
    assert row["alone_ratio"] == pytest.approx(row["alone_ms"] / row["predicted_ms"])
    assert row["predicted_bytes"] == pytest.approx(row["trained_bytes"], rel=0.01)
    assert (row["row"], row["runtime"], row["length"], summary["row"]) == ("round", "ctranslate2", 8, "summary")
    assert row["written"] == row["new_tokens"] == 4
    assert row["machine"]["ctranslate2"]


def test_the_mean_of_the_rounds_is_judged(program: Any) -> None:
    subject = program.Subject("demo", Path("demo"), None, PLAN, None, "4 × 512")
    rows = [
        program.make_row(subject, number, timing(2.0), timing(10.0), timing(trained), alone)
        for number, (trained, alone) in enumerate([(8.9, 15.0), (10.2, 10.0), (9.7, 8.0)], start=1)
    ]
    [summary] = program.summarise(rows)
    assert (summary.mean, summary.low, summary.high) == pytest.approx((0.96, 0.89, 1.02))
    assert (summary.alone_mean, summary.alone_low, summary.alone_high) == pytest.approx((1.1, 0.8, 1.5))
    assert (summary.rounds, summary.rounds_within, summary.is_within) == (3, 2, True)
    stream = io.StringIO()
    console = Console(file=stream, width=120)
    console.print(program.rounds_table(rows))
    console.print(program.summary_table([summary]))
    first, second = [line.split() for line in stream.getvalue().splitlines() if " 10.0 ms " in line][:2]
    assert first == ["demo", "8", "1", "10.0", "ms", "8.9", "ms", "0.890", "1.500"]
    assert second[-2:] == ["1.020", "1.000"]
    assert "0.960 [0.890, 1.020]" in stream.getvalue()
    assert "2 of 3" in stream.getvalue()


def test_a_trained_model_that_ends_early_is_told(program: Any) -> None:
    subject = program.Subject("demo", Path("demo"), None, PLAN, None, "4 × 512")
    row = program.make_row(subject, 1, timing(2.0), timing(10.0), timing(10.0, written=2.5), 10.0)
    assert program.describe_doubts(row) == "wrote 2.5 of 4 tokens"


def timing(milliseconds: float, written: float = 4.0) -> Timing:
    return Timing(100, milliseconds, milliseconds, 9, written)


def test_refusals(program: Any, run: Path, tmp_path: Path) -> None:
    export = run / "exports" / "toy" / "ctranslate2-int8"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_text("{}")
    (tmp_path / "alone").symlink_to(export)
    for path, expected in (
        (tmp_path, "give the directory of an export or of a run"),
        (tmp_path / "empty", "this run has no exports"),
        (tmp_path / "alone", "name the student that it was made of with --model"),
    ):
        with pytest.raises(UserError, match=expected):
            program.list_subjects(arguments_for(path), tmp_path)
