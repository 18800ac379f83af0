from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import BartConfig, BertConfig, GPT2Config, T5Config

from lightpaff.deployment import shape_measuring
from lightpaff.deployment.runtimes import Runtime, Work
from lightpaff.deployment.shape_measuring import (
    MeasuringPlan,
    check_length,
    choose_runtime,
    describe_measurement,
    measure_config,
    work_of,
)
from lightpaff.errors import UserError

ALL: set[Runtime] = {"pytorch", "onnx", "openvino", "ctranslate2"}
PLAN = MeasuringPlan("classes", "onnx", "int8", length=32, new_tokens=0, beams=1, threads=1)
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


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_measuring, "_SECONDS", 0.0)
    monkeypatch.setattr(shape_measuring, "_MOST_PROCESSES", 2)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("config", [BART, T5], ids=["bart", "t5"])
def test_a_random_model_writes_to_the_end(config: Any) -> None:
    timing = measure_config(config, WRITING)
    assert timing.written == 24
    assert timing.median_ms > 0
    assert timing.rounds >= 7


@pytest.mark.parametrize(
    ("medians", "expected", "is_steady"),
    [
        ([5.0, 5.2], 5.1, True),
        ([9.0, 5.0, 5.2], 5.1, True),
        ([3.0, 9.0, 9.2], 9.1, True),
        ([4.0, 6.0, 8.0, 9.0, 11.0], 8.5, False),
    ],
)
def test_repeats_until_times_agree(
    medians: list[float], expected: float, is_steady: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(medians)

    def measure(*_: Any) -> list[Any]:
        return [SimpleNamespace(bytes=1, median_ms=next(left), p95_ms=9.0, rounds=7, written=0.0)]

    monkeypatch.setattr(shape_measuring, "measure", measure)
    config = BertConfig(vocab_size=90, hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64)
    timing = measure_config(config, replace(PLAN, runtime="pytorch", quantisation="none"))
    assert (timing.median_ms, timing.is_steady) == (pytest.approx(expected), is_steady)
    assert list(left) == []


@pytest.mark.parametrize(
    ("work", "runtime", "quantisation", "installed", "expected"),
    [
        ("classes", None, None, ALL, ("onnx", "int8")),
        ("classes", None, "bf16", ALL, ("openvino", "bf16")),
        ("classes", None, None, {"pytorch", "openvino"}, ("openvino", "bf16")),
        ("classes", "openvino", None, ALL, ("openvino", "bf16")),
        ("next_tokens", None, None, ALL, ("ctranslate2", "int8")),
        ("target_tokens", None, "none", ALL, ("ctranslate2", "none")),
        ("target_tokens", "pytorch", None, ALL, ("pytorch", "none")),
    ],
)
def test_runtime(work: Work, runtime: Any, quantisation: Any, installed: Any, expected: tuple[str, str]) -> None:
    assert choose_runtime(work, runtime, quantisation, installed) == expected


@pytest.mark.parametrize(
    ("work", "runtime", "quantisation", "installed", "message"),
    [
        ("classes", None, None, {"pytorch"}, r'pip install "lightpaff\[export\]"'),
        ("classes", "ctranslate2", None, ALL, "take onnx or openvino or pytorch"),
        ("classes", "onnx", None, {"pytorch"}, "--runtime onnx: is not installed"),
        ("classes", "onnx", "bf16", ALL, "--quantise bf16: onnx has no such models; take int8 or none"),
    ],
)
def test_refusals(work: Work, runtime: Any, quantisation: Any, installed: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_runtime(work, runtime, quantisation, installed)


def test_lengths() -> None:
    gpt2 = GPT2Config(n_positions=64)
    assert work_of(gpt2) == "next_tokens"
    plan = replace(PLAN, work="next_tokens", runtime="ctranslate2", length=32, new_tokens=32)
    check_length(gpt2, plan)
    with pytest.raises(UserError, match="--length is 33 and --new-tokens 32: the teacher reads 64 tokens"):
        check_length(gpt2, replace(plan, length=33))
    with pytest.raises(UserError, match="--length is 64: the teacher reads 32"):
        check_length(BART, replace(WRITING, length=64))
    with pytest.raises(UserError, match="--new-tokens is 33: the teacher writes 32"):
        check_length(BART, replace(WRITING, new_tokens=33))
    check_length(T5, replace(WRITING, length=10_000))


def test_what_a_measurement_is_kept_under() -> None:
    key = describe_measurement(BertConfig(), PLAN)
    assert describe_measurement(BertConfig(hidden_dropout_prob=0.5), PLAN) == key
    assert describe_measurement(BertConfig(num_hidden_layers=3), PLAN) != key
    assert describe_measurement(BertConfig(), replace(PLAN, threads=2)) != key
    assert {"lightpaff", "onnxruntime"} <= set(key["versions"])
