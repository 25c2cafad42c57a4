"""The heavy layers of an encoder's graph, and the same graph with them in eight bits.

Rounding is written with ONNX's own QuantizeLinear and DequantizeLinear around float layers, which
ONNX Runtime fuses into integer kernels and any other runtime computes as it stands. Affine
quantisation with weights per output channel, as in arXiv 1712.05877, sec. 2. Scales are constants
of the file: scales that followed the batch would let a vector depend on its neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

WEIGHT_BITS = 7
"""Processors without VNNI add two products of uint8 and int8 in 16 bits: with weights of 7 bits
2 * 255 * 63 fits, with 8 bits it may not, and the vector would depend on the processor."""

_ACTIVATION_STEPS = 255
_LARGEST_BIAS = 2**30  # of the 32 bits in which products are summed


class Range(NamedTuple):
    """Smallest and largest value seen of a tensor."""

    low: float
    high: float


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product with constant weights.

    Attributes:
        node: its name in the graph.
        operator: Conv or MatMul.
        shape: of the weights.
        input: the tensor that it reads.
        output: the tensor that it writes.
        weights: name of its weights.
        axis: output channels of the weights.
        bias: name of its bias; None: the graph adds it in float.
        relu: the ReLU that follows, at most behind max-pooling, which commutes with it.
    """

    node: str
    operator: str
    shape: tuple[int, ...]
    input: str
    output: str
    weights: str
    axis: int
    bias: str | None = None
    relu: str | None = None

    @property
    def is_rounded_behind(self) -> bool:
        """Whether its output is rounded as well: kernels of convolutions write eight bits."""
        return self.operator == "Conv"


def heavy_layers(graph: Any, least_channels: int = 2) -> list[Layer]:
    """The layers that are worth eight bits, in order.

    Matrices of constants that the features are multiplied by, and convolutions in two dimensions of
    more than one channel: of one, they are slower in eight bits (benchmarks/levers.py). The
    log-mel, whose powers span more than eight bits, has its constants on the left.
    """
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if len(node.input) < 2 or node.input[1] not in constants:
            continue
        shape = constants[node.input[1]]
        known = (node.name, node.op_type, shape, node.input[0], node.output[0], node.input[1])
        if node.op_type == "MatMul" and len(shape) == 2:
            found.append(Layer(*known, axis=1))
        elif node.op_type == "Conv" and len(shape) == 4 and shape[1] >= least_channels:
            bias = node.input[2] if len(node.input) > 2 else None
            found.append(Layer(*known, axis=0, bias=bias, relu=_relu(graph, node.output[0])))
    return found


def tensors(layers: Sequence[Layer]) -> list[str]:
    """The tensors whose range `rounded` asks for."""
    names = [layer.input for layer in layers]
    names += [layer.output for layer in layers if layer.is_rounded_behind]
    return list(dict.fromkeys(names))


def rounded(
    proto: onnx.ModelProto,
    layers: Sequence[Layer],
    ranges: Mapping[str, Range],
    weight_bits: int = WEIGHT_BITS,
) -> tuple[onnx.ModelProto, list[NDArray[Any]]]:
    """The graph with `layers` in eight bits, and every number that this put into it, in order."""
    quantized = onnx.ModelProto()
    quantized.CopyFrom(proto)
    rewriting = _Rewriting(quantized.graph, ranges, weight_bits)
    rewriting.run({layer.node: layer for layer in layers})
    onnx.checker.check_model(quantized)
    return quantized, rewriting.numbers


class _Rewriting:
    """One pass over a graph's nodes; what it puts in is named after the tensor it belongs to."""

    def __init__(self, graph: Any, ranges: Mapping[str, Range], weight_bits: int) -> None:
        self.graph = graph
        self.ranges = ranges
        self.largest_weight = 2 ** (weight_bits - 1) - 1
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.numbers: list[NDArray[Any]] = []
        self.nodes: list[Any] = []
        self.scales: dict[str, np.float32] = {}  # of the tensors that are rounded already

    def run(self, layers: Mapping[str, Layer]) -> None:
        relus = {layer.relu for layer in layers.values()}
        others: dict[str, str] = {}  # what is read instead of a tensor
        for node in list(self.graph.node):
            for index, name in enumerate(node.input):
                node.input[index] = others.get(name, name)
            if node.name in relus:  # rounding to a range from 0 has done it
                others[node.output[0]] = node.input[0]
            elif node.name in layers:
                layer = layers[node.name]
                self._layer(node, layer)
                if layer.is_rounded_behind:
                    others[layer.output] = self._activation(layer.output, layer.output, layer.relu)
            else:
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.constants.values() if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(kept)

    def _layer(self, node: Any, layer: Layer) -> None:
        node.input[0] = self._activation(layer.input, node.input[0])
        input_scale = self.scales[layer.input]
        weights = numpy_helper.to_array(self.constants[layer.weights])
        channels = np.moveaxis(weights, layer.axis, 0).reshape(weights.shape[layer.axis], -1)
        scale = np.abs(channels).max(axis=1) / self.largest_weight
        if layer.bias is not None:
            bias = numpy_helper.to_array(self.constants[layer.bias])
            scale = np.maximum(scale, np.abs(bias) / input_scale / _LARGEST_BIAS)
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        node.input[1] = self._constant(layer.weights, weights, scale, np.int8, layer.axis)
        if layer.bias is not None:
            node.input[2] = self._constant(layer.bias, bias, scale * input_scale, np.int32, 0)
        self.nodes.append(node)

    def _activation(self, tensor: str, source: str, relu: str | None = None) -> str:
        """Round `source`, once for all that read it, to the range that `tensor` had."""
        if tensor not in self.scales:
            low = 0.0 if relu else min(self.ranges[tensor].low, 0.0)
            high = max(self.ranges[tensor].high, 0.0)
            scale = np.float32((high - low) / _ACTIVATION_STEPS) or np.float32(1)
            self.scales[tensor] = scale
            zero = np.array(np.rint(-low / scale), np.uint8)
            parameters = [
                self._add(f"{tensor}_scale", np.array(scale)),
                self._add(f"{tensor}_zero", zero),
            ]
            integers = f"{tensor}_uint8"
            self._node("QuantizeLinear", [source, *parameters], integers)
            self._node("DequantizeLinear", [integers, *parameters], f"{tensor}_rounded")
        return f"{tensor}_rounded"

    def _constant(
        self, name: str, values: NDArray[Any], scale: NDArray[Any], kind: Any, axis: int
    ) -> str:
        """Integers and their scale by output channel in the place of a float constant."""
        shape = [-1 if index == axis else 1 for index in range(values.ndim)]
        integers = np.rint(values / scale.reshape(shape)).astype(kind)
        inputs = [
            self._add(f"{name}_integers", integers),
            self._add(f"{name}_scale", scale.astype(np.float32)),
            self._add(f"{name}_zero", np.zeros(len(scale), kind)),
        ]
        return self._node("DequantizeLinear", inputs, f"{name}_rounded", axis=axis)

    def _add(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        self.numbers.append(value)
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output


def _relu(graph: Any, tensor: str) -> str | None:
    """The ReLU that alone reads `tensor`, or its maxima."""
    readers = [node for node in graph.node if tensor in node.input]
    if len(readers) != 1:
        return None
    (reader,) = readers
    if reader.op_type == "MaxPool":
        return _relu(graph, reader.output[0])
    return str(reader.name) if reader.op_type == "Relu" else None
