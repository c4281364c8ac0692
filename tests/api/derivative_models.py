"""Networks of which it is known how their outputs depend on their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from provenn.verifier.graph import Graph

Weights = list[NDArray[np.float32]]


def chain(weights: Weights, biases: Weights, function: str = "Relu") -> bytes:
    """Dense layers [outputs, inputs] with a function between them, as an ONNX file."""
    nodes, constants, value = [], [], "x"
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        constants += [numpy_helper.from_array(np.float32(a), f"{n}{k}") for n, a in (("w", weight), ("b", bias))]
        last = k == len(weights) - 1
        nodes.append(helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], ["y" if last else f"z{k}"], transB=1))
        if not last:
            nodes.append(helper.make_node(function, [f"z{k}"], [f"a{k}"]))
        value = f"a{k}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights[0].shape[1]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weights[-1].shape[0]])
    graph = helper.make_graph(nodes, "chain", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def layers(widths: Sequence[int], seed: int) -> tuple[Weights, Weights]:
    """Random weights and biases."""
    random = np.random.default_rng(seed)
    sizes = list(pairwise(widths))
    weights = [np.float32(random.normal(size=(m, n)) / n**0.5) for n, m in sizes]
    return weights, [np.float32(0.5 * random.normal(size=m)) for _, m in sizes]


def monotone(widths: Sequence[int], seed: int, rising: int, dead: int | None = None) -> tuple[Weights, Weights]:
    """Outputs rise with one input by construction, and are constant in another."""
    weights, biases = layers(widths, seed)
    weights[0][:, rising] = np.abs(weights[0][:, rising]) + 0.01
    for weight in weights[1:]:
        np.abs(weight, out=weight)
    if dead is not None:
        weights[0][:, dead] = 0.0
    return weights, biases


def nearly_monotone(seed: int) -> bytes:
    """5-12-12-1: intervals of derivatives say nothing of input 0, parts do."""
    weights, biases = layers([5, 12, 12, 1], seed)
    weights[0][:, 0] = np.abs(weights[0][:, 0]) + 0.05
    weights[1:] = [np.float32(0.5 * weight + 0.25 * np.abs(weight) + 0.05) for weight in weights[1:]]
    return chain(weights, biases)


def values(graph: Graph, points: Tensor) -> Tensor:
    """[points, outputs] at [points, inputs]."""
    return graph.forward(points.reshape(-1, *graph.input_shape)).flatten(1)


def differences(graph: Graph, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Derivatives by central differences: [points, outputs, inputs]."""
    step, middle = 1e-6, torch.tensor(points)
    moves = step * torch.eye(points.shape[1], dtype=torch.float64)
    columns = [(values(graph, middle + move) - values(graph, middle - move)) / (2 * step) for move in moves]
    return torch.stack(columns, 2).numpy()


def derivatives(graph: Graph, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same by automatic differentiation."""
    inputs = torch.tensor(points).requires_grad_()
    outputs = values(graph, inputs)
    rows = [torch.autograd.grad(column.sum(), inputs, retain_graph=True)[0] for column in outputs.T]
    return torch.stack(rows, 1).numpy()
