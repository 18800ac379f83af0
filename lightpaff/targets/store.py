"""A store of soft targets: what a teacher said about every target position of some examples, captured once.

    STORE/manifest.json                  what the numbers depend on, and every shard with its sha256; written last
    STORE/draw-0000/KEY.safetensors      some examples' soft targets; a directory for each masking of the examples

Soft targets are known by (content of the example, draw), never by their place: any order, batch size, number of
epochs, students and ranks reads the same, and text that is added leaves the old soft targets as they are.

Shapes: B examples of a batch, N examples of a draw, P target positions.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lightpaff.errors import UserError
from lightpaff.files import sha256_of_file
from lightpaff.targets.encodings import Arrays, Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.shards import KEYS, OFFSETS, map_shard
from lightpaff.targets.soft_targets import Stored

MANIFEST = "manifest.json"
_REMEDY = "capture again with lightpaff targets"


class Shard(BaseModel):
    """One file of a store, as its manifest has it."""

    model_config = ConfigDict(frozen=True, strict=True)

    file: str
    draw: Annotated[int, Field(ge=0)]
    examples: Annotated[int, Field(gt=0)]
    positions: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(gt=0)]
    sha256: str

    @model_validator(mode="after")
    def _check_folder(self) -> Self:
        if Path(self.file).parent != Path(draw_folder(self.draw)):
            raise ValueError(f"{self.file} is not in {draw_folder(self.draw)}, the folder of its draw")
        return self


class Manifest(BaseModel):
    """What a store says of itself."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal[1]
    meaning: dict[str, Any]
    encoding: dict[str, Any]
    made_with: dict[str, Any]
    shards: list[Shard]


@dataclass(frozen=True)
class StoreFacts:
    """What a store is of.

    Attributes:
        meaning: what the soft targets depend on: the teacher's weights and config, the tokenizer, the objective and its
            seed.
        encoding: how they are written.
        made_with: versions, device and precision of the capture; told, and the same for all shards.
    """

    meaning: dict[str, Any]
    encoding: Encoding
    made_with: dict[str, Any]

    def manifest(self, shards: list[Shard]) -> Manifest:
        """Of a store of these shards."""
        encoding = asdict(self.encoding)
        return Manifest(format=1, meaning=self.meaning, encoding=encoding, made_with=self.made_with, shards=shards)

    def require_same(self, recorded: Manifest, place: Place, *, also_made_with: bool) -> None:
        """Refuse a store of something else.

        Raises:
            UserError: names the first difference.
        """
        expected = {**self.meaning, "encoding": asdict(self.encoding)}
        found = {**recorded.meaning, "encoding": recorded.encoding}
        if also_made_with:
            expected, found = {**expected, "made with": self.made_with}, {**found, "made with": recorded.made_with}
        if (difference := first_difference(found, expected)) is not None:
            name, there, here = difference
            raise UserError(
                f"{place}: holds soft targets of another {name} ({_short(there)} there, {_short(here)} here); give "
                "another store, or delete it and capture again"
            )


class SpoiltStoreError(UserError):
    """What a store should hold is missing or damaged: to capture again mends it."""


class TargetStore:
    """A finished store, checked and memory-mapped.

    Args:
        place: where it lies.
        facts: what it must be of.
        there: given, shards that are not among these files, or damaged, are left out, to be captured again.
        draws: how many maskings it must have at least.

    Attributes:
        spoilt: the files of the shards that were left out.

    Raises:
        SpoiltStoreError: it is no whole store: names the file.
        UserError: it is one of something else, or no store: names the first difference.
    """

    def __init__(
        self, place: Place, facts: StoreFacts, there: Collection[str] | None = None, *, draws: int = 0
    ) -> None:
        manifest = read_manifest(place)
        if manifest is None:
            raise SpoiltStoreError(f"{place}: holds no {MANIFEST}, so no finished capture; {_REMEDY}")
        facts.require_same(manifest, place, also_made_with=False)
        self._place, self._encoding = place, facts.encoding
        self.shards: list[Shard] = []
        self.spoilt: set[str] = set()
        self._arrays: list[Arrays] = []
        for shard in manifest.shards:
            try:
                arrays = _map_checked(place, shard, there)
            except SpoiltStoreError:
                if there is None:
                    raise
                self.spoilt.add(shard.file)
                continue
            self.shards.append(shard)
            self._arrays.append(arrays)
        self.draws = 1 + max((shard.draw for shard in self.shards), default=-1)
        if self.draws < draws:
            raise SpoiltStoreError(f"{place}: holds {self.draws} of {draws} maskings (draws) of its text; {_REMEDY}")
        self._index = [self._index_of(draw) for draw in range(self.draws)]

    @property
    def positions(self) -> int:
        """Target positions of all draws."""
        return sum(shard.positions for shard in self.shards)

    def read(self, keys_B: NDArray[np.uint64], counts_B: NDArray[np.int64], draw: int) -> Stored:
        """The soft targets of these examples, one after the other, on the CPU.

        Args:
            keys_B: the examples' content keys.
            counts_B: how many target positions each has.
            draw: the number of the masking.

        Raises:
            UserError: an example, or this draw of it, was not captured; or has another number of targets.
        """
        if (is_missing_B := ~self.has(keys_B, draw)).any():
            raise UserError(
                f"{self._place}: holds no soft targets of {is_missing_B.sum()} of {len(keys_B)} examples (draw {draw}, "
                f"the first has the key {keys_B[is_missing_B][0]:016x}): never captured, or the text has changed "
                f"since; {_REMEDY}"
            )
        keys_N, place_N3 = self._index[draw]
        rows_B = np.searchsorted(keys_N, keys_B)
        places_B3 = place_N3[rows_B]
        if (places_B3[:, 2] - places_B3[:, 1] != counts_B).any():
            raise UserError(f"{self._place}: holds soft targets of another masking of the same text; {_REMEDY}")
        pieces = [(self._arrays[shard], start, stop) for shard, start, stop in places_B3.tolist()]
        names = [name for name in self._arrays[0] if name not in (KEYS, OFFSETS)]
        return self._encoding.decode(
            {name: np.concatenate([arrays[name][start:stop] for arrays, start, stop in pieces]) for name in names}
        )

    def has(self, keys_N: NDArray[np.uint64], draw: int) -> NDArray[np.bool_]:
        """Which of these examples were captured with this draw."""
        if draw >= self.draws:
            return np.zeros(len(keys_N), dtype=bool)
        return np.isin(keys_N, self._index[draw][0])

    def _index_of(self, draw: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The keys in order, and for each its shard's number and the first position and that behind the last."""
        keys, places = [np.zeros(0, np.uint64)], [np.zeros((0, 3), np.int64)]
        for number, (shard, arrays) in enumerate(zip(self.shards, self._arrays, strict=True)):
            if shard.draw == draw:
                offsets = arrays[OFFSETS]
                keys.append(arrays[KEYS].astype(np.uint64))
                places.append(np.stack([np.full(shard.examples, number), offsets[:-1], offsets[1:]], axis=1))
        keys_N, place_N3 = np.concatenate(keys), np.concatenate(places)
        order = np.argsort(keys_N, kind="stable")
        return keys_N[order], place_N3[order]


def read_manifest(place: Place) -> Manifest | None:
    """A store's manifest; None where there is none.

    Raises:
        UserError: it cannot be read, or is of another format.
    """
    try:
        content = place.fetch(MANIFEST, anew=True).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{place}/{MANIFEST}: cannot be read ({error.strerror}); name a store's directory") from error
    try:
        known = json.loads(content)
        found = known["format"]
        if type(found) is int and found == 1:
            return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"{place}/{MANIFEST}: is no manifest of a store ({what}); delete the store") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place}/{MANIFEST}: is no manifest of a store ({error!r}); delete the store") from error
    raise UserError(f"{place}: is of format {found}, and this version reads 1; {_REMEDY} elsewhere")


def draw_folder(draw: int) -> str:
    """Where the shards of one masking are."""
    return f"draw-{draw:04d}"


def first_difference(found: Any, expected: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The name of the first value that differs, with both; None where all are the same."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            difference = first_difference(found.get(key), expected.get(key), f"{name}.{key}" if name else key)
            if difference is not None:
                return difference
        return None
    return None if found == expected else (name, found, expected)


def _map_checked(place: Place, shard: Shard, there: Collection[str] | None) -> Arrays:
    arrays = map_shard(_checked(place, shard, there))
    if (len(arrays[KEYS]), int(arrays[OFFSETS][-1])) != (shard.examples, shard.positions):
        raise SpoiltStoreError(f"{place}/{shard.file}: does not match the manifest (examples, positions); {_REMEDY}")
    return arrays


def _checked(place: Place, shard: Shard, there: Collection[str] | None) -> Path:
    if there is not None and shard.file not in there:
        raise _missing(place, shard)
    # Of what is remote, the copy may be older or damaged: then the original counts.
    for anew in (False, True):
        try:
            path = place.fetch(shard.file, anew=anew)
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise _missing(place, shard) from error
        if size == shard.bytes and sha256_of_file(path) == shard.sha256:
            return path
    raise SpoiltStoreError(f"{place}/{shard.file}: does not match the manifest (sha256 or size differs); {_REMEDY}")


def _missing(place: Place, shard: Shard) -> SpoiltStoreError:
    return SpoiltStoreError(f"{place}/{shard.file}: is missing though the manifest names it; {_REMEDY}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:20]}…"
