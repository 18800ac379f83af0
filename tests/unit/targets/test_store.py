"""A store of soft targets: the same however it was captured, whole or absent, refused where it is of something else.

Shapes: B examples, P target positions, V classes.
"""

import errno
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import BertConfig, BertForMaskedLM

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.errors import UserError
from lightpaff.models.architecture import MASKED_TOKENS
from lightpaff.models.opening import split_model
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.mlm import MaskedLanguageModelling
from lightpaff.targets import capture as capturing
from lightpaff.targets import place as places
from lightpaff.targets.capture import Ask, CaptureRequest, capture
from lightpaff.targets.encodings import Encoding, Kind
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Dense, Projected, Sparse
from lightpaff.targets.store import MANIFEST, SpoiltStoreError, StoreFacts, TargetStore
from lightpaff.targets.teacher import LiveTeacher, StoredTeacher

EXAMPLES, V, DRAWS = 20, 40, 2
MEANING = {
    "teacher": "a" * 64,
    "tokenizer": "t",
    "objective": "mlm",
    "seed": 1,
    "sequence_length": 16,
    "mask_rate": 0.3,
}
FACTS = StoreFacts(MEANING, Encoding("sampled", V, 12), {"made with": {"torch": "2"}, "precision": "float32"})


def write_rows(path: Path, count: int, changed: int | None = None) -> None:
    random = np.random.default_rng(0)
    rows = [[2, *random.integers(5, V, size=4 + number % 9).tolist(), 3] for number in range(count)]
    if changed is not None:
        rows[changed][1] = 5 if rows[changed][1] != 5 else 6
    write_token_table(path, [{"input_ids": rows}], {})


def open_data(
    folder: Path, count: int = EXAMPLES, *, mask_rate: float = 0.3, seed: int = 1, changed: int | None = None
):
    path = folder / f"rows {count} {changed}.arrow"
    write_rows(path, count, changed)
    return MaskedLanguageModelling(
        TokenTable(path),
        special_ids=[0, 1, 2, 3, 4],
        mask_id=4,
        padding_id=0,
        number_of_classes=V,
        mask_rate=mask_rate,
        seed=seed,
    )


@pytest.fixture(scope="module")
def ask() -> Ask:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=V,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    return LiveTeacher(split_model(BertForMaskedLM(config), MASKED_TOKENS, V)).targets


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "UNIT_POSITIONS", 8)


def request_of(data: MaskedLanguageModelling, facts: StoreFacts = FACTS, draws: int = DRAWS) -> CaptureRequest:
    return CaptureRequest(data, [np.arange(len(data.lengths_N))] * draws, facts, 7, 30, "ask")


def place_at(path: Path) -> Place:
    return Place(str(path), path.parent / "copies")


@pytest.fixture
def store(tmp_path: Path, ask: Ask) -> Path:
    path = tmp_path / "store"
    assert capture(request_of(open_data(tmp_path)), place_at(path), ask)
    return path


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def read(store: TargetStore, batch: Batch) -> Sparse:
    targets = StoredTeacher(store).targets(batch)
    assert isinstance(targets, Sparse)
    return targets


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


def test_a_masking_that_was_not_captured_is_none_of_those_that_were(store: Path, tmp_path: Path) -> None:
    opened = TargetStore(place_at(store), FACTS)
    with pytest.raises(UserError, match=rf"no soft targets of 3 of 3 examples \(draw {DRAWS}, .* never captured"):
        read(opened, open_data(tmp_path).batch(np.arange(3), DRAWS))
    with pytest.raises(SpoiltStoreError, match=f"holds {DRAWS} of {DRAWS + 1} maskings"):
        TargetStore(place_at(store), FACTS, draws=DRAWS + 1)


def test_what_no_manifest_names_is_checked_by_its_own_hash(store: Path, tmp_path: Path, ask: Ask) -> None:
    before = contents(store)
    (store / MANIFEST).unlink()
    flip(store)
    assert capture(request_of(open_data(tmp_path)), place_at(store), ask)
    assert contents(store) == before


@pytest.mark.parametrize("number", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["sampled", "top-k", "dense"])
def test_a_teacher_that_says_no_number_is_refused(tmp_path: Path, kind: Kind, number: float) -> None:
    def ask(batch: Batch) -> Dense:
        logits_PV = torch.randn(len(batch.positions_P), V)
        logits_PV[0, 3] = number
        return Dense(logits_PV)

    facts, place = replace(FACTS, encoding=Encoding(kind, V, 5)), place_at(tmp_path / "none")
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


def test_an_example_that_comes_twice_is_asked_about_once(tmp_path: Path, ask: Ask) -> None:
    data, place = open_data(tmp_path), place_at(tmp_path / "twice")
    ids = np.array([3, 4, 3, 5, 4])
    capture(CaptureRequest(data, [ids], FACTS, 7, 30, "ask"), place, ask)
    opened = TargetStore(place, FACTS)
    assert sum(shard.examples for shard in opened.shards) == 3
    assert len(read(opened, data.batch(ids, 0)).ids_PK) == len(data.batch(ids, 0).positions_P)


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
    page = (Path(__file__).parents[3] / "docs" / "target-store.md").read_text()
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
