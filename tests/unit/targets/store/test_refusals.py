"""A store is refused where it is damaged or of something else; what is damaged is asked again.

Shapes: B examples.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lightpaff.errors import UserError
from lightpaff.objectives.batch import Batch
from lightpaff.targets.capture import Ask, capture
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Dense, Projected
from lightpaff.targets.store import MANIFEST, TargetStore
from tests.unit.targets.store.conftest import (
    DRAWS,
    EXAMPLES,
    FACTS,
    MEANING,
    V,
    contents,
    open_data,
    place_at,
    read,
    request_of,
)


def first_shard(store: Path) -> Path:
    return min(store.rglob("*.safetensors"))


def cut(store: Path) -> None:
    first_shard(store).write_bytes(first_shard(store).read_bytes()[:-2])


def flip(store: Path) -> None:
    content = bytearray(first_shard(store).read_bytes())
    content[-3] ^= 4
    first_shard(store).write_bytes(bytes(content))


def other_format(store: Path) -> None:
    manifest = json.loads((store / MANIFEST).read_text())
    (store / MANIFEST).write_text(json.dumps({**manifest, "format": 2}))


def change_shards(**keys: object) -> Callable[[Path], object]:
    """Of the first masking, in the manifest."""

    def change(store: Path) -> None:
        manifest = json.loads((store / MANIFEST).read_text())
        for shard in manifest["shards"]:
            shard.update(keys if shard["draw"] == 0 else {})
        (store / MANIFEST).write_text(json.dumps(manifest))

    return change


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut shard": (cut, "safetensors: does not match the manifest"),
    "flipped bit": (flip, "safetensors: does not match the manifest"),
    "missing shard": (
        lambda store: first_shard(store).unlink(),
        "safetensors: is missing though the manifest names it",
    ),
    "other version": (other_format, "is of format 2, and this version reads 1"),
    "no manifest": (lambda store: (store / MANIFEST).unlink(), "holds no manifest.json"),
    "manifest without shards": (
        lambda store: (store / MANIFEST).write_text('{"format": 1, "meaning": {}, "encoding": {}, "made_with": {}}'),
        r"is no manifest of a store \(shards: Field required\)",
    ),
    "no JSON": (lambda store: (store / MANIFEST).write_text("{"), "is no manifest of a store"),
    "a draw of another folder": (change_shards(draw=1), "is not in draw-0001, the folder of its draw"),
    "a draw in words": (change_shards(draw="0"), r"shards\.0\.draw: Input should be a valid integer"),
    "a shard without its hash": (change_shards(sha256=None), r"shards\.0\.sha256: Input should be a valid string"),
    "another number of examples": (change_shards(examples=7), "does not match the manifest"),
}
MEANINGS: dict[str, tuple[str, object]] = {
    "other teacher": ("teacher", "b" * 64),
    "other tokenizer": ("tokenizer", "u"),
    "other seed": ("seed", 2),
    "other masking": ("mask_rate", 0.2),
    "other sequence length": ("sequence_length", 32),
    "other objective": ("objective", "clm"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_refused(store: Path, damage: str) -> None:
    spoil, message = DAMAGES[damage]
    spoil(store)
    with pytest.raises(UserError, match=message) as caught:
        TargetStore(place_at(store), FACTS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut shard", "flipped bit", "missing shard"])
@pytest.mark.parametrize("parts", [1, 3])
def test_what_is_spoilt_is_asked_again_and_nothing_else(
    store: Path, tmp_path: Path, ask: Ask, damage: str, parts: int
) -> None:
    before, asked = contents(store), []

    def counting(batch: Batch) -> Projected | Dense:
        asked.extend(batch.keys_B.tolist())
        return ask(batch)

    lost = load_file(first_shard(store))["keys"].tolist()
    DAMAGES[damage][0](store)
    data, place = open_data(tmp_path), place_at(store)
    finished = [capture(request_of(data), place, counting, (part, parts)) for part in range(parts)]
    assert capture(request_of(data), place, counting)
    assert finished[-1] or parts > 1
    assert sorted(asked) == sorted(lost)
    after = contents(store)
    assert {name: content for name, content in after.items() if name != MANIFEST} == {
        name: content for name, content in before.items() if name != MANIFEST
    }
    assert len(TargetStore(place, FACTS).shards) == len(after) - 1


def test_what_no_manifest_names_is_checked_by_its_own_hash(store: Path, tmp_path: Path, ask: Ask) -> None:
    before = contents(store)
    (store / MANIFEST).unlink()
    flip(store)
    assert capture(request_of(open_data(tmp_path)), place_at(store), ask)
    assert contents(store) == before


def test_a_spoilt_shard_that_nobody_needs_is_forgotten(store: Path, tmp_path: Path, ask: Ask) -> None:
    cut(store)
    assert capture(replace(request_of(open_data(tmp_path)), ids=[np.zeros(0, np.int64)]), place_at(store), ask)
    TargetStore(place_at(store), FACTS)


def test_a_damaged_copy_of_what_is_remote_is_fetched_again(tmp_path: Path, ask: Ask) -> None:
    place = Place("memory://bucket/copied", tmp_path / "copies")
    assert capture(request_of(open_data(tmp_path)), place, ask)
    cut(tmp_path / "copies")
    assert TargetStore(place, FACTS).draws == DRAWS


@pytest.mark.parametrize("change", MEANINGS)
def test_a_store_of_something_else_is_refused(store: Path, tmp_path: Path, ask: Ask, change: str) -> None:
    key, value = MEANINGS[change]
    other = replace(FACTS, meaning={**MEANING, key: value})
    with pytest.raises(UserError, match=f"store: holds soft targets of another {key} .* there, .* here"):
        TargetStore(place_at(store), other)
    before = contents(store)
    with pytest.raises(UserError, match=f"another {key}"):
        capture(request_of(open_data(tmp_path), other), place_at(store), ask)
    assert contents(store) == before


@pytest.mark.parametrize(
    ("encoding", "name"), [(Encoding("sampled", V, 13), "stored"), (Encoding("top-k", V, 12), "kind")]
)
def test_another_encoding_is_refused(store: Path, encoding: Encoding, name: str) -> None:
    with pytest.raises(UserError, match=rf"another encoding\.{name} "):
        TargetStore(place_at(store), replace(FACTS, encoding=encoding))


def test_shards_of_two_versions_are_not_mixed(store: Path, tmp_path: Path, ask: Ask) -> None:
    """But what is read may have been captured elsewhere, with other versions and in another precision."""
    other = replace(FACTS, made_with={"made with": {"torch": "3"}, "precision": "float32"})
    TargetStore(place_at(store), other)
    with pytest.raises(UserError, match=r"another made with\.made with\.torch \(2 there, 3 here\)"):
        capture(request_of(open_data(tmp_path, count=EXAMPLES + 1), other), place_at(store), ask)
    assert capture(request_of(open_data(tmp_path), other), place_at(store), ask), "nothing is added"


def test_a_changed_row_is_refused_by_name(store: Path, tmp_path: Path) -> None:
    data, opened = open_data(tmp_path, changed=4), TargetStore(place_at(store), FACTS)
    read(opened, data.batch(np.array([3, 5]), 0))
    batch = data.batch(np.array([3, 4, 5]), 0)
    with pytest.raises(
        UserError, match=rf"of 1 of 3 examples \(draw 0, the first has the key {batch.keys_B[1]:016x}\)"
    ):
        read(opened, batch)


def test_targets_of_another_masking_are_refused(store: Path, tmp_path: Path) -> None:
    data = open_data(tmp_path, mask_rate=0.9)
    with pytest.raises(UserError, match="of another masking of the same text"):
        read(TargetStore(place_at(store), FACTS), data.batch(np.arange(5), 0))
