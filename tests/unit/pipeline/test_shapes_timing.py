from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, PreTrainedConfig

from lightpaff.deployment import shape_measuring
from lightpaff.deployment.contenders import Contender
from lightpaff.deployment.measuring import measure
from lightpaff.deployment.shape_plan import MeasuringPlan
from lightpaff.deployment.shape_search import Timing
from lightpaff.deployment.shape_store import ShapeStore
from lightpaff.deployment.worker_process import Timing as Run
from lightpaff.pipeline import shapes_timing
from lightpaff.pipeline.shapes_timing import open_timer

PLAN = MeasuringPlan("classes", "onnx", "int8", length=8, new_tokens=0, beams=1, threads=1)


def config_of(layers: int) -> PreTrainedConfig:
    return BertConfig(
        vocab_size=90, hidden_size=32, num_attention_heads=2, num_hidden_layers=layers, intermediate_size=64
    )


REFERENCE, SMALL, LARGE, TEACHER = map(config_of, (4, 1, 7, 12))
PARAMETERS = 1000


class Machine:
    """A run takes a millisecond a layer, four in PyTorch; the machine is twice as slow after so many runs.

    One that does not repeat itself is half as fast again with every process of an export of two layers or more.
    """

    def __init__(self, slow_after: int = 10**9, repeats: bool = True) -> None:
        self.slow_after, self.repeats = slow_after, repeats
        self.runs = self.processes = 0
        self.built: list[int] = []

    def build(self, config: PreTrainedConfig, plan: MeasuringPlan, folder: Path, name: str) -> Contender:
        self.built.append(config.num_hidden_layers)
        layers = config.num_hidden_layers * (4 if plan.runtime == "pytorch" else 1)
        return Contender(name, folder, plan.runtime, 1, layers, plan.quantisation, "classes", 64, 90)

    def start(self, contender: Contender) -> Any:
        self.processes += 1
        return FakeWorker(self, contender)


class FakeWorker:
    def __init__(self, machine: Machine, contender: Contender) -> None:
        self.machine = machine
        self.milliseconds = float(contender.bytes)
        if not machine.repeats and contender.bytes > 1:
            self.milliseconds *= 1.5**machine.processes

    def load(self) -> float:
        return 0.1

    def run(self, rows: list[list[int]], **_: Any) -> Run:
        self.machine.runs += 1
        return Run(self.milliseconds * (2 if self.machine.runs > self.machine.slow_after else 1), 0)

    def peak_bytes(self) -> int:
        return 1

    def close(self) -> None:
        pass


@pytest.fixture
def use_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Machine]:
    monkeypatch.setattr(shape_measuring, "_SECONDS", 0.0)

    def use(machine: Machine) -> Machine:
        monkeypatch.setattr(shape_measuring, "measure", partial(measure, start=machine.start))
        for module in (shape_measuring, shapes_timing):
            monkeypatch.setattr(module, "build_contender", machine.build)
        return machine

    return use


def time_all(store: Path, keeps: bool = True) -> list[Timing]:
    with open_timer(REFERENCE, PLAN, ShapeStore(store), is_fresh=False, keeps=keeps) as timer:
        shapes = [timer.time_shape(config) for config in (SMALL, LARGE, REFERENCE)]
        teacher = timer.time_teacher(TEACHER, PARAMETERS)
    assert teacher is not None
    return [*shapes, teacher]


def test_times_do_not_follow_a_machine_that_slows_down(use_machine: Any, tmp_path: Path) -> None:
    steady = use_machine(Machine())
    times = [one.median_ms for one in time_all(tmp_path / "steady")]
    assert times == pytest.approx([1, 7, 4, 48])
    # The reference's own time takes 16 runs.
    for slow_after in range(16, steady.runs, 29):
        use_machine(Machine(slow_after))
        slowed = time_all(tmp_path / str(slow_after))
        assert [one.median_ms for one in slowed] == pytest.approx(times), slow_after
        assert all(one.is_steady for one in slowed)


def test_the_reference_is_built_once_and_measured_alone_only(use_machine: Any, tmp_path: Path) -> None:
    machine = use_machine(Machine())
    with open_timer(REFERENCE, PLAN, ShapeStore(tmp_path), is_fresh=False) as timer:
        assert timer.time_shape(REFERENCE) == timer.reference_timing
        assert (machine.built, machine.processes) == ([4], 2)
        timer.time_shape(SMALL)
        timer.time_shape(LARGE)
    assert (machine.built, machine.processes) == ([4, 1, 7], 2 + 2 * 4)


def test_what_is_kept_needs_no_reference(use_machine: Any, tmp_path: Path) -> None:
    use_machine(Machine())
    before = time_all(tmp_path)
    machine = use_machine(Machine(slow_after=0))
    again = time_all(tmp_path)
    assert machine.built == []
    assert [one.median_ms for one in again] == [one.median_ms for one in before]
    assert all(one.is_kept for one in again)


def test_another_time_of_the_reference_outdates_all_others(use_machine: Any, tmp_path: Path) -> None:
    use_machine(Machine())
    time_all(tmp_path)
    use_machine(Machine(slow_after=0))
    with open_timer(REFERENCE, PLAN, ShapeStore(tmp_path), is_fresh=True) as timer:
        assert timer.time_shape(SMALL).median_ms == pytest.approx(2)
    # Kept are now times of both speeds, which must not be mixed.
    assert [one.median_ms for one in time_all(tmp_path)] == pytest.approx([2, 14, 8, 96])


def test_what_is_unsteady_or_of_a_busy_machine_is_not_kept(use_machine: Any, tmp_path: Path) -> None:
    use_machine(Machine(repeats=False))
    assert not any(one.is_steady for one in time_all(tmp_path))
    assert list(tmp_path.iterdir()) == []
    use_machine(Machine())
    time_all(tmp_path, keeps=False)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_too_large_for_the_memory_needs_no_reference(use_machine: Any, tmp_path: Path) -> None:
    use_machine(Machine())
    time_all(tmp_path)
    machine = use_machine(Machine())
    with open_timer(REFERENCE, PLAN, ShapeStore(tmp_path), is_fresh=False) as timer:
        assert timer.time_teacher(config_of(48), 10**15) is None
    assert machine.built == []
