"""Full disks, directories that cannot be written, runs that were cut short or changed, and losses that explode."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from lightpaff import files
from lightpaff.pipeline.run import only_run_in

Refuse = Callable[..., str]

# No file may grow beyond 48 KiB: enough for the data, too little for a model.
RUN_ON_A_SMALL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (48 << 10, 48 << 10))
from lightpaff.cli import main
main()
"""


def all_steps_done_recipe(finished_run: Any) -> Any:
    return finished_run.folder / "recipe.yaml"


def step_directory(finished_run: Any, name: str) -> Path:
    steps = json.loads((finished_run.output / "run.json").read_text())["steps"]
    return Path(finished_run.output.parent / "steps" / steps[name])


@pytest.mark.parametrize("place", ["/dev/null/run", "FILE/run", "FILE"])
def test_output_that_cannot_be_written(place: str, tiny_recipe: Any, tmp_path: Path, expect_refusal: Refuse) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    output = Path(place.replace("FILE", str(file)))
    expect_refusal(
        tiny_recipe.write(),
        str(output.parent if place.endswith("run") else output),
        "give another --output",
        output=output,
    )
    assert file.read_text() == "kept"


def test_output_with_other_files(tiny_recipe: Any, expect_refusal: Refuse) -> None:
    tiny_recipe.output.mkdir(parents=True)
    (tiny_recipe.output / "thesis.tex").write_text("kept")
    remedy = "is not empty and holds no readable run.json, so it is no run; give another --output, or delete it"
    expect_refusal(tiny_recipe.write(), f"{tiny_recipe.output}: {remedy}", output=tiny_recipe.output)
    assert [path.name for path in tiny_recipe.output.iterdir()] == ["thesis.tex"]


def test_output_with_a_long_name(tiny_recipe: Any, runs: Path, expect_refusal: Refuse) -> None:
    output = runs / ("n" * 300)
    expect_refusal(tiny_recipe.write(), f"{output}: File name too long; give a shorter one", output=output)


def test_output_among_the_steps(finished_run: Any, runs: Path, expect_refusal: Refuse) -> None:
    problem = f"{runs / 'steps'}: 'steps' is the name of the folder that runs share; give another --output"
    expect_refusal(all_steps_done_recipe(finished_run), problem, output=runs / "steps")


def test_a_second_run_in_one_directory_waits(
    finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, said = copy_run(finished_run, tmp_path), Event()
    monkeypatch.setattr(files, "console", SimpleNamespace(print=lambda told: said.set()))
    half_written = copy / "tiny" / "student" / ".toy.part"
    with ThreadPoolExecutor() as pool:
        with only_run_in(copy / "tiny"):
            half_written.touch()
            second = pool.submit(run_cli, "run", all_steps_done_recipe(finished_run), "--output", copy / "tiny")
            assert said.wait(60)
            assert half_written.exists()
        assert second.result().code == 0
    assert not half_written.exists()


def test_run_that_was_cut(finished_run: Any, tmp_path: Path, expect_refusal: Refuse) -> None:
    copy = tmp_path / "runs" / "copy"
    shutil.copytree(finished_run.output, copy)
    content = (copy / "run.json").read_text()
    for damaged in (content[: len(content) // 2], "", "[]", "{}"):
        (copy / "run.json").write_text(damaged)
        expect_refusal(
            all_steps_done_recipe(finished_run), f"{copy}: ", "no readable run.json", "or delete it", output=copy
        )
    (copy / "run.json").unlink()
    expect_refusal(
        all_steps_done_recipe(finished_run), f"{copy}: ", "no readable run.json", "or delete it", output=copy
    )
    assert (copy / "student" / "model.safetensors").exists()


@pytest.mark.parametrize("command", [("export", "--to", "onnx"), ("benchmark",)])
def test_run_that_was_cut_is_not_worked_with(
    command: tuple[str, ...], finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    copy = tmp_path / "runs" / "copy"
    shutil.copytree(finished_run.output, copy)
    (copy / "run.json").write_text("")
    outcome = run_cli(command[0], copy, *command[1:])
    assert outcome.code == 2
    assert outcome.message == (
        f"{copy}: is not empty and holds no readable run.json, so it is no run; give the directory that lightpaff run "
        "wrote"
    )


def test_changed_recipe_over_an_old_run(finished_run: Any, expect_refusal: Refuse) -> None:
    message = expect_refusal(
        all_steps_done_recipe(finished_run),
        f"{finished_run.output}: holds a run of another recipe (student.layers: 1 there, 2 now); give another --output",
        output=finished_run.output,
        options=("--set", "student.layers=2"),
    )
    assert "teacher" not in message


def test_corrected_recipe_takes_the_same_directory(tiny_recipe: Any, runs: Path, run_cli: Callable[..., Any]) -> None:
    tiny_recipe.set("tasks.0.validation", "nowhere.jsonl")
    assert run_cli("run", tiny_recipe.write(), "--output", runs / "corrected").code == 2
    tiny_recipe.set("tasks.0.validation", "validation.jsonl")
    outcome = run_cli("run", tiny_recipe.write(), "--output", runs / "corrected")
    assert outcome.code == 0, outcome.stderr


def copy_run(finished_run: Any, folder: Path) -> Path:
    """The finished run with its steps, to be damaged."""
    shutil.copytree(finished_run.output.parent, folder / "runs", ignore=shutil.ignore_patterns("refused*"))
    return folder / "runs"


@pytest.mark.parametrize(
    ("step", "file"),
    [
        ("pre-train the teacher", "model/model.safetensors"),
        ("prepare the pre-training text", "sequences.arrow"),
        ("fine-tune the student on toy, seed 0", "model/model.safetensors"),
    ],
)
def test_step_that_was_cut(step: str, file: str, finished_run: Any, tmp_path: Path, expect_refusal: Refuse) -> None:
    copy = copy_run(finished_run, tmp_path)
    directory = copy / "steps" / step_directory(finished_run, step).name
    content = (directory / file).read_bytes()
    (directory / file).write_bytes(content[: len(content) // 2])
    problem = f"{directory / file}: does not match its manifest"
    expect_refusal(
        all_steps_done_recipe(finished_run), problem, f"delete {directory} and run again", output=copy / "tiny"
    )
    (directory / file).unlink()
    problem = f"{directory / file}: is missing though the manifest names it"
    expect_refusal(
        all_steps_done_recipe(finished_run), problem, f"delete {directory} and run again", output=copy / "tiny"
    )
    (directory / "manifest.json").write_text("{")
    problem = f"{directory / 'manifest.json'}: is not a manifest"
    expect_refusal(
        all_steps_done_recipe(finished_run), problem, f"delete {directory} and run again", output=copy / "tiny"
    )


@pytest.mark.parametrize(
    "damage",
    [lambda shard: shard.write_bytes(b"cut"), lambda shard: shutil.rmtree(shard.parents[1])],
    ids=["a cut shard", "no store"],
)
def test_a_store_beside_the_run_is_made_whole_again(
    damage: Callable[[Path], object], finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    copy = copy_run(finished_run, tmp_path)
    student = copy / "steps" / step_directory(finished_run, "fine-tune the student on toy, seed 0").name
    model = (student / "model" / "model.safetensors").read_bytes()
    captured = step_directory(finished_run, "capture the teacher's soft targets for toy").name
    store = json.loads((copy / "steps" / captured / "manifest.json").read_text())["facts"]["store"]
    [shard] = (copy / "steps" / store).glob("draw-*/*.safetensors")
    before = shard.read_bytes()
    shutil.rmtree(student)
    damage(shard)
    outcome = run_cli("run", all_steps_done_recipe(finished_run), "--output", copy / "tiny")
    assert outcome.code == 0, outcome.stderr
    assert "is not whole any more; asking the teacher again" in " ".join(outcome.stderr.split())
    assert shard.read_bytes() == before
    assert (student / "model" / "model.safetensors").read_bytes() == model


def test_a_named_store_is_refused_by_name(
    finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any], expect_refusal: Refuse
) -> None:
    """Where it is damaged, until it was captured again; and where the teacher's weights are the same, but not what is
    computed with them."""
    copy, recipe, store = copy_run(finished_run, tmp_path), all_steps_done_recipe(finished_run), tmp_path / "store"
    teacher = tmp_path / "teacher"
    shutil.copytree(step_directory(finished_run, "fine-tune the teacher on toy, seed 0") / "model", teacher)
    keys = {"tasks.0.teacher": teacher, "fine_tuning.distillation.targets.store": store}
    options = tuple(option for key, value in keys.items() for option in ("--set", f"{key}={value}"))
    outcome = run_cli("targets", recipe, "--output", copy / "named", *options)
    assert outcome.code == 0, outcome.stderr
    [shard] = store.rglob("*.safetensors")
    whole = shard.read_bytes()
    for spoil, problem in (
        (lambda: shard.write_bytes(whole[:-1]), "does not match the manifest"),
        (shard.unlink, "is missing though the manifest names it"),
    ):
        spoil()
        remedy = "capture again with lightpaff targets"
        expect_refusal(recipe, f"{shard}: {problem}", remedy, output=copy / "named", options=options)
        assert run_cli("targets", recipe, "--output", copy / "named", *options).code == 0
        assert shard.read_bytes() == whole
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.5}))
    problem = f"{store / 'toy'}: holds soft targets of another teacher"
    expect_refusal(recipe, problem, output=copy / "another", options=options)


def test_deleted_step_is_made_anew(finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    copy = copy_run(finished_run, tmp_path)
    directory = copy / "steps" / step_directory(finished_run, "pre-train the student").name
    before = (directory / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(directory)
    export = run_cli("export", copy / "tiny", "--to", "onnx")
    assert export.code == 2
    assert "steps were deleted" in export.message
    assert f"lightpaff run {copy / 'tiny' / 'recipe.yaml'} --output {copy / 'tiny'} does so" in export.message
    outcome = run_cli("run", all_steps_done_recipe(finished_run), "--output", copy / "tiny")
    assert outcome.code == 0, outcome.stderr
    assert (directory / "model" / "model.safetensors").read_bytes() == before


def test_small_disk(tiny_recipe: Any) -> None:
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            RUN_ON_A_SMALL_DISK,
            "run",
            str(tiny_recipe.write()),
            "--output",
            str(tiny_recipe.output),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    [message] = [line for line in finished.stderr.splitlines() if line.startswith("lightpaff: ")]
    steps = tiny_recipe.folder / "runs" / "steps"
    assert message.startswith(f"lightpaff: {steps / 'initial-'}")
    assert message.endswith(": File too large; make room, then run again: what is done is kept")
    assert not list(tiny_recipe.folder.rglob("*.part"))
    assert {path.name.split("-")[0] for path in steps.glob("[a-z]*-*")} >= {"corpus", "task", "tokenizer"}


def disk_full_at(fragment: str) -> Callable[[int], None]:
    """An os.fsync that finds the disk full when a file is flushed whose path has `fragment` in it."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if fragment in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    return fsync


def test_disk_full_in_a_checkpoint_then_a_cut_checkpoint(
    finished_run: Any,
    tmp_path: Path,
    run_cli: Callable[..., Any],
    expect_refusal: Refuse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = copy_run(finished_run, tmp_path)
    done = copy / "steps" / step_directory(finished_run, "pre-train the student").name
    work = copy / "steps" / f".{done.name}.work"
    before = (done / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(done)
    # How often a training is saved is not part of what it makes, nor of its fingerprint; of the run's recipe it is.
    recipe, options = all_steps_done_recipe(finished_run), ("--set", "pretraining.training.checkpoint_seconds=0")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full_at("step-000000003"))
        problem = f"{done}: No space left on device; make room, then run again: what is done is kept"
        expect_refusal(recipe, problem, output=copy / "full", options=options)
    assert not done.exists()
    assert [path.name for path in work.iterdir()] == ["step-000000002"]
    checkpoint = work / "step-000000002"
    kept = (checkpoint / "best.safetensors").read_bytes()
    (checkpoint / "best.safetensors").write_bytes(kept[:100])
    problem = f"{checkpoint / 'best.safetensors'}: does not match its manifest"
    expect_refusal(recipe, problem, f"delete {checkpoint} and run again", output=copy / "full", options=options)
    (checkpoint / "best.safetensors").write_bytes(kept)
    outcome = run_cli("run", recipe, "--output", copy / "full", *options)
    assert outcome.code == 0, outcome.stderr
    assert (done / "model" / "model.safetensors").read_bytes() == before


def test_disk_full_when_the_student_is_delivered(
    finished_run: Any, runs: Path, run_cli: Callable[..., Any], expect_refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy_nothing(source: str, target: str, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, target)

    recipe, output = all_steps_done_recipe(finished_run), runs / "full_at_the_end"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy_nothing)
        expect_refusal(recipe, f"{output / 'student'}: No space left on device; make room", output=output)
    assert sorted(path.name for path in output.iterdir()) == ["recipe.yaml", "run.json"]
    assert run_cli("run", recipe, "--output", output).code == 0
    assert (output / "student" / "model.safetensors").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_steps_that_cannot_be_written(
    number: int, finished_run: Any, runs: Path, expect_refusal: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if ".part" in path.name and "student" in path.name:
            raise OSError(number, os.strerror(number), str(path))
        real(path, *arguments, **options)

    # As root nothing is read-only: the system's answer has to be put into its mouth.
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", mkdir)
        recipe, output = all_steps_done_recipe(finished_run), runs / f"read_only_{number}"
        expect_refusal(recipe, str(output), os.strerror(number), "give another --output", output=output)


@pytest.mark.parametrize("steps", [6, 1])
def test_loss_that_explodes(steps: int, tiny_recipe: Any, runs: Path, expect_refusal: Refuse) -> None:
    """With one step, no later loss tells: the evaluation does."""
    training = {"steps": steps, "batch_size": 16, "learning_rate": 1e30, "warmup": 0, "checkpoint_seconds": 0}
    tiny_recipe.set("teacher.pretraining", training)
    message = expect_refusal(
        tiny_recipe.write(),
        "pre-train the teacher: a loss, gradient or score is not finite (NaN or infinite) by step ",
        "lower the learning rate (now 1e+30)",
        "earlier checkpoints are kept",
        output=runs / f"exploded_{steps}",
    )
    assert f"by step {1 if steps == 1 else 2};" in message


def test_fine_tuning_that_explodes(finished_run: Any, runs: Path, expect_refusal: Refuse, tiny_recipe: Any) -> None:
    tiny_recipe.set("fine_tuning.training", {"steps": 1, "batch_size": 16, "learning_rate": 1e30, "warmup": 0})
    problem = "fine-tune the teacher on toy, seed 0: a loss, gradient or score is not finite"
    expect_refusal(tiny_recipe.write(), problem, output=runs / "exploded_later")
