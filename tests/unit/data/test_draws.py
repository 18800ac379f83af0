import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.data.draws import content_key, content_keys, generator

PLACES = st.tuples(
    st.sampled_from(["masks", "order", "fragments", "mixture"]),
    st.integers(0, 2**63),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
)


@given(PLACES)
@settings(deadline=None)
def test_a_place_has_its_numbers(place: tuple[str, int, int, int]) -> None:
    first, again = generator(*place), generator(*place)
    first.random(3)
    assert generator(*place).random(4).tolist() == again.random(4).tolist()


@given(PLACES, PLACES)
@settings(deadline=None)
def test_other_places_have_other_numbers(place: tuple[str, int, int, int], other: tuple[str, int, int, int]) -> None:
    same = generator(*place).random(4).tolist() == generator(*other).random(4).tolist()
    assert same == (place == other)


def test_neighbours_do_not_overlap() -> None:
    # Each place counts up from its own number: no place may run into the next one's.
    draws = [generator("masks", 0, draw, example).random(1000) for draw in range(3) for example in range(3)]
    assert len(np.unique(np.concatenate(draws))) == 9000


def test_the_numbers_stay_the_same_between_versions() -> None:
    # A run that is resumed with another version of lightpaff must draw the same masks.
    assert generator("masks", 1, 2, 3).bit_generator.random_raw(2).tolist() == [
        11495521497382154385,
        7794970853663849782,
    ]


def test_a_key_is_of_the_content_alone() -> None:
    tokens = np.array([2, 5, 3], dtype=np.int32)
    assert content_key(tokens) == content_key([2, 5, 3]) == content_key(np.array([2, 5, 3]))
    others = [content_key([2, 5]), content_key([2, 5, 3, 0]), content_key([2, 3, 5]), content_key([2], [5, 3])]
    assert len({content_key(tokens), *others}) == 5
    # Known forever: stores on disk are found by it.
    assert content_key(tokens, 7) == 0x4DE96951A2836A0E


def test_keys_of_several_columns_are_those_of_the_rows() -> None:
    keys_B = content_keys([[1, 2], [3]], [4, 5])
    assert keys_B.dtype == np.uint64
    assert keys_B.tolist() == [content_key([1, 2], 4), content_key([3], 5)]
