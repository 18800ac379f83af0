"""What is read from a store is what the teacher said of that position, by lightpaff or by the documented format.

Shapes: B examples, P target positions, V classes.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lightpaff.errors import UserError
from lightpaff.objectives.batch import Batch
from lightpaff.targets import capture as capturing
from lightpaff.targets.capture import Ask, capture
from lightpaff.targets.encodings import Encoding, Kind
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Dense, Projected
from lightpaff.targets.store import MANIFEST, SpoiltStoreError, TargetStore
from lightpaff.targets.teacher import StoredTeacher
from tests.unit.targets.store.conftest import DRAWS, EXAMPLES, FACTS, V, open_data, place_at, read, request_of


def test_soft_targets_do_not_depend_on_order_or_batch(store: Path, tmp_path: Path) -> None:
    data, opened = open_data(tmp_path), TargetStore(place_at(store), FACTS)
    assert opened.draws == DRAWS
    assert opened.positions == 2 * sum(len(data.batch(np.array([i]), 0).positions_P) for i in range(EXAMPLES))
    whole = {
        (draw, number): read(opened, data.batch(np.array([number]), draw))
        for draw in range(DRAWS)
        for number in range(EXAMPLES)
    }
    for draw, ids in ((0, [3, 1, 2]), (1, [19, 0]), (1, list(range(EXAMPLES))), (0, [4, 4])):
        found = read(opened, data.batch(np.array(ids), draw))
        assert torch.equal(found.ids_PK, torch.cat([whole[draw, number].ids_PK for number in ids]))
        assert torch.equal(found.entropy_P, torch.cat([whole[draw, number].entropy_P for number in ids]))
    assert not torch.equal(whole[0, 5].ids_PK, whole[1, 5].ids_PK)


def test_they_are_of_the_position_that_the_teacher_was_asked_about(tmp_path: Path, ask: Ask) -> None:
    """With every class kept, a store says what a live teacher says."""
    data, facts = open_data(tmp_path), replace(FACTS, encoding=Encoding("top-k", V, V))
    place = place_at(tmp_path / "all")
    capture(request_of(data, facts), place, ask)
    opened = TargetStore(place, facts)
    for draw, ids in ((0, [3, 1, 17]), (1, [0, 19, 4, 5])):
        batch = data.batch(np.array(ids), draw)
        found, said = read(opened, batch), ask(batch)
        assert isinstance(said, Projected)
        expected_PV = said.chunk(0, len(batch.positions_P)).logits_PV.softmax(1)
        found_PV = torch.zeros_like(expected_PV).scatter(1, found.ids_PK, found.weights_PK)
        torch.testing.assert_close(found_PV, expected_PV, rtol=2e-3, atol=1e-5)


def test_a_masking_that_was_not_captured_is_none_of_those_that_were(store: Path, tmp_path: Path) -> None:
    opened = TargetStore(place_at(store), FACTS)
    with pytest.raises(UserError, match=rf"no soft targets of 3 of 3 examples \(draw {DRAWS}, .* never captured"):
        read(opened, open_data(tmp_path).batch(np.arange(3), DRAWS))
    with pytest.raises(SpoiltStoreError, match=f"holds {DRAWS} of {DRAWS + 1} maskings"):
        TargetStore(place_at(store), FACTS, draws=DRAWS + 1)


def test_a_url_is_written_and_read(store: Path, tmp_path: Path, ask: Ask) -> None:
    place = Place("memory://bucket/store", tmp_path / "copies of one")
    assert capture(request_of(open_data(tmp_path)), place, ask)
    elsewhere = Place("memory://bucket/store/", tmp_path / "copies of another")
    opened, local = TargetStore(elsewhere, FACTS), TargetStore(place_at(store), FACTS)
    batch = open_data(tmp_path).batch(np.arange(EXAMPLES), 1)
    assert torch.equal(read(opened, batch).ids_PK, read(local, batch).ids_PK)
    with pytest.raises(UserError, match="nothing://place"):
        TargetStore(Place("nothing://place", tmp_path / "copies"), FACTS)


@pytest.mark.parametrize(("kind", "at_most"), [("sampled", 32), ("top-k", 56)])
def test_bytes_a_position(
    tmp_path: Path, ask: Ask, kind: Kind, at_most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In shards of a usual size, the example's key and offset included, at 19 targets an example."""
    monkeypatch.setattr(capturing, "UNIT_POSITIONS", 2**17)
    facts, place = replace(FACTS, encoding=Encoding(kind, V, 12)), place_at(tmp_path / kind)
    data = open_data(tmp_path, count=2000, mask_rate=0.9)
    capture(request_of(data, facts, draws=1), place, ask)
    opened = TargetStore(place, facts)
    assert sum(shard.bytes for shard in opened.shards) / opened.positions < at_most


def keys_read_on_their_own(store: Path) -> Iterator[NDArray[np.uint64]]:
    """As docs/target-store.md says."""
    for shard in json.loads((store / MANIFEST).read_text())["shards"]:
        yield load_file(store / shard["file"])["keys"]


def test_the_format_is_plain_safetensors(store: Path, tmp_path: Path) -> None:
    data = open_data(tmp_path)
    expected = set(data.batch(np.arange(EXAMPLES), 0).keys_B.tolist())
    assert {int(key) for keys in keys_read_on_their_own(store) for key in keys} == expected


@pytest.mark.parametrize(("kind", "classes"), [("sampled", V), ("top-k", V), ("dense", V), ("sampled", 2**16 + 1)])
def test_the_reader_of_the_documentation_reads_it(tmp_path: Path, kind: Kind, classes: int) -> None:
    """As a program of its own, with nothing of lightpaff."""
    page = (Path(__file__).parents[4] / "docs" / "target-store.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    data, place = open_data(tmp_path), place_at(tmp_path / "documented")
    facts = replace(FACTS, encoding=Encoding(kind, classes, 5))

    def ask(batch: Batch) -> Dense:
        return Dense(torch.randn(len(batch.positions_P), classes))

    capture(request_of(data, facts), place, ask)
    guard = "import sys; sys.modules['lightpaff'] = sys.modules['torch'] = None\n"
    command = [sys.executable, "-c", guard + program, str(tmp_path / "documented")]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    shown = {}
    for line in told.stdout.splitlines():
        draw, key, number, *lists = line.split("\t")
        shown[int(draw), int(key, 16), int(number)] = [json.loads(one) for one in lists]
    opened = TargetStore(place, facts)
    assert len(shown) == opened.positions
    for draw in range(DRAWS):
        batch = data.batch(np.arange(EXAMPLES), draw)
        found = StoredTeacher(opened).targets(batch)
        keys = np.repeat(batch.keys_B, batch.counts_B).tolist()
        numbers = np.concatenate([np.arange(count) for count in batch.counts_B]).tolist()
        for row, (key, number) in enumerate(zip(keys, numbers, strict=True)):
            if isinstance(found, Dense):
                assert shown[draw, key, number] == [pytest.approx(found.logits_PV[row].tolist())]
                continue
            classes_K, weights_K = shown[draw, key, number]
            assert classes_K == found.ids_PK[row].tolist()
            assert weights_K == pytest.approx(found.weights_PK[row].tolist(), rel=1e-2)
