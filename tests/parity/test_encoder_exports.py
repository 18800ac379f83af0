"""An exported classifier computes what the transformers model computes, for every encoder architecture.

Shapes: B rows, S tokens, V classes.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.int8_graph import quantise_graph
from lightpaff.deployment.onnx_classifier import write_classifier
from lightpaff.deployment.onnx_runtime import MODEL, OnnxClassRunner
from lightpaff.deployment.openvino_int8 import quantise_model
from lightpaff.deployment.openvino_runtime import OpenVinoClassRunner
from lightpaff.deployment.runner import ClassRunner
from lightpaff.models.encoder import logits_of
from lightpaff.models.families import architecture_of
from lightpaff.runtimes import Format, Quantisation

VOCABULARY, LONGEST, LABELS = 97, 40, 3
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": LONGEST,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    # Positions are counted from the padding token's id on.
    "xlm-roberta": SIZES | {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1, "type_vocab_size": 1},
    "mpnet": SIZES | {"max_position_embeddings": LONGEST + 2},
    "deberta-v2": SIZES
    | {
        "max_position_embeddings": LONGEST,
        "pooler_hidden_size": SIZES["hidden_size"],
        "relative_attention": True,
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
    "camembert": SIZES | {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1, "type_vocab_size": 1},
    "roberta": SIZES | {"max_position_embeddings": LONGEST + 2, "pad_token_id": 1, "type_vocab_size": 1},
    "electra": SIZES | {"embedding_size": 16},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 48,
        "max_position_embeddings": LONGEST,
    },
    # A window smaller than the sequence, so that the local layers differ from the global ones.
    "modernbert": SIZES
    | {"num_hidden_layers": 4, "local_attention": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    | {"cls_token_id": 1, "sep_token_id": 2},
}
SEGMENTED = ("bert", "electra")
BATCHES = [(1, 1), (1, 40), (3, 17), (8, 5)]


class Exported:
    """One architecture: its model, and its graph."""

    def __init__(self, architecture: str, folder: Path, auto_class: Any = AutoModelForSequenceClassification) -> None:
        self.architecture, self.folder = architecture, folder
        labels = 2 if auto_class is AutoModelForQuestionAnswering else LABELS
        config = AutoConfig.for_model(
            architecture, vocab_size=VOCABULARY, num_labels=labels, **ARCHITECTURES[architecture]
        )
        torch.manual_seed(0)
        model = auto_class.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            # Fresh biases are 0 and norms 1: a forgotten one would not show.
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.save_pretrained(folder / "model")
        self.model = model
        self.onnx = folder / "onnx"
        self.onnx.mkdir()
        write_classifier(folder / "model", self.onnx / MODEL)

    def expected(self, ids_BS: Any, mask_BS: Any, segments_BS: Any) -> NDArray[np.float32]:
        inputs = {"input_ids": torch.from_numpy(ids_BS), "attention_mask": torch.from_numpy(mask_BS)}
        if self.architecture in SEGMENTED:
            inputs["token_type_ids"] = torch.from_numpy(segments_BS)
        with torch.no_grad():
            logits: NDArray[np.float32] = logits_of(self.model(**inputs)).numpy()
        return logits


# PyTorch's exporter takes its time: make test-slow has every architecture.
@pytest.fixture(
    scope="module",
    params=["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES if name != "bert")],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(request.param, tmp_path_factory.mktemp(request.param))


def make_batch(rows: int, tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ids, mask and segments; every row but the first is padded."""
    random = np.random.default_rng(rows * 100 + tokens)
    lengths_B = np.r_[tokens, random.integers(1, tokens + 1, size=rows - 1)]
    mask_BS = (np.arange(tokens) < lengths_B[:, None]).astype(np.int64)
    ids_BS = random.integers(3, VOCABULARY, size=(rows, tokens)) * mask_BS
    segments_BS = (np.arange(tokens) >= lengths_B[:, None] // 2) * mask_BS
    return ids_BS, mask_BS, segments_BS


def write_openvino(exported: Exported, quantisation: Quantisation, name: str = "alone") -> ClassRunner:
    import openvino

    folder = exported.folder / f"openvino-{quantisation}-{name}"
    folder.mkdir()
    graph = openvino.Core().read_model(exported.onnx / MODEL)
    if quantisation == "int8":
        quantise_model(graph)
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=quantisation == "bf16")
    write_card(folder, "openvino", quantisation)
    return OpenVinoClassRunner(folder, threads=1)


def write_card(folder: Path, format_: Format, quantisation: Quantisation) -> None:
    labels = [str(number) for number in range(LABELS)]
    ExportCard(format_, quantisation, "classes", LONGEST, longest_input=LONGEST, source_sha256="", labels=labels).write(
        folder
    )


def test_onnx_in_float32_is_the_model(exported: Exported) -> None:
    runner = OnnxClassRunner(exported.onnx, threads=1)
    for rows, tokens in BATCHES:
        batch = make_batch(rows, tokens)
        expected_BV = exported.expected(*batch)
        np.testing.assert_allclose(runner.logits(*batch), expected_BV, atol=1e-4, rtol=1e-4)
    assert expected_BV.std(axis=0).min() > 1e-2  # Rows differ, so agreement means something.


def test_segments_reach_the_models_that_have_some(exported: Exported) -> None:
    runner = OnnxClassRunner(exported.onnx, threads=1)
    ids_BS, mask_BS, segments_BS = make_batch(3, 17)
    alone_BV, pairs_BV = runner.logits(ids_BS, mask_BS), runner.logits(ids_BS, mask_BS, segments_BS)
    assert (np.abs(pairs_BV - alone_BV).max() > 1e-3) == (exported.architecture in SEGMENTED)


def test_openvino_in_float32_is_the_model(exported: Exported) -> None:
    runner = write_openvino(exported, "none")
    for rows, tokens in BATCHES:
        batch = make_batch(rows, tokens)
        np.testing.assert_allclose(runner.logits(*batch), exported.expected(*batch), atol=1e-4, rtol=1e-4)


def test_several_threads_get_their_own_answers(exported: Exported) -> None:
    runners = [OnnxClassRunner(exported.onnx, threads=1), write_openvino(exported, "none", "threads")]
    batches = [make_batch(1, tokens) for tokens in range(4, 34)] * 4
    for runner in runners:
        expected = [runner.logits(*batch) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda batch, runner=runner: runner.logits(*batch), batches))
        np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-5)


def test_openvino_in_bfloat16_is_near_the_model(exported: Exported) -> None:
    runner, batch = write_openvino(exported, "bf16"), make_batch(64, 17)
    check_near(runner.logits(*batch), exported.expected(*batch))


def test_openvino_in_8_bits_is_near_the_model(exported: Exported) -> None:
    runner, batch = write_openvino(exported, "int8"), make_batch(64, 17)
    expected_BV = exported.expected(*batch)
    found_BV = runner.logits(*batch)
    check_near(found_BV, expected_BV)
    assert np.abs(found_BV - expected_BV).max() > 1e-4  # It is not float32 under another name.


def test_onnx_in_8_bits_is_near_the_model(exported: Exported) -> None:
    folder = exported.folder / "int8"
    folder.mkdir()
    quantise_graph(exported.onnx / MODEL, folder / MODEL, VOCABULARY, LONGEST)
    batch = make_batch(64, 17)
    expected_BV = exported.expected(*batch)
    found_BV = OnnxClassRunner(folder, threads=1).logits(*batch)
    check_near(found_BV, expected_BV)
    assert np.abs(found_BV - expected_BV).max() > 1e-4  # It is not float32 under another name.


def check_near(found_BV: NDArray[np.float32], expected_BV: NDArray[np.float32]) -> None:
    """The same class but where two are near each other."""
    second_B, first_B = np.sort(expected_BV)[:, -2:].T
    is_clear_B = first_B - second_B > 0.1 * expected_BV.std()
    assert is_clear_B.mean() > 0.7
    same_B = found_BV.argmax(1) == expected_BV.argmax(1)
    assert same_B[is_clear_B].mean() > 0.95
    assert np.abs(found_BV - expected_BV).mean() < 0.1 * expected_BV.std()


def test_attention_is_fused_and_8_bits_are_everywhere(exported: Exported) -> None:
    graph = onnx.load(exported.onnx / MODEL).graph
    operators = Counter(node.op_type for node in graph.node)
    layers = exported.model.config.num_hidden_layers
    # MPNet's and DeBERTa's add to the scores what depends on two tokens' distance, and stay as they are written.
    is_fused = architecture_of(exported.model.config).has_sdpa
    assert (operators["MultiHeadAttention"], operators["Softmax"]) == ((layers, 0) if is_fused else (0, layers))
    folder = exported.folder / "operators"
    folder.mkdir()
    quantise_graph(exported.onnx / MODEL, folder / MODEL, VOCABULARY, LONGEST)
    quantised = onnx.load(folder / MODEL).graph
    products = Counter(node.op_type for node in quantised.node)
    assert products["MatMulInteger"] + products["MatMulNBits"] >= 4 * layers
    embedding = next(tensor for tensor in quantised.initializer if VOCABULARY in tensor.dims and tensor.dims[-1] > 1)
    assert embedding.data_type == onnx.TensorProto.INT8


@pytest.mark.parametrize(
    "architecture",
    ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES if name != "bert")],
)
@pytest.mark.parametrize("auto_class", [AutoModelForTokenClassification, AutoModelForQuestionAnswering])
def test_taggers_and_extractors_have_logits_for_every_token(architecture: str, auto_class: Any, tmp_path: Path) -> None:
    exported = Exported(architecture, tmp_path, auto_class)
    runner = OnnxClassRunner(exported.onnx, threads=1)
    for rows, tokens in BATCHES:
        ids_BS, mask_BS, segments_BS = make_batch(rows, tokens)
        found_BSV = runner.logits(ids_BS, mask_BS, segments_BS)
        assert found_BSV.shape == (rows, tokens, LABELS if auto_class is AutoModelForTokenClassification else 2)
        is_read_BS = mask_BS.astype(bool)
        expected_BSV = exported.expected(ids_BS, mask_BS, segments_BS)
        np.testing.assert_allclose(found_BSV[is_read_BS], expected_BSV[is_read_BS], rtol=1e-4, atol=1e-4)
