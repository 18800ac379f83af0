"""An ONNX graph with weights of 8 bits.

The layers' products become ONNX Runtime's dynamic ones: a weight's columns have a scale each, and activations get
theirs at every call, one for all tokens. Where a few large activations would spoil that (see `int8_sensitivity.py`),
every 32 of a token's get their own (`MatMulNBits`): as small, and 1.3 to 1.8 times as slow (AMD with VNNI). An
embedding table gets a scale a row: one scale for a whole table, which is what ONNX Runtime's own quantisation gives it,
would suit its few largest rows only. So does a projection to the vocabulary, which is a table, turned: often the very
one that embeds, kept once.

Processors without VNNI instructions add two such products in 16 bits, where large ones saturate. So weights keep to 7
of the 8 bits (ONNX Runtime's `reduce_range`): an export answers alike on every processor. Of the demo's student on
2,000 sentences (AMD with AVX2 only) the logits' error is 0.029 in place of 0.048; with VNNI 8 bits would give 0.027.

Shapes: N rows of a table, D hidden.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from lightpaff.deployment.int8_sensitivity import sensitive_products

_LARGEST = 127
_ZERO = 128
"""What `MatMulNBits` takes off its unsigned weights."""
_BLOCK = 32
_ACTIVATIONS_OF_8_BITS = 4
"""MatMulNBits's `accuracy_level`."""


def quantise_graph(graph_file: Path, destination: Path, vocabulary: int, longest: int | None) -> None:
    """Write the graph of `graph_file` with weights of 8 bits to `destination`.

    Args:
        vocabulary, longest: see `sensitive_products`.
    """
    model = onnx.load(graph_file)
    sensitive = sensitive_products(model, vocabulary, longest)
    quantise_projections(model)
    quantise_tables(model)
    quantise_by_blocks(model, sensitive)
    add_pre_process_metadata(model)  # Else it asks for a preparation that these graphs do not need.
    quantize_dynamic(
        model,
        destination,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def quantise_projections(model: onnx.ModelProto) -> None:
    """Replace every table of float32 that is multiplied with, turned, by one of 8 bits with a scale a row.

    Rows may be gathered from it as well; where it has another use, it stays.
    """
    graph = model.graph
    uses = _uses_by_input(graph)
    replaced: dict[str, list[onnx.NodeProto]] = {}
    for tensor in [tensor for tensor in graph.initializer if _is_table(tensor)]:
        turns = [node for node in uses[tensor.name] if _turns(node)]
        gathers = [node for node in uses[tensor.name] if _gathers_rows(node) and node.input[0] == tensor.name]
        products = [product for turn in turns for product in uses[turn.output[0]]]
        is_other = len(turns) + len(gathers) < len(uses[tensor.name])
        turned = {turn.output[0] for turn in turns}
        if not turns or is_other or not all(_multiplies_with(product, turned) for product in products):
            continue
        _store_rows_of_8_bits(graph, tensor)
        for turn in turns:
            turn.input[0] = f"{tensor.name}_int8"
            _forget_type(graph, turn.output[0])
        replaced |= {node.output[0]: _gather_of_8_bits(node) for node in gathers}
        replaced |= {node.output[0]: _product_of_8_bits(node, f"{tensor.name}_scale") for node in products}
    _replace_nodes(graph, replaced)


def quantise_tables(model: onnx.ModelProto) -> None:
    """Replace every table of float32 that only rows are gathered from by one of 8 bits with a scale a row."""
    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer if _is_table(tensor)}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if not (_gathers_rows(node) and place == 0):
                tables.pop(name, None)
    gathers = [node for node in graph.node if _gathers_rows(node) and node.input[0] in tables]
    _replace_nodes(graph, {node.output[0]: _gather_of_8_bits(node) for node in gathers})
    for tensor in tables.values():
        _store_rows_of_8_bits(graph, tensor)


def quantise_by_blocks(model: onnx.ModelProto, names: set[str]) -> None:
    """Replace the products of these names, with weights of float32, by such as give every 32 weights and activations a
    scale of their own."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.name in names]
    for name in {node.input[1] for node in products}:
        _store_blocks_of_8_bits(graph, weights[name])
    _replace_nodes(
        graph, {node.output[0]: [_product_by_blocks(node, weights[node.input[1]].dims)] for node in products}
    )


def _uses_by_input(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    uses: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            uses[name].append(node)
    return uses


def _replace_nodes(graph: onnx.GraphProto, by_output: dict[str, list[onnx.NodeProto]]) -> None:
    """Put other nodes in the places of those with these first outputs."""
    nodes = [new for node in graph.node for new in by_output.get(node.output[0], [node])]
    # Copies: taking the old ones out of the graph empties them.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _store_rows_of_8_bits(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> None:
    graph.initializer.extend(_quantise_rows(tensor.name, numpy_helper.to_array(tensor)))
    graph.initializer.remove(tensor)


def _forget_type(graph: onnx.GraphProto, name: str) -> None:
    for known in [known for known in graph.value_info if known.name == name]:
        graph.value_info.remove(known)


def _is_table(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2 and tensor.dims[1] > 1


def _gathers_rows(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gather" and all(attribute.i == 0 for attribute in node.attribute)


def _turns(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and [list(attribute.ints) for attribute in node.attribute] == [[1, 0]]


def _multiplies_with(node: onnx.NodeProto, turned: set[str]) -> bool:
    return node.op_type == "MatMul" and node.input[1] in turned and node.input[0] not in turned


def _quantise_rows(name: str, table_ND: np.ndarray) -> list[onnx.TensorProto]:
    scale_N1 = np.abs(table_ND).max(axis=1, keepdims=True) / _LARGEST
    scale_N1[scale_N1 == 0] = 1  # A row of zeros, as padding has.
    return [
        numpy_helper.from_array(np.rint(table_ND / scale_N1).astype(np.int8), f"{name}_int8"),
        numpy_helper.from_array(scale_N1.astype(np.float32), f"{name}_scale"),
    ]


def _gather_of_8_bits(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    table, ids = node.input
    found = node.output[0]
    return [
        helper.make_node("Gather", [f"{table}_int8", ids], [f"{found}_int8"]),
        helper.make_node("Cast", [f"{found}_int8"], [f"{found}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}_scale", ids], [f"{found}_scale"]),
        helper.make_node("Mul", [f"{found}_float", f"{found}_scale"], [found]),
    ]


def _store_blocks_of_8_bits(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> None:
    """Each output's weights in blocks, the last one filled up with zeros, as `MatMulNBits` reads them."""
    weight_NK = numpy_helper.to_array(tensor).T
    outputs, inputs = weight_NK.shape
    blocks_NBC = np.pad(weight_NK, ((0, 0), (0, -inputs % _BLOCK))).reshape(outputs, -1, _BLOCK)
    scale_NB1 = np.abs(blocks_NBC).max(axis=2, keepdims=True) / _LARGEST
    scale_NB1[scale_NB1 == 0] = 1
    stored_NBC = (np.rint(blocks_NBC / scale_NB1) + _ZERO).astype(np.uint8)
    graph.initializer.append(numpy_helper.from_array(stored_NBC, f"{tensor.name}_blocks"))
    graph.initializer.append(numpy_helper.from_array(scale_NB1.astype(np.float32).ravel(), f"{tensor.name}_scales"))
    graph.initializer.remove(tensor)


def _product_by_blocks(node: onnx.NodeProto, shape: Sequence[int]) -> onnx.NodeProto:
    given, weight = node.input
    return helper.make_node(
        "MatMulNBits",
        [given, f"{weight}_blocks", f"{weight}_scales"],
        [node.output[0]],
        domain="com.microsoft",
        K=shape[0],
        N=shape[1],
        bits=8,
        block_size=_BLOCK,
        accuracy_level=_ACTIVATIONS_OF_8_BITS,
    )


def _product_of_8_bits(node: onnx.NodeProto, scale: str) -> list[onnx.NodeProto]:
    """A product with a table that is turned already: activations get one scale at every call."""
    given, table = node.input
    found = node.output[0]
    return [
        helper.make_node(
            "DynamicQuantizeLinear", [given], [f"{found}_given", f"{found}_given_scale", f"{found}_given_zero"]
        ),
        helper.make_node("MatMulInteger", [f"{found}_given", table, f"{found}_given_zero"], [f"{found}_int32"]),
        helper.make_node("Cast", [f"{found}_int32"], [f"{found}_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", [scale], [f"{found}_scale"], perm=[1, 0]),
        helper.make_node("Mul", [f"{found}_given_scale", f"{found}_scale"], [f"{found}_unit"]),
        helper.make_node("Mul", [f"{found}_float", f"{found}_unit"], [found]),
    ]
