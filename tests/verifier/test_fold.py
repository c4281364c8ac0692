"""Folding changes the nodes and not the function, nor makes interval bounds looser."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from provenn.verifier.bounds.interval import propagate
from provenn.verifier.fold import folded
from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Add, Scale
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.conv import Conv, ConvTranspose
from provenn.verifier.ops.linear import LeftLinear, Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Pad, Reshape, Transpose

Shape = tuple[int, ...]
GENERATOR = torch.Generator().manual_seed(3)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def same_function(graph: Graph, other: Graph) -> None:
    x = numbers(5, *graph.input_shape)
    torch.testing.assert_close(other.forward(x), graph.forward(x), rtol=1e-12, atol=1e-12)
    assert other.output_shape == graph.output_shape
    assert len({n.name for n in other.nodes}) == len(other.nodes)
    assert [n.shape for n in other.nodes[1:]] == [tuple(v.shape[1:]) for v in values(other)[1:]]


def values(graph: Graph) -> list[Tensor]:
    found = [numbers(1, *graph.input_shape)]
    for node in graph.nodes[1:]:
        assert node.op is not None
        found.append(node.op.forward(*(found[i] for i in node.inputs)))
    return found


def kinds(graph: Graph) -> list[str]:
    return [type(n.op).__name__ for n in graph.nodes[1:]]


def scale(weight: Shape, bias: Shape) -> Scale:
    return Scale(numbers(*weight), numbers(*bias))


def conv(outer: int, inner: int, padding: Shape = (0, 0, 0, 0), groups: int = 1) -> Conv:
    return Conv(numbers(outer, inner // groups, 2, 3), numbers(outer), (1, 1), padding, (1, 1), groups)


def spread(inner: int, outer: int, padding: Shape = (0, 0, 0, 0), groups: int = 1) -> ConvTranspose:
    weight = numbers(inner, outer // groups, 3, 2)
    return ConvTranspose(weight, numbers(outer), (2, 1), padding, (1, 0), (1, 1), groups)


IMAGE = (4, 5, 6)
ZERO, ONE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)

RULES: dict[str, tuple[Shape, list[Op], list[str]]] = {
    "linear, scale": ((3, 4), [Linear(numbers(5, 4), numbers(5)), scale((5,), (1, 5))], ["Linear"]),
    "linear, scalar": ((4,), [Linear(numbers(5, 4), numbers(5)), scale((), (1,))], ["Linear"]),
    "linear, rows": ((3, 4), [Linear(numbers(5, 4), numbers(5)), scale((3, 1), (5,))], ["Linear", "Scale"]),
    "linear, enlarging": ((3, 4), [Linear(numbers(5, 4), numbers(5)), scale((2, 1, 1), ())], ["Linear", "Scale"]),
    "scale, linear": ((3, 4), [scale((4,), (1, 4)), Linear(numbers(5, 4), numbers(5))], ["Linear"]),
    "scale of rows, linear": ((3, 4), [scale((4,), (3, 1)), Linear(numbers(5, 4), numbers(5))], ["Scale", "Linear"]),
    "enlarging scale, linear": ((1,), [scale((4,), ()), Linear(numbers(5, 4), numbers(5))], ["Scale", "Linear"]),
    "scale, left linear": ((4, 3), [scale((), ()), LeftLinear(numbers(5, 4))], ["Scale", "LeftLinear"]),
    "conv, scale": (IMAGE, [conv(6, 4, (1, 1, 0, 2)), scale((6, 1, 1), (6, 1, 1))], ["Conv"]),
    "grouped conv, scale": (IMAGE, [conv(6, 4, groups=2), scale((6, 1, 1), ())], ["Conv"]),
    "conv, cells": (IMAGE, [conv(6, 4), scale((4,), (6, 1, 1))], ["Conv", "Scale"]),
    "scale, conv": (IMAGE, [scale((4, 1, 1), (4, 1, 1)), conv(6, 4)], ["Conv"]),
    "scale, grouped conv": (IMAGE, [scale((4, 1, 1), (1, 1, 1)), conv(6, 4, groups=2)], ["Conv"]),
    "shift, padded conv": (IMAGE, [scale((4, 1, 1), (4, 1, 1)), conv(6, 4, (0, 0, 1, 0))], ["Scale", "Conv"]),
    "scale, padded conv": (IMAGE, [Scale(numbers(4, 1, 1), ZERO), conv(6, 4, (0, 0, 1, 0))], ["Conv"]),
    "cropping conv": (IMAGE, [scale((4, 1, 1), (4, 1, 1)), conv(6, 4, (-1, 0, 0, -1))], ["Conv"]),
    "spread, scale": (IMAGE, [spread(4, 6), scale((6, 1, 1), (6, 1, 1))], ["ConvTranspose"]),
    "grouped spread, scale": (IMAGE, [spread(4, 6, (1, 0, 0, 1), 2), scale((6, 1, 1), ())], ["ConvTranspose"]),
    "scale, spread": (IMAGE, [Scale(numbers(4, 1, 1), ZERO), spread(4, 6)], ["ConvTranspose"]),
    "scale, grouped spread": (IMAGE, [Scale(numbers(4, 1, 1), ZERO), spread(4, 6, groups=2)], ["ConvTranspose"]),
    "shift, spread": (IMAGE, [scale((), (4, 1, 1)), spread(4, 6)], ["Scale", "ConvTranspose"]),
    "scale, scale": (IMAGE, [scale((4, 1, 1), ()), scale((4, 1, 1), (4, 1, 1)), scale((), ())], ["Scale"]),
    "crossing scales": (IMAGE, [scale((4, 1, 1), ()), scale((6,), ())], ["Scale", "Scale"]),
    "zeros, conv": (IMAGE, [Pad((0, 1, 0, 0, 2, 1), 0.0), conv(6, 4, (1, 0, 0, 0))], ["Conv"]),
    "ones, conv": (IMAGE, [Pad((0, 1, 0, 0, 2, 1), 1.0), conv(6, 4)], ["Pad", "Conv"]),
    "channels, conv": (IMAGE, [Pad((1, 0, 0, 1, 0, 0), 0.0), conv(6, 6)], ["Pad", "Conv"]),
    "cropped, conv": (IMAGE, [Pad((0, -1, 0, 0, 0, 0), 0.0), conv(6, 4, (1, 0, 0, 0))], ["Pad", "Conv"]),
    "reshapes": (IMAGE, [Reshape((20, 6)), Reshape((2, 60)), Relu()], ["Reshape", "Relu"]),
    "reshapes back": (IMAGE, [Relu(), Reshape((20, 6)), Reshape(IMAGE)], ["Relu"]),
    "transposes": (IMAGE, [Transpose((1, 2, 0)), Transpose((1, 0, 2)), Relu()], ["Transpose", "Relu"]),
    "transposes back": (IMAGE, [Relu(), Transpose((1, 2, 0)), Transpose((2, 0, 1))], ["Relu"]),
    "nothing": (IMAGE, [Scale(ONE, ZERO), Reshape(IMAGE), Transpose((0, 1, 2)), Relu()], ["Relu"]),
    "nothing but larger": ((1, 3), [Scale(ONE, torch.zeros(2, 1).double()), Relu()], ["Scale", "Relu"]),
    "flattened": (
        IMAGE,
        [Relu(), scale((4, 1, 1), (6,)), Reshape((120,)), Linear(numbers(3, 120), numbers(3))],
        ["Relu", "Reshape", "Linear"],
    ),
    "enlarged, flattened": (
        (1, 4),
        [Relu(), scale((3, 4), ()), Reshape((12,)), Linear(numbers(3, 12), numbers(3))],
        ["Relu", "Scale", "Reshape", "Linear"],
    ),
    "flattened scalar": (
        (2, 3),
        [scale((), ()), Reshape((6,)), Linear(numbers(3, 6), numbers(3))],
        ["Reshape", "Linear"],
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_keeps_the_function(name: str) -> None:
    shape, ops, expected = RULES[name]
    graph = sequential(shape, ops)
    short = folded(graph)
    same_function(graph, short)
    assert kinds(short) == expected


def test_what_two_nodes_read_is_not_folded() -> None:
    linear, shift = Linear(numbers(4, 4), numbers(4)), scale((4,), (4,))
    nodes = (
        Node("x", None, (), (4,)),
        Node("matrix", linear, (0,), (4,)),
        Node("shifted", shift, (1,), (4,)),
        Node("sum", Add(), (1, 2), (4,)),
    )
    short = folded(Graph(nodes))
    assert [n.name for n in short.nodes] == ["x", "matrix", "shifted", "sum"]
    same_function(Graph(nodes), short)


def test_a_node_read_twice_by_one_is_not_folded() -> None:
    nodes = (
        Node("x", None, (), (4,)),
        Node("matrix", Linear(numbers(4, 4), numbers(4)), (0,), (4,)),
        Node("same", Reshape((4,)), (1,), (4,)),
        Node("double", Add(), (1, 2), (4,)),
        Node("scaled", scale((4,), (4,)), (3,), (4,)),
    )
    short = folded(Graph(nodes))
    assert [n.name for n in short.nodes] == ["x", "matrix", "double", "scaled"]
    same_function(Graph(nodes), short)


def test_names_are_those_of_the_later_nodes() -> None:
    ops = [Linear(numbers(4, 4), numbers(4)), scale((4,), ()), Relu(), Reshape((2, 2)), Reshape((4,))]
    assert [n.name for n in folded(sequential((4,), ops)).nodes] == ["input", "Scale_1", "Relu_2"]


def test_products_that_overflow_are_left_apart() -> None:
    huge = Scale(torch.full((4,), 1e300, dtype=torch.float64), ZERO)
    graph = sequential((4,), [Linear(1e300 * torch.eye(4).double(), torch.zeros(4).double()), huge])
    assert kinds(folded(graph)) == ["Linear", "Scale"]


def grown(kind: str, shape: Shape) -> Op:
    """An op for a node of `shape`, three axes long."""
    channels, height, width = shape
    if kind == "conv":
        groups = 2 if channels % 2 == 0 else 1
        return Conv(numbers(4, channels // groups, 1, 1), numbers(4), (1, 1), (0, 0, 1, 0), (1, 1), groups)
    made: dict[str, Op] = {
        "channels": scale((channels, 1, 1), (channels, 1, 1)),
        "cells": scale((width,), (height, 1)),
        "scalar": scale((), ()),
        "one": Scale(ONE, ZERO),
        "linear": Linear(numbers(3, width), numbers(3)),
        "transpose": Transpose((2, 0, 1)),
        "reshape": Reshape((height, width, channels)),
        "pad": Pad((0, 1, 0, 0, 0, 1), 0.0),
        "relu": Relu(),
    }
    return made[kind]


KINDS = ["conv", "channels", "cells", "scalar", "one", "linear", "transpose", "reshape", "pad", "relu", "join"]


@settings(max_examples=150, deadline=None)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=12))
def test_random_graphs_keep_their_function_and_their_boxes(kinds: list[str]) -> None:
    nodes = [Node("x", None, (), (2, 3, 2))]
    for kind in kinds:
        last, shape = len(nodes) - 1, nodes[-1].shape
        alike = [i for i, n in enumerate(nodes[:-1]) if n.shape == shape]
        if kind == "join" and not alike:
            continue
        op: Op = Add() if kind == "join" else grown(kind, shape)
        inputs = (last, alike[-1]) if kind == "join" else (last,)
        result = op.forward(*(torch.zeros(1, *nodes[i].shape, dtype=torch.float64) for i in inputs))
        nodes.append(Node(f"{kind}{last}", op, inputs, tuple(result.shape[1:])))
    graph = Graph(tuple(nodes))
    short = folded(graph)
    same_function(graph, short)
    centre, radius = numbers(2, 2, 3, 2), numbers(2, 2, 3, 2).abs()
    box = Interval(centre - radius, centre + radius)
    before, after = propagate(graph, box)[-1], propagate(short, box)[-1]
    rounding = 1e-11 * (1 + before.upper.abs().max() + before.lower.abs().max())
    assert (after.lower >= before.lower - rounding).all() and (after.upper <= before.upper + rounding).all()
