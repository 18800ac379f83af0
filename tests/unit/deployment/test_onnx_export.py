"""What an export to ONNX or OpenVINO writes and refuses; that it computes the same: tests/parity."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    LlamaConfig,
)

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.export_onnx import export_onnx, refusal
from lightpaff.deployment.export_openvino import export_openvino
from lightpaff.deployment.int8_graph import quantise_by_blocks, quantise_graph, quantise_projections, quantise_tables
from lightpaff.deployment.onnx_runtime import OnnxClassRunner, OnnxTokenRunner
from lightpaff.deployment.openvino_runtime import OpenVinoClassRunner
from lightpaff.deployment.shape_building import make_tokenizer
from lightpaff.errors import UserError
from lightpaff.runtimes import Quantisation

SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    config = BertConfig(vocab_size=3000, max_position_embeddings=24, num_labels=1, problem_type="regression", **SIZES)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_both_runtimes_score_alike_and_8_bits_are_small(scorer: Path, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("int8", "bf16", "openvino")}
    for folder in folders.values():
        folder.mkdir()
    export_onnx(scorer, folders["int8"], "int8")
    export_openvino(scorer, folders["bf16"], "bf16")
    export_openvino(scorer, folders["openvino"], "int8")
    assert [path.name for path in folders["int8"].iterdir()] == ["model.onnx"]
    assert sorted(path.name for path in folders["bf16"].iterdir()) == ["model.bin", "model.xml"]
    assert {path.name for path in tmp_path.iterdir()} == {"model", *folders}  # Nothing temporary is left.
    assert b".py" not in (folders["int8"] / "model.onnx").read_bytes()  # No path of this machine.
    size = (scorer / "model.safetensors").stat().st_size
    assert (folders["int8"] / "model.onnx").stat().st_size < 0.5 * size
    assert (folders["bf16"] / "model.bin").stat().st_size < 0.6 * size
    assert (folders["openvino"] / "model.bin").stat().st_size < 0.5 * size
    ExportCard("openvino", "bf16", "scores", 24, longest_input=24, source_sha256="").write(folders["bf16"])
    ids_BS = np.random.default_rng(0).integers(3, 3000, size=(3, 9))
    score_B1 = OnnxClassRunner(folders["int8"], 1).logits(ids_BS, np.ones_like(ids_BS))
    assert score_B1.shape == (3, 1)
    ExportCard("openvino", "int8", "scores", 24, longest_input=24, source_sha256="").write(folders["openvino"])
    for name in ("bf16", "openvino"):
        found_B1 = OpenVinoClassRunner(folders[name], 1).logits(ids_BS, np.ones_like(ids_BS))
        np.testing.assert_allclose(found_B1, score_B1, atol=0.02)


def test_the_last_layer_works_at_the_first_token_only(scorer: Path, tmp_path: Path) -> None:
    export_onnx(scorer, tmp_path)
    shapes = [info.type.tensor_type.shape.dim for info in onnx.load(tmp_path / "model.onnx").graph.value_info]
    of_feed_forward = [
        shape for shape in shapes if len(shape) == 3 and shape[2].dim_value == SIZES["intermediate_size"]
    ]
    assert of_feed_forward
    assert all(tokens.dim_value == 1 for _, tokens, _ in of_feed_forward)


def test_what_cannot_be_exported_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json"):
        export_onnx(tmp_path, tmp_path)
    decoder = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2))
    decoder.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="heads of a multiple of 8, and these are 4 wide; export it to another format"):
        export_onnx(tmp_path, tmp_path)


def test_a_decoder_that_a_graph_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GPT2Config(vocab_size=300, n_positions=24, n_embd=16, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "large")
    monkeypatch.setattr("lightpaff.deployment.onnx_decoder.MOST_BYTES", 4 * 300 * 16)
    with pytest.raises(UserError, match="GB of weights in float32, and an ONNX file holds 2; export it to another"):
        export_onnx(tmp_path / "large", tmp_path)
    config = LlamaConfig(
        hidden_size=16,
        num_attention_heads=2,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0},
    )
    assert "(dynamic) depend on how much is read" in refusal(config)


def test_a_decoder_without_its_projection_is_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False)
    AutoModelForCausalLM.from_config(config).transformer.save_pretrained(tmp_path / "trunk")
    with pytest.raises(UserError, match="lacks its projection to the vocabulary"):
        export_onnx(tmp_path / "trunk", tmp_path)


def test_a_large_activation_does_not_spoil_the_others_in_8_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=300, initializer_range=0.4, max_position_embeddings=48, **SIZES)
    model = AutoModelForCausalLM.from_config(config)
    mlp = model.model.layers[0].mlp
    with torch.no_grad():
        # The same function, by way of one unit that is three hundred times as large as the others.
        mlp.up_proj.weight[7] *= 300
        mlp.down_proj.weight[:, 7] /= 300
    model.save_pretrained(tmp_path / "model")
    make_tokenizer(300).save_pretrained(tmp_path / "model")
    rows = np.random.default_rng(1).integers(300, size=(4, 40)).tolist()

    def export(name: str, quantisation: Quantisation) -> np.ndarray:
        (tmp_path / name).mkdir()
        export_onnx(tmp_path / "model", tmp_path / name, quantisation)
        return np.concatenate(OnnxTokenRunner(tmp_path / name, threads=1).nll(rows))

    expected, found = export("float", "none"), export("int8", "int8")
    products = [node.op_type for node in onnx.load(tmp_path / "int8" / "model.onnx").graph.node]
    assert products.count("MatMulNBits") == 1
    monkeypatch.setattr("lightpaff.deployment.int8_sensitivity._WORST", np.inf)
    spoilt = export("spoilt", "int8")
    assert "MatMulNBits" not in [node.op_type for node in onnx.load(tmp_path / "spoilt" / "model.onnx").graph.node]
    assert np.abs(found - expected).mean() < 0.4 * np.abs(spoilt - expected).mean()


def one_product(weight_KN: np.ndarray) -> onnx.ModelProto:
    inputs, outputs = weight_KN.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["given", "weight"], ["found"], name="product")],
        "one product",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["M", inputs])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["M", outputs])],
        [numpy_helper.from_array(weight_KN, "weight")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_products_in_8_bits_do_not_saturate_on_any_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without VNNI, two products are added in 16 bits: 2 x 255 x 127 would not fit, 2 x 255 x 64 does."""
    onnx.save(one_product(np.ones((64, 16), dtype=np.float32)), tmp_path / "float.onnx")
    monkeypatch.setattr("lightpaff.deployment.int8_graph.sensitive_products", lambda *given: set())
    quantise_graph(tmp_path / "float.onnx", tmp_path / "int8.onnx", 10, None)
    [weight] = [tensor for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer if len(tensor.dims) == 2]
    assert np.abs(numpy_helper.to_array(weight).astype(int)).max() == 64
    session = InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    [found_MN] = session.run(None, {"given": np.ones((3, 64), dtype=np.float32)})
    np.testing.assert_allclose(found_MN, 64, rtol=1e-3)


def test_products_by_blocks_are_those_of_float32() -> None:
    random = np.random.default_rng(0)
    weight_KN = random.standard_normal((41, 5), dtype=np.float32)
    weight_KN[:, 2] = 0
    model = one_product(weight_KN)
    quantise_by_blocks(model, {"product"})
    given_MK = random.standard_normal((7, 41), dtype=np.float32)
    given_MK[3, 40] = 500
    [found_MN] = InferenceSession(model.SerializeToString()).run(None, {"given": given_MK})
    expected_MN = given_MK @ weight_KN
    assert np.abs(found_MN[:, 2]).max() < 0.01
    error_M = np.linalg.norm(found_MN - expected_MN, axis=1) / np.linalg.norm(expected_MN, axis=1)
    assert error_M.max() < 0.04


def test_projections_of_8_bits() -> None:
    random = np.random.default_rng(0)
    shapes = {"tied": (9, 4), "alone": (9, 4), "added": (9, 4), "left": (4, 4)}
    tables = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    model = _projection_model(tables)
    inputs = {"ids": np.array([3, 0, 8]), "states": random.standard_normal((3, 4), dtype=np.float32)}
    expected = ReferenceEvaluator(model).run(None, inputs)
    quantise_projections(model)
    for before, after in zip(expected, ReferenceEvaluator(model).run(None, inputs), strict=True):
        np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())
    names = {tensor.name for tensor in model.graph.initializer}
    # One that is used otherwise, or on the left of a product, stays as it is.
    assert names == {"tied_int8", "tied_scale", "alone_int8", "alone_scale", "added", "left"}
    quantise_tables(model)  # Neither are the scales tables.
    assert {tensor.name for tensor in model.graph.initializer} == names


def _projection_model(tables: dict[str, np.ndarray]) -> onnx.ModelProto:
    turned = [helper.make_node("Transpose", [name], [f"{name}_turned"], perm=[1, 0]) for name in tables]
    nodes = [
        *turned,
        helper.make_node("Gather", ["tied", "ids"], ["first"]),
        helper.make_node("Gather", ["tied", "ids"], ["second"]),
        helper.make_node("Add", ["first", "second"], ["rows"]),
        *(helper.make_node("MatMul", ["states", f"{name}_turned"], [f"{name}_out"]) for name in ("tied", "alone")),
        helper.make_node("MatMul", ["states", "added_turned"], ["product"]),
        helper.make_node("ReduceSum", ["added"], ["sum"], keepdims=0),
        helper.make_node("Add", ["product", "sum"], ["added_out"]),
        helper.make_node("Transpose", ["states"], ["states_turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["left_turned", "states_turned"], ["left_out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "projections",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", 4]),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in ("rows", "tied_out", "alone_out", "added_out", "left_out")
        ],
        [numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_decoder_of_8_bits_is_small_and_nearly_the_same(is_tied: bool, tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=2000, n_positions=24, n_embd=32, n_layer=1, n_head=2, tie_word_embeddings=is_tied)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.lm_head.weight[3] *= 30  # A large row: one scale for the whole table would leave nothing of the others.
    model.save_pretrained(tmp_path / "model")
    make_tokenizer(2000).save_pretrained(tmp_path / "model")
    for quantisation in ("none", "int8"):
        (tmp_path / quantisation).mkdir()
        export_onnx(tmp_path / "model", tmp_path / quantisation, quantisation)
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert (tmp_path / "int8" / "model.onnx").stat().st_size < 0.36 * size  # The table is there once.
    rows = [np.random.default_rng(seed).integers(3, 2000, size=20).tolist() for seed in range(4)]
    before, after = (np.concatenate(OnnxTokenRunner(tmp_path / name, 1).nll(rows)) for name in ("none", "int8"))
    assert 0 < np.abs(after - before).mean() < 0.05 * before.std()


def test_a_trunk_without_its_head_is_refused(scorer: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(scorer)
    model.bert.save_pretrained(tmp_path / "trunk")
    with pytest.raises(UserError, match=r"lacks classifier\.bias; give a model that is fine-tuned"):
        export_onnx(tmp_path / "trunk", tmp_path)


def test_a_table_of_8_bits_has_a_scale_a_row() -> None:
    random = np.random.default_rng(0)
    rows_N1 = np.array([[1e-3], [1.0], [100.0], [0.0]], dtype=np.float32)
    table_ND = rows_N1 * random.standard_normal((4, 16), dtype=np.float32)
    shared_ND = random.standard_normal((4, 16), dtype=np.float32)
    model = _gather_model(table_ND, shared_ND)
    ids_B = np.array([3, 0, 2, 1])
    expected_BD, expected_BN = ReferenceEvaluator(model).run(None, {"ids": ids_B})
    quantise_tables(model)
    found_BD, found_BN = ReferenceEvaluator(model).run(None, {"ids": ids_B})
    half_steps_B1 = np.abs(table_ND).max(axis=1, keepdims=True)[ids_B] / 127 / 2
    assert (np.abs(found_BD - expected_BD) <= half_steps_B1 * 1.001).all()
    assert np.abs(found_BD - expected_BD).max() > 0
    np.testing.assert_array_equal(found_BN, expected_BN)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    # A table that is multiplied with as well stays as it is.
    assert types == {"table_int8": TensorProto.INT8, "table_scale": TensorProto.FLOAT, "shared": TensorProto.FLOAT}


def _gather_model(table_ND: np.ndarray, shared_ND: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("Gather", ["shared", "ids"], ["others"]),
            helper.make_node("Gemm", ["others", "shared"], ["products"], transB=1),
        ],
        "tables",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("rows", "products")],
        [numpy_helper.from_array(table_ND, "table"), numpy_helper.from_array(shared_ND, "shared")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
