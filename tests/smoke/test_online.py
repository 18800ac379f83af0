"""The last steps of a run: export, check, measure, report."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from lightpaff.deployment import load

Again = Callable[..., Any]


@pytest.fixture
def again(run_cli: Callable[..., Any], request: pytest.FixtureRequest) -> Again:
    """Run a finished run's recipe with other exports: (the finished run, keys of the recipe) -> outcome and output."""

    def run(finished: Any, **keys: Any) -> tuple[Any, Path]:
        content = {key: value for key, value in deepcopy(finished.content).items() if key != "exports"} | keys
        recipe = type(finished)(finished.folder, {**content, "name": request.node.name.replace("[", "-").strip("]")})
        output = finished.output.parent / recipe.content["name"]
        return run_cli("run", recipe.write(f"{recipe.content['name']}.yaml"), "--output", output), output

    return run


@pytest.mark.needs("ctranslate2")
@pytest.mark.parametrize(
    ("run", "name", "metric"),
    [
        ("finished_run", "onnx-int8", "accuracy"),
        ("finished_decoder_run", "onnx-int8", "word_perplexity"),
        ("finished_encoder_decoder_run", "ctranslate2-int8", "bleu"),
    ],
)
def test_a_run_ends_in_its_family_s_usual_export(
    run: str, name: str, metric: str, again: Again, read_report: Any, request: pytest.FixtureRequest
) -> None:
    finished = request.getfixturevalue(run)
    outcome, output = again(finished, exports=None)
    assert outcome.code == 0, outcome.stderr
    report = read_report(output)
    splits = ["validation", "test"] if "test" in finished.content["tasks"][0] else ["validation"]
    assert [(line["name"], line["split"], line["metric"]) for line in report["exports"]] == [
        (name, split, metric) for split in splits
    ]
    first = report["exports"][0]
    delivered = first["loss_low"] <= first["tolerance"]
    assert all(line["delivered"] is delivered for line in report["exports"])
    assert (output / "exports" / name / "export.json").is_file() is delivered
    assert {(line["model"], line["batch_size"]) for line in report["online"]} == {
        (model, size) for model in ("teacher", "student", name) for size in (1, 32)
    }
    for line in report["online"]:
        assert line["low"] <= line["ratio"] <= line["high"]
        assert 0 < line["median_ms"] <= line["p95_ms"] <= line["p99_ms"]
        assert line["peak_bytes"] > line["bytes"] > 0
        if line["model"] == "teacher":
            assert (line["ratio"], line["size_ratio"], line["runtime"]) == (1.0, 1.0, "PyTorch float32")
        if line["model"] == name:
            assert line["size_ratio"] > 1
    names = [step["name"] for step in report["steps"]]
    assert names[-3:] == [
        f"export the student of toy to {name}",
        f"check the export to {name} on toy",
        "measure the exports on toy",
    ]


@pytest.mark.needs("openvino")
def test_an_export_that_loses_too_much_is_reported_and_not_delivered(
    finished_run: Any, again: Again, read_report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightpaff.pipeline import exporting

    compare = exporting._compare

    def lose(*arguments: Any) -> Any:
        check = compare(*arguments)
        return type(check)(**{**vars(check), "loss": check.loss + 7.0, "loss_low": 7.0, "loss_high": 9.0})

    monkeypatch.setattr(exporting, "_compare", lose)
    # An export that no other test makes: what the check finds is kept.
    outcome, output = again(finished_run, exports=[{"to": "openvino", "quantise": "bf16", "tolerance": 3}])
    assert outcome.code == 0, outcome.stderr
    assert "more than the tolerance of 3 %" in " ".join(outcome.stderr.split())
    assert [line["delivered"] for line in read_report(output)["exports"]] == [False]
    assert not (output / "exports").exists()


@pytest.mark.needs("openvino")
def test_several_exports_are_delivered_and_work(finished_run: Any, again: Again, read_report: Any) -> None:
    exports = [{"to": "onnx", "tolerance": 100}, {"to": "transformers", "quantise": "bf16", "tolerance": 100}]
    outcome, output = again(finished_run, exports=exports)
    assert outcome.code == 0, outcome.stderr
    assert {line["model"] for line in read_report(output)["online"]} == {
        "teacher",
        "student",
        "onnx",
        "transformers-bf16",
    }
    assert load(output / "exports" / "onnx", threads=1)("lovely warm torsel")[0].label in ("0", "1")
    assert (output / "exports" / "transformers-bf16" / "model.safetensors").is_file()


def test_an_export_that_fails_costs_neither_student_nor_report_and_may_be_changed(
    finished_run: Any, again: Again, read_report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightpaff.deployment import export_openvino
    from lightpaff.errors import UserError

    def fail(*arguments: Any) -> None:
        raise UserError("the graph cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(export_openvino, "export_openvino", fail)
        outcome, output = again(finished_run, exports=[{"to": "openvino"}])
    assert outcome.code == 0, outcome.stderr
    report = read_report(output)
    assert report["summary"]["exports"] == "export the student of toy to openvino failed: the graph cannot be written"
    assert (report["exports"], report["online"]) == ([], [])
    assert (output / "student" / "model.safetensors").is_file()
    outcome, output = again(finished_run, exports=[])
    assert outcome.code == 0, outcome.stderr
    assert "exports" not in read_report(output)["summary"]


def test_where_exports_cannot_be_measured_teacher_and_student_are(
    finished_run: Any, again: Again, read_report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightpaff.pipeline import online_steps

    monkeypatch.setattr(online_steps, "_measure", lambda *arguments: [])
    # An export that no other test makes, for what was measured is kept.
    outcome, output = again(finished_run, exports=[{"to": "transformers", "tolerance": 100}])
    assert outcome.code == 0, outcome.stderr
    report = read_report(output)
    assert "measure the exports on toy failed: the student's positions end before" in report["summary"]["exports"]
    assert "measure the speed on toy" in [step["name"] for step in report["steps"]]
    assert all(row["median_ms"] > 0 for row in report["rows"] if row["arm"] in ("teacher", "student"))
    assert (output / "exports" / "transformers" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("exports", "message"),
    [
        ([{"to": "ctranslate2"}], "exports has ctranslate2, which does not take the family encoder; take onnx or"),
        ([{"to": "onnx", "quantise": "bf16"}], "quantise is bf16, but onnx takes int8 or none; for bf16 export to"),
        ([{"to": "onnx"}, {"to": "onnx", "tolerance": 2}], "exports has onnx twice; leave one out"),
    ],
)
def test_refused_before_anything_runs(
    exports: list[dict[str, Any]], message: str, tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    tiny_recipe.content["exports"] = exports
    outcome = run_cli("run", tiny_recipe.write(), "--output", tiny_recipe.output)
    assert outcome.code == 2
    assert message in outcome.message
    assert not tiny_recipe.output.exists()


def test_an_export_whose_runtime_is_not_installed(
    tiny_recipe: Any, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightpaff.pipeline import exporting

    monkeypatch.setattr(exporting, "_packages", lambda request: ("onnx", "no_such_runtime"))
    tiny_recipe.content["exports"] = [{"to": "onnx"}]
    outcome = run_cli("plan", tiny_recipe.write(), "--output", tiny_recipe.output)
    assert outcome.code == 2
    assert "exports: onnx cannot be made (no_such_runtime is not installed" in outcome.message
    tiny_recipe.content["exports"] = None
    outcome = run_cli("plan", tiny_recipe.write(), "--output", tiny_recipe.output)
    assert outcome.code == 0, outcome.stderr
    assert "onnx-int8 is left out (no_such_runtime is not installed" in " ".join(outcome.stdout.split())
