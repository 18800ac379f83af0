"""An ONNX graph with weights of 8 bits.

The layers' products become ONNX Runtime's dynamic ones: a weight's columns have a scale each, and activations get
theirs at every call, so that no calibration is needed. An embedding table gets a scale a row: one scale for a whole
table, which is what ONNX Runtime's own quantisation gives it, would suit its few largest rows only. The head's products
(`Gemm`: it reads one vector a row) are small and stay in float32.

Processors without VNNI instructions add such products in 16 bits, where large ones saturate.

Shapes: N rows of a table, D hidden.
"""

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
    quantise_tables(model)
    add_pre_process_metadata(model)  # Else it asks for a preparation that these graphs do not need.
    quantize_dynamic(model, destination, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)


def quantise_tables(model: onnx.ModelProto) -> None:
    """Replace every table of float32 that only rows are gathered from by one of 8 bits with a scale a row."""
    graph = model.graph
    tables = {tensor.name: tensor for tensor in graph.initializer if _is_table(tensor)}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if not (_gathers_rows(node) and place == 0):
                tables.pop(name, None)
    nodes = [
        new
        for node in graph.node
        for new in (_gather_of_8_bits(node) if _gathers_rows(node) and node.input[0] in tables else [node])
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    for name, tensor in tables.items():
        graph.initializer.extend(_quantise_rows(name, numpy_helper.to_array(tensor)))
        graph.initializer.remove(tensor)


def _is_table(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2


def _gathers_rows(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gather" and all(attribute.i == 0 for attribute in node.attribute)


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
