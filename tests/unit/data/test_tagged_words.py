"""Tags as names and as numbers."""

from types import SimpleNamespace
from typing import Any

import pytest

from lightpaff.data.tagged_words import _class_of
from lightpaff.errors import UserError

TASK: Any = SimpleNamespace(name="toy", labels=["named", "in the recipe"])


def test_a_number_is_the_place_of_a_name() -> None:
    assert _class_of("1", {"O": 0, "B-place": 1}, TASK) == 1
    of_the_rows: Any = SimpleNamespace(name="toy", labels=None)
    with pytest.raises(UserError, match="the tag '1' is in no training row"):
        _class_of("1", {"O": 0, "B-place": 1}, of_the_rows)


def test_a_number_that_no_training_row_has_is_not_the_place_of_another() -> None:
    with pytest.raises(UserError, match="the tag '2' is in no training row"):
        _class_of("2", {"0": 0, "1": 1, "3": 2}, TASK)
