import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightpaff.data.splits import part_of
from lightpaff.recipe_sources import Split

VALUES = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))
SHARES = st.lists(st.integers(0, 10), min_size=1, max_size=5).filter(any)


def make_split(shares: list[int], seed: int = 0) -> Split:
    fractions = {f"part{place}": share / sum(shares) for place, share in enumerate(shares)}
    return Split(by="film", fractions=fractions, take="part0", seed=seed)


@given(VALUES, SHARES, st.integers(0, 3))
def test_a_value_falls_into_one_part_that_has_a_share(value: object, shares: list[int], seed: int) -> None:
    split = make_split(shares, seed)
    part = part_of(value, split)
    assert split.fractions[part] > 0
    assert part_of(value, make_split(shares, seed)) == part


def test_parts_do_not_change_between_versions() -> None:
    split = Split(by="film", fractions={"train": 0.5, "test": 0.5}, take="train")
    # By hand: the first byte of sha256("0:jaws") is 0x4d, below a half; of "0:alien" it is 0xe0.
    expected = {"aankhen": "test", "heat": "test", "jaws": "train", "alien": "test", 7: "train", None: "test"}
    assert {value: part_of(value, split) for value in expected} == expected


def test_parts_get_their_fractions() -> None:
    split = Split(by="film", fractions={"train": 0.7, "validation": 0.1, "test": 0.2}, take="train")
    parts = [part_of(f"film {number}", split) for number in range(20_000)]
    for part, fraction in split.fractions.items():
        assert parts.count(part) / len(parts) == pytest.approx(fraction, abs=0.015)


def test_seeds_cut_independently() -> None:
    first, second = (Split(by="film", fractions={"a": 0.5, "b": 0.5}, take="a", seed=seed) for seed in (1, 2))
    same = sum(part_of(number, first) == part_of(number, second) for number in range(4000))
    assert same / 4000 == pytest.approx(0.5, abs=0.04)


@given(SHARES, st.data())
def test_a_value_moves_only_when_a_bound_passes_over_it(shares: list[int], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.integers(0, 10), min_size=len(shares), max_size=len(shares)).filter(any))
    before, after = make_split(shares), make_split(other)
    bounds = [list(itertools.accumulate(split.fractions.values(), initial=0.0)) for split in (before, after)]
    places = {part: place for place, part in enumerate(before.fractions)}
    for value in range(50):
        old, new = places[part_of(value, before)], places[part_of(value, after)]
        # The stretches of [0, 1) that the two parts own must meet, since the value lies in both.
        assert max(bounds[0][old], bounds[1][new]) <= min(bounds[0][old + 1], bounds[1][new + 1]) + 1e-9


def test_growing_the_last_part_but_one_moves_no_value_of_the_others() -> None:
    before = Split(by="film", fractions={"train": 0.6, "validation": 0.1, "test": 0.3}, take="train")
    after = Split(by="film", fractions={"train": 0.6, "validation": 0.2, "test": 0.2}, take="train")
    moves = {(part_of(number, before), part_of(number, after)) for number in range(5000)}
    assert moves == {
        ("train", "train"),
        ("validation", "validation"),
        ("test", "validation"),
        ("test", "test"),
    }
