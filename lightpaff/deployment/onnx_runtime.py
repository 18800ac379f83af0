"""Classifiers and decoders in ONNX Runtime. Imports neither torch nor transformers.

Shapes: B rows, S tokens, K of them whose logits are wanted, V classes or vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lightpaff.deployment.runner import Ids, continue_by_length
from lightpaff.errors import UserError, one_line

MODEL = "model.onnx"

IDS, KEPT, PAST = "input_ids", "kept_positions", "past_key_values"
"""Inputs of a decoder's graph; `PAST` begins several names."""

_SCORED_TOGETHER = 128
"""Positions of a row: the logits of a large vocabulary take much memory."""
_ERRORS = 3
"""ONNX Runtime's word for errors only: its warnings are about nodes that nobody who runs a model can change."""

_Values = dict[str, onnxruntime.OrtValue]


class OnnxClassRunner:
    """A classifier or scorer on the CPU.

    Args:
        directory: an export that holds `model.onnx`.
        threads: that work on one call; 0 is one a core.

    Raises:
        UserError: the model cannot be read.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        self._session = _open_session(directory, threads)
        self._has_segments = "token_type_ids" in {given.name for given in self._session.get_inputs()}

    def logits(self, ids_BS: Ids, mask_BS: Ids, segments_BS: Ids | None = None) -> NDArray[np.float32]:
        """logits_BV; `mask_BS` is 1 where there is a token, padding is on the right.

        `segments_BS` is left out for a model that has none; a model that has some takes None as zeros.
        """
        inputs = {"input_ids": ids_BS, "attention_mask": mask_BS}
        if self._has_segments:
            inputs["token_type_ids"] = np.zeros_like(ids_BS) if segments_BS is None else segments_BS
        logits_BV: NDArray[np.float32] = self._session.run(["logits"], inputs)[0]
        return logits_BV


class OnnxTokenRunner:
    """A decoder on the CPU (see `runner.TokenRunner`), whose graph `onnx_decoder.write_decoder` tells.

    Args:
        directory: an export that holds `model.onnx`.
        threads: that work on one call; 0 is one a core.

    Raises:
        UserError: the model cannot be read.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        self._session = _open_session(directory, threads)
        self._pasts = {given.name: given.shape for given in self._session.get_inputs() if given.name.startswith(PAST)}
        self._outputs = [found.name for found in self._session.get_outputs()]

    def continue_prompts(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """Exactly `new_tokens` more tokens for every prompt, the most likely each time, the end token among them."""
        # The graph knows no padding.
        return continue_by_length(prompts, lambda rows: self._continue(np.array(rows, dtype=np.int64), new_tokens))

    def write_on(self, prompt: list[int], written: list[int], new_tokens: int) -> list[int]:
        """What follows a prompt after what it was continued with before, which is read token by token as it was
        written: in 8 bits, what is read at once has other numbers."""
        return self._continue(np.array([prompt], dtype=np.int64), new_tokens, written)[0]

    def nll(self, rows: list[list[int]]) -> list[NDArray[np.float32]]:
        """-log P of every token of a row after its first, given those before it, in nats; one row at a time."""
        return [self._nll_of_row(np.array(row, dtype=np.int64)) for row in rows]

    def _continue(self, ids_BS: Ids, new_tokens: int, written: Sequence[int] = ()) -> list[list[int]]:
        past = self._nothing_read(len(ids_BS))
        new: list[Ids] = []
        for place in range(len(written) + new_tokens):
            logits_BKV, past = self._step(ids_BS, [ids_BS.shape[1] - 1], past)
            ids_BS = logits_BKV[:, -1].argmax(axis=-1)[:, None]
            if place < len(written):
                ids_BS[:] = written[place]
            new.append(ids_BS)
        return np.concatenate(new, axis=1)[:, len(written) :].tolist() if new else [[] for _ in ids_BS]

    def _nll_of_row(self, ids_S: Ids) -> NDArray[np.float32]:
        past = self._nothing_read(1)
        parts = [np.zeros(0, dtype=np.float32)]
        for first in range(0, len(ids_S) - 1, _SCORED_TOGETHER):
            read = ids_S[first : first + _SCORED_TOGETHER]
            expected = ids_S[first + 1 : first + 1 + _SCORED_TOGETHER]
            logits_BKV, past = self._step(read[None], list(range(len(expected))), past)
            parts.append(_cross_entropy(logits_BKV[0], expected))
        return np.concatenate(parts)

    def _nothing_read(self, rows: int) -> _Values:
        # B x heads x tokens x width: only the first and the third vary.
        return {
            name: _to_value(np.zeros((rows, shape[1], 0, shape[3]), dtype=np.float32))
            for name, shape in self._pasts.items()
        }

    def _step(self, ids_BS: Ids, kept_K: list[int], past: _Values) -> tuple[NDArray[np.float32], _Values]:
        """logits_BKV of the positions `kept_K`, and the past with what was read."""
        inputs = {IDS: _to_value(ids_BS), KEPT: _to_value(np.array(kept_K, dtype=np.int64))}
        # As its own values: what it keeps is not copied back and forth.
        logits, *present = self._session.run_with_ort_values(self._outputs, {**inputs, **past})
        return logits.numpy(), dict(zip(self._pasts, present, strict=True))


def _open_session(directory: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS
    try:
        return onnxruntime.InferenceSession(directory / MODEL, sess_options=options, providers=["CPUExecutionProvider"])
    # ONNX Runtime's errors share no class of their own.
    except Exception as error:
        raise UserError(f"{directory / MODEL}: cannot be read ({one_line(error)}); export the model anew") from error


def _to_value(array: NDArray[Any]) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _cross_entropy(logits_KV: NDArray[np.float32], ids_K: Ids) -> NDArray[np.float32]:
    largest_K1 = logits_KV.max(axis=1, keepdims=True)
    sum_K = np.exp(logits_KV - largest_K1).sum(axis=1, dtype=np.float64)
    nll_K: NDArray[np.float32] = (np.log(sum_K) + largest_K1[:, 0] - logits_KV[np.arange(len(ids_K)), ids_K]).astype(
        np.float32
    )
    return nll_K
