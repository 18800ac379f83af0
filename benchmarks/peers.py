"""A distillation step of lightpaff beside those of other projects, each as its own documentation shows.

    python benchmarks/peers.py                    # a readable table
    python benchmarks/peers.py --json             # its rows as JSON lines
    python benchmarks/peers.py --only clm

`transformers Trainer` is a subclass with a `compute_loss` that asks a teacher, as transformers' guide to knowledge
distillation has it, as it comes (float32) and with `bf16=True`. `TRL GKD` is trl.experimental.gkd.GKDTrainer off-policy
(`lmbda=0`, `beta=0`: the KL divergence of the teacher), for causal models, where trl is installed. All train the same
student from the same teacher on the same rows and batches, without dropout, each in a process of its own; `speedup` is
lightpaff's tokens a second with a live teacher over the row's, and memory is the highest of the process, less what it
held before there were models.

Shapes: B examples, S tokens.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

# As a program, this file is in no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.distillation_cases import CASES, LAMBDA, Case, as_users_have_it, count_above_0, make_data, make_model
from benchmarks.distillation_step import describe_device, make_step, time_once
from lightpaff.memory import highest_resident_bytes

TRAINER, TRAINER_BF16, GKD = "transformers Trainer", "transformers Trainer, bf16", "TRL GKD"
LIVE, STORED = "lightpaff live", "lightpaff stored"


@dataclass(frozen=True)
class Row:
    """One project's figures; a `speedup` above 1 means that lightpaff with a live teacher is faster."""

    name: str
    objective: str
    milliseconds: float
    tokens_per_second: float
    speedup: float
    peak_memory_mib: float
    peak_memory_ratio: float
    device: str
    steps: int


def main() -> None:
    arguments = parse_arguments()
    for case in CASES["cpu"]:
        if case.name in arguments.only:
            for row in measure(case, arguments):
                print(json.dumps(asdict(row)) if arguments.json else readable(row), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    parser.add_argument("--only", nargs="+", choices=["mlm", "clm"], default=["mlm", "clm"])
    parser.add_argument("--steps", type=count_above_0, default=4, help="after one to warm up")
    parser.add_argument("--rounds", type=count_above_0, default=2, help="each project's turns; the median step counts")
    parser.add_argument("--threads", type=count_above_0, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def measure(case: Case, arguments: argparse.Namespace) -> Iterator[Row]:
    names = [LIVE, STORED, TRAINER, TRAINER_BF16]
    if case.name == "clm":
        if importlib.util.find_spec("trl"):
            names.append(GKD)
        else:
            print("TRL GKD is left out: trl is not installed", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name in names[:: -1 if number % 2 else 1]:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    told = (name, case, folder, arguments.steps, arguments.threads)
                    own, memory[name] = pool.apply(take_steps, told)
                seconds[name] += own
        data = make_data(case, Path(folder), "cpu")
    tokens = int(data.lengths_N[: case.batch_size].sum())
    torch.set_num_threads(arguments.threads)
    ours = statistics.median(seconds[LIVE])
    for name in names:
        middle = statistics.median(seconds[name])
        yield Row(
            name=name,
            objective=case.name,
            milliseconds=round(1000 * middle, 1),
            tokens_per_second=round(tokens / middle),
            speedup=round(middle / ours, 2),
            peak_memory_mib=round(memory[name]),
            peak_memory_ratio=round(memory[LIVE] / memory[name], 3),
            device=describe_device("cpu"),
            steps=len(seconds[name]),
        )


def take_steps(name: str, case: Case, folder: str, steps: int, threads: int) -> tuple[list[float], float]:
    """The seconds of each step after the first, and the memory at its height in MiB."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.ones(4, 4) @ torch.ones(4, 4)
    if name in (LIVE, STORED):
        if name == STORED:
            make_step(case, "stored", "cpu", Path(folder))
        before = psutil.Process().memory_info().rss
        take = make_step(case, "live" if name == LIVE else "stored", "cpu", Path(folder))
        take()
        seconds = [time_once(take, "cpu") for _ in range(steps)]
    else:
        before = psutil.Process().memory_info().rss
        seconds = _train(name, case, folder, steps)
    return seconds, (highest_resident_bytes() - before) / 2**20


class _Clock(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())


class Distiller(Trainer):  # type: ignore[misc]
    """As transformers' guide has it: the student's own loss and the divergence from the teacher's logits."""

    def __init__(self, *args: Any, teacher: nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.eval()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        student = model(**inputs)
        with torch.no_grad():
            teacher = self.teacher(**{name: tensor for name, tensor in inputs.items() if name != "labels"})
        soft = functional.kl_div(
            functional.log_softmax(student.logits, dim=-1),
            functional.softmax(teacher.logits, dim=-1),
            reduction="batchmean",
        )
        loss = (1 - LAMBDA) * student.loss + LAMBDA * soft
        return (loss, student) if return_outputs else loss


def _train(name: str, case: Case, folder: str, steps: int) -> list[float]:
    rows, clock = _rows_of(case, folder, (1 + steps) * case.batch_size), _Clock()
    student, teacher = (make_model(case.name, own, "sdpa") for own in (case.student, case.teacher))
    shared: dict[str, Any] = {
        "output_dir": f"{folder}/out",
        "per_device_train_batch_size": case.batch_size,
        "max_steps": 1 + steps,
        "learning_rate": 1e-4,
        "use_cpu": True,
        "bf16": name == TRAINER_BF16,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    trainer: Any
    if name == GKD:
        trainer = _make_gkd(student, teacher, rows, shared, clock)
    else:
        trainer = Distiller(
            student, TrainingArguments(**shared), train_dataset=rows, teacher=teacher, callbacks=[clock]
        )
    trainer.train()
    return list(np.diff(clock.times))


def _make_gkd(
    student: PreTrainedModel, teacher: PreTrainedModel, rows: Any, shared: dict[str, Any], clock: TrainerCallback
) -> Any:
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, default_data_collator
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"x": 0}, "x")), pad_token="x")
    settings = GKDConfig(**shared, lmbda=0.0, beta=0.0, temperature=1.0, gradient_checkpointing=False)
    data = Dataset.from_list([{name: tensor.tolist() for name, tensor in row.items()} for row in rows])
    return GKDTrainer(
        student,
        teacher,
        settings,
        data_collator=default_data_collator,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[clock],
    )


def _rows_of(case: Case, folder: str, count: int) -> list[dict[str, Tensor]]:
    """The same rows with labels; of a causal model the labels are its own inputs, which it shifts itself."""
    data = make_data(case, Path(folder), "cpu")
    rows = []
    for number in range(count):
        inputs, labels_1S = as_users_have_it(data.batch(np.array([number % len(data.lengths_N)]), draw=0))
        row = {name: tensor[0] for name, tensor in inputs.items()}
        row["labels"] = row["input_ids"] if case.name == "clm" else labels_1S[0]
        row.setdefault("attention_mask", torch.ones_like(row["input_ids"]))
        rows.append(row)
    return rows


def readable(row: Row) -> str:
    return (
        f"{row.objective:<5}{row.name:<28}{row.milliseconds:>9.1f} ms {row.tokens_per_second:>7,} tokens/s, lightpaff "
        f"live is {row.speedup:>5.2f}x as fast, {row.peak_memory_mib:>6,.0f} MiB (lightpaff live: "
        f"{row.peak_memory_ratio:.2f} of it)"
    )


if __name__ == "__main__":
    main()
