"""How much faster and smaller the paper's students are online, each in its best runtime, against a teacher in PyTorch.

    python benchmarks/online.py                             # readable tables
    python benchmarks/online.py --json > rows.jsonl         # their rows as JSON lines, the tables on standard error
    python benchmarks/online.py --case bert --threads 1 --threads 0 --keep models

Every model may use all cores; the int8 exports are measured with one thread as well, and the better one counts.

Random weights in the paper's sizes: speed and size do not depend on what was learnt. They are written, exported and
measured by what `lightpaff export` and `lightpaff benchmark` use. What a student reaches is told against its teacher in
PyTorch in float32, and beside that against its teacher in the teacher's own best runtime: the second is what
distillation alone gives.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from tokenizers import AddedToken, Tokenizer, models
from transformers import BartConfig, BertConfig, GPT2Config, PreTrainedConfig, PreTrainedTokenizerFast

from lightpaff.deployment.benchmark_table import describe_runtime, render_rich
from lightpaff.deployment.card import CARD, ExportCard, Kind
from lightpaff.deployment.contenders import Contender, find_contenders
from lightpaff.deployment.export_ctranslate2 import export_ctranslate2
from lightpaff.deployment.export_onnx import export_onnx
from lightpaff.deployment.export_openvino import export_openvino
from lightpaff.deployment.measuring import (
    PROCESSES,
    Measurement,
    MeasureSettings,
    count_parts,
    measure,
)
from lightpaff.files import sha256_of_file, whole_directory
from lightpaff.models.initialisation import create_student
from lightpaff.models.opening import quiet_transformers
from lightpaff.models.shapes import longest_input
from lightpaff.models.weights import WEIGHTS
from lightpaff.progress import console as progress_console
from lightpaff.progress import progress_bar, results_console
from lightpaff.report import formats
from lightpaff.runtimes import Format, Quantisation

TEACHER = "teacher"
SEED = 0
_UNKNOWN, _PADDING, _END = "<unk>", "<pad>", "<end>"
_NEVER = -1e9
"""A bias that keeps a token from ever being written."""
_TIMES = "\N{MULTIPLICATION SIGN}"

Export = tuple[Format, Quantisation]


@dataclass(frozen=True)
class Model:
    """A model with random weights, and what it is exported to."""

    name: str
    config: PreTrainedConfig
    exports: tuple[Export, ...]


@dataclass(frozen=True)
class Goal:
    """How many times as fast, at a length of the input in tokens, or (None) as small a student should be."""

    student: str
    length: int | None
    times: float


@dataclass(frozen=True)
class Case:
    """A teacher, its students, and what they do: answers come one at a time."""

    kind: Kind
    teacher: Model
    students: tuple[Model, ...]
    lengths: tuple[int, ...]
    goals: tuple[Goal, ...]
    new_tokens: int = 32
    beams: int = 1


@dataclass(frozen=True)
class Reached:
    """What a student reaches of a goal in its best runtime, and what the teacher reaches in its own.

    Attributes:
        ratio: how many times as fast, or for sizes (`length` is None) as small as the teacher in PyTorch.
        low: of its 95 % interval, as `high`; a size has none.
        by: the contender with the best ratio.
        own_ratio: the same against the teacher in its own best runtime, `own_best`: the fastest, or the smallest.
        size_ratio: of `by`, against the teacher in PyTorch.
    """

    case: str
    student: str
    length: int | None
    threads: int
    goal: float
    ratio: float
    low: float | None
    high: float | None
    is_reached: bool
    by: str
    runtime: str
    own_ratio: float
    own_best: str
    size_ratio: float
    seed: int
    machine: dict[str, str]


def bert(layers: int, hidden_size: int, heads: int) -> BertConfig:
    """BERT's kin: the feed-forward layer is four times as wide, the vocabulary that of BERT-base uncased."""
    return BertConfig(
        vocab_size=30522,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
    )


def gpt2(layers: int, hidden_size: int, heads: int) -> GPT2Config:
    """GPT-2's kin, with its vocabulary."""
    return GPT2Config(
        vocab_size=50257, n_embd=hidden_size, n_layer=layers, n_head=heads, bos_token_id=2, eos_token_id=2
    )


def mass(layers: int, decoder_layers: int, hidden_size: int, heads: int) -> BartConfig:
    """MASS as BART's kin. With BERT's vocabulary 6-6 x 768 has the 123M parameters that MASS's own code tells."""
    return BartConfig(
        vocab_size=30522,
        d_model=hidden_size,
        encoder_layers=layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * hidden_size,
        decoder_ffn_dim=4 * hidden_size,
        max_position_embeddings=512,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )


_CLASSIFIERS: tuple[Export, ...] = (
    *(("onnx", precision) for precision in ("none", "int8")),
    *(("openvino", precision) for precision in ("none", "bf16", "int8")),
)
_WRITERS: tuple[Export, ...] = (("ctranslate2", "none"), ("ctranslate2", "bf16"), ("ctranslate2", "int8"))
_CONTINUERS: tuple[Export, ...] = (("onnx", "none"), ("onnx", "int8"), *_WRITERS)

CASES = {
    "bert": Case(
        "classes",
        Model(TEACHER, bert(12, 768, 12), (("onnx", "none"), ("onnx", "int8"), ("openvino", "bf16"))),
        (Model("student 3 x 512", bert(3, 512, 8), _CLASSIFIERS),),
        lengths=(32, 128),
        goals=(Goal("student 3 x 512", 128, 19), Goal("student 3 x 512", 32, 30), Goal("student 3 x 512", None, 16)),
    ),
    "gpt2": Case(
        "next_tokens",
        Model(TEACHER, gpt2(24, 1024, 16), (("onnx", "none"), ("onnx", "int8"), ("ctranslate2", "int8"))),
        (Model("student 4 x 768", gpt2(4, 768, 12), _CONTINUERS),),
        lengths=(32,),
        goals=(Goal("student 4 x 768", 32, 15),),
    ),
    "mass": Case(
        "target_tokens",
        Model(TEACHER, mass(6, 6, 1024, 16), (("ctranslate2", "none"), ("ctranslate2", "int8"))),
        (
            Model("student 6-6 x 512", mass(6, 6, 512, 8), _WRITERS),
            Model("student 6-2 x 512", mass(6, 2, 512, 8), _WRITERS),
        ),
        lengths=(32,),
        goals=(Goal("student 6-6 x 512", 32, 8.5), Goal("student 6-2 x 512", 32, 13)),
        beams=4,
    ),
}
"""The paper's sizes (MASS's students are ours), and on two cores what a first try of these exports reached."""


def main() -> None:
    """Build, measure and print."""
    arguments = parse_arguments()
    console = Console(stderr=True, highlight=False, width=140) if arguments.json else results_console()
    reached: list[Reached] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.case or CASES:
            directories = build_models(CASES[name], (arguments.keep or Path(folder)) / name)
            if not arguments.build_only:
                reached += measure_case(name, directories, arguments, console)
    if reached:
        console.print(goals_table(reached))


def parse_arguments() -> argparse.Namespace:
    """The command line; `threads` holds no 0 and no number twice."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="rows as JSON lines on standard output")
    parser.add_argument("--case", action="append", choices=list(CASES), help="may come several times; default all")
    parser.add_argument("--threads", action="append", type=int, help="0 (the default) is all cores; may be repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each length, all models together")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where models are built, or are from the last time")
    parser.add_argument("--build-only", action="store_true", help="with --keep: measure nothing")
    arguments = parser.parse_args()
    if arguments.build_only and not arguments.keep:
        parser.error("--build-only needs --keep")
    arguments.threads = list(dict.fromkeys(number or os.cpu_count() or 1 for number in arguments.threads or [0]))
    return arguments


def build_models(case: Case, folder: Path) -> dict[str, Path]:
    """Make a case's models and their exports, but for those that are there; where they are, the teacher first."""
    directories = {}
    for model in (case.teacher, *case.students):
        plain = folder / model.name.replace(" ", "-")
        build_unless_there(plain, plain / "config.json", partial(save_random_model, model.config, case.kind))
        directories[model.name] = plain
        for format_, quantisation in model.exports:
            name = f"{format_}-{quantisation}"
            exported = plain.with_name(f"{plain.name}-{name}")
            write = partial(export_model, case, model.config, plain, format_, quantisation)
            build_unless_there(exported, exported / CARD, write)
            directories[f"{model.name}, {name}"] = exported
    return directories


def build_unless_there(directory: Path, witness: Path, write: Callable[[Path], None]) -> None:
    """Have a directory written whole."""
    if not witness.is_file():
        progress_console.print(f"Building {directory}")
        with whole_directory(directory) as folder:
            write(folder)


def save_random_model(config: PreTrainedConfig, kind: Kind, folder: Path) -> None:
    """Write a model with random weights and a tokenizer of as many tokens."""
    classes = config.num_labels if kind == "classes" else config.vocab_size
    model = create_student(
        config, kind, classes, initialisation="random", teacher_path=None, seed=SEED, attention="eager"
    )
    if kind == "target_tokens":
        # So that every model writes as many tokens as it may.
        model.final_logits_bias[0, config.eos_token_id] = _NEVER
    with quiet_transformers():
        model.save_pretrained(folder)
    make_tokenizer(config.vocab_size).save_pretrained(folder)


def make_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Tokens without a meaning; the first are special."""
    special = [_UNKNOWN, _PADDING, _END]
    tokens = [*special, *(f"token{number}" for number in range(len(special), size))]
    tokenizer = Tokenizer(models.WordLevel({token: id_ for id_, token in enumerate(tokens)}, unk_token=_UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=_UNKNOWN, pad_token=_PADDING, bos_token=_END, eos_token=_END
    )


def export_model(
    case: Case, config: PreTrainedConfig, plain: Path, format_: Format, quantisation: Quantisation, folder: Path
) -> None:
    """Write a model's export as `lightpaff export` does, but without a check: it has nothing to say."""
    if format_ == "ctranslate2":
        export_ctranslate2(plain, folder, quantisation)
    else:
        {"onnx": export_onnx, "openvino": export_openvino}[format_](plain, folder, quantisation)
        Tokenizer.from_file(str(plain / "tokenizer.json")).save(str(folder / "tokenizer.json"))
    longest = longest_input(config)
    assert longest is not None
    ExportCard(
        format=format_,
        quantisation=quantisation,
        kind=case.kind,
        max_length=longest,
        longest_input=longest,
        source_sha256=sha256_of_file(plain / WEIGHTS),
        labels=["0", "1"] if case.kind == "classes" else [],
        decoder_start=_END if case.kind == "target_tokens" else "",
        beams=case.beams,
        max_target_length=case.new_tokens if case.kind == "target_tokens" else 0,
    ).write(folder)


def measure_case(
    name: str, directories: dict[str, Path], arguments: argparse.Namespace, console: Console
) -> list[Reached]:
    """Measure a case with each number of threads, print what was measured, and say what is reached of its goals."""
    case = CASES[name]
    settings = MeasureSettings(
        batch_sizes=(1,),
        lengths=case.lengths,
        new_tokens=case.new_tokens,
        beams=case.beams,
        seconds=arguments.seconds,
        processes=PROCESSES,
        baseline=TEACHER,
        seed=SEED,
    )
    reached = []
    for threads in arguments.threads:
        found, notes = find_contenders(directories, threads=threads)
        contenders = [*found, *with_one_thread(found)]
        with progress_bar(f"measure {name}", count_parts(contenders, settings), "parts") as advance:
            measurements = measure(contenders, settings, advance)
        console.print(f"\n{name}", style="bold")
        console.print(render_rich(measurements, with_intervals=True))
        for note in notes:
            console.print(note)
        own = [judge(name, goal, measurements) for goal in case.goals]
        if arguments.json:
            print_rows(name, measurements, own)
        reached += own
    return reached


def with_one_thread(contenders: Sequence[Contender]) -> list[Contender]:
    """The int8 exports again, with one thread: of small matrices, a second thread may wait more than it helps."""
    return [
        replace(contender, name=f"{contender.name}, 1 thread", threads=1)
        for contender in contenders
        if contender.quantisation == "int8" and contender.threads > 1
    ]


def judge(name: str, goal: Goal, measurements: Sequence[Measurement]) -> Reached:
    """What is reached of a goal, in the runtime that reaches most."""
    rows = [row for row in measurements if goal.length in (None, row.length)]
    students = [row for row in rows if owner(row) == goal.student]
    teachers = [row for row in rows if owner(row) == TEACHER]
    if goal.length is None:
        best, own_best = (min(some, key=lambda row: row.bytes) for some in (students, teachers))
        ratio, low, high = best.size_ratio, None, None
        own_ratio = own_best.bytes / best.bytes
    else:
        best, own_best = (min(some, key=lambda row: row.median_ms) for some in (students, teachers))
        assert best.ratio is not None
        ratio, low, high = best.ratio, best.ratio_low, best.ratio_high
        own_ratio = own_best.median_ms / best.median_ms
    return Reached(
        case=name,
        student=goal.student,
        length=goal.length,
        threads=best.threads,
        goal=goal.times,
        ratio=ratio,
        low=low,
        high=high,
        is_reached=ratio >= goal.times,
        by=best.contender,
        runtime=describe_runtime(best.runtime, best.quantisation),
        own_ratio=own_ratio,
        own_best=describe_runtime(own_best.runtime, own_best.quantisation),
        size_ratio=best.size_ratio,
        seed=SEED,
        machine=best.machine,
    )


def owner(row: Measurement) -> str:
    """Whose export a contender is."""
    return row.contender.partition(",")[0]


def print_rows(name: str, measurements: Iterable[Measurement], reached: Iterable[Reached]) -> None:
    """JSON lines on standard output: `row` says which kind each is."""
    for measurement in measurements:
        print(json.dumps({"row": "measurement", "case": name, "seed": SEED, **asdict(measurement)}, allow_nan=False))
    for goal in reached:
        print(json.dumps({"row": "goal", **asdict(goal)}, allow_nan=False))
    sys.stdout.flush()


def goals_table(reached: Sequence[Reached]) -> Table:
    """Goals beside what is reached."""
    table = Table(
        *("case", "goal", "reached", "in", "against the teacher's best", "size", ""),
        title="Goals: against the teacher in PyTorch float32",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for row in reached:
        what = "as small" if row.length is None else f"as fast at {row.length} tokens"
        interval = "" if row.low is None or row.high is None else f" [{times(row.low)}, {times(row.high)}]"
        table.add_row(
            f"{row.case}, {row.student}",
            f"{times(row.goal)} {what}",
            times(row.ratio) + interval,
            f"{row.runtime}, {formats.threads(row.threads)}",
            f"{times(row.own_ratio)} ({row.own_best})",
            times(row.size_ratio),
            "reached" if row.is_reached else "not reached",
        )
    return table


def times(ratio: float) -> str:
    """16.2x"""
    return f"{formats.ratio(ratio)}{_TIMES}"


if __name__ == "__main__":
    main()
