import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightpaff.data.readers import Format, Row, read_rows
from lightpaff.errors import UserError

WriteFile = Callable[[str, bytes | str], str]


def compress_zstandard(content: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return compressed


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    def write(name: str, content: bytes | str) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def read(file: str, format: Format | None = None) -> list[tuple[int, Row]]:
    return list(read_rows(file, format, "my source"))


def refusal_of(file: str, format: Format | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read(file, format)
    message = str(caught.value)
    assert message.startswith("my source: ")
    assert "\n" not in message
    return message


CONTENTS: dict[str, tuple[str, list[tuple[int, Row]]]] = {
    "txt": (
        "one\n\ntwo words\r\n",
        [(1, {"text": "one"}), (3, {"text": "two words"})],
    ),
    "jsonl": (
        '{"text": "one", "label": 1}\n\n{"text": null}\n',
        [(1, {"text": "one", "label": 1}), (3, {"text": None})],
    ),
    "csv": (
        'text,label\n"one, ""two""\nlines",a\n,b\n',
        [(2, {"text": 'one, "two"\nlines', "label": "a"}), (4, {"text": None, "label": "b"})],
    ),
    "tsv": (
        'text\tlabel\n"one\ta\nit\'s 5" long\t\n',
        [(2, {"text": '"one', "label": "a"}), (3, {"text": "it's 5\" long", "label": None})],
    ),
}


@pytest.mark.parametrize("format", CONTENTS)
@pytest.mark.parametrize(
    ("ending", "compress"),
    [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".zst", compress_zstandard)],
)
def test_reads_every_format_and_compression(
    write_file: WriteFile, format: str, ending: str, compress: Callable[[bytes], bytes]
) -> None:
    content, expected = CONTENTS[format]
    assert read(write_file(f"file.{format}{ending}", compress(content.encode()))) == expected
    assert read(write_file(f"FILE.{format.upper()}{ending.upper()}", compress(content.encode()))) == expected


def test_the_format_can_be_given(write_file: WriteFile) -> None:
    assert read(write_file("rows.data", "a\tb\n1\t2\n"), "tsv") == [(2, {"a": "1", "b": "2"})]
    assert read(write_file("rows.ndjson", '{"a": 1}\n')) == [(1, {"a": 1})]
    assert read(write_file("rows.csv", "a,b\n"), "txt") == [(1, {"text": "a,b"})]


@pytest.mark.parametrize("format", CONTENTS)
def test_a_byte_order_mark_at_the_start_is_dropped(write_file: WriteFile, format: str) -> None:
    content, expected = CONTENTS[format]
    assert read(write_file(f"file.{format}", b"\xef\xbb\xbf" + content.encode())) == expected


def test_a_last_line_needs_no_line_end(write_file: WriteFile) -> None:
    assert read(write_file("a.txt", "one\ntwo")) == [(1, {"text": "one"}), (2, {"text": "two"})]
    assert read(write_file("a.csv", "text\none")) == [(2, {"text": "one"})]


def test_only_a_newline_ends_a_line(write_file: WriteFile) -> None:
    text = "one\u2028still one\x0bstill one\x85still one"
    assert read(write_file("a.txt", f"{text}\ntwo\n"))[0] == (1, {"text": text})
    assert read(write_file("a.jsonl", json.dumps({"text": text}, ensure_ascii=False)))[0][1] == {"text": text}


def test_long_csv_fields_are_read(write_file: WriteFile) -> None:
    text = "long " * 100_000
    assert read(write_file("a.csv", f"text\n{text}\n")) == [(2, {"text": text})]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1))
def test_csv_gives_back_what_the_csv_module_writes(rows: list[tuple[str, str]]) -> None:
    import fsspec

    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("first", "second"), *rows])
    with fsspec.open("memory://rows.csv", "wb") as file:
        file.write(buffer.getvalue().encode())
    found = [(row["first"] or "", row["second"] or "") for _, row in read("memory://rows.csv")]
    assert found == rows


def test_nested_bytes_are_text_and_nested_nan_is_missing(tmp_path: Path) -> None:
    rows = [{"translation": {"en": b"a film", "scores": [float("nan"), 0.5]}}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert read(str(tmp_path / "rows.parquet")) == [(1, {"translation": {"en": "a film", "scores": [None, 0.5]}})]


def test_parquet_rows_keep_their_types(tmp_path: Path) -> None:
    columns = {"text": ["one", None, ""], "label": [1, None, 3], "score": [0.5, 1.5, None]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=2)
    assert read(str(tmp_path / "rows.parquet")) == [
        (1, {"text": "one", "label": 1, "score": 0.5}),
        (2, {"text": None, "label": None, "score": 1.5}),
        (3, {"text": "", "label": 3, "score": None}),
    ]


def test_zstandard_files_of_several_frames_are_read_to_the_end(write_file: WriteFile) -> None:
    frames = [compress_zstandard(f"line {number}\n".encode() * 9000) for number in range(5)]
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    rows = read(write_file("a.txt.zst", skippable + b"".join(frames)))
    assert len(rows) == 45_000
    assert rows[-1] == (45_000, {"text": "line 4"})


def test_reading_is_lazy(write_file: WriteFile) -> None:
    rows = read_rows(write_file("a.jsonl", '{"a": 1}\nbroken\n'), None, "my source")
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(UserError, match="line 2"):
        next(rows)


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in refusal_of(str(tmp_path / "absent.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "is a directory" in refusal_of(str(tmp_path / "folder.csv"))
    assert "cannot be opened" in refusal_of("nosuchprotocol://host/a.csv")


@pytest.mark.parametrize(("name", "ending"), [("a.html", ".html"), ("a", ""), ("a.xml.gz", ".xml"), ("a.gz", "")])
def test_refuses_unknown_endings(write_file: WriteFile, name: str, ending: str) -> None:
    message = refusal_of(write_file(name, "text"))
    assert f"the ending '{ending}' tells no format" in message
    assert "let the name end in one of .txt, .jsonl, .ndjson, .csv" in message
    assert message.endswith("with one of txt, jsonl, csv, tsv, parquet, conll, squad")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b""),
        ("a.txt", b"\n \r\n\t\n"),
        ("a.txt", b"\xef\xbb\xbf"),
        ("a.jsonl", b"\n\n"),
        ("a.csv", b""),
        ("a.csv", b"text,label\n"),
        ("a.tsv", b"text\tlabel\n\n"),
        ("a.txt.gz", gzip.compress(b"", mtime=0)),
        ("a.txt.gz", b""),
        ("a.txt.zst", b""),
    ],
)
def test_refuses_files_without_rows(write_file: WriteFile, name: str, content: bytes) -> None:
    assert "holds no rows" in refusal_of(write_file(name, content))


def test_refuses_parquet_without_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "holds no rows" in refusal_of(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\ntwo\0\n", "NUL byte in line 2"),
        ("a.csv", "text\nå\n".encode("utf-16-be"), "NUL byte in line 1"),
        ("a.txt", b"one\ntwo \xe9t\xe9\n", "line 2 is not UTF-8 text (byte 5 of the line is 0xe9)"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": "\xff"}\n', "line 3 is not UTF-8 text (byte 8 of the line is 0xff)"),
        ("a.csv", b"text\nr\xe9sum\xe9\n", "line 2 is not UTF-8 text (byte 2"),
        ("a.txt", gzip.compress(b"one", mtime=0), ".gz by its first bytes"),
        ("a.csv", compress_zstandard(b"one"), ".zst by its first bytes"),
        ("a.txt", b"PAR1\x15\x04\x15\xff\n", ".parquet by its first bytes"),
        ("a.txt.gz", b"plain text\n", "cannot be read from the start"),
        ("a.txt.bz2", b"plain text\n", "cannot be read from the start"),
        ("a.txt.zst", b"plain text\n", "cannot be read from the start"),
        ("a.parquet", b"plain text\n", "broken parquet"),
        ("a.parquet", b"", "broken parquet"),
        ("a.parquet.gz", b"", "decompress the .gz"),
    ],
)
def test_refuses_binary_and_undecodable_files(write_file: WriteFile, name: str, content: bytes, message: str) -> None:
    assert message in refusal_of(write_file(name, content))


def test_refuses_a_tsv_whose_names_stand_in_quotation_marks(write_file: WriteFile) -> None:
    content = '"text"\t"label"\n"one ""two"""\t"a"\n'
    assert "set format: csv" in refusal_of(write_file("a.tsv", content))
    assert read(write_file("a.tsv", content), "csv") == [(2, {"text": 'one "two"', "label": "a"})]


def test_text_may_start_like_a_compressed_file(write_file: WriteFile) -> None:
    assert read(write_file("a.txt", "BZh is how bzip2 files start\nPAR1\n"))[1] == (2, {"text": "PAR1"})


@pytest.mark.parametrize(
    ("ending", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".zst", compress_zstandard)],
)
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_refuses_compressed_files_that_were_cut_short(
    write_file: WriteFile, ending: str, compress: Callable[[bytes], bytes], share: float
) -> None:
    whole = compress("".join(f"line {number * 7919 % 10007}\n" for number in range(50_000)).encode())
    assert len(read(write_file(f"whole.txt{ending}", whole))) == 50_000
    assert "cannot be read" in refusal_of(write_file(f"cut.txt{ending}", whole[: int(len(whole) * share)]))


def test_refuses_parquet_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": [f"text {number}" for number in range(5000)]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert "broken parquet" in refusal_of(str(path))
    path.write_bytes(content[:40] + bytes(400) + content[440:])
    assert "broken parquet" in refusal_of(str(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": 1', "line 2 is not JSON (Expecting ',' delimiter, column 8)"),
        ("{'a': 1}", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        ("[1, 2]", "line 2 is a JSON list, not an object"),
        ('"text"', "line 2 is a JSON str, not an object"),
        ("null", "line 2 is a JSON NoneType, not an object"),
    ],
)
def test_refuses_broken_json_lines(write_file: WriteFile, line: str, message: str) -> None:
    assert message in refusal_of(write_file("a.jsonl", f'{{"a": 1}}\n{line}\n'))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, the header 2 (a, b)"),
        ("a.csv", 'a,b\n"1\n1",2\n\n1\n', "line 5 has 1 fields, the header 2"),
        ("a.tsv", "a\tb\n1\t2\t3\n", "line 2 has 3 fields, the header 2"),
        ("a.csv", 'a,b\n"1"x,2\n', "line 2 is broken"),
        ("a.csv", 'a,b\n1,2\n"1,2\n3,4\n', "line 3 is broken"),
        ("a.csv", "a,b,a\n1,2,3\n", "names 'a' twice"),
    ],
)
def test_refuses_broken_tables(write_file: WriteFile, name: str, content: str, message: str) -> None:
    assert message in refusal_of(write_file(name, content))


def test_a_conll_file_is_a_sentence_a_row(tmp_path: Path) -> None:
    file = tmp_path / "news.conll"
    file.write_text("-DOCSTART- -X- O\n\nEU NNP B-org\n# NN O\n\n\nPeter\tNNP\tB-per\n")
    assert list(read_rows(str(file), None, "news")) == [
        (3, {"tokens": ["EU", "#"], "tags": ["B-org", "O"]}),
        (7, {"tokens": ["Peter"], "tags": ["B-per"]}),
    ]


def test_a_conll_word_may_hold_white_space_where_tabs_separate(tmp_path: Path) -> None:
    file = tmp_path / "news.txt"
    file.write_text("1 000\tO\r\n\r\nEU\tB-org")
    assert [row for _, row in read_rows(str(file), "conll", "news")] == [
        {"tokens": ["1 000"], "tags": ["O"]},
        {"tokens": ["EU"], "tags": ["B-org"]},
    ]


@pytest.mark.parametrize("content", ["EU B-org\nrejects\n", "EU B-org\nrejects VBZ O\n", "EU\nrejects\n"])
def test_a_conll_line_has_as_many_columns_as_the_others(content: str, tmp_path: Path) -> None:
    file = tmp_path / "news.conll"
    file.write_text(content)
    with pytest.raises(UserError, match=r"news: line \d has \d columns, and a conll file has a word and its tag"):
        list(read_rows(str(file), None, "news"))
