from dataclasses import replace
from typing import Any

import pytest
from transformers import BartConfig, GPT2Config, T5Config

from lightpaff.deployment.shape_plan import MeasuringPlan, check_length, choose_runtime, find_refusals, work_of
from lightpaff.errors import UserError
from lightpaff.runtimes import Runtime, Work

ALL: set[Runtime] = {"pytorch", "onnx", "openvino", "ctranslate2"}
PLAN = MeasuringPlan("classes", "onnx", "int8", length=32, new_tokens=0, beams=1, threads=1)
WRITING = MeasuringPlan("target_tokens", "ctranslate2", "int8", length=8, new_tokens=24, beams=4, threads=1)


@pytest.mark.parametrize(
    ("work", "runtime", "quantisation", "installed", "expected"),
    [
        ("classes", None, None, ALL, ("onnx", "int8")),
        ("classes", None, "bf16", ALL, ("openvino", "bf16")),
        ("classes", None, None, {"pytorch", "openvino"}, ("openvino", "int8")),
        ("classes", "openvino", None, ALL, ("openvino", "int8")),
        ("next_tokens", None, None, ALL, ("onnx", "int8")),
        ("next_tokens", None, None, {"pytorch", "ctranslate2"}, ("ctranslate2", "int8")),
        ("next_tokens", None, "bf16", ALL, ("ctranslate2", "bf16")),
        ("target_tokens", None, "none", ALL, ("ctranslate2", "none")),
        ("target_tokens", "pytorch", None, ALL, ("pytorch", "none")),
    ],
)
def test_runtime(work: Work, runtime: Any, quantisation: Any, installed: Any, expected: tuple[str, str]) -> None:
    assert choose_runtime(work, runtime, quantisation, installed, {}) == expected


@pytest.mark.needs("ctranslate2")
def test_a_runtime_that_takes_no_student_is_passed_over() -> None:
    narrow, wide = (GPT2Config(n_embd=24, n_head=heads, n_layer=1, vocab_size=50) for heads in (2, 3))
    assert find_refusals("next_tokens", [narrow, wide], ALL) == {}
    refusals = find_refusals("next_tokens", [narrow], ALL)
    assert refusals.keys() == {"onnx"}
    assert choose_runtime("next_tokens", None, None, ALL, refusals) == ("ctranslate2", "int8")
    with pytest.raises(UserError, match=r"--runtime onnx: takes none of the students .* 12 wide.*take another"):
        choose_runtime("next_tokens", "onnx", None, ALL, refusals)


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
        choose_runtime(work, runtime, quantisation, installed, {})


def test_lengths() -> None:
    gpt2, bart, t5 = GPT2Config(n_positions=64), BartConfig(max_position_embeddings=32), T5Config()
    assert work_of(gpt2) == "next_tokens"
    plan = replace(PLAN, work="next_tokens", runtime="ctranslate2", length=32, new_tokens=32)
    check_length(gpt2, plan)
    with pytest.raises(UserError, match="--length is 33 and --new-tokens 32: the teacher reads 64 tokens"):
        check_length(gpt2, replace(plan, length=33))
    with pytest.raises(UserError, match="--length is 64: the teacher reads 32"):
        check_length(bart, replace(WRITING, length=64))
    with pytest.raises(UserError, match="--new-tokens is 33: the teacher writes 32"):
        check_length(bart, replace(WRITING, new_tokens=33))
    check_length(t5, replace(WRITING, length=10_000))
