"""The teacher in the student's shadow: asked in the background for a share of the requests, and compared."""

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightpaff.data.cleaning import clean_text
from lightpaff.deployment.card import ExportCard
from lightpaff.errors import UserError
from lightpaff.serving.answering import Input

_MOST_WAITING = 4
"""Comparisons that wait; beyond that a request is not sampled."""


class Shadow:
    """The fine-tuned teacher of a run of classification, in PyTorch.

    Args:
        run: the run's directory.
        share: of the requests that are compared.
        threads: of PyTorch.
        card: the student's: how much of a text is read, and what the classes are called. A ready-made teacher may
            have other names for them; their order is the same.

    Raises:
        UserError: the directory is no finished run, of no classification, or of other classes.
    """

    def __init__(self, run: Path, share: float, threads: int, card: ExportCard) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = _teacher_of(run)
        torch.set_num_threads(max(threads, 1))
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self._labels, self._most_tokens = card.labels, card.max_length
        if self._model.config.num_labels != len(self._labels):
            raise UserError(
                f"{run}: its teacher has {self._model.config.num_labels} classes, the export {len(self._labels)}; give "
                "the run that the export is of"
            )
        self._share, self._thread = share, ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._waiting = threading.Semaphore(_MOST_WAITING)

    def answer(self, inputs: list[Input]) -> tuple[list[dict[str, Any]], float]:
        """As the student's answers, and the milliseconds that they took."""
        import torch

        started = time.perf_counter()
        pairs = [(one,) if isinstance(one, str) else one for one in inputs]
        texts = ([clean_text(text) for text in column] for column in zip(*pairs, strict=True))
        cut = {"truncation": True, "max_length": self._most_tokens, "padding": True}
        encoded = self._tokenizer(*texts, **cut, return_tensors="pt")
        with torch.inference_mode():
            rows = self._model(**encoded).logits.float().softmax(1).tolist()
        found = [dict(zip(self._labels, row, strict=True)) for row in rows]
        answers = [
            {"label": (best := max(one, key=one.__getitem__)), "probability": one[best], "probabilities": one}
            for one in found
        ]
        return answers, 1000 * (time.perf_counter() - started)

    def compare(self, inputs: list[Input], answers: list[dict[str, Any]], count: Callable[[bool], None]) -> None:
        """Perhaps compare these answers, later; `count` is told of each whether it is the same."""
        if random.random() >= self._share or not self._waiting.acquire(blocking=False):
            return
        self._thread.submit(self._compare, inputs, answers, count)

    def answer_soon(self, inputs: list[Input]) -> "Future[tuple[list[dict[str, Any]], float]] | None":
        """The same answer, later; None where too many wait already."""
        if not self._waiting.acquire(blocking=False):
            return None
        future = self._thread.submit(self.answer, inputs)
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def _compare(self, inputs: list[Input], answers: list[dict[str, Any]], count: Callable[[bool], None]) -> None:
        try:
            for own, teacher in zip(answers, self.answer(inputs)[0], strict=True):
                count(own["label"] == teacher["label"])
        finally:
            self._waiting.release()

    def close(self) -> None:
        """Ask nothing more."""
        self._thread.shutdown(cancel_futures=True)


def _teacher_of(run: Path) -> Path:
    try:
        roles = json.loads((run / "run.json").read_text())["roles"]
        models = [role for role in roles if role["kind"] == "model" and role["arm"] == "teacher"]
        teachers = {role["task"]: role["folder"] for role in models}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run}: is no finished run (run.json has no teacher); give the directory of one") from error
    if len(teachers) != 1:
        raise UserError(f"{run}: has teachers of {len(teachers)} tasks; --shadow takes a run of one task")
    named = next(iter(teachers.values()))
    folder = run.resolve().parent / "steps" / named
    folder = folder if folder.is_dir() else Path(named)
    config = folder / "config.json"
    if not config.is_file() or "SequenceClassification" not in config.read_text():
        raise UserError(f"{run}: --shadow compares classes, and its teacher gives none; leave it out")
    return folder
