import tracemalloc

from lightpaff.data.numbering import numbered


def test_values_are_numbered_as_they_first_occur() -> None:
    assert numbered(["b", "a", "b", "c", "a"]).tolist() == [0, 1, 0, 2, 1]
    assert numbered(iter([])).tolist() == []


def test_one_long_text_does_not_widen_the_others() -> None:
    values = ["x" * 100_000, *map(str, range(1000))]
    tracemalloc.start()
    assert numbered(values)[-1] == 1000
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 1e6  # An array of texts has 400 MB.
