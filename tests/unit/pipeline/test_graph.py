import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.pipeline import graph
from lightpaff.pipeline.graph import Step, StepFolders, run_step

MakeStep = Callable[..., Step]


@pytest.fixture
def done() -> list[str]:
    """The names of the steps whose work was done, in order."""
    return []


@pytest.fixture
def make_step(tmp_path: Path, done: list[str]) -> MakeStep:
    def make(
        name: str = "a step",
        settings: dict[str, Any] | None = None,
        inputs: tuple[Step, ...] = (),
        kind: str = "corpus",
    ) -> Step:
        def work(step: Step, folders: StepFolders) -> dict[str, Any]:
            assert list(folders.result.iterdir()) == []
            assert folders.checkpoints == step.checkpoints
            assert folders.checkpoints.is_dir()
            done.append(step.name)
            (folders.result / "result.txt").write_text(" ".join(str(item.directory.name) for item in step.inputs))
            return {"rows": 3}

        return Step(name, kind, settings or {}, inputs, tmp_path / "steps", work)

    return make


def test_a_step_is_done_once_and_kept(make_step: MakeStep, done: list[str]) -> None:
    step = make_step(settings={"a": 1})
    assert step.state == "to do"
    first, again = run_step(step), run_step(make_step("the same by another name", settings={"a": 1}))
    assert done == ["a step"]
    assert (first.reused, again.reused) == (False, True)
    assert (
        first.facts
        == again.facts
        == {
            "rows": 3,
            "name": "a step",
            "fingerprint": step.fingerprint,
            "seconds": first.seconds,
        }
    )
    assert step.state == "done"
    assert (step.directory / "result.txt").exists()
    assert step.directory.name == f"corpus-{step.fingerprint[:20]}"


def test_the_time_of_a_resumed_training_is_its_own(make_step: MakeStep) -> None:
    step = replace(make_step(), work=lambda step, folders: {"seconds": 123.0})
    assert run_step(step).seconds == 123.0


def test_what_a_step_depends_on_is_in_its_fingerprint(make_step: MakeStep, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_step(settings={"a": 1, "b": [1, 2]})
    before = make_step("before")
    assert make_step("other name", settings={"b": [1, 2], "a": 1}).fingerprint == first.fingerprint
    others = [
        make_step(settings={"a": 2, "b": [1, 2]}),
        make_step(settings={"a": 1, "b": [2, 1]}),
        make_step(settings={"a": 1, "b": [1, 2]}, kind="task"),
        make_step(settings={"a": 1, "b": [1, 2]}, inputs=(before,)),
        make_step(settings={"a": 1, "b": [1, 2]}, inputs=(make_step(settings={"c": 1}),)),
        make_step(settings={"a": 1, "b": [1, 2]}, inputs=(before, before)),
        # A change far above comes down to here.
        make_step(settings={"a": 1, "b": [1, 2]}, inputs=(make_step("before", inputs=(before,)),)),
    ]
    monkeypatch.setitem(graph.VERSIONS, "corpus", graph.VERSIONS["corpus"] + 1)
    others.append(make_step(settings={"a": 1, "b": [1, 2]}))
    fingerprints = [step.fingerprint for step in [first, *others]]
    assert len(set(fingerprints)) == len(fingerprints)


def test_the_order_of_inputs_counts(make_step: MakeStep) -> None:
    first, second = make_step(settings={"a": 1}), make_step(settings={"a": 2})
    assert make_step(inputs=(first, second)).fingerprint != make_step(inputs=(second, first)).fingerprint


def test_a_change_of_inputs_is_new_work(make_step: MakeStep, done: list[str]) -> None:
    for length in (1, 2, 1):
        first = make_step("first", settings={"length": length})
        run_step(first)
        run_step(make_step("second", inputs=(first,)))
    assert done == ["first", "second", "first", "second"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "result.txt").write_text("tampered"), r"result\.txt: does not match its manifest"),
        (lambda path: (path / "result.txt").unlink(), r"result\.txt: is missing"),
        (lambda path: (path / "manifest.json").write_text("{"), r"manifest\.json: is not a manifest"),
    ],
)
def test_a_tampered_result_is_refused(
    make_step: MakeStep, done: list[str], damage: Callable[[Path], None], message: str
) -> None:
    step = make_step()
    run_step(step)
    damage(step.directory)
    with pytest.raises(UserError, match=f"{message}.*; delete .* and run again"):
        run_step(step)
    assert len(done) == 1


def test_a_result_of_another_step_is_refused(make_step: MakeStep) -> None:
    first, second = make_step(settings={"a": 1}), make_step(settings={"a": 2})
    run_step(first)
    first.directory.rename(second.directory)
    with pytest.raises(UserError, match="is the result of another step; delete it and run again"):
        run_step(second)


def test_unfinished_work_is_kept_until_the_step_is_done(make_step: MakeStep) -> None:
    seen: list[list[str]] = []

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        seen.append(sorted(path.name for path in folders.checkpoints.iterdir()))
        (folders.checkpoints / f"step-{len(seen)}").mkdir()
        (folders.result / "part").write_text("x")
        if len(seen) < 3:
            raise KeyboardInterrupt
        return {}

    step = replace(make_step(), work=work)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_step(step)
        assert step.state == "started"
        assert not step.directory.exists()
    run_step(step)
    assert seen == [[], ["step-1"], ["step-1", "step-2"]]
    assert step.state == "done"
    assert not step.checkpoints.exists()
    left = [path.name for path in step.root.iterdir() if not path.name.endswith(".lock")]
    assert left == [step.directory.name]


def test_what_a_killed_process_left_is_removed(make_step: MakeStep) -> None:
    step = make_step()
    leftover = step.root / f".{step.directory.name}.12ab34cd.part"
    others = step.root / ".corpus-of-another-step.12ab34cd.part"
    for path in (leftover, others):
        path.mkdir(parents=True)
    run_step(step)
    assert not leftover.exists()
    assert others.exists()


def test_two_runs_do_not_do_the_same_step_at_once(make_step: MakeStep) -> None:
    is_working, may_end = threading.Event(), threading.Event()
    count = []

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        count.append(1)
        is_working.set()
        assert may_end.wait(60)
        return {}

    step = replace(make_step(), work=work)
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(run_step(step).reused)) for _ in range(2)]
    threads[0].start()
    assert is_working.wait(60)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive()
    may_end.set()
    for thread in threads:
        thread.join(60)
    assert len(count) == 1
    assert sorted(results) == [False, True]
