"""One contender of a benchmark in a process of its own, so that its threads and its memory are its own.

`python -m lightpaff.deployment.worker` reads questions from standard input and answers on standard output, both one
JSON object a line:

    {"ask": "load", "directory", "runtime", "work", "quantisation", "threads"}  ->  {"load_seconds"}
    {"ask": "run", "rows", "new_tokens", "beams", "length_penalty"}             ->  {"milliseconds", "tokens"}
    {"ask": "memory"}                                                           ->  {"peak_bytes"}
    {"ask": "quit"}                                                             ends it
    whatever fails                                                              ->  {"error"}

Imports torch and transformers only where the runtime is PyTorch. Shapes: B rows, S tokens.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from lightpaff.deployment.runner import ClassRunner, TextRunner, TokenRunner, open_runner
from lightpaff.errors import UserError, one_line
from lightpaff.memory import highest_resident_bytes
from lightpaff.runtimes import Work

Question = dict[str, Any]
Run = Callable[[], int]
"""Runs the model once, and says how many tokens it wrote."""

_PR_SET_PDEATHSIG = 1


def serve(questions: Iterable[str], answers: TextIO) -> None:
    """Answer the questions, one line each, until `quit` or the end of them."""
    prepare: Callable[[Question], Run] | None = None
    for line in questions:
        question: Question = json.loads(line)
        if question["ask"] == "quit":
            return
        try:
            answer: dict[str, Any]
            if question["ask"] == "load":
                started = time.perf_counter()
                prepare = _load(question)
                answer = {"load_seconds": time.perf_counter() - started}
            elif question["ask"] == "run":
                assert prepare is not None, "load comes first"
                answer = _time_run(prepare(question))
            else:
                answer = {"peak_bytes": highest_resident_bytes()}
        except UserError as error:
            answer = {"error": str(error)}
        # Whatever a runtime raises, the one who asks has to learn of it.
        except Exception as error:
            answer = {"error": f"{one_line(error)}; leave it out, or export it anew"}
        print(json.dumps(answer), file=answers, flush=True)


def _load(question: Question) -> Callable[[Question], Run]:
    """Import the runtime and open the model: both are what a service waits for when it starts."""
    precision = {"precision": "bf16" if question["quantisation"] == "bf16" else "float32"}
    runner = open_runner(
        Path(question["directory"]),
        question["runtime"],
        question["work"],
        question["threads"],
        **(precision if question["runtime"] == "pytorch" else {}),
    )
    return partial(_PREPARATIONS[question["work"]], runner)


def _prepare_classifying(runner: ClassRunner, question: Question) -> Run:
    rows: list[list[int]] = question["rows"]
    ids_BS = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    mask_BS = np.zeros_like(ids_BS)
    for row, ids in enumerate(rows):
        ids_BS[row, : len(ids)], mask_BS[row, : len(ids)] = ids, 1

    def run() -> int:
        runner.logits(ids_BS, mask_BS)
        return 0

    return run


def _prepare_continuing(runner: TokenRunner, question: Question) -> Run:
    return lambda: sum(map(len, runner.continue_prompts(question["rows"], question["new_tokens"])))


def _prepare_writing(runner: TextRunner, question: Question) -> Run:
    options = {"beams": question["beams"], "length_penalty": question["length_penalty"]}
    return lambda: sum(map(len, runner.write(question["rows"], max_tokens=question["new_tokens"], **options)))


_PREPARATIONS: dict[Work, Callable[[Any, Question], Run]] = {
    "classes": _prepare_classifying,
    "token_classes": _prepare_classifying,
    "next_tokens": _prepare_continuing,
    "target_tokens": _prepare_writing,
}


def _time_run(run: Run) -> dict[str, float]:
    started = time.perf_counter()
    tokens = run()
    return {"milliseconds": 1000 * (time.perf_counter() - started), "tokens": tokens}


def _end_with_parent() -> None:
    """Have Linux kill this process with the one that started it, which may have stopped it and be killed itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep_stdout_for_answers() -> TextIO:
    """Where answers go; what libraries print goes to standard error from here on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    _end_with_parent()
    serve(sys.stdin, _keep_stdout_for_answers())
