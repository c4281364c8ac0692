"""The lower slopes of ReLUs that a certificate stores, found by alpha-CROWN and rounded to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from numpy.typing import NDArray

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.backward import Edge, Relaxed, crown
from provenn.verifier.bounds.slopes import INTERMEDIATE, Effort, Optimum, alpha_crown, optimised_lower
from provenn.verifier.check.functions import RELU
from provenn.verifier.check.network import Elementwise, Network
from provenn.verifier.graph import Graph
from provenn.verifier.ops.base import Elementwise as Function
from provenn.verifier.ops.relu import Relu
from provenn.verifier.region import Region
from provenn.verifier.spec import Case

Slopes = Mapping[str, NDArray[Any]]
"""Name of a ReLU step -> a lower slope for each of its neurons: uint8 (value / 255), or floats in [0, 1]."""


@dataclass(frozen=True, eq=False)
class NeuronBound:
    """One bound of one neuron, worth proving with slopes of its own. sign 1: the lower bound, -1: the upper one."""

    neuron: int
    sign: int
    slopes: Slopes


@dataclass(frozen=True, eq=False)
class CaseSlopes:
    """For one case: by reader of a step the bounds of its neurons, by (clause, row) the slopes of that row.

    shared: the slopes of everything else; where a ReLU is not named, the checker chooses.
    """

    neurons: Mapping[str, list[NeuronBound]] = field(default_factory=dict)
    rows: Mapping[tuple[int, int], Slopes] = field(default_factory=dict)
    shared: Slopes = field(default_factory=dict)


def relu_names(graph: Graph, network: Network) -> dict[int, str]:
    """The checker's name of every ReLU node of the graph; none where the two readings do not have the same ones.

    Both are in the file's order. A wrong name would make a certificate worse, not wrong: any slopes are sound.
    """
    nodes = [(i, torch.Size(node.shape).numel()) for i, node in enumerate(graph.nodes) if isinstance(node.op, Relu)]
    steps = [(s.name, s.length) for s in network.steps if isinstance(s, Elementwise) and s.function is RELU]
    same = [size for _, size in nodes] == [length for _, length in steps]
    return {i: name for (i, _), (name, _) in zip(nodes, steps, strict=True)} if same else {}


def function_names(graph: Graph, network: Network) -> dict[int, str]:
    """The checker's name of every elementwise node of the graph, of ReLUs alone where the readings differ in others."""
    nodes = [(i, torch.Size(n.shape).numel()) for i, n in enumerate(graph.nodes) if isinstance(n.op, Function)]
    steps = [(s.name, s.length) for s in network.steps if isinstance(s, Elementwise)]
    if [size for _, size in nodes] != [length for _, length in steps]:
        return relu_names(graph, network)
    return {i: name for (i, _), (name, _) in zip(nodes, steps, strict=True)}


def optimised_slopes(
    graph: Graph, case: Case, names: Mapping[int, str], over: Callable[[], bool] = lambda: False
) -> CaseSlopes:
    """Slopes for the rows alone where they are enough, else for every open neuron's bounds as well.

    names: the checker's for ReLU nodes; over: whether the time has ended. Time: that of alpha-CROWN; size: one byte a
    ReLU neuron for every row.
    """
    region = Region.of([case.inputs], graph.input_shape, "cpu", graph.dtype)
    keys = [(k, i) for k, clause in enumerate(case.clauses) for i in range(len(clause.matrix))]
    numbers = [[float(c) for c in case.clauses[k].matrix[i]] for k, i in keys]
    bound = torch.tensor([[float(case.clauses[k].bound[i])] for k, i in keys], dtype=graph.dtype)
    matrix = -torch.tensor(numbers, dtype=graph.dtype).unsqueeze(1)
    effort = Effort(over=over)
    with torch.no_grad():
        relaxed = crown(graph, region)
        neurons: dict[str, list[NeuronBound]] = {}
        found = optimised_lower(relaxed, matrix, effort)
        margins = (found.lower + bound)[:, 0]
        proved = {k for (k, _), margin in zip(keys, margins.tolist(), strict=True) if margin > 0}
        if len(proved) < len(case.clauses):
            relaxed, neurons = _with_neurons(graph, region, names, over)
            found = optimised_lower(relaxed, matrix, effort)
    return CaseSlopes(neurons, dict(zip(keys, _rows(relaxed, found, names), strict=True)))


def optimised_neurons(graph: Graph, region: Region, names: Mapping[int, str], over: Callable[[], bool]) -> CaseSlopes:
    """Slopes for every open neuron's bounds alone, as alpha-CROWN finds them."""
    with torch.no_grad():
        return CaseSlopes(_with_neurons(graph, region, names, over)[1])


def _with_neurons(
    graph: Graph, region: Region, names: Mapping[int, str], over: Callable[[], bool]
) -> tuple[Relaxed, dict[str, list[NeuronBound]]]:
    """Alpha-CROWN's bounds, and the slopes of every row that it optimised for them."""
    neurons: dict[str, list[NeuronBound]] = {}

    def record(relaxed: Relaxed, edge: Edge, some: schedule.Chunk, found: Optimum) -> None:
        bounds = neurons.setdefault(names.get(edge.reader, ""), [])
        pairs = zip(some.index[:, 0].tolist(), some.sign[:, 0].tolist(), _rows(relaxed, found, names), strict=True)
        bounds += [NeuronBound(j, int(sign), slopes) for j, sign, slopes in pairs]

    return alpha_crown(graph, region, replace(INTERMEDIATE, over=over), record), neurons


def _rows(relaxed: Relaxed, found: Optimum, names: Mapping[int, str]) -> list[Slopes]:
    """The slopes of every row by the checker's names, 255 standing for 1."""
    nodes = relaxed.graph.nodes
    named = [(i, name) for i, name in names.items() if i in found.parameters]
    rows = {name: found.over(i, nodes[i].shape)[:, 0].flatten(1) for i, name in named}
    rounded = {name: (255 * p).round().to(torch.uint8).numpy() for name, p in rows.items()}
    return [{name: values[n] for name, values in rounded.items()} for n in range(found.lower.shape[0])]
