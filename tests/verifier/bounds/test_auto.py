"""The choice among bound methods goes to the tightest that is affordable, and its costs are those of its passes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from networks import box, mlp, residual

from provenn.verifier.bounds import auto as choice
from provenn.verifier.bounds.auto import auto, choose, works
from provenn.verifier.bounds.backward import crown, crown_ibp
from provenn.verifier.bounds.forward import forward_backward
from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.conv import Conv
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu


def dense(*widths: int) -> Graph:
    """A ReLU network whose parameters are zeros that take no memory."""
    nodes = [Node("input", None, (), (widths[0],))]
    for before, after in pairwise(widths):
        linear = Linear(torch.zeros(()).expand(after, before), torch.zeros(()).expand(after))
        for op in (linear, Relu()):
            nodes.append(Node(f"node{len(nodes)}", op, (len(nodes) - 1,), (after,)))
    return Graph(tuple(nodes[:-1]))


def convolutional(size: int, channels: int, depth: int) -> Graph:
    nodes = [Node("input", None, (), (3, size, size))]
    for layer in range(depth):
        weight = torch.zeros(()).expand(channels, 3 if layer == 0 else channels, 3, 3)
        conv = Conv(weight, torch.zeros(channels), (1, 1), (1, 1, 1, 1), (1, 1), 1)
        ops: list[Op] = [conv, Relu()]
        for op in ops:
            nodes.append(Node(f"node{len(nodes)}", op, (len(nodes) - 1,), (channels, size, size)))
    return Graph(tuple(nodes))


@pytest.mark.parametrize(
    "graph",
    [dense(5, 50, 50, 50, 50, 50, 50, 5), dense(784, 256, 256, 256, 256, 10), convolutional(16, 8, 3), dense(3, 4)],
    ids=["acas", "mnist", "conv", "tiny"],
)
def test_what_is_affordable_is_bounded_by_crown(graph: Graph) -> None:
    assert choose(graph, 1, 10) == "crown"


def test_what_would_take_longer_than_is_left_is_not_begun() -> None:
    graph = dense(784, 256, 256, 256, 256, 10)
    seconds = {method: work.seconds for method, work in choice.works(graph, 1, 10).items()}
    assert seconds["crown-ibp"] < seconds["crown"]
    assert choose(graph, 1, 10, 1.01 * seconds["crown"]) == "crown"
    assert choose(graph, 1, 10, 0.99 * min(seconds["crown"], seconds["forward-backward"])) == "crown-ibp"


def test_few_inputs_of_a_wide_network_in_a_large_batch_go_forward() -> None:
    assert choose(dense(5, 2000, 2000, 2000, 2000, 10), 500, 10) == "forward-backward"


def test_many_inputs_do_not_go_forward() -> None:
    wide = dense(20_000, 4000, 4000, 4000, 10)
    assert choose(wide, 64, 10) in ("crown", "crown-ibp")
    assert not choice.forward_fits(wide)


def test_what_is_too_dear_for_any_inner_pass_is_bounded_over_intervals() -> None:
    assert choose(convolutional(224, 64, 12), 64, 10) == "crown-ibp"


def test_costs_grow_as_passes_do() -> None:
    few, many = (works(dense(inputs, 300, 300, 300, 10), 4, 10) for inputs in (10, 100))
    forward = [cost["forward-backward"].multiply_adds for cost in (few, many)]
    assert forward[1] > 5 * forward[0]
    for cost in (few, many):
        assert cost["crown-ibp"].seconds < cost["forward-backward"].seconds
        assert cost["crown-ibp"].seconds < cost["crown"].seconds
    # A row of the layer k pulls back through k layers of 300 x 300: 1 + 2 and the first one's 10 x 300, for 0.7 x 300
    # rows of the second and third layer.
    inner = few["crown"].multiply_adds - few["crown-ibp"].multiply_adds
    assert inner == pytest.approx(4 * 0.7 * 300 * ((1 + 2) * 300**2 + 2 * 10 * 300))


def test_rows_of_a_convolution_are_counted_as_windows() -> None:
    """A row of the second layer of 16 channels reads 5 x 5 of 64 x 64 cells at most."""
    graph = convolutional(64, 16, 2)
    inner = works(graph, 1, 1, share=1.0)["crown"].multiply_adds - works(graph, 1, 1, share=0.0)["crown"].multiply_adds
    dense_rows = 16 * 64**2 * (16 * 64**2 * 9 * (16 + 3))
    assert inner < 0.01 * dense_rows


@pytest.mark.parametrize("method", ["crown", "forward-backward", "crown-ibp"])
def test_the_bounds_are_those_of_the_choice(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"crown": (10.0, 1e9), "forward-backward": (0.0, 1e9), "crown-ibp": (0.0, 0.0)}
    monkeypatch.setattr(choice, "AFFORDABLE", limits[method][0])
    monkeypatch.setattr(choice, "DEAR", limits[method][1])
    monkeypatch.setattr(choice, "GAIN", 0.0)
    graph, region = residual(4, 2, 3, 0), box(torch.randn((2, 4), dtype=torch.float64), 0.3)
    matrix = torch.eye(3, dtype=torch.float64).unsqueeze(1).expand(-1, 2, -1)
    assert choose(graph, 2, 3) == method
    expected = {"crown": crown, "forward-backward": forward_backward, "crown-ibp": crown_ibp}[method](graph, region)
    torch.testing.assert_close(auto(graph, region, 3).output_lower(matrix), expected.output_lower(matrix))


def test_a_small_network_takes_crown() -> None:
    graph, region = mlp([3, 6, 6, 2], 0), box(torch.zeros((2, 3), dtype=torch.float64), 0.5)
    matrix = torch.eye(2, dtype=torch.float64).unsqueeze(1).expand(-1, 2, -1)
    torch.testing.assert_close(auto(graph, region, 2).output_lower(matrix), crown(graph, region).output_lower(matrix))
