"""An ONNX graph with weights of 8 bits.

The layers' products become ONNX Runtime's dynamic ones: a weight's columns have a scale each, and activations get
theirs at every call, so that no calibration is needed. An embedding table gets a scale a row: one scale for a whole
table, which is what ONNX Runtime's own quantisation gives it, would suit its few largest rows only. So does a
projection to the vocabulary, which is a table, turned: often the very one that embeds, kept once. A classifier's
products (`Gemm`: its head reads one vector a row) are small and stay in float32.

Processors without VNNI instructions add such products in 16 bits, where large ones saturate.

Shapes: N rows of a table, D hidden.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

_LARGEST = 127


def quantise_graph(graph_file: Path, destination: Path) -> None:
    """Write the graph of `graph_file` with weights of 8 bits to `destination`."""
    model = onnx.load(graph_file)
    quantise_projections(model)
    quantise_tables(model)
    add_pre_process_metadata(model)  # Else it asks for a preparation that these graphs do not need.
    quantize_dynamic(model, destination, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)


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
