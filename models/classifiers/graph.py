"""A fitted classifier -> ONNX: scaler, layers, calibration and novelty as one small graph.

Built node by node: skl2onnx gives no logits for scikit-learn's MLP, and calibration and novelty are
no part of its pipelines. Plain operators only, so that any runtime runs it. Letters: `B` batch,
`D` embedding dim, `K` classes, `R` references.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.classifiers.calibration import Scaling
from models.classifiers.estimators import Fitted
from models.classifiers.novelty import EPS, References

OPSET = 20
IR_VERSION = 10  # what ONNX Runtime 1.20 reads


class _Graph:
    """Nodes and constants in the order in which they were added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output


def build(
    fitted: Fitted, scaling: Scaling, references: References, *, multi_label: bool
) -> onnx.ModelProto:
    """The graph: `embedding` (B, D) -> `probabilities`, `logits` (B, K), `novelty` (B,)."""
    graph = _Graph()
    _score(graph, fitted, scaling, multi_label)
    _measure_novelty(graph, references)
    embed_dim, n_classes = len(fitted.scaler.mean_), len(scaling.scale)
    outputs = [
        _tensor("probabilities", ["batch", n_classes]),
        _tensor("logits", ["batch", n_classes]),
        _tensor("novelty", ["batch"]),
    ]
    inputs = [_tensor("embedding", ["batch", embed_dim])]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "classifier", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="viola",
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _score(graph: _Graph, fitted: Fitted, scaling: Scaling, multi_label: bool) -> None:
    """Scaler, layers with ReLU between, calibration."""
    mean = graph.constant("mean", _float32(fitted.scaler.mean_))
    deviation = graph.constant("deviation", _float32(fitted.scaler.scale_))
    centred = graph.add("Sub", ["embedding", mean], "centred")
    value = graph.add("Div", [centred, deviation], "scaled")
    for index, layer in enumerate(fitted.layers):
        if index:
            value = graph.add("Relu", [value], f"hidden_{index}")
        weights = graph.constant(f"weights_{index}", _float32(layer.weights))
        shift = graph.constant(f"shift_{index}", _float32(layer.shift))
        value = graph.add("Gemm", [value, weights, shift], f"layer_{index}")
    scale = graph.constant("calibration_scale", _float32(scaling.scale))
    shift = graph.constant("calibration_shift", _float32(scaling.shift))
    sharpened = graph.add("Mul", [value, scale], "sharpened")
    graph.add("Add", [sharpened, shift], "logits")
    if multi_label:
        graph.add("Sigmoid", ["logits"], "probabilities")
    else:
        graph.add("Softmax", ["logits"], "probabilities", axis=1)


def _measure_novelty(graph: _Graph, references: References) -> None:
    """One minus the cosine to the nearest reference; they are stored as float16."""
    axis = graph.constant("axis", np.array([1], np.int64))
    eps = graph.constant("eps", _float32(np.array(EPS)))
    one = graph.constant("one", _float32(np.array(1.0)))
    stored = graph.constant("references", np.ascontiguousarray(references.vectors.T))
    known = graph.add("Cast", [stored], "known", to=TensorProto.FLOAT)  # (D, R)
    length = graph.add("ReduceL2", ["embedding", axis], "length", keepdims=1)
    divisor = graph.add("Max", [length, eps], "divisor")
    unit = graph.add("Div", ["embedding", divisor], "unit")
    cosines = graph.add("MatMul", [unit, known], "cosines")  # (B, R)
    nearest = graph.add("ReduceMax", [cosines, axis], "nearest", keepdims=0)
    distance = graph.add("Sub", [one, nearest], "distance")
    graph.add("Relu", [distance], "novelty")  # float16 may put a reference beyond length 1


def _tensor(name: str, shape: list[str | int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)
