from dataclasses import replace

import pytest

from lightpaff.report.online_tables import exports_table, online_table
from lightpaff.report.rows import ReportData, report_from_json, report_to_json
from lightpaff.report.tables import UNKNOWN, Cell


def test_exports_are_shown_beside_the_student_with_what_became_of_them(exported_data: ReportData) -> None:
    table = exports_table(exported_data, exported_data.tasks[0])
    assert table.columns == [
        *("export", "student's score", "its score", "loss", "same answers", "largest difference", "delivery")
    ]
    assert table.lines[0].cells[0] == Cell("onnx-int8", "validation set, 3,000 rows")
    assert [[cell.text for cell in line.cells] for line in table.lines[1:3]] == [
        ["onnx-int8", "91.2", "91.1", "0.13 %", "99.1 %", "0.083", "delivered"],
        ["openvino-bf16", "91.2", "89.9", "1.31 %", "99.1 %", "0.083", "refused: more than 0.5 %"],
    ]
    assert table.caption.startswith("Accuracy of the delivered student in PyTorch, one of several seeds, and of")
    assert table.caption.endswith("largest difference: of a logit.")


def test_a_refused_export_that_lost_less_on_the_test_set_is_still_refused(exported_data: ReportData) -> None:
    lines = [replace(line, loss=0.1) if line.split == "test" else line for line in exported_data.exports]
    table = exports_table(replace(exported_data, exports=lines), exported_data.tasks[0])
    assert [line.cells[-1].text for line in table.lines[2:]] == ["refused: more than 0.5 %", "refused"]


def test_a_perplexity_loses_per_cent_and_has_no_same_answers(exported_clm_data: ReportData) -> None:
    table = exports_table(exported_clm_data, exported_clm_data.tasks[0])
    assert "same answers" not in table.columns
    assert [line.cells[3].text for line in table.lines[::2]] == ["0.48 %", "−0.02 %"]
    assert "below 0 it gains" in table.caption
    assert "log likelihood a token, in nats" in table.caption


def test_texts_are_the_same_or_not_and_have_no_largest_difference(exported_translation_data: ReportData) -> None:
    table = exports_table(exported_translation_data, exported_translation_data.tasks[0])
    assert table.columns == ["export", "student's score", "its score", "loss", "same texts", "delivery"]
    assert [cell.text for cell in table.lines[1].cells[1:4]] == ["28.9", "28.7", "0.16 %"]


def test_a_model_online_has_one_line_with_all_its_batch_sizes(exported_data: ReportData) -> None:
    table = online_table(exported_data, exported_data.tasks[0])
    lines = [dict(zip(table.columns, line.cells, strict=True)) for line in table.lines]
    assert [line["model"] for line in lines] == [
        Cell("Teacher", "PyTorch float32"),
        Cell("Student", "PyTorch float32"),
        Cell("onnx-int8", "ONNX Runtime int8"),
        Cell("openvino-bf16", "OpenVINO bf16, refused"),
    ]
    assert list(lines[2].items())[1:] == [
        ("size", Cell("25.7 MB", "17.0× smaller")),
        ("median", Cell("4.0 ms")),
        ("p95", Cell("4.6 ms")),
        ("p99", Cell("5.6 ms")),
        ("times as fast", Cell("20.0×", "[19.0, 20.8]")),
        ("rows/s, batch 1", Cell("250")),
        ("rows/s, batch 32", Cell("267")),
        ("memory", Cell("258 MB")),
        ("loading", Cell("1.3 s")),
        ("cost of 1M", Cell("0.0889")),
    ]
    assert (lines[0]["times as fast"], lines[0]["size"].note) == (Cell(UNKNOWN), "")
    for part in (
        "Times of batch size 1 (one example at a time) on 2 threads",
        "128 tokens on average",
        "against the teacher in PyTorch float32, with a 95 % interval",
        "at 0.04 a core-hour",
    ):
        assert part in table.caption


def test_what_was_written_is_a_column_where_something_was(exported_translation_data: ReportData) -> None:
    data, task = exported_translation_data, exported_translation_data.tasks[0]
    assert "tokens written" not in online_table(data, task).columns
    online = [replace(line, written=21.34 if line.model == "teacher" else 9.0) for line in data.online]
    table = online_table(replace(data, online=online), task)
    assert table.columns[-1] == "tokens written"
    assert [line.cells[-1].text for line in table.lines] == ["21.3", "9.0", "9.0"]
    assert "tokens written: of an answer, on average" in table.caption


def test_threads_that_differ_are_told_of_every_model(exported_data: ReportData) -> None:
    online = [replace(line, threads=1) if line.model == "onnx-int8" else line for line in exported_data.online]
    table = online_table(replace(exported_data, online=online), exported_data.tasks[0])
    assert [line.cells[0].note for line in table.lines[1:3]] == [
        "PyTorch float32, 2 threads",
        "ONNX Runtime int8, 1 thread",
    ]
    assert "on 2 threads" not in table.caption


def test_a_batch_size_that_a_model_lacks_is_unknown(exported_data: ReportData) -> None:
    online = [line for line in exported_data.online if (line.model, line.batch_size) != ("onnx-int8", 32)]
    table = online_table(replace(exported_data, online=online), exported_data.tasks[0])
    assert table.lines[2].cells[table.columns.index("rows/s, batch 32")] == Cell(UNKNOWN)


def test_without_exports_there_are_no_lines(report_data: ReportData) -> None:
    assert exports_table(report_data, report_data.tasks[0]).lines == []
    assert online_table(report_data, report_data.tasks[0]).lines == []


@pytest.mark.parametrize("fixture", ["exported_data", "exported_clm_data", "exported_translation_data"])
def test_exports_survive_json_and_old_reports_are_read(fixture: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(fixture)
    content = report_to_json(data)
    assert report_from_json(content) == data
    del content["exports"], content["online"]
    assert report_from_json(content) == replace(data, exports=[], online=[])
