"""Forward mode: linear bounds of every node over the network's input, propagated front to back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.backward import Edge, Front, Lines, Relaxed, relax
from provenn.verifier.bounds.interval import output_lower, through_affine_end
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval, sure
from provenn.verifier.ops.form import Form, combined, common, scale
from provenn.verifier.region import Region

LARGEST = 256.0
"""MiB that the form of one node may take, for one region; a node beyond it starts again from its interval."""


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms of the nodes so far, made when they are asked for and dropped after their last reader.

    kept: nodes whose forms stay; forms: one a node; tightened: nodes whose intervals have met their forms.
    """

    graph: Graph
    region: Region
    kept: frozenset[int] = frozenset()
    forms: list[Form | None] = field(default_factory=list)
    tightened: set[int] = field(default_factory=set)

    def tighten(self, relaxed: Relaxed, edge: Edge, value: Tensor) -> None:
        """Intersects the source's interval with what its form says, if its reader has lines that depend on it."""
        reader = self.graph.nodes[edge.reader].op
        if reader is not None and not reader.affine:
            self.meet(relaxed, edge.source)

    def meet(self, relaxed: Relaxed, node: int) -> None:
        """Intersects a node's interval with its form over the region; where rounding makes them miss, or overflow, not.

        What a form rounds off is about eps times the largest of its terms, for every op before it.
        """
        if node in self.tightened:
            return
        self.tightened.add(node)
        form, old = self.at(relaxed, node), relaxed.bounds[node]
        lower = torch.fmax(old.lower, lowest(self.region, form.lower()))
        upper = torch.fmin(old.upper, -lowest(self.region, -form.upper()))
        valid = lower <= upper
        relaxed.bounds[node] = Interval(torch.where(valid, lower, old.lower), torch.where(valid, upper, old.upper))

    def at(self, relaxed: Relaxed, node: int) -> Form:
        """The form of a node whose lines, and those of all before it, are there."""
        for index in range(len(self.forms), node + 1):
            self.forms.append(self._pushed(relaxed, index))
            for source in self.graph.nodes[index].inputs:
                if self.graph.last_use[source] == index and source not in self.kept:
                    self.forms[source] = None
        return self._held(node)

    def _pushed(self, relaxed: Relaxed, index: int) -> Form:
        node, lines, box = self.graph.nodes[index], relaxed.lines[index], relaxed.bounds[index]
        columns = torch.Size(self.graph.input_shape).numel() + 1
        if columns * torch.Size(node.shape).numel() * box.lower.itemsize > LARGEST * 2**20:
            return Form.constant(box)
        if node.op is None or lines is None:
            return identity(box.lower)
        return node.op.push([self._held(i) for i in node.inputs], lines.inputs) or Form.constant(box)

    def _held(self, node: int) -> Form:
        form = self.forms[node]
        assert form is not None
        return form


def forward(graph: Graph, region: Region, memory: float = schedule.MEMORY) -> list[Interval]:
    """Bounds of every node by forward mode, intersected with IBP.

    Source: the forward mode of Xu et al. 2020 (auto_LiRPA).   Raises: InvalidBounds.
    Time: two passes of the network for every coordinate of the input; memory: four tensors of the widest node's size
    for every coordinate, in batches of at most about `memory` MiB where one region allows it.
    """
    return _together([_forward(graph, part).bounds for part, _ in _parts(graph, region, memory)])


def forward_backward(graph: Graph, region: Region, memory: float = schedule.MEMORY) -> Relaxed:
    """Linear bounds of every op over the bounds of forward mode, for one backward pass of the rows asked for.

    Raises: InvalidBounds.   Time and memory: those of `forward`.
    """
    bounds = forward(graph, region, memory)
    lines = [None if n.op is None else Lines(n.op, [bounds[i] for i in n.inputs]) for n in graph.nodes]
    return Relaxed(graph, region, bounds, lines, Front.of(graph, region))


def forward_lower(
    graph: Graph, region: Region, matrix: Float[Tensor, "spec batch outputs"], memory: float = schedule.MEMORY
) -> Float[Tensor, "spec batch"]:
    """A lower bound of C y for the network's flattened output y, by forward mode alone, never below interval's.

    C is first pulled, exactly, through the affine ops at the end.   Raises: InvalidBounds.
    """
    return torch.cat([_lower(graph, part, matrix[:, some]) for part, some in _parts(graph, region, memory)], 1)


def lowest(region: Region, columns: Tensor) -> Tensor:
    """Min of A x + a over the region: [batch, *node], from a form's columns, that hold A at its scale and, last, a."""
    constant = columns[-1].expand(region.batch, *columns.shape[2:])
    if len(columns) == 1:
        return constant
    rows = (columns[:-1] / scale(columns.dtype)).reshape(len(columns) - 1, columns.shape[1], -1)
    rows = rows.expand(-1, region.batch, -1).permute(2, 1, 0)
    return region.concretize(rows).T.reshape(constant.shape) + constant


def identity(like: Tensor) -> Form:
    """The input's own form, which all regions share: a unit a column, and no constant."""
    size = like[0].numel()
    units = torch.eye(size + 1, size, dtype=like.dtype, device=like.device) * scale(like.dtype)
    return Form(units.reshape(size + 1, 1, *like.shape[1:]), None)


def _parts(graph: Graph, region: Region, memory: float) -> Iterator[tuple[Region, slice]]:
    """The regions in batches whose forms take at most `memory` MiB, at least one region each."""
    columns = torch.Size(graph.input_shape).numel() + 1
    per_region = columns * max(torch.Size(node.shape).numel() for node in graph.nodes[1:] or graph.nodes)
    for some in schedule.slices(region.batch, per_region, region.box.lower.dtype, memory):
        yield (region if some == slice(0, region.batch) else region.select(some)), some


def _forward(graph: Graph, region: Region) -> Relaxed:
    forms = Forms(graph, region)
    relaxed = relax(graph, region, forms.tighten)
    forms.meet(relaxed, len(graph.nodes) - 1)
    return relaxed


def _together(parts: Sequence[list[Interval]]) -> list[Interval]:
    if len(parts) == 1:
        return parts[0]
    return [
        Interval(torch.cat([b.lower for b in bounds]), torch.cat([b.upper for b in bounds]))
        for bounds in zip(*parts, strict=True)
    ]


def _lower(graph: Graph, region: Region, matrix: Tensor) -> Tensor:
    ends = _ends(graph)
    forms = Forms(graph, region, frozenset(ends))
    relaxed = relax(graph, region, forms.tighten)
    forms.at(relaxed, max(ends))
    pending, total = through_affine_end(graph, relaxed.bounds, matrix)
    sources = common([forms.at(relaxed, index) for index in pending])
    rows = list(pending.values())
    form = combined((rows, total), (rows, total), sources)
    lower = sure(lowest(region, form.lower()).T)
    return torch.fmax(lower, output_lower(graph, relaxed.bounds, matrix))


def _ends(graph: Graph) -> set[int]:
    """Where rows of the output arrive that are pulled through affine ops: the last other nodes, or the input."""
    ends: set[int] = set()
    seen = {len(graph.nodes) - 1}
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        if index in seen and (node.op is None or not node.op.affine):
            ends.add(index)
        elif index in seen:
            seen.update(node.inputs)
    return ends
