"""The precision of training is the faster one of the machine."""

import pytest
import torch

from lightpaff.training import device
from lightpaff.training.device import fastest_precision


@pytest.mark.parametrize(
    ("has_bf16", "has_tiles", "vendor", "expected"),
    [
        (True, False, "AuthenticAMD", True),
        (True, True, "GenuineIntel", True),
        (True, False, "GenuineIntel", False),
        (False, False, "AuthenticAMD", False),
        (False, False, "GenuineIntel", False),
    ],
)
def test_bf16_is_taken_where_it_is_faster(
    has_bf16: bool, has_tiles: bool, vendor: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
    monkeypatch.setattr(device, "processor_maker", lambda: vendor)
    assert fastest_precision("cpu") == ("bf16" if expected else "float32")
