"""Functions of one number as exporters write them: one op of the graph each, with the numbers of the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from provenn.models.onnx_reader import read
from provenn.models.torch_export import export
from provenn.verifier.errors import InvalidModel
from provenn.verifier.graph import Graph


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes[1:]]


def before(graph: Graph, index: int) -> list[str]:
    """The ops that lead to a node."""
    node = graph.nodes[index]
    return [] if node.op is None else [k for i in node.inputs for k in before(graph, i)] + [type(node.op).__name__]


def agrees(data: bytes, graph: Graph, x: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    ours = graph.forward(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-6)


def numbers(*shape: int, positive: bool = False) -> np.ndarray:
    x = 2 * np.random.default_rng(5).standard_normal(shape)
    return (np.abs(x) + 0.1 if positive else x).astype(np.float32)


EXPORTED: list[tuple[Callable[[Tensor], Tensor], list[str]]] = [
    (nn.GELU(), ["Gelu"]),
    (nn.GELU("tanh"), ["GeluTanh"]),
    (nn.SiLU(), ["Silu"]),
    (nn.Mish(), ["Mish"]),
    (nn.Hardswish(), ["HardSwish"]),
    (nn.Hardsigmoid(), ["Scale", "Clip"]),
    (nn.Softsign(), ["Softsign"]),
    (nn.Softplus(), ["Softplus"]),
    (nn.Softplus(2.0), ["Scale", "Softplus", "Scale"]),
    (nn.LogSigmoid(), ["Scale", "Softplus", "Scale"]),
    (nn.ELU(0.5), ["Elu"]),
    (nn.CELU(2.0), ["Elu"]),
    (nn.SELU(), ["Elu"]),
    (nn.ReLU6(), ["Clip"]),
    (nn.Hardtanh(), ["Clip"]),
    (nn.PReLU(4), ["PRelu"]),
    (nn.Tanhshrink(), ["Tanh", "Sub"]),
    (lambda x: x * torch.sigmoid(1.702 * x), ["Silu"]),
    (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), ["Gelu"]),
    (lambda x: 0.5 * x * (1 + torch.tanh(0.7978846 * (x + 0.044715 * x**3))), ["GeluTanh"]),
    (lambda x: x * torch.tanh(nn.functional.softplus(x)), ["Mish"]),
    (lambda x: 3 * x * nn.functional.hardsigmoid(x), ["HardSwish", "Scale"]),
    (lambda x: (x + 1) * torch.sigmoid(2 * (x + 1)), ["Scale", "Silu"]),
    (lambda x: -2 * x / (1 + torch.abs(x)), ["Softsign", "Scale"]),
    (torch.expm1, ["Exp", "Scale"]),
    (torch.exp2, ["Scale", "Exp"]),
    (lambda x: x**2, ["Pow"]),
    (lambda x: x**3, ["Pow"]),
    (torch.abs, ["Abs"]),
    (torch.round, ["Round"]),
    (torch.atan, ["Atan"]),
    (torch.sin, ["Sin"]),
    (torch.cosh, ["Cosh"]),
]

POSITIVE: list[tuple[Callable[[Tensor], Tensor], list[str]]] = [
    (torch.log1p, ["Scale", "Log"]),
    (torch.sqrt, ["Sqrt"]),
    (lambda x: x**2.5, ["Pow"]),
    (lambda x: x**0.5, ["Sqrt"]),
    (torch.reciprocal, ["Reciprocal"]),
    (lambda x: 1 / x, ["Reciprocal"]),
]


class All(nn.Module):
    """Every function of a list, side by side."""

    def __init__(self, functions: list[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions
        self.parts = nn.ModuleList([f for f in functions if isinstance(f, nn.Module)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([function(x) for function in self.functions], 1)


@pytest.mark.xdist_group("torch export")
@pytest.mark.parametrize("positive", (False, True))
def test_what_torch_exports(positive: bool) -> None:
    rows = POSITIVE if positive else EXPORTED
    data = export(All([function for function, _ in rows]), (4,))
    graph = read(data)
    assert [before(graph, part) for part in graph.nodes[-1].inputs] == [expected for _, expected in rows]
    agrees(data, graph, numbers(6, 4, positive=positive))


def single(kind: str, shape: Sequence[int], *operands: np.ndarray, opset: int = 20, **attributes: Any) -> bytes:
    names = ["x"] + [f"c{i}" for i in range(len(operands))]
    constants = [numpy_helper.from_array(a, n) for a, n in zip(operands, names[1:], strict=True)]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([helper.make_node(kind, names, ["y"], **attributes)], "one", [x], [y], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "attributes", "expected"),
    [
        ("Gelu", {}, ["Gelu"]),
        ("Gelu", {"approximate": "tanh"}, ["GeluTanh"]),
        ("Mish", {}, ["Mish"]),
        ("HardSwish", {}, ["HardSwish"]),
        ("HardSigmoid", {}, ["Scale", "Clip"]),
        ("HardSigmoid", {"alpha": 0.5, "beta": 0.25}, ["Scale", "Clip"]),
        ("Selu", {}, ["Elu"]),
        ("Elu", {"alpha": 0.0}, ["Relu"]),
        ("Celu", {}, ["Elu"]),
    ],
)
def test_single_nodes(kind: str, attributes: dict[str, Any], expected: list[str]) -> None:
    data = single(kind, (None, 3, 2), **attributes)
    graph = read(data)
    assert kinds(graph) == expected
    agrees(data, graph, numbers(5, 3, 2))


def test_swish_of_the_newest_operator_set() -> None:
    graph = read(single("Swish", (None, 3), opset=24, alpha=0.5))
    x = torch.from_numpy(numbers(4, 3)).double()
    torch.testing.assert_close(graph.forward(x), x * torch.sigmoid(0.5 * x))


@pytest.mark.parametrize("slope", [(1,), (3, 1, 1), (1, 3, 1, 1), (2,), (3, 2, 2), ()])
def test_prelu_slopes_broadcast(slope: tuple[int, ...]) -> None:
    data = single("PRelu", (None, 3, 2, 2), numbers(*slope))
    graph = read(data)
    agrees(data, graph, numbers(4, 3, 2, 2))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (single("Pow", (None, 2), np.array([1.0, 2.0], np.float32)), "differs from element to element"),
        (single("Pow", (None, 2), np.array(0.0, np.float32)), "exponent 0"),
        (single("Pow", (None, 1), np.full(3, 2.0, np.float32)), "repeats the other operand"),
        (single("Elu", (None, 2), alpha=-1.0), "not positive"),
        (single("Swish", (None, 2), opset=24, alpha=-1.0), "not positive"),
        (single("Gelu", (None, 2), approximate="other"), "approximation"),
        (single("PRelu", (None, 2), np.ones((5, 2), np.float32)), "does not fit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_forms_that_are_not_read_are_named(data: bytes, match: str) -> None:
    with pytest.raises(InvalidModel, match=match):
        read(data)
