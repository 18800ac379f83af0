"""A store is the same however it was captured: stopped, by many machines, by two at once, or bit by bit.

Shapes: B examples, P target positions, V classes.
"""

import errno
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightpaff.errors import UserError
from lightpaff.objectives.batch import Batch
from lightpaff.targets import place as places
from lightpaff.targets.capture import Ask, CaptureRequest, capture
from lightpaff.targets.encodings import Encoding, Kind
from lightpaff.targets.soft_targets import Dense, Projected
from lightpaff.targets.store import MANIFEST, TargetStore
from tests.unit.targets.store.conftest import DRAWS, EXAMPLES, FACTS, V, contents, open_data, place_at, read, request_of


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_stopped_capture_goes_on(store: Path, tmp_path: Path, ask: Ask, stop_after: int) -> None:
    asked: list[int] = []

    def counting(batch: Batch) -> Projected | Dense:
        asked.append(len(batch.example_ids_B))
        return ask(batch)

    def failing(batch: Batch) -> Projected | Dense:
        if sum(asked) > stop_after * 3:
            raise KeyboardInterrupt
        return counting(batch)

    data, place = open_data(tmp_path), place_at(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        capture(request_of(data), place, failing)
    with pytest.raises(UserError, match=r"stopped: holds no manifest\.json, so no finished capture; capture again"):
        TargetStore(place, FACTS)
    kept = len(place.find())
    assert (kept > 0) == (stop_after > 0)
    asked.clear()
    assert capture(request_of(data), place, counting)
    assert sum(asked) < DRAWS * EXAMPLES or not kept
    assert contents(tmp_path / "stopped") == contents(store)
    asked.clear()
    assert capture(request_of(data), place, counting)
    assert asked == []


@pytest.mark.parametrize("parts", [2, 3, 50])
def test_many_machines_capture_the_same_bytes(store: Path, tmp_path: Path, ask: Ask, parts: int) -> None:
    place = place_at(tmp_path / "parts")
    finished = [capture(request_of(open_data(tmp_path)), place, ask, (part, parts)) for part in reversed(range(parts))]
    assert finished.count(True) >= 1
    assert finished[-1]
    assert contents(tmp_path / "parts") == contents(store)


def test_more_text_and_more_draws_are_added(store: Path, tmp_path: Path, ask: Ask) -> None:
    before, place = contents(store), place_at(store)
    more = open_data(tmp_path, count=EXAMPLES + 6)
    assert capture(request_of(more, draws=DRAWS + 1), place, ask)
    after = contents(store)
    assert len(after) > len(before)
    assert all(after[name] == content for name, content in before.items() if name != MANIFEST)
    opened = TargetStore(place, FACTS)
    assert opened.draws == DRAWS + 1
    everything = np.arange(EXAMPLES + 6)
    for draw in range(DRAWS + 1):
        batch = more.batch(everything, draw)
        assert len(read(opened, batch).ids_PK) == len(batch.positions_P)
    # The store of the longer text still serves the shorter one.
    read(opened, open_data(tmp_path).batch(np.arange(3), DRAWS))


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize(("kind", "proposal"), [("sampled", 1.0), ("sampled", 2.0), ("top-k", 1.0), ("dense", 1.0)])
def test_a_teacher_that_says_no_number_is_refused(tmp_path: Path, kind: Kind, proposal: float, number: float) -> None:
    def ask(batch: Batch) -> Dense:
        logits_PV = torch.randn(len(batch.positions_P), V)
        logits_PV[0, 3] = number
        return Dense(logits_PV)

    facts, place = replace(FACTS, encoding=Encoding(kind, V, 5, proposal=proposal)), place_at(tmp_path / "none")
    with pytest.raises(UserError, match="ask: the teacher says NaN or infinity"):
        capture(request_of(open_data(tmp_path), facts), place, ask)
    assert not place.find()


def test_a_store_where_nothing_may_be_written_is_read(
    store: Path, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(places, "alone_with", refuse)
    assert capture(request_of(open_data(tmp_path)), place_at(store), ask)


def test_two_captures_at_once_keep_what_both_asked(tmp_path: Path, ask: Ask) -> None:
    data, place, asked = open_data(tmp_path), place_at(tmp_path / "both"), []

    def ask_and_be_overtaken(batch: Batch) -> Projected | Dense:
        if not asked:
            asked.append(True)
            other = replace(request_of(data, draws=1), ids=[np.arange(5, EXAMPLES)])
            capture(other, place, ask, part=(0, 2))
            assert capture(other, place, ask, part=(1, 2))
        return ask(batch)

    assert capture(replace(request_of(data, draws=1), ids=[np.arange(10)]), place, ask_and_be_overtaken)
    opened = TargetStore(place, FACTS)
    assert opened.has(data.batch(np.arange(EXAMPLES), 0).keys_B, 0).all()
    alone = place_at(tmp_path / "alone")
    assert capture(request_of(data, draws=1), alone, ask)
    batch = data.batch(np.arange(EXAMPLES), 0)
    assert torch.equal(read(opened, batch).ids_PK, read(TargetStore(alone, FACTS), batch).ids_PK)


def test_two_whole_captures_at_once_ask_everything_once(tmp_path: Path, ask: Ask) -> None:
    data, place, asked = open_data(tmp_path), place_at(tmp_path / "both"), []

    def ask_slowly(batch: Batch) -> Projected | Dense:
        time.sleep(0.2)
        asked.extend(batch.keys_B.tolist())
        return ask(batch)

    requests = [replace(request_of(data, draws=1), ids=[ids]) for ids in (np.arange(10), np.arange(5, EXAMPLES))]
    with ThreadPoolExecutor() as pool:
        assert all(pool.map(lambda request: capture(request, place, ask_slowly), requests))
    assert len(asked) == len(set(asked))
    assert TargetStore(place, FACTS).has(data.batch(np.arange(EXAMPLES), 0).keys_B, 0).all()


def test_an_example_that_comes_twice_is_asked_about_once(tmp_path: Path, ask: Ask) -> None:
    data, place = open_data(tmp_path), place_at(tmp_path / "twice")
    ids = np.array([3, 4, 3, 5, 4])
    capture(CaptureRequest(data, [ids], FACTS, 7, 30, "ask"), place, ask)
    opened = TargetStore(place, FACTS)
    assert sum(shard.examples for shard in opened.shards) == 3
    assert len(read(opened, data.batch(ids, 0)).ids_PK) == len(data.batch(ids, 0).positions_P)
