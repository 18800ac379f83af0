import importlib.util
import io
import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from lightpaff.deployment import load
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.measuring import Measurement
from lightpaff.models.shapes import count_parameters

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "online.py"
TEACHER = Measurement(
    contender="teacher", runtime="pytorch", quantisation="none", threads=2, work="classes", batch_size=1, length=128,
    mean_length=128.0, new_tokens=0, written=0.0, beams=1, rounds=50, median_ms=80.0, p95_ms=84.0, p99_ms=85.0,
    throughput_per_s=12.5, load_seconds=3.0, peak_bytes=900_000_000, bytes=400, cost_per_million=0.9,
    price_per_core_hour=0.04, baseline="teacher", ratio=1.0, ratio_low=1.0, ratio_high=1.0, size_ratio=1.0,
    machine={"processor": "some processor"},
)  # fmt: skip


@pytest.fixture(scope="module")
def online() -> Any:
    """The program, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("online_benchmark", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    program: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = program
    spec.loader.exec_module(program)
    return program


def row_of(contender: str, milliseconds: float, size: int, **more: Any) -> Measurement:
    ratio = TEACHER.median_ms / milliseconds
    return replace(
        TEACHER, contender=contender, median_ms=milliseconds, ratio=ratio, ratio_low=ratio - 1, ratio_high=ratio + 1,
        bytes=size, size_ratio=400 / size, **more,
    )  # fmt: skip


def test_a_goal_is_judged_by_the_best_runtime_of_both(online: Any) -> None:
    rows = [
        TEACHER,
        row_of("teacher, onnx-int8", 20.0, 100, runtime="onnx", quantisation="int8"),
        row_of("small", 16.0, 40),
        row_of("small, openvino-bf16", 4.0, 20, runtime="openvino", quantisation="bf16"),
        row_of("small, onnx-int8", 5.0, 10, runtime="onnx", quantisation="int8"),
        row_of("smaller", 1.0, 1),
        row_of("small, openvino-bf16", 0.5, 20, length=32),
    ]
    speed, size = (online.judge("bert", online.Goal("small", *goal), rows) for goal in ((128, 20), (None, 41)))
    assert (speed.ratio, speed.low, speed.high, speed.is_reached) == (20.0, 19.0, 21.0, True)
    assert (speed.runtime, speed.own_ratio, speed.own_best) == ("OpenVINO bf16", 5.0, "ONNX Runtime int8")
    assert (speed.size_ratio, speed.machine) == (20.0, {"processor": "some processor"})
    assert (size.ratio, size.low, size.is_reached, size.runtime) == (40.0, None, False, "ONNX Runtime int8")
    assert size.own_ratio == 10.0
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(online.goals_table([speed, size]))
    first, second = [line for line in console.export_text().splitlines() if "bert, small" in line]
    assert "20.0× as fast at 128 tokens   20.0× [19.0×, 21.0×]" in first
    assert second.rstrip().endswith("not reached")


def tiny_cases(online: Any) -> dict[str, Any]:
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    classifier = online.BertConfig(vocab_size=20, **sizes)
    decoder = online.gpt2(1, 16, 2)
    decoder.vocab_size = 20
    writer = online.mass(1, 1, 16, 2)
    writer.vocab_size = 20
    return {
        name: online.Case(
            online.CASES[name].kind,
            online.Model("teacher", config, ()),
            (online.Model("student", config, (export,)),),
            lengths=(6,),
            goals=(online.Goal("student", 6, 1e9),),
            new_tokens=5,
            beams=2,
        )
        for name, config, export in (
            ("bert", classifier, ("onnx", "int8")),
            ("gpt2", decoder, ("ctranslate2", "none")),
            ("mass", writer, ("ctranslate2", "int8")),
        )
    }


@pytest.mark.parametrize("name", ["bert", "gpt2", "mass"])
def test_models_are_built_once_and_exports_load(online: Any, name: str, tmp_path: Path) -> None:
    case = tiny_cases(online)[name]
    built = online.build_models(case, tmp_path / name)
    assert list(built) == ["teacher", "student", f"student, {'onnx' if name == 'bert' else 'ctranslate2'}-" + (
        "none" if name == "gpt2" else "int8"
    )]  # fmt: skip
    *_, exported = built.values()
    assert ExportCard.read(exported).kind == case.kind
    assert callable(load(exported, threads=1))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert online.build_models(case, tmp_path / name) == built
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_case_is_measured_and_told_in_rows(
    online: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = tiny_cases(online)["mass"]
    monkeypatch.setitem(online.CASES, "mass", case)
    directories = online.build_models(case, tmp_path)
    console = Console(width=140, file=io.StringIO(), record=True)
    reached = online.measure_case("mass", directories, Namespace(threads=[1], seconds=0.0, json=True), console)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("contender", row["row"]) for row in rows] == [*directories, "goal"]
    # The random models never end before they must.
    assert [row["written"] for row in rows[:-1]] == [5.0] * 3
    assert all(row["machine"]["torch"] and row["seed"] == 0 and row["case"] == "mass" for row in rows)
    assert [goal.is_reached for goal in reached] == [False]
    assert "student, ctranslate2-int8" in console.export_text()


def test_the_sizes_are_those_that_the_goals_are_about(online: Any) -> None:
    for case in online.CASES.values():
        names = {student.name for student in case.students}
        assert {goal.student for goal in case.goals} == names
        assert {goal.length for goal in case.goals} - {None} == set(case.lengths)
    # The papers' own figures: BERT-base and its student, GPT-2's student, MASS's 6-6 x 768.
    millions = [
        round(count_parameters(config, head, 2 if head == "classes" else config.vocab_size).total / 1e6)
        for config, head in (
            (online.CASES["bert"].teacher.config, "classes"),
            (online.CASES["bert"].students[0].config, "classes"),
            (online.CASES["gpt2"].teacher.config, "next_tokens"),
            (online.CASES["gpt2"].students[0].config, "next_tokens"),
            (online.mass(6, 6, 768, 12), "target_tokens"),
        )
    ]
    assert millions == [109, 26, 355, 68, 123]
