"""Classifiers in ONNX Runtime. Imports neither torch nor transformers.

Shapes: B rows, S tokens, V classes.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lightpaff.deployment.runner import Ids
from lightpaff.errors import UserError, one_line

MODEL = "model.onnx"


class OnnxClassRunner:
    """A classifier or scorer on the CPU.

    Args:
        directory: an export that holds `model.onnx`.
        threads: that work on one call; 0 is one a core.

    Raises:
        UserError: the model cannot be read.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                directory / MODEL, sess_options=options, providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's errors share no class of their own.
        except Exception as error:
            raise UserError(
                f"{directory / MODEL}: cannot be read ({one_line(error)}); export the model anew"
            ) from error
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
