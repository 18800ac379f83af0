import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from lightpaff.deployment.card import CARD, ExportCard
from lightpaff.deployment.contenders import Contender, find_contenders
from lightpaff.deployment.export_ctranslate2 import export_ctranslate2
from lightpaff.deployment.export_onnx import export_onnx
from lightpaff.deployment.export_openvino import export_openvino
from lightpaff.deployment.measuring import (
    Cell,
    MeasureSettings,
    Worker,
    count_parts,
    list_cells,
    measure,
    to_json_lines,
)
from lightpaff.deployment.worker_process import Timing
from lightpaff.errors import UserError
from lightpaff.runtimes import Format, Quantisation

TEACHER = Contender("teacher", Path("t"), "pytorch", 2, 400, "none", "classes", 512, 100)
STUDENT = Contender("student", Path("s"), "onnx", 2, 25, "int8", "classes", 128, 90)
QUANTISATIONS: list[Quantisation] = ["none", "int8"]
SETTINGS = MeasureSettings(batch_sizes=(1, 4), lengths=(32, 512), seconds=0.0, least_rounds=20)


class FakeWorker:
    """Takes 1 ms a row times `slowness`, and more in every other pair of runs."""

    def __init__(self, contender: Contender, slowness: float, calls: list[tuple[str, list[list[int]]]]) -> None:
        self.contender, self.slowness, self.calls = contender, slowness, calls
        self.is_open = True
        self.runs = 0

    def load(self) -> float:
        return 1.5

    def run(self, rows: list[list[int]], *, new_tokens: int, beams: int, length_penalty: float) -> Timing:
        self.calls.append((self.contender.name, rows))
        self.runs += 1
        return Timing(self.slowness * len(rows) * (1.0 + 0.5 * (self.runs // 2 % 2)), tokens=3 * len(rows))

    def peak_bytes(self) -> int:
        return 1000 + self.runs

    def close(self) -> None:
        self.is_open = False


class Arena:
    """Starts fakes, and remembers them."""

    def __init__(self, **slowness: float) -> None:
        self.slowness = slowness
        self.calls: list[tuple[str, list[list[int]], bool]] = []
        self.workers: list[FakeWorker] = []

    def start(self, contender: Contender) -> Worker:
        self.workers.append(FakeWorker(contender, self.slowness[contender.name], self.calls))
        return self.workers[-1]


def test_the_arithmetic() -> None:
    arena = Arena(teacher=8.0, student=2.0)
    rows = measure([TEACHER, STUDENT], replace(SETTINGS, price_per_core_hour=0.36), start=arena.start)
    found = {(row.contender, row.batch_size, row.length): row for row in rows}
    assert list(found) == [
        ("teacher", 1, 32),
        ("student", 1, 32),
        ("teacher", 4, 32),
        ("student", 4, 32),
        ("teacher", 1, 512),
        ("teacher", 4, 512),
    ]
    row = found["student", 4, 32]
    assert row.median_ms == pytest.approx(10.0)  # Of 8 and 12 by turns.
    assert [row.p95_ms, row.p99_ms] == pytest.approx([12.0, 12.0])
    assert row.throughput_per_s == pytest.approx(400.0)
    assert row.rounds == 20
    # 2 cores for 2.5 ms a row are 5000 core-seconds a million.
    assert row.cost_per_million == pytest.approx(5000 / 3600 * 0.36)
    assert [row.ratio, row.ratio_low, row.ratio_high] == pytest.approx([4, 4, 4])
    assert row.size_ratio == 16
    assert (row.load_seconds, row.bytes, row.written, row.new_tokens) == (1.5, 25, 3.0, 0)
    assert found["teacher", 4, 32].ratio == 1
    assert found["teacher", 1, 32].peak_bytes < found["teacher", 4, 512].peak_bytes


def test_all_take_turns_on_the_same_inputs_drawn_from_the_smallest_vocabulary() -> None:
    arena = Arena(teacher=30.0, student=2.0)
    measure([TEACHER, STUDENT], replace(SETTINGS, lengths=(32,), batch_sizes=(2,)), start=arena.start)
    done = arena.calls[6:]  # Three runs each to warm up.
    # Only short runs are preceded by one that is not timed, on inputs that never are.
    assert [name for name, _ in done] == ["teacher", "student", "student"] * 20
    untimed, timed = done[1::3], [call for place, call in enumerate(done) if place % 3 != 1]
    assert not {str(rows) for _, rows in untimed} & {str(rows) for _, rows in timed}
    assert [rows for _, rows in timed[::2]] == [rows for _, rows in timed[1::2]]
    assert {np.array(rows).shape for _, rows in timed} == {(2, 32)}
    ids = np.array([rows for _, rows in timed])
    assert 80 < ids.max() < 90
    assert len({str(rows) for _, rows in timed}) == 20
    again = Arena(teacher=30.0, student=2.0)
    measure([TEACHER, STUDENT], replace(SETTINGS, lengths=(32,), batch_sizes=(2,)), start=again.start)
    assert again.calls == arena.calls


def test_processes_share_the_time_and_the_interval_covers_their_differences() -> None:
    class Uneven(Arena):
        """A student's process may be twice as fast as another."""

        def start(self, contender: Contender) -> Worker:
            number = len(self.workers) // 2
            is_fast = contender is STUDENT and number == 1
            self.workers.append(
                FakeWorker(contender, self.slowness[contender.name] * (0.5 if is_fast else 1), self.calls)
            )
            return self.workers[-1]

    arena, notes = Uneven(teacher=8.0, student=2.0), list[str]()
    settings = replace(SETTINGS, batch_sizes=(2,), lengths=(32,), processes=3)
    rows = measure([TEACHER, STUDENT], settings, lambda amount, note="": notes.append(note), arena.start)
    assert count_parts([TEACHER, STUDENT], settings) == len(notes) == 3
    assert [worker.is_open for worker in arena.workers] == [False] * 6
    assert [row.rounds for row in rows] == [21, 21]  # Seven in each process, on inputs of their own.
    given = [rows for name, rows in arena.calls if name == "teacher"]
    assert len({str(rows) for rows in given}) == 42  # Half of them are never timed.
    # Student's: 4.303 standard errors of the logarithms of 4, 8 and 4.
    highest = 4 * math.exp(4.303 * math.log(2) / 3)
    assert (rows[1].ratio, rows[1].ratio_high) == (pytest.approx(4, rel=0.3), pytest.approx(highest, rel=0.3))
    assert (rows[1].peak_bytes, rows[1].load_seconds) == (1017, 1.5)


def test_another_baseline_and_one_that_does_not_read_so_much() -> None:
    arena = Arena(teacher=8.0, student=2.0)
    rows = measure([TEACHER, STUDENT], replace(SETTINGS, baseline="student"), start=arena.start)
    ratios = {(row.contender, row.batch_size, row.length): row.ratio for row in rows}
    assert ratios["teacher", 1, 32] == pytest.approx(0.25)
    assert ratios["teacher", 1, 512] is None


def test_own_inputs_are_one_more_length() -> None:
    arena = Arena(teacher=8.0)
    settings = replace(SETTINGS, lengths=(), batch_sizes=(3,), task_rows=((5, 6, 7), (8,)))
    (row,) = measure([TEACHER], settings, start=arena.start)
    assert (row.length, row.mean_length) == (None, 2.0)
    assert {tuple(ids) for _, rows in arena.calls for ids in rows} == {(5, 6, 7), (8,)}


def test_a_decoder_writes_within_its_longest_input() -> None:
    decoder = replace(STUDENT, work="next_tokens")
    settings = MeasureSettings(batch_sizes=(1,), lengths=(96, 97), new_tokens=32)
    assert list_cells([decoder], settings) == [Cell(1, 96)]
    assert list_cells([replace(decoder, work="target_tokens")], settings) == [Cell(1, 96), Cell(1, 97)]
    assert list_cells([replace(decoder, longest=None)], settings) == [Cell(1, 96), Cell(1, 97)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("it failed")])
def test_workers_are_ended_whatever_happens(error: BaseException) -> None:
    arena = Arena(teacher=8.0, student=2.0)

    def interrupt(amount: int, note: str = "") -> None:
        raise error

    with pytest.raises((KeyboardInterrupt, UserError)):
        measure([TEACHER, STUDENT], SETTINGS, interrupt, arena.start)
    assert [worker.is_open for worker in arena.workers] == [False, False]


def test_progress_hears_of_every_cell() -> None:
    notes: list[str] = []
    measure([TEACHER, STUDENT], SETTINGS, lambda amount, note="": notes.append(note), Arena(teacher=8, student=2).start)
    assert len(notes) == len(list_cells([TEACHER, STUDENT], SETTINGS)) == 4
    assert notes[0] == "1 × 32: student 2.5 ms"


@pytest.mark.parametrize(
    ("contenders", "change", "message"),
    [
        ([], {}, "nothing to measure"),
        ([TEACHER, TEACHER], {}, "teacher: is the name of several"),
        ([TEACHER, replace(STUDENT, work="next_tokens")], {}, "different work"),
        ([TEACHER], {"baseline": "nobody"}, "baseline nobody is none"),
        ([STUDENT], {"lengths": (4096,)}, "no model reads so many"),
        ([TEACHER, STUDENT], {"task_rows": ((5, 89), (3, 90))}, "student: has 90 tokens, .* hold number 90"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    contenders: list[Contender], change: dict[str, object], message: str
) -> None:
    def start(contender: Contender) -> Worker:
        raise AssertionError("nothing is started")

    begin: Callable[[Contender], Worker] = start
    with pytest.raises(UserError, match=message):
        measure(contenders, replace(SETTINGS, **change), start=begin)  # type: ignore[arg-type]


def test_exports_are_measured_in_their_own_runtime(tmp_path: Path) -> None:
    contenders, notes = find_contenders(
        {name: exported_decoder(tmp_path, name) for name in QUANTISATIONS}, ["ctranslate2"], threads=1
    )
    assert not notes
    assert [contender.runtime for contender in contenders] == ["ctranslate2"] * 2
    assert 1 < contenders[0].bytes / contenders[1].bytes < 4
    settings = MeasureSettings(batch_sizes=(1, 2), lengths=(8, 60), new_tokens=5, seconds=0.0, least_rounds=3)
    rows = measure(contenders, settings)
    assert [(row.contender, row.batch_size, row.length, row.written) for row in rows] == [
        ("none", 1, 8, 5.0),
        ("int8", 1, 8, 5.0),
        ("none", 2, 8, 5.0),
        ("int8", 2, 8, 5.0),
    ]
    assert all(0 < row.median_ms <= row.p95_ms <= row.p99_ms for row in rows)
    # Far less than a process with torch.
    assert all(2e6 < row.peak_bytes < 250e6 for row in rows)


def test_classifiers_of_two_runtimes_take_turns(tmp_path: Path) -> None:
    exports: dict[Format, Callable[[Path, Path, Quantisation], None]] = {
        "onnx": export_onnx,
        "openvino": export_openvino,
    }
    contenders, _ = find_contenders(
        {name: exported_classifier(tmp_path, name, export) for name, export in exports.items()}, threads=1
    )
    settings = MeasureSettings(batch_sizes=(1, 3), lengths=(7,), task_rows=((3, 4), (5,)), seconds=0.0, least_rounds=3)
    rows = measure(contenders, settings)
    assert [(row.contender, row.runtime, row.batch_size, row.length) for row in rows] == [
        (name, name, batch_size, length) for batch_size, length in ((1, None), (3, None), (1, 7), (3, 7))
        for name in exports
    ]  # fmt: skip
    assert {row.rounds for row in rows} == {3}
    assert all(row.written == 0 and row.median_ms > 0 and row.peak_bytes < 400e6 for row in rows)


def test_a_runtime_that_is_not_installed_leaves_a_note(tmp_path: Path) -> None:
    found, notes = find_contenders({"student": exported_decoder(tmp_path, "none")}, ["pytorch"])
    assert found == []
    assert notes == [
        "student is left out: its runtime needs ctranslate2 and tokenizers, not all of which are installed"
    ]


def test_an_export_is_measured_as_far_as_its_positions_reach(tmp_path: Path) -> None:
    directory = exported_decoder(tmp_path, "none")
    card = json.loads((directory / CARD).read_text())
    assert (card["max_length"], card["longest_input"]) == (8, 64)
    for content, longest in ((card, 64), (card | {"longest_input": None}, None), (without(card, "longest_input"), 8)):
        (directory / CARD).write_text(json.dumps(content))
        [contender], _ = find_contenders({"student": directory}, ["ctranslate2"])
        assert contender.longest == longest
    for content in (without(card, "max_length"), [card]):
        (directory / CARD).write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"export\.json: cannot be read .* export the model anew"):
            find_contenders({"student": directory}, ["ctranslate2"])


def without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != key}


def test_a_plain_model_runs_in_pytorch_in_each_precision(tmp_path: Path) -> None:
    plain = save_decoder(tmp_path / "plain")
    exact, rough = find_contenders({"teacher": plain}, threads=2, pytorch=("none", "bf16"))[0]
    assert (exact.name, exact.quantisation, rough.name, rough.quantisation) == (
        "teacher",
        "none",
        "teacher bf16",
        "bf16",
    )
    assert (exact.runtime, exact.work, exact.longest, exact.vocabulary, exact.threads) == (
        "pytorch", "next_tokens", 64, 20, 2,
    )  # fmt: skip
    assert exact.bytes == 4 * sum(tensor.numel() for tensor in load_file(plain / "model.safetensors").values())
    with pytest.raises(UserError, match=r"holds no config.json"):
        find_contenders({"nothing": tmp_path})


def save_decoder(folder: Path) -> Path:
    tokens = {"<end>": 0, **{chr(ord("a") + number): number + 1 for number in range(19)}}
    tokenizer = Tokenizer(WordLevel(tokens, unk_token="<end>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=20, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def exported_classifier(folder: Path, name: Format, export: Callable[[Path, Path, Quantisation], None]) -> Path:
    plain, directory = save_decoder(folder / f"{name}-plain"), folder / name
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(plain)
    directory.mkdir()
    export(plain, directory, "none")
    shutil.copy(plain / "tokenizer.json", directory)
    ExportCard(name, "none", "classes", max_length=16, longest_input=32, source_sha256="", labels=["0", "1"]).write(
        directory
    )
    return directory


def exported_decoder(folder: Path, quantisation: Quantisation) -> Path:
    directory = folder / quantisation
    export_ctranslate2(save_decoder(folder / "plain"), directory, quantisation)
    ExportCard("ctranslate2", quantisation, "next_tokens", max_length=8, longest_input=64, source_sha256="").write(
        directory
    )
    return directory


def test_a_line_of_json_says_all() -> None:
    arena = Arena(teacher=8.0, student=2.0)
    lines = to_json_lines(measure([TEACHER, STUDENT], SETTINGS, start=arena.start)).splitlines()
    assert len(lines) == 6
    row = json.loads(lines[1])
    assert row["contender"] == "student"
    assert row["quantisation"] == "int8"
    assert row["ratio"] == pytest.approx(4)
    assert int(row["machine"]["cores"]) > 0
    assert {"processor", "python", "torch"} <= set(row["machine"])
