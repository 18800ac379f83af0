"""A training step the way lightpaff takes it against transformers' defaults, in turn, in one run.

    python benchmarks/training_step.py            # a readable table
    python benchmarks/training_step.py --json     # its rows as JSON lines

The choices measured: plain attention against SDPA on a CPU, AdamW as one kernel against a loop over tensors, and bf16
autocast against float32. Random weights in the shape of MiniLM-L6 (6 x 384), random tokens.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from transformers import AutoModelForSequenceClassification, BertConfig

_CONFIG = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
_SHAPES = ((32, 32), (128, 16), (16, 128))
_CHOSEN = ("eager", True, True)
_VARIANTS = (_CHOSEN, ("sdpa", True, True), ("eager", False, True), ("eager", True, False))
"""Attention, AdamW in one kernel, bf16 autocast: the chosen one, then each choice turned back."""


@dataclass(frozen=True)
class StepTime:
    """The time of one optimiser step; `slower` is against the chosen way, round by round."""

    attention: str
    fused_adamw: bool
    bf16: bool
    batch_size: int
    sequence_length: int
    median_ms: float
    tokens_per_second: float
    slower: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for batch_size, sequence_length in _SHAPES:
        for row in measure(batch_size, sequence_length, arguments.rounds):
            print(json.dumps(asdict(row)) if arguments.json else describe(row))


def measure(batch_size: int, sequence_length: int, rounds: int) -> list[StepTime]:
    """Time every variant in turn, after one step each to warm up."""
    steps = [make_step(*variant, batch_size, sequence_length) for variant in _VARIANTS]
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(1 + rounds):
        for own, step in zip(times, steps, strict=True):
            started = time.perf_counter()
            step()
            own.append(1000 * (time.perf_counter() - started))
    timed = [own[1:] for own in times]
    return [
        StepTime(
            *variant,
            batch_size,
            sequence_length,
            median_ms=round(statistics.median(own), 1),
            tokens_per_second=round(1000 * batch_size * sequence_length / statistics.median(own)),
            slower=round(statistics.median(a / b for a, b in zip(own, timed[0], strict=True)), 2),
        )
        for variant, own in zip(_VARIANTS, timed, strict=True)
    ]


def make_step(attention: str, fused: bool, bf16: bool, batch_size: int, sequence_length: int) -> Callable[[], None]:
    """A function that takes one optimiser step without dropout."""
    _CONFIG.hidden_dropout_prob = _CONFIG.attention_probs_dropout_prob = 0.0
    model = AutoModelForSequenceClassification.from_config(_CONFIG, attn_implementation=attention).train()
    optimiser = torch.optim.AdamW(model.parameters(), fused=fused)
    ids_BS = torch.randint(1000, 30000, (batch_size, sequence_length))
    inputs = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS), "labels": torch.zeros(batch_size).long()}

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**inputs).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def describe(row: StepTime) -> str:
    """A row for people."""
    precision = "bf16" if row.bf16 else "float32"
    optimiser = "one kernel" if row.fused_adamw else "loop"
    return (
        f"{row.batch_size:4} x {row.sequence_length:<4} {row.attention:6} AdamW {optimiser:11} {precision:8}"
        f"{row.median_ms:8.1f} ms {row.tokens_per_second:7.0f} tokens/s   {row.slower:.2f} x the chosen way's time"
    )


if __name__ == "__main__":
    main()
