"""The teacher in the student's shadow: asked in the background for a share of the requests, and compared."""

import json
import logging
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

Count = Callable[[bool | None], None]
_LOG = logging.getLogger("lightpaff.serving")
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
        UserError: the directory is no finished run, of no classification, or of other classes; or its teacher is not
            there any more, or cannot be read.
    """

    def __init__(self, run: Path, share: float, threads: int, card: ExportCard) -> None:
        import torch

        from lightpaff.models.architecture import CLASSES
        from lightpaff.models.encoder import without_unknown_segments
        from lightpaff.models.opening import finetuned_head, lacks_head, open_headed, read_config
        from lightpaff.models.vocabulary import load_tokenizer

        folder = _teacher_of(run)
        config = read_config(folder)
        if finetuned_head(config) != CLASSES or lacks_head(folder, CLASSES):
            raise UserError(f"{run}: --shadow compares classes, and its teacher gives none; leave it out")
        self._labels, self._most_tokens = card.labels, card.max_length
        if config.num_labels != len(self._labels):
            raise UserError(
                f"{run}: its teacher has {config.num_labels} classes, the export {len(self._labels)}; give "
                "the run that the export is of"
            )
        torch.set_num_threads(max(threads, 1))
        self._tokenizer: Any = load_tokenizer(folder, "encoder")
        opened = open_headed(folder, CLASSES, len(self._labels), device="cpu", attention="sdpa")
        model: Any = opened.model.eval()
        self._model: Callable[[Any], Any] = lambda encoded: model(**without_unknown_segments(model, encoded))
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
            rows = self._model(encoded).logits.float().softmax(1).tolist()
        found = [dict(zip(self._labels, row, strict=True)) for row in rows]
        answers = [
            {"label": (best := max(one, key=one.__getitem__)), "probability": one[best], "probabilities": one}
            for one in found
        ]
        return answers, 1000 * (time.perf_counter() - started)

    def compare(self, inputs: list[Input], answers: list[dict[str, Any]], count: Count) -> None:
        """Perhaps compare these answers, later; `count` is told of each whether it is the same, None where the teacher
        gave no answer."""
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

    def _compare(self, inputs: list[Input], answers: list[dict[str, Any]], count: Count) -> None:
        try:
            same: list[bool | None] = [
                own["label"] == other["label"] for own, other in zip(answers, self.answer(inputs)[0], strict=True)
            ]
        except Exception as error:  # whatever it is, nobody waits for this answer
            # Its type alone: what it says may quote a text.
            _LOG.warning("the teacher gave no answer (%s)", type(error).__name__)
            same = [None] * len(inputs)
        finally:
            self._waiting.release()
        for one in same:
            count(one)

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
    if not folder.is_dir():
        raise UserError(f"{run}: its teacher, {named}, is neither in steps beside it nor elsewhere; run it again")
    return folder
