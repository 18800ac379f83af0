from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.data.token_table import TokenTable, in_batches, write_token_table
from lightpaff.errors import UserError

TOKEN_ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=12)


@given(rows=TOKEN_ROWS, size=st.integers(1, 5))
@settings(deadline=None)
def test_rows_come_back(rows: list[list[int]], size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tables") / "rows.arrow"
    names = [f"row {number}" for number in range(len(rows))]
    pieces = zip(in_batches(rows, size), in_batches(names, size), strict=True)
    batches = ({"input_ids": tokens, "name": piece} for tokens, piece in pieces)
    assert write_token_table(path, batches, {"name": pa.large_string()}) == len(rows)
    table = TokenTable(path)
    assert len(table) == len(rows)
    assert [table.tokens(number).tolist() for number in range(len(rows))] == rows
    assert table.lengths_N.tolist() == [len(row) for row in rows]
    assert table.lengths_N.dtype == np.int64
    assert table.column("name") == names


def test_types_and_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    columns = {"label": pa.float64(), "pair": pa.large_string()}
    batches: list[dict[str, list[Any]]] = [
        {"input_ids": [[1], [2, 3]], "label": [0.5, None], "pair": ["é", None]},
        {"input_ids": [[4]], "label": [2], "pair": [""]},
    ]
    write_token_table(path, batches, columns)
    table = TokenTable(path)
    assert table.column("label") == [0.5, None, 2.0]
    assert table.column("pair") == ["é", None, ""]
    assert table.tokens(2).dtype == np.int32


@given(rows=TOKEN_ROWS, size=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_columns_of_lists_come_back(rows: list[list[int]], size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tables") / "rows.arrow"
    batches = ({"input_ids": [[7]] * len(piece), "places": piece} for piece in in_batches(rows, size))
    write_token_table(path, batches, {"places": pa.large_list(pa.int32())})
    table = TokenTable(path, "places")
    assert [table.tokens(number).tolist() for number in range(len(rows))] == rows
    assert table.lengths_N.tolist() == [len(row) for row in rows]
    assert table.values.tolist() == [value for row in rows for value in row]
    assert table.values.dtype == np.int32
    assert TokenTable(path).values.tolist() == [7] * len(rows)


def test_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "rows.arrow"
    assert write_token_table(path, [], {}) == 0
    table = TokenTable(path)
    assert len(table) == 0
    assert table.lengths_N.shape == (0,)


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "other"])
def test_what_is_no_table_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.arrow"
    write_token_table(path, [{"input_ids": [[1, 2, 3]] * 50}], {})
    content = path.read_bytes()
    damaged = {"empty": b"", "cut": content[: len(content) // 2], "other": b"text" * 100}
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"rows\.arrow: is not a readable token table; delete its folder") as caught:
        TokenTable(path)
    assert "\n" not in str(caught.value)


@given(st.integers(0, 20), st.integers(1, 6))
@settings(deadline=None)
def test_batches_of_a_size(count: int, size: int) -> None:
    batches = list(in_batches(range(count), size))
    assert [row for batch in batches for row in batch] == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)
