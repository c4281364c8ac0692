"""Losses bound the worst cross entropy over boxes, and their gradients are those of the bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convolutional, linear, mlp, residual, samples
from torch import Tensor
from torch.nn.functional import cross_entropy

from provenn.verifier.graph import Graph, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.region import Region
from provenn.verifier.training import Bounded, around, ascend, crown_ibp, ibp, regulariser, small_boxes

CLASSES = 3
Loss = Callable[[Graph, Interval, Tensor], Bounded]
LOSSES: dict[str, Loss] = {
    "ibp": ibp,
    "crown-ibp": crown_ibp,
    "mixed": lambda graph, box, labels: crown_ibp(graph, box, labels, 0.3),
    "all-ibp": lambda graph, box, labels: crown_ibp(graph, box, labels, 1.0),
}
NETWORKS: dict[str, Callable[[int], Graph]] = {
    "mlp": lambda seed: mlp([5, 8, 6, CLASSES], seed),
    "leaky": lambda seed: mlp([5, 8, 6, CLASSES], seed, LeakyRelu(0.1)),
    "sigmoid": lambda seed: mlp([5, 6, CLASSES], seed, Sigmoid()),
    "residual": lambda seed: residual(4, 2, CLASSES, seed),
    "convolutional": lambda seed: convolutional(seed, True),
}


def question(graph: Graph, seed: int, radius: float) -> tuple[Interval, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn((4, *graph.input_shape), generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (4,), generator=generator)
    return around(centre, radius, (-1.0, 1.5)), labels, generator


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.floats(0.001, 0.5))
def test_losses_are_above_what_happens_in_the_boxes(name: str, loss: str, seed: int, radius: float) -> None:
    graph = NETWORKS[name](seed)
    box, labels, generator = question(graph, seed, radius)
    box = Interval(torch.minimum(box.lower, box.upper), torch.maximum(box.lower, box.upper))
    found = LOSSES[loss](graph, box, labels)
    worst = ascend(graph, box, labels, 5, generator)
    for x in (*samples(Region(box), 12, seed), worst):
        y = graph.forward(x)
        others = torch.stack([torch.cat([row[:label], row[label + 1 :]]) for row, label in zip(y, labels, strict=True)])
        margins = y.gather(1, labels.unsqueeze(1)) - others
        assert (found.margins <= margins + 1e-9).all()
        assert cross_entropy(y, labels) <= found.loss + 1e-9
        assert (y.argmax(1) == labels)[found.certified].all()
    assert all((b.lower <= b.upper).all() for b in found.bounds)


@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 1.0))
@settings(max_examples=5, deadline=None)
def test_small_boxes_lie_inside(seed: int, share: float) -> None:
    graph = mlp([5, 8, CLASSES], seed)
    centre = torch.rand((4, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    box = around(centre, 0.2, (0, 1))
    small = small_boxes(graph, box, torch.zeros(4, dtype=torch.int64), share, 3)
    assert (small.lower >= box.lower - 1e-12).all()
    assert (small.upper <= box.upper + 1e-12).all()
    assert torch.allclose(small.upper - small.lower, share * (box.upper - box.lower))
    assert not small.lower.requires_grad


def test_an_attack_raises_the_loss_and_leaves_parameters_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    first, last = linear(5, 8, generator), linear(8, CLASSES, generator)
    weight = first.weight.clone().requires_grad_()
    graph = sequential((5,), [replace(first, weight=weight), Sigmoid(), last])
    x, labels = torch.rand((6, 5), generator=generator, dtype=torch.float64), torch.arange(6) % CLASSES
    with torch.no_grad():
        found = ascend(graph, around(x, 0.3), labels, 10, generator)
        assert cross_entropy(graph.forward(found), labels) > cross_entropy(graph.forward(x), labels)
    assert weight.grad is None
    assert not found.requires_grad


def moved(graph: Graph, direction: Graph, t: Tensor) -> Graph:
    """The graph whose parameters have gone t times the other graph's."""
    nodes = list(graph.nodes)
    for index, (node, other) in enumerate(zip(graph.nodes, direction.nodes, strict=True)):
        if node.op is not None and other.op is not None:
            named = {f.name: (getattr(node.op, f.name), getattr(other.op, f.name)) for f in fields(node.op)}
            change = {name: a + t * b for name, (a, b) in named.items() if isinstance(a, Tensor)}
            nodes[index] = replace(node, op=replace(node.op, **change))
    return Graph(tuple(nodes))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("loss", [*LOSSES, "regulariser"])
def test_gradients_are_those_of_finite_differences(name: str, loss: str) -> None:
    graph, direction = NETWORKS[name](1), NETWORKS[name](2)
    box, labels, _ = question(graph, 3, 0.1)
    box = around((box.lower + box.upper) / 2, 0.1)

    def value(t: Tensor) -> Tensor:
        now = moved(graph, direction, t)
        if loss == "regulariser":
            return regulariser(now, ibp(now, box, labels).bounds, 0.9)
        return LOSSES[loss](now, box, labels).loss

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(t), t)
    step = 1e-6
    with torch.no_grad():
        ends = [value(torch.tensor(s * step, dtype=torch.float64)) for s in (1.0, -1.0)]
    assert abs(float(slope) - float(ends[0] - ends[1]) / (2 * step)) <= 1e-4 * (1 + abs(float(slope)))


def test_scores_must_be_one_a_class() -> None:
    graph = sequential((2, 5), [linear(5, CLASSES, torch.Generator().manual_seed(0))])
    x = torch.zeros((1, 2, 5), dtype=torch.float64)
    with pytest.raises(ValueError, match="not one score a class"):
        ibp(graph, Interval(x, x), torch.zeros(1, dtype=torch.int64))
