"""What every test needs: no network, one thread, seeded generators, tiny models."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded_and_single_threaded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
