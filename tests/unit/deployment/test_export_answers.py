"""What an export answers to batches.

Shapes: B rows, S tokens, V classes.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lightpaff.deployment import export_answers
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.export_answers import ExportAnswers
from lightpaff.runtimes import Format, Quantisation


class Summing:
    """Answers with the sum of all that it is given at once: rows that come together change each other's answers."""

    def logits(self, ids_BS: Any, mask_BS: Any, segments_BS: Any = None) -> Any:
        return np.full((len(ids_BS), 1), ids_BS.sum(), dtype=np.float32)


@pytest.mark.parametrize(
    ("format_", "quantisation", "expected"),
    [("onnx", "int8", [5, 13]), ("onnx", "none", [18, 18]), ("openvino", "int8", [18, 18])],
)
def test_in_onnx_s_8_bits_each_row_is_asked_alone(
    format_: Format, quantisation: Quantisation, expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ExportCard(format_, quantisation, "scores", 8, longest_input=8, source_sha256="").write(tmp_path)
    monkeypatch.setattr(export_answers, "open_export", lambda card, directory: Summing())
    batch: Any = SimpleNamespace(
        inputs={
            "input_ids": torch.tensor([[2, 3, 0], [4, 4, 5]]),
            "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        }
    )
    assert ExportAnswers(tmp_path).logits(batch).flatten().tolist() == expected
