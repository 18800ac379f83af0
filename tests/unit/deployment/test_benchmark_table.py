import io
from dataclasses import replace

from rich.console import Console

from lightpaff.deployment.benchmark_table import build_table, render_rich
from lightpaff.deployment.measuring import Measurement
from lightpaff.report.markdown import render_table

TEACHER = Measurement(
    contender="teacher", runtime="pytorch", quantisation="none", threads=2, work="classes", batch_size=1, length=32,
    mean_length=32.0, new_tokens=0, written=0.0, beams=1, rounds=50, median_ms=40.0, p95_ms=44.0, p99_ms=45.0,
    throughput_per_s=25.0, load_seconds=3.25, peak_bytes=900_000_000, bytes=438_000_000, cost_per_million=0.889,
    price_per_core_hour=0.04, baseline="teacher", ratio=1.0, ratio_low=1.0, ratio_high=1.0, size_ratio=1.0,
    machine={"processor": "some processor"},
)  # fmt: skip
STUDENT = replace(
    TEACHER, contender="student int8", runtime="onnx", quantisation="int8", median_ms=2.5, ratio=16.0, ratio_low=15.8,
    ratio_high=16.3, bytes=26_000_000, size_ratio=438 / 26, peak_bytes=120_000_000, load_seconds=0.1,
    cost_per_million=0.0556,
)  # fmt: skip
ROWS = [
    TEACHER,
    STUDENT,
    replace(TEACHER, batch_size=32, median_ms=1000.0, peak_bytes=1_200_000_000),
    replace(STUDENT, batch_size=32, median_ms=60.0, ratio=16.7),
    replace(TEACHER, length=512, median_ms=600.0, cost_per_million=99.0),
]


def test_contenders_are_rows_and_cells_are_columns() -> None:
    table = build_table(ROWS)
    assert table.columns == ["model", "size", "memory", "loading", "1 × 32", "1 × 512", "32 × 32", "cost of 1M"]
    teacher, student = ([(cell.text, cell.note) for cell in line.cells] for line in table.lines)
    assert teacher == [
        ("teacher", "PyTorch float32"), ("438 MB", ""), ("1200 MB", ""), ("3.2 s", ""), ("40.0 ms", ""),
        ("600 ms", ""), ("1000 ms", ""), ("0.889", ""),
    ]  # fmt: skip
    assert student == [
        ("student int8", "ONNX Runtime int8"), ("26.0 MB", "16.8×"), ("120 MB", ""), ("0.1 s", ""),
        ("2.5 ms", "16.0× [15.8, 16.3]"), ("–", ""), ("60.0 ms", "16.7× [15.8, 16.3]"), ("0.0556", ""),
    ]  # fmt: skip
    assert "1 × 32 and 0.04 a core-hour" in table.caption
    assert "2 threads" in table.caption
    assert "; 1 thread;" in build_table([replace(row, threads=1) for row in ROWS]).caption


def test_own_inputs_come_last_and_are_priced() -> None:
    own = [replace(row, length=None, mean_length=27.4, cost_per_million=7.0) for row in ROWS[:2]]
    table = build_table([*own, *ROWS[:2]])
    assert table.columns[4:6] == ["1 × 32", "1 × own"]
    assert table.lines[0].cells[-1].text == "7"
    assert "27 tokens on average" in table.caption


def test_the_caption_tells_what_is_written() -> None:
    writing = replace(TEACHER, work="target_tokens", new_tokens=32, beams=4)
    assert "up to 32 tokens written with 4 beam(s)" in build_table([writing]).caption


def test_what_was_written_is_a_column_where_something_was() -> None:
    writing = [
        replace(row, work="target_tokens", written=written) for row, written in zip(ROWS[:2], (21.34, 9.0), strict=True)
    ]
    table = build_table(writing)
    assert table.columns[-1] == "tokens written"
    assert [line.cells[-1].text for line in table.lines] == ["21.3", "9.0"]
    assert "tokens written: of a row at 1 × 32, on average" in table.caption
    assert "tokens written" not in build_table(ROWS).caption


def test_markdown_has_the_table() -> None:
    text = render_table(build_table(ROWS))
    assert "| student int8 (ONNX Runtime int8) | 26.0 MB (16.8×) |" in text
    assert "2.5 ms (16.0× [15.8, 16.3])" in text


def test_the_terminal_shows_ratios_without_intervals() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render_rich(ROWS))
    text = console.export_text()
    assert "16.0×" in text
    assert "[15.8" not in text
    assert "ONNX Runtime int8" in text
