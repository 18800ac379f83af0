from pathlib import Path
from typing import Any

import pytest
from transformers import BartConfig, GPT2Config, T5Config

from lightpaff.deployment.measuring import MeasureSettings, measure
from lightpaff.deployment.shape_building import build_contender
from lightpaff.deployment.shape_plan import MeasuringPlan

WRITING = MeasuringPlan("target_tokens", "ctranslate2", "int8", length=8, new_tokens=24, beams=4, threads=1)
BART = BartConfig(
    d_model=32,
    encoder_layers=2,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    vocab_size=120,
    max_position_embeddings=32,
    pad_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=2,
)
T5 = T5Config(d_model=32, d_kv=16, d_ff=64, num_layers=2, num_decoder_layers=1, num_heads=2, vocab_size=120)


@pytest.mark.needs("ctranslate2")
@pytest.mark.parametrize("config", [BART, T5], ids=["bart", "t5"])
def test_a_random_model_writes_to_the_end(config: Any, tmp_path: Path) -> None:
    before = config.to_dict()
    contender = build_contender(config, WRITING, tmp_path, "shape")
    assert (contender.runtime, contender.quantisation, contender.threads) == ("ctranslate2", "int8", 1)
    settings = MeasureSettings(batch_sizes=(1,), lengths=(8,), new_tokens=24, beams=4, seconds=0.0, least_rounds=2)
    [row] = measure([contender], settings)
    assert row.written == 24
    assert config.to_dict() == before


def test_a_random_decoder_goes_on_to_the_end(tmp_path: Path) -> None:
    plan = MeasuringPlan("next_tokens", "onnx", "int8", length=8, new_tokens=6, beams=1, threads=1)
    config = GPT2Config(vocab_size=120, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    contender = build_contender(config, plan, tmp_path, "shape")
    settings = MeasureSettings(batch_sizes=(1, 2), lengths=(8,), new_tokens=6, seconds=0.0, least_rounds=2)
    for row in measure([contender], settings):
        assert (row.runtime, row.quantisation, row.written) == ("onnx", "int8", 6)
