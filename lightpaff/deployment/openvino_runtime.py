"""Classifiers in OpenVINO. Imports neither torch nor transformers.

Shapes: B rows, S tokens, V classes.
"""

import threading
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.openvino_int8 import ACTIVATION_GROUP
from lightpaff.deployment.runner import Ids
from lightpaff.errors import UserError, one_line

MODEL = "model.xml"

# Said in every case: left to itself, OpenVINO computes in bfloat16 wherever the processor can.
_PRECISIONS = {"none": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoClassRunner:
    """A classifier or scorer on the CPU.

    Args:
        directory: an export that holds `export.json`, `model.xml` and `model.bin`.
        threads: that work on one call; 0 is one a core.

    Raises:
        UserError: the model cannot be read.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        precision = _PRECISIONS[ExportCard.read(directory).quantisation]
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": ACTIVATION_GROUP,
        }
        try:
            compiled = openvino.Core().compile_model(directory / MODEL, "CPU", settings)
        except RuntimeError as error:
            raise UserError(
                f"{directory / MODEL}: cannot be read ({one_line(error)}); export the model anew"
            ) from error
        self._has_segments = "token_type_ids" in {given.any_name for given in compiled.inputs}
        self._request, self._alone = compiled.create_infer_request(), threading.Lock()

    def logits(self, ids_BS: Ids, mask_BS: Ids, segments_BS: Ids | None = None) -> NDArray[np.float32]:
        """logits_BV; `mask_BS` is 1 where there is a token, padding is on the right.

        `segments_BS` is left out for a model that has none; a model that has some takes None as zeros.
        """
        inputs = {"input_ids": ids_BS, "attention_mask": mask_BS}
        if self._has_segments:
            inputs["token_type_ids"] = np.zeros_like(ids_BS) if segments_BS is None else segments_BS
        # The request writes its next answer into the same memory: it is copied before another thread may ask.
        with self._alone:
            return np.array(self._request.infer(inputs)["logits"], dtype=np.float32)
