"""Small networks as ONNX files, their exact values in rationals, and certificates of them to break."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from math import lcm
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from provenn.verifier.certificate.emit import emit
from provenn.verifier.certificate.slopes import CaseSlopes
from provenn.verifier.check import Network, read_network
from provenn.verifier.check.manifest import sealed
from provenn.verifier.check.network import Affine, Elementwise, MaxPool

Array = np.ndarray
DIGITS = 60


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: Mapping[str, Array],
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """A model from `x` of this shape to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


class Random:
    """A random network: its file, and its exact function on rationals."""

    def __init__(self, seed: int, widths: Sequence[int], kinds: Sequence[str], scale: float = 1.0) -> None:
        generator = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.stages: list[Callable[[Array], Array]] = []
        name, width = "x", widths[0]
        for layer, (new, kind) in enumerate(zip(widths[1:], [*kinds, "none"], strict=True)):
            weight = (scale * generator.normal(size=(new, width)) / np.sqrt(width)).astype(np.float32)
            bias = (0.3 * generator.normal(size=new)).astype(np.float32)
            last = layer == len(widths) - 2
            name = self._linear(name, weight, bias, "y" if last else f"z{layer}")
            if not last:
                name = self._nonlinear(name, kind, f"a{layer}", new, generator)
            width = new

    def _linear(self, source: str, weight: Array, bias: Array, name: str) -> str:
        self.constants |= {f"{name}.w": weight, f"{name}.b": bias}
        self.nodes.append(helper.make_node("Gemm", [source, f"{name}.w", f"{name}.b"], [name], transB=1))
        exact_weight, exact_bias = rationals(weight), rationals(bias)
        self.stages.append(lambda x: exact_weight @ x + exact_bias)
        return name

    def _nonlinear(self, source: str, kind: str, name: str, width: int, generator: np.random.Generator) -> str:
        scalar: Callable[[Fraction], Fraction]
        if kind == "residual":
            weight = (generator.normal(size=(width, width)) / width).astype(np.float32)
            self.constants[f"{name}.r"] = weight
            self.nodes.append(helper.make_node("Relu", [source], [f"{name}.relu"]))
            self.nodes.append(helper.make_node("MatMul", [f"{name}.relu", f"{name}.r"], [f"{name}.back"]))
            self.nodes.append(helper.make_node("Add", [source, f"{name}.back"], [name]))
            exact = rationals(weight)
            relu = np.frompyfunc(lambda v: max(v, Fraction(0)), 1, 1)
            self.stages.append(lambda x: x + relu(x) @ exact)
            return name
        if kind == "pool":
            shaped, pooled = f"{name}.shaped", f"{name}.pooled"
            self.constants |= {f"{name}.s": np.array([1, 1, -1]), f"{name}.f": np.array([1, -1])}
            self.nodes.append(helper.make_node("Reshape", [source, f"{name}.s"], [shaped]))
            self.nodes.append(
                helper.make_node("MaxPool", [shaped], [pooled], kernel_shape=[3], strides=[1], pads=[1, 1])
            )
            self.nodes.append(helper.make_node("Reshape", [pooled, f"{name}.f"], [name]))
            self.stages.append(lambda x: np.array([max(x[max(i - 1, 0) : i + 2]) for i in range(len(x))], dtype=object))
            return name
        if kind == "relu":
            self.nodes.append(helper.make_node("Relu", [source], [name]))
            scalar = lambda v: max(v, Fraction(0))  # noqa: E731
        elif kind == "leaky":
            self.nodes.append(helper.make_node("LeakyRelu", [source], [name], alpha=0.25))
            scalar = lambda v: v if v > 0 else v / 4  # noqa: E731
        elif kind == "clip":
            self.constants |= {f"{name}.lo": np.float32(-0.25), f"{name}.hi": np.float32(0.5)}
            self.nodes.append(helper.make_node("Clip", [source, f"{name}.lo", f"{name}.hi"], [name]))
            scalar = lambda v: min(max(v, Fraction(-1, 4)), Fraction(1, 2))  # noqa: E731
        else:
            self.nodes.append(helper.make_node({"tanh": "Tanh", "sigmoid": "Sigmoid"}[kind], [source], [name]))
            scalar = tanh if kind == "tanh" else sigmoid
        elementwise = np.frompyfunc(scalar, 1, 1)
        self.stages.append(lambda x: elementwise(x))
        return name

    def file(self) -> bytes:
        width = next(iter(self.constants.values())).shape[1]
        return model(self.nodes, [1, width], self.constants)

    def exact(self, x: Sequence[Fraction]) -> list[Fraction]:
        value = np.array(list(x), dtype=object)
        for stage in self.stages:
            value = stage(value)
        return list(value)


def rationals(array: Any) -> Array:
    """Exact values of floats, as an object array."""
    flat = np.array([Fraction(float(v)) for v in np.asarray(array).ravel()], dtype=object)
    return flat.reshape(np.asarray(array).shape)


@lru_cache(maxsize=256)
def whole(step: Affine) -> tuple[Array, int, Array]:
    """(M, D, b): the step's matrix is M / D, for whole numbers M and D, its bias b."""
    matrix = rationals(step.matrix if isinstance(step.matrix, np.ndarray) else step.matrix.toarray())
    below = max((v.denominator for v in matrix.flat), default=1)  # they are powers of two
    return (
        np.array([int(v * below) for v in matrix.flat], dtype=object).reshape(matrix.shape),
        below,
        rationals(step.bias),
    )


def exact_affine(step: Affine, x: Array) -> Array:
    """W x + b of rationals, over one denominator: that of every sum of two fractions would cost a common divisor."""
    matrix, below, bias = whole(step)
    common = lcm(*(v.denominator for v in x))
    numerators = np.array([v.numerator * (common // v.denominator) for v in x], dtype=object)
    return np.array([Fraction(n, below * common) for n in matrix @ numerators], dtype=object) + bias


def sigmoid(v: Fraction) -> Fraction:
    """1 / (1 + exp(-v)) to about 10^-55."""
    if abs(v) > 200:
        return Fraction(int(v > 0))
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction(1 / (1 + (-(Decimal(v.numerator) / Decimal(v.denominator))).exp()))


def tanh(v: Fraction) -> Fraction:
    """tanh to about 10^-50."""
    return 2 * sigmoid(2 * v) - 1


def forward(network: Network, x: Array) -> Array:
    """The network's value in float64, through the kernel's steps."""
    values = [np.asarray(x, np.float64).ravel()]
    for step in network.steps[1:]:
        inputs = np.concatenate([values[i] for i in step.sources])
        if isinstance(step, Affine):
            values.append(step.matrix @ inputs + step.bias)
        elif isinstance(step, MaxPool):
            values.append(np.where(step.windows < 0, -np.inf, inputs[step.windows]).max(axis=1))
        else:
            assert isinstance(step, Elementwise)
            enclosure = step.function(inputs, inputs)
            values.append(enclosure.values[0])
    return values[network.output]


def box_specification(lower: Sequence[Any], upper: Sequence[Any], clauses: Sequence[Any]) -> Any:
    """A specification of kind "box"; clauses: (rows C, d)."""
    unsafe = [{"C": [[str(c) for c in row] for row in C], "d": [str(v) for v in d]} for C, d in clauses]
    text = {
        "format": "provenn-specification/1",
        "kind": "box",
        "lower": [str(v) for v in lower],
        "upper": [str(v) for v in upper],
        "unsafe": unsafe,
    }
    return specification(text)


def specification(content: Mapping[str, Any] | bytes) -> Any:
    """What `emit` needs of a specification."""
    if isinstance(content, bytes):
        return SimpleNamespace(text=content, form="vnnlib")
    return SimpleNamespace(text=json.dumps(content).encode(), form="json")


def certificate(method: str = "crown", slopes: Any = None) -> tuple[dict[str, bytes], bytes, Random]:
    """A certificate over two clauses, the second of two rows, of a small ReLU network; its model; the network."""
    network = Random(3, [3, 6, 6, 3], ["relu", "relu"])
    data = network.file()
    low, high = [Fraction(-1, 10)] * 3, [Fraction(1, 10)] * 3
    middle = network.exact([Fraction(0)] * 3)
    clauses = [
        ([[1, 0, 0]], [middle[0] + 2]),
        ([[1, -1, 0], [0, 0, 1]], [middle[0] - middle[1] - 5, middle[2] + 3]),
    ]
    own = [CaseSlopes(shared=slopes)] if slopes else []
    made = emit(read_network(data), box_specification(low, high, clauses), method, {"provenn": "0"}, own)
    return made, data, network


def resealed(files: Mapping[str, bytes], change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """The certificate with its manifest changed and sealed again."""
    content = json.loads(files["manifest.json"])
    content.pop("sha256")
    change(content)
    return {**files, "manifest.json": sealed(content)}


def repacked(files: Mapping[str, bytes], change: Callable[[dict[str, Array]], None]) -> dict[str, bytes]:
    """The certificate with its payload changed and all digests recomputed."""
    from provenn.verifier.certificate.payload import write_payload
    from provenn.verifier.check.manifest import read_payload

    tensors = {name: array.copy() for name, array in read_payload(files["payload.safetensors"]).items()}
    change(tensors)
    return with_payload(files, write_payload(tensors))


def with_payload(files: Mapping[str, bytes], payload: bytes) -> dict[str, bytes]:
    """The certificate with another payload and its digest."""

    def digest(content: dict[str, Any]) -> None:
        content["payload"]["sha256"] = hashlib.sha256(payload).hexdigest()

    return resealed({**files, "payload.safetensors": payload}, digest)
