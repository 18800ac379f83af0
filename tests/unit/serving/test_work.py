"""The pieces of a batch."""

import sys

from lightpaff.serving.work import Work, cut


def test_work_that_is_alike_and_of_like_size_is_done_together() -> None:
    works = [Work("answer", "a", 9), Work("write", "b", 1, 8, 8), Work("answer", "c", 2), Work("write", "d", 1, 4, 8)]
    assert cut(works, sys.maxsize) == [[2, 0], [3], [1]]


def test_a_piece_is_bounded_in_number_and_in_size() -> None:
    assert [len(piece) for piece in cut([Work("answer", "a", 1)] * 40, sys.maxsize)] == [16, 16, 8]
    sizes = [50, 3, 120, 4, 60]
    pieces = cut([Work("answer", "a", size) for size in sizes], 100)
    assert [[sizes[number] for number in piece] for piece in pieces] == [[3, 4, 50], [60], [120]]
    assert cut([], 100) == []
