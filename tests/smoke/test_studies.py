"""Studies at toy size, from the file to the page; several processes on one of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightpaff.files import read_manifest
from lightpaff.pipeline import online_steps

TIMEOUT = 240
SILENT = {"pretraining.distillation.weight": 0, "fine_tuning.distillation.weight": 0}
STUDY: dict[str, Any] = {
    "name": "toy-study",
    "recipe": "recipe.yaml",
    "arms": {
        "both": {},
        "pre-training only": {"fine_tuning.distillation.weight": 0},
        "half the size": {"student.hidden_size": 16, "student.heads": 1},
        "none": SILENT,
    },
    "baseline": "none",
    "seeds": [1, 2],
    "latency": True,
    "noise": {"deviations": [0.0, 0.5], "draws": 2},
}
READY = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def write_study(recipe: Any, content: dict[str, Any]) -> Path:
    path: Path = recipe.folder / "study.yaml"
    path.write_text(yaml.safe_dump({**content, "recipe": str(recipe.write())}, sort_keys=False))
    return path


def read_study(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "report" / "study.json").read_text())
    return content


def test_a_study_from_its_file_to_its_page(
    tiny_recipe: Any, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_steps, "_SECONDS", 0.5)
    tiny_recipe.set("exports", [{"to": "onnx", "quantise": "int8"}])
    output = tiny_recipe.folder / "out"
    path = write_study(tiny_recipe, STUDY)
    planned = run_cli("plan", path, "--output", output)
    assert planned.code == 0, planned.stderr
    assert planned.stdout.count("the first of its seeds") == 4
    assert re.search(r"what they share counted once: about .* of work left, and the evaluations", planned.stdout)
    told = run_cli("study", path, "--output", output)
    assert told.code == 0, told.stderr
    # Of so little training, models may come out that say one class of all rows.
    lead = " ".join(told.stdout.split())
    assert re.match("(Not measurably|Yes|No): 'both' against 'none' is .* as onnx-int8 |Not to be told: ", lead)
    data = read_study(output)
    rows = {row["arm"]: row for row in data["rows"]}
    assert set(rows) == set(STUDY["arms"])
    for row in rows.values():
        assert list(row["values"]) == ["1", "2"]
        assert row["interval"][0] <= row["mean"] <= row["interval"][1]
        assert row["steps"] == {"pretraining": 4, "fine_tuning": 5}
        assert (row["minus_baseline"] is None) == (row["arm"] == "none")
        assert row["median_ms"] > 0
    assert rows["half the size"]["parameters"] < rows["both"]["parameters"]
    assert {(one["arm"], one["name"]) for one in data["exports"]} == {(arm, "onnx-int8") for arm in rows}
    for export in data["exports"]:
        assert export["value"] == pytest.approx(rows[export["arm"]]["values"]["1"], abs=0.2)
        assert export["median_ms"] > 0 < export["bytes"]
    assert rows["both"]["teacher_flops"] > 0 == rows["none"]["teacher_flops"]
    assert {one["name"] for one in data["references"]} == {"teacher", "tfidf"}
    undisturbed = {
        line["arm"]: line["mean"] for line in data["noise"] if not line["deviation"] and line["metric"] == "accuracy"
    }
    assert undisturbed == pytest.approx({arm: row["mean"] for arm, row in rows.items()})
    assert len(data["curvature"]) == 4
    page = (output / "report" / "index.html").read_text()
    assert page.count("<svg") == 6
    assert "<script" not in page
    # One teacher for all, and each step once.
    kinds = [path for kind in ("pretrain", "finetune") for path in (output.parent / "steps").glob(f"{kind}-*")]
    names = [read_manifest(path)["name"] for path in kinds]
    assert sum(name.startswith("pre-train the teacher") for name in names) == 1
    assert sum(name.startswith("fine-tune the teacher") for name in names) == 1
    again = run_cli("study", path, "--output", output)
    assert again.code == 0
    assert "0 of" in again.stderr
    gallery = run_cli("report", tiny_recipe.folder, "--all")
    assert gallery.code == 0, gallery.stderr
    assert 'href="out/report/index.html"' in (tiny_recipe.folder / "index.html").read_text()


def test_equal_operations_give_the_silent_arm_more_steps(tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    arms = {"both": {}, "none": SILENT, "twice": {"fine_tuning.training.steps": 10}}
    path = write_study(tiny_recipe, {**STUDY, "arms": arms, "seeds": [1], "match": "flops", "noise": None})
    told = run_cli("study", path, "--output", tiny_recipe.folder / "out")
    assert told.code == 0, told.stderr
    rows = {row["arm"]: row for row in read_study(tiny_recipe.folder / "out")["rows"]}
    assert rows["none"]["steps"]["pretraining"] > 4
    assert rows["none"]["steps"]["fine_tuning"] > 5
    assert rows["twice"]["steps"]["fine_tuning"] == 10
    total = {arm: row["flops"] + row["teacher_flops"] for arm, row in rows.items()}
    assert total["none"] == pytest.approx(total["both"], rel=0.15)


@pytest.mark.parametrize(
    ("finished", "noisy"),
    [("finished_decoder_run", {"word_perplexity", "loss"}), ("finished_encoder_decoder_run", {"loss"})],
)
def test_the_other_families_too(
    finished: str, noisy: set[str], request: pytest.FixtureRequest, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    recipe = request.getfixturevalue(finished).write()
    short = {**STUDY, "arms": {"both": {}, "none": SILENT}, "seeds": [1], "match": "tokens", "latency": False}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**short, "recipe": str(recipe)}, sort_keys=False))
    told = run_cli("study", path, "--output", tmp_path / "out")
    assert told.code == 0, told.stderr
    data = read_study(tmp_path / "out")
    assert len(data["rows"]) == 2
    assert all(row["steps"] == {"pretraining": 4, "fine_tuning": 5} for row in data["rows"])
    means = {(line["metric"], line["deviation"]): line["mean"] for line in data["noise"] if line["arm"] == "both"}
    assert {metric for metric, _ in means} == noisy
    assert means["loss", 0.5] > 0 < means["loss", 0.0]
    assert all(len(line["values"]) == 1 for line in data["curvature"])


def test_a_silent_arm_hears_no_texts_either(finished_encoder_decoder_run: Any, tmp_path: Path) -> None:
    from lightpaff.study.definition import arm_recipe, load_study

    recipe = type(finished_encoder_decoder_run)(
        finished_encoder_decoder_run.folder, deepcopy(finished_encoder_decoder_run.content)
    )
    recipe.content["tasks"][0] |= {"unlabelled": ["more.jsonl"], "sequence_distillation": {"ratio": 0.5}}
    content = {**STUDY, "arms": {"both": {}, "none": SILENT}, "recipe": str(recipe.write("texts.yaml"))}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    study = load_study(path)
    both, none = (arm_recipe(study, arm, seed=1).tasks[0] for arm in ("both", "none"))
    assert both.sequence_distillation is not None
    assert len(both.unlabelled) == 1
    assert none.sequence_distillation is None
    assert none.unlabelled == []


@pytest.mark.slow
def test_an_export_that_fails_does_not_end_a_study(
    tiny_recipe: Any, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightpaff.errors import UserError
    from lightpaff.pipeline import exporting

    export = exporting.export_model

    def fail(to: str, model: Path, destination: Path, quantise: str, *more: Any) -> Any:
        if quantise == "int8":
            raise UserError("no number comes out of it")
        return export(to, model, destination, quantise, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "export_model", fail)
    monkeypatch.setattr(online_steps, "_SECONDS", 0.5)
    tiny_recipe.set("exports", [{"to": "onnx", "quantise": "int8"}, {"to": "onnx"}])
    short = {**STUDY, "arms": {"both": {}, "none": SILENT}, "seeds": [1], "noise": None}
    told = run_cli("study", write_study(tiny_recipe, short), "--output", tiny_recipe.folder / "out")
    assert told.code == 0, told.stderr
    assert "failed: no number comes out of it" in " ".join(told.stderr.split())
    data = read_study(tiny_recipe.folder / "out")
    assert {(one["arm"], one["name"]) for one in data["exports"]} == {
        ("both", "onnx"),
        ("none", "onnx"),
    }
    assert all(row["median_ms"] > 0 for row in data["rows"])


@pytest.mark.parametrize("command", [("study",), ("plan",), ("study", "--preset", "quick")])
def test_a_study_that_shall_go_into_a_file(
    command: tuple[str, ...], tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    (tiny_recipe.folder / "file").write_text("kept")
    subject = tiny_recipe.write() if "--preset" in command else write_study(tiny_recipe, STUDY)
    told = run_cli(command[0], subject, *command[1:], "--output", tiny_recipe.folder / "file")
    assert told.code == 2
    assert re.search("file: there is a file where a directory has to be; give another --output$", told.message)
    assert (tiny_recipe.folder / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"baseline": "nobody"}, "baseline is 'nobody', which is no arm"),
        ({"arms": {"both": {"student.layer": 1}, "none": {}}}, "arm 'both' of the study toy-study"),
        ({"arms": {"both": {"seeds.pretraining": 1}, "none": {}}}, "the study itself decides 'seeds.pretraining'"),
        ({"x": "student.layers"}, "which the arm 'both' does not give"),
        ({"recipe": "nowhere.yaml"}, "nowhere.yaml: no such recipe"),
        ({"arm": {}}, "unknown key 'arm'"),
    ],
)
def test_a_wrong_study_is_told_in_a_line(
    change: dict[str, Any], told: str, tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    path = tiny_recipe.folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "recipe": str(tiny_recipe.write()), **change}))
    outcome = run_cli("study", path, "--output", tiny_recipe.folder / "out")
    assert outcome.code == 2
    assert told in " ".join(outcome.stderr.split())
    assert "Traceback" not in outcome.stderr


def test_an_arm_with_other_data_is_compared_with_its_own_teacher(tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    arms = {"few [red] rows": {"tasks.0.train.0.limit": 20}, "all": {}}
    short = {
        **STUDY,
        "arms": arms,
        "baseline": "all",
        "reference": "all",
        "seeds": [1],
        "noise": None,
        "latency": False,
    }
    told = run_cli("study", write_study(tiny_recipe, short), "--output", tiny_recipe.folder / "out")
    assert told.code == 0, told.stderr
    said = " ".join(told.stdout.split())
    assert "'few [red] rows' against 'all' is" in said or "Not to be told" in said
    assert "Arms differ in their teachers too" in said
    # Two teachers and two students.
    teachers = list((tiny_recipe.folder / "steps").glob("finetune-*/manifest.json"))
    assert len(teachers) == 4


def test_of_several_tasks_one_is_named(tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    second = {**tiny_recipe.content["tasks"][0], "name": "second"}
    tiny_recipe.content["tasks"].append(second)
    short = {**STUDY, "arms": {"both": {}, "none": SILENT}, "seeds": [1], "noise": None, "latency": False}
    path, output = write_study(tiny_recipe, short), tiny_recipe.folder / "out"
    told = run_cli("study", path, "--output", output)
    assert told.code == 2
    assert "name one with the key task or --task: toy, second" in " ".join(told.stderr.split())
    recipe = tiny_recipe.folder / "recipe.yaml"
    assert run_cli("plan", path, "--recipe", recipe, "--task", "second", "--output", output).code == 0
    assert run_cli("plan", recipe, "--task", "second").code == 2
    assert run_cli("study", path, "--task", "second", "--output", tiny_recipe.folder / "other").code == 0
    assert {row["task"] for row in read_study(tiny_recipe.folder / "other")["rows"]} == {"second"}


def test_another_study_is_not_mixed_in(tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    output = tiny_recipe.folder / "out"
    short = {**STUDY, "arms": {"both": {}, "none": SILENT}, "seeds": [1], "noise": None}
    assert run_cli("study", write_study(tiny_recipe, short), "--output", output).code == 0
    tiny_recipe.set("fine_tuning.training.steps", 6)
    outcome = run_cli("study", write_study(tiny_recipe, short), "--output", output)
    assert outcome.code == 2
    assert "of a recipe that was changed since" in " ".join(outcome.stderr.split())
    outcome = run_cli("study", write_study(tiny_recipe, {**short, "seeds": [2]}), "--output", output)
    assert outcome.code == 2
    assert "holds another study of that name" in " ".join(outcome.stderr.split())


def test_will_it_pay_for_me(tiny_recipe: Any, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from lightpaff.study import preset

    output = tiny_recipe.folder / "out"
    # As if an hour were a moment.
    monkeypatch.setattr(preset, "_SECONDS", 1e-9)
    options = ("--preset", "quick", "--output", output, "--set", "student.layers=2")
    told = run_cli("study", tiny_recipe.write(), *options)
    assert told.code == 0, told.stderr
    assert "0 % of each budget" in " ".join(told.stderr.split())
    data = read_study(output)
    assert data["title"] == "Will distillation pay for tiny?"
    assert [row["arm"] for row in data["rows"]] == ["both stages", "fine-tuning only", "no distillation"]
    assert {tuple(row["steps"].values()) for row in data["rows"]} == {(1, 1)}
    assert "student.layers: 2" in data["study_yaml"]
    again = run_cli("study", tiny_recipe.write(), *options)
    assert again.code == 0
    assert re.search(r"0 of \d+ steps", again.stderr)


def test_two_processes_do_no_step_twice_even_if_one_is_killed(tiny_recipe: Any) -> None:
    tiny_recipe.set("pretraining.training.steps", 60)
    path = write_study(tiny_recipe, {**STUDY, "latency": False, "noise": None})
    output = tiny_recipe.folder / "out"
    command = [sys.executable, "-m", "lightpaff", "study", str(path), "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    first, second = start(), start()
    deadline = time.monotonic() + TIMEOUT
    while len(list((output.parent / "steps").glob("pretrain-*"))) < 2:
        assert time.monotonic() < deadline, "nothing was trained"
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    said = second.communicate(timeout=TIMEOUT)[0]
    assert second.returncode == 0, said
    said += first.communicate()[0]
    third = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT)
    assert third.returncode == 0
    assert re.search(r"0 of \d+ steps", third.stderr)
    # A training that ended speaks its last step once, whoever did it.
    ended = re.findall(r"(fine-tune '?[^:]*): 5/5 steps", said)
    assert len(ended) == len(set(ended))
    assert len(read_study(output)["rows"]) == 4


def test_a_gallery_over_runs_and_what_is_broken(finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    assert run_cli("report", tmp_path, "--all").code == 2
    shutil.copytree(finished_run.output / "report", tmp_path / "one" / "report")
    shutil.copytree(finished_run.output / "report", tmp_path / "two <b>" / "report")
    (tmp_path / "two <b>" / "report" / "report_data.json").write_text("{")
    assert run_cli("report", tmp_path, "--all").code == 0
    page = (tmp_path / "index.html").read_text()
    assert page.count("<article") == 2
    assert 'href="one/report/index.html"' in page
    assert "two &lt;b&gt;" in page
    assert "report_data.json: " in page


def test_a_report_is_written_anew(finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    shutil.copytree(finished_run.output / "report", tmp_path / "report")
    before = (tmp_path / "report" / "index.html").read_bytes()
    (tmp_path / "report" / "index.html").unlink()
    assert run_cli("report", tmp_path).code == 0
    assert (tmp_path / "report" / "index.html").read_bytes() == before
    assert run_cli("report", tmp_path / "nowhere").code == 2


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_studies_are_whole(path: Path) -> None:
    from lightpaff.study.definition import arm_recipe, load_study

    study = load_study(path)
    recipes = [arm_recipe(study, arm, seed=1) for arm in study.arms]
    assert len({recipe.fingerprint() for recipe in recipes}) == len(recipes), "arms differ"


@pytest.mark.slow
@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_studies_run_on_any_recipe(path: Path, tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    tiny_recipe.set("student.initialisation", "random")
    tiny_recipe.set("teacher.from_scratch.layers", 6)
    tiny_recipe.content["tasks"][0]["unlabelled"] = ["unlabelled.jsonl"]
    content = yaml.safe_load(path.read_text())
    short = tiny_recipe.folder / "short.yaml"
    short.write_text(yaml.safe_dump({**content, "seeds": [1]}, sort_keys=False))
    output = tiny_recipe.folder / "out"
    sizes = ("--set", "student.hidden_size=16", "--set", "student.heads=1")
    told = run_cli("study", short, "--recipe", tiny_recipe.write(), "--output", output, *sizes)
    assert told.code == 0, told.stderr
    data = read_study(output)
    assert [row["arm"] for row in data["rows"]] == list(content["arms"])
    assert bool(data["noise"]) == ("noise" in content)
    assert "<svg" in (output / "report" / "index.html").read_text()
