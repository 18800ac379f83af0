"""Which products of an ONNX graph lose too much where one scale holds for all activations of a call.

A few activations may be a hundred times as large as the others (behind GELU in BERT's first layers, at the first
token of a Llama), and one scale then leaves the others little. Random tokens show where: which channels are large
follows from the weights far more than from the text.

Shapes: M rows (tokens of all texts), K inputs and N outputs of a product.
"""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from lightpaff.deployment.onnx_runtime import IDS, KEPT, PAST

_WORST = 0.07
"""Root mean square of the relative errors of a product's rows, each over its own norm. Of the demo's student the first
layer's second product has 0.17 and the others at most 0.064; of a 4-layer SmolLM2 four of them have 0.06 to 0.22."""
_TEXTS, _TOKENS = 8, 32
_MOST_OF_8_BITS = 255
_LARGEST_WEIGHT = 64


def sensitive_products(model: onnx.ModelProto, vocabulary: int, longest: int | None) -> set[str]:
    """The names of the nodes whose 8-bit products would be off by more than 7 % on random texts.

    Args:
        model: in float32; with the inputs that `write_classifier` or `write_decoder` give it. Left as it is.
        vocabulary: token ids are below it.
        longest: the most tokens that its positions reach; None where they have no end.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    if not products:
        return set()
    read = _activations(model, sorted({node.input[0] for node in products}), vocabulary, longest)
    return {
        node.name
        for node in products
        if _relative_error(read[node.input[0]], numpy_helper.to_array(weights[node.input[1]])) > _WORST
    }


def _activations(
    model: onnx.ModelProto, names: list[str], vocabulary: int, longest: int | None
) -> dict[str, NDArray[np.float32]]:
    """What the products read when the model reads random tokens, each M x K."""
    graph, given = model.graph, len(model.graph.output)
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    observed = model.SerializeToString()
    del graph.output[given:]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(observed, options, providers=["CPUExecutionProvider"])
    tokens = min(_TOKENS, longest or _TOKENS)
    ids_BS = np.random.default_rng(0).integers(vocabulary, size=(_TEXTS, tokens))
    inputs = {given.name: _input(given, ids_BS) for given in session.get_inputs()}
    return {
        name: found.reshape(-1, found.shape[-1]) for name, found in zip(names, session.run(names, inputs), strict=True)
    }


def _input(given: Any, ids_BS: NDArray[np.int64]) -> NDArray[Any]:
    if given.name.startswith(PAST):
        return np.zeros((len(ids_BS), given.shape[1], 0, given.shape[3]), np.float32)
    known = {IDS: ids_BS, KEPT: np.arange(1), "attention_mask": np.ones_like(ids_BS)}
    return known.get(given.name, np.zeros_like(ids_BS))


def _relative_error(given_MK: NDArray[np.float32], weight_KN: NDArray[np.float32]) -> float:
    """How far the product is off in 8 bits, as ONNX Runtime makes them: activations with one scale from the least to
    the largest, 0 among them; weights with a scale a column, in 7 bits."""
    expected_MN = given_MK @ weight_KN
    unit = (max(given_MK.max(), 0) - min(given_MK.min(), 0)) / _MOST_OF_8_BITS or 1
    units_N = np.abs(weight_KN).max(axis=0) / _LARGEST_WEIGHT
    units_N[units_N == 0] = 1
    found_MN = (np.rint(given_MK / unit) * unit) @ (np.rint(weight_KN / units_N) * units_N)
    norm_M = np.linalg.norm(expected_MN, axis=1)
    error_M = np.linalg.norm(found_MN - expected_MN, axis=1)
    return float(np.sqrt(np.mean((error_M[norm_M > 0] / norm_M[norm_M > 0]) ** 2))) if norm_M.any() else 0.0
