"""OpenVINO graphs with weights of 8 bits, in the form that its CPU plugin multiplies in 8 bits.

A weight is kept with a scale for each of its outputs, and so is every row of an embedding table. The activations get
theirs as the graph runs (`ACTIVATION_GROUP`), where the processor has products of bytes; elsewhere the weights are
turned back into floating point.

Shapes: N rows of a table, D hidden, O outputs, I inputs of a product.
"""

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

ACTIVATION_GROUP = 128
"""So many of a token's activations share a scale: measured as fast as whole rows, and a few large ones spoil less."""
_LEAST = 16
_LARGEST = 127


def quantise_model(model: openvino.Model) -> None:
    """Keep every weight of a product and every table that rows are gathered from in 8 bits."""
    for node in model.get_ordered_ops():
        if (place := _place_of_weight(node)) is None:
            continue
        weight = node.input(place).get_source_output()
        # A head of few classes costs nothing, and decides all.
        if weight.get_node().get_type_name() == "Constant" and min(weight.get_shape()) >= _LEAST:
            node.input(place).replace_source_output(_in_8_bits(weight.get_node().data, _axis_of_scale(node)))


def _place_of_weight(node: openvino.Node) -> int | None:
    """Which input of a node may be a weight of two dimensions; None for other nodes."""
    place = {"MatMul": 1, "Gather": 0}.get(node.get_type_name())
    return place if place is not None and len(node.input(place).get_partial_shape()) == 2 else None


def _axis_of_scale(node: openvino.Node) -> int:
    """The axis over which one scale holds: D of N x D, I of O x I or of I x O."""
    return 1 if node.get_type_name() == "Gather" or node.get_attributes()["transpose_b"] else 0


def _in_8_bits(weight: NDArray[np.float32], axis: int) -> openvino.Output:
    scale = np.abs(weight).max(axis=axis, keepdims=True) / _LARGEST
    scale[scale == 0] = 1  # A row of zeros, as padding has.
    stored = opset13.constant(np.rint(weight / scale).astype(np.int8))
    return opset13.multiply(opset13.convert(stored, "f32"), opset13.constant(scale.astype(np.float32))).output(0)
