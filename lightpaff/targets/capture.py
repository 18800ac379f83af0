"""Asking a teacher once for what students will learn from, into a store.

The work is cut into units of about 131,072 target positions, by the data alone; each becomes one shard, named by what
is in it. So a stopped capture goes on where it was, more text or more draws add shards, several machines take every
n-th unit, and the bytes are the same however it was done.

Shapes: B examples, N examples of a draw, P target positions, K draws, V classes.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray

from lightpaff.data.batch_order import sequential_batches
from lightpaff.data.draws import generator
from lightpaff.errors import UserError
from lightpaff.files import sha256_of_file
from lightpaff.memory import keep_freed_memory
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.progress import console, progress_bar
from lightpaff.targets.encodings import Arrays, Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.shards import KEYS, OFFSETS, is_whole, map_shard, shard_bytes
from lightpaff.targets.soft_targets import Dense, Projected
from lightpaff.targets.store import MANIFEST, Shard, StoreFacts, TargetStore, draw_folder, read_manifest

UNIT_POSITIONS = 2**17
_POSITIONS_AT_ONCE = 256
"""Of logits."""
_NUMBERS_IN_CACHE = 2**20
_EXAMPLES_KEYED_TOGETHER = 1024

Ask = Callable[[Batch], Projected | Dense]
"""What the teacher says at the target positions of a batch, which is on the CPU."""


@dataclass(frozen=True)
class CaptureRequest:
    """What is to be in a store.

    Attributes:
        data: the examples.
        ids: of every draw, the row numbers of the examples that are needed.
        facts: what the store is of.
        seed: of the encoding's draws.
        tokens_at_once: the most tokens, padding included, that go through the teacher together.
        description: for the person who waits.
    """

    data: Objective
    ids: list[NDArray[np.int64]]
    facts: StoreFacts
    seed: int
    tokens_at_once: int
    description: str


@dataclass(frozen=True)
class _Unit:
    draw: int
    ids: NDArray[np.int64]
    keys: NDArray[np.uint64]
    file: str


def capture(request: CaptureRequest, place: Place, ask: Ask, part: tuple[int, int] = (0, 1)) -> bool:
    """Ask for what the store does not hold: not yet, or no more since shards are missing or damaged. Whether it is
    finished now: its manifest is written when all units are there, whoever made them.

    Args:
        request: what is to be in the store.
        place: where it lies, or will lie.
        ask: the teacher.
        part: (i, n): this process does every n-th unit, beginning with the i-th, from 0.

    Raises:
        UserError: the store is of something else, its manifest is damaged, or it cannot be written; the teacher says
            what is no number.
    """
    # Who does everything waits for another who does: what that one has asked is not asked again.
    with place.alone(".capture") if part == (0, 1) else contextlib.nullcontext():
        return _capture(request, place, ask, part)


def _capture(request: CaptureRequest, place: Place, ask: Ask, part: tuple[int, int]) -> bool:
    manifest = read_manifest(place)
    there = place.find()
    store = None if manifest is None else TargetStore(place, request.facts, there)
    spoilt = set() if store is None else store.spoilt
    units = list(_units(request, store))
    if manifest is not None and units:
        # What is finished may have been made elsewhere; what is added may not.
        request.facts.require_same(manifest, place, also_made_with=True)
    # What no manifest names vouches for itself.
    mine = [unit for number, unit in enumerate(units) if number % part[1] == part[0]]
    there -= spoilt
    spoilt |= {unit.file for unit in mine if unit.file in there and not is_whole(place.fetch(unit.file))}
    there -= spoilt
    own = [unit for unit in mine if unit.file not in there]
    if manifest is None and part == (0, 1) and own and (others := there - {unit.file for unit in units}):
        console.print(
            f"{place}: {len(others)} files there are no part of this capture (made of other text, or with other "
            "versions, precision or threads): not used"
        )
    keep_freed_memory()
    with progress_bar(request.description, sum(len(unit.ids) for unit in own), "examples") as advance:
        for unit in own:
            place.write(unit.file, _ask_unit(request, unit, ask, advance))
    # What is spoilt, and another's to write, may not have been written yet.
    there = place.find() - (spoilt - {unit.file for unit in own})
    if not all(unit.file in there for unit in units):
        return False
    if units or spoilt or store is None:
        _add_to_manifest(request.facts, place, units, spoilt)
    return True


def _add_to_manifest(facts: StoreFacts, place: Place, units: list[_Unit], spoilt: set[str]) -> None:
    """What another process has added meanwhile stays; files are described as they are now."""
    with place.alone():
        manifest = read_manifest(place)
        known = {shard.file: shard for shard in (manifest.shards if manifest else []) if shard.file not in spoilt}
        known |= {unit.file: _describe(place, unit) for unit in units}
        place.write(MANIFEST, facts.manifest(list(known.values())).model_dump_json(indent=1).encode())


def _units(request: CaptureRequest, store: TargetStore | None) -> Iterator[_Unit]:
    """What is not in the store, cut by the data alone; an example whose content comes twice is in it once."""
    identity = repr((request.facts.meaning, request.facts.encoding, request.facts.made_with, request.seed)).encode()
    # Of all draws at once: content does not depend on the draw.
    asked_M = np.unique(np.concatenate([np.zeros(0, np.int64), *request.ids]))
    keys_M = _keys_of(request.data, asked_M)
    for draw, ids_N in enumerate(request.ids):
        keys_N = keys_M[np.searchsorted(asked_M, ids_N)]
        first_N = np.sort(np.unique(keys_N, return_index=True)[1])
        new_N = first_N if store is None else first_N[~store.has(keys_N[first_N], draw)]
        targets = request.data.targets_N[ids_N[new_N]]
        number_N = (np.cumsum(targets) - targets) // UNIT_POSITIONS
        for rows in np.split(new_N, np.flatnonzero(np.diff(number_N)) + 1):
            if len(rows):
                keys = keys_N[rows]
                name = sha256(identity + draw.to_bytes(8, "little") + keys.tobytes()).hexdigest()[:24]
                yield _Unit(draw, ids_N[rows], keys, f"{draw_folder(draw)}/{name}.safetensors")


def _keys_of(data: Objective, ids_N: NDArray[np.int64]) -> NDArray[np.uint64]:
    parts = range(0, len(ids_N), _EXAMPLES_KEYED_TOGETHER)
    keys = [data.batch(ids_N[start : start + _EXAMPLES_KEYED_TOGETHER], draw=0).keys_B for start in parts]
    return np.concatenate([np.zeros(0, np.uint64), *keys])


@torch.no_grad()
def _ask_unit(request: CaptureRequest, unit: _Unit, ask: Ask, advance: Callable[[int], None]) -> bytes:
    encoding, data = request.facts.encoding, request.data
    parts: dict[str, list[NDArray[np.generic]]] = {}
    keys, counts = [], []
    for ids in sequential_batches(data.lengths_N, unit.ids, request.tokens_at_once):
        batch = data.batch(ids, unit.draw)
        counts_B = batch.counts_B
        uniforms_PK = _uniforms(request, unit.draw, batch.keys_B, counts_B)
        for kept in encoded(ask(batch), encoding, len(uniforms_PK), uniforms_PK):
            for name, tensor in kept.items():
                parts.setdefault(name, []).append(tensor.cpu().numpy())
        keys.append(batch.keys_B)
        counts.append(counts_B)
        advance(len(ids))
    arrays = {name: np.concatenate(own) for name, own in parts.items()}
    _require_numbers(request.description, arrays)
    return shard_bytes(np.concatenate(keys), np.concatenate(counts), arrays)


def encoded(
    said: Projected | Dense, encoding: Encoding, positions: int, uniforms_PK: torch.Tensor | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """What is kept of so many positions, some at a time: never more than those x V of logits are in memory.

    Args:
        said: the teacher's logits.
        encoding: what is kept of them.
        positions: P.
        uniforms_PK: the places of the draws; left out, all are the middle.
    """
    if uniforms_PK is None:
        uniforms_PK = torch.full((positions, encoding.draws), 0.5, dtype=torch.float64)
    said = said.as_factors() if isinstance(said, Projected) else said
    for start in range(0, positions, _POSITIONS_AT_ONCE):
        logits_CV = said.chunk(start, start + _POSITIONS_AT_ONCE).logits_PV
        uniforms_CK = uniforms_PK[start : start + _POSITIONS_AT_ONCE].to(logits_CV.device)
        # A CPU works on what stays in its cache, a GPU on all at once.
        rows = len(logits_CV) if logits_CV.is_cuda else max(_NUMBERS_IN_CACHE // encoding.classes, 1)
        for first in range(0, len(logits_CV), rows):
            yield encoding.encode(logits_CV[first : first + rows], uniforms_CK[first : first + rows])


def _require_numbers(description: str, arrays: Arrays) -> None:
    """What has no probability may be minus infinity."""
    for own in arrays.values():
        # The highest of numbers with NaN among them is NaN.
        if own.dtype.kind == "f" and not np.max(own.astype(np.float64), initial=0.0) < np.inf:
            raise UserError(
                f"{description}: the teacher says NaN or infinity; look at its weights, or set precision: float32"
            )


def _uniforms(
    request: CaptureRequest, draw: int, keys_B: NDArray[np.uint64], counts_B: NDArray[np.int64]
) -> torch.Tensor:
    draws = request.facts.encoding.draws
    if not draws:
        return torch.zeros(int(counts_B.sum()), 0, dtype=torch.float64)
    rows = [
        generator("soft targets", request.seed, draw, int(key)).random((int(count), draws))
        for key, count in zip(keys_B, counts_B, strict=True)
    ]
    return torch.from_numpy(np.concatenate(rows))


def _describe(place: Place, unit: _Unit) -> Shard:
    path = place.fetch(unit.file)
    arrays = map_shard(path)
    if not np.array_equal(np.sort(arrays[KEYS]), np.sort(unit.keys)):
        raise UserError(f"{path}: holds other examples than its name says; delete it and capture again")
    positions = int(arrays[OFFSETS][-1])
    return Shard(
        file=unit.file,
        draw=unit.draw,
        examples=len(unit.keys),
        positions=positions,
        bytes=path.stat().st_size,
        sha256=sha256_of_file(path),
    )
