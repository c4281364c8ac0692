"""CROWN: linear forms propagated from a node back to the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.interval import output_lower, require_valid, step
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval, sure
from provenn.verifier.ops.base import Linearization, Op, WindowLinearization
from provenn.verifier.ops.pull import weighed
from provenn.verifier.ops.window import Windowed
from provenn.verifier.region import Region

Rows = Tensor | Windowed
"""Coefficients over a node: dense [spec, batch, *node], or over a window of it."""


@dataclass(frozen=True, eq=False)
class Lines:
    """The linear bounds of one op over fixed boxes, with free parameters or the default ones."""

    op: Op
    inputs: Sequence[Interval]
    parameters: Tensor | None = None

    def select(self, entries: Tensor) -> Lines:
        """The default lines for some entries of the batch; those of an affine op are the same for all."""
        if self.op.affine:
            return self
        return Lines(self.op, [Interval(x.lower[entries], x.upper[entries]) for x in self.inputs])

    @cached_property
    def open(self) -> bool:
        """Whether tighter bounds or other parameters could change the lines anywhere."""
        masks = [mask for mask in self.op.improvable(*self.inputs) if mask is not None]
        return bool(torch.stack([mask.any() for mask in masks]).any()) if masks else False

    @cached_property
    def dense(self) -> Linearization:
        """For rows over the whole node."""
        return self.op.linearize(self.inputs, self.parameters)

    @cached_property
    def windowed(self) -> WindowLinearization:
        """For rows over windows."""
        return self.op.linearize_window(self.inputs, self.parameters)

    def through(self, rows: Rows) -> tuple[Sequence[Rows], Tensor | None]:
        """Rows over every input of the op, and the constant that remains."""
        return self.windowed(rows) if isinstance(rows, Windowed) else self.dense(rows)


@dataclass(frozen=True, eq=False)
class Front:
    """Where an affine map of the input alone ends that everything goes through, and its value at the box's centre.

    With fewer coordinates than the input: rows are multiplied by a centre more cheaply there.
    """

    node: int
    value: Tensor

    @classmethod
    def of(cls, graph: Graph, region: Region) -> Front | None:
        """For boxes, where there is such a node."""
        last = 0
        for index, node in enumerate(graph.nodes[1:], start=1):
            read = sum(n.inputs.count(last) for n in graph.nodes)
            if node.op is None or not node.op.affine or node.inputs != (last,) or read != 1:
                break
            last = index
        if not region.is_box or torch.Size(graph.nodes[last].shape).numel() >= torch.Size(graph.input_shape).numel():
            return None
        value = (region.box.lower + region.box.upper) / 2
        for node in graph.nodes[1 : last + 1]:
            value = node.op.forward(value) if node.op is not None else value
        return cls(last, value)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A graph with every op replaced by linear bounds that hold over one region; filled front to back.

    bounds: an enclosure of every node; lines: for every node the linear bounds of its op; front: what makes the last
    steps of a pass cheaper, None where there is nothing.
    """

    graph: Graph
    region: Region
    bounds: list[Interval]
    lines: list[Lines | None]
    front: Front | None = None

    def improvable(self, edge: Edge) -> Tensor:
        """Where a tighter bound of the edge's source could tighten its reader's lines: [batch, *source] of bool.

        Without what an earlier reader of the same source asked for: nothing that it depends on has changed since.
        """
        node = self.graph.nodes[edge.reader]
        assert node.op is not None
        mask = node.op.improvable(*(self.bounds[i] for i in node.inputs))[edge.position]
        if mask is None:
            return torch.zeros_like(self.bounds[edge.source].lower, dtype=torch.bool)
        return mask if edge.done is None else mask & ~edge.done

    def select(self, entries: Tensor | None) -> Relaxed:
        """What `lower` needs for some regions of the batch; None: all."""
        if entries is None:
            return self
        lines = [None if lines is None else lines.select(entries) for lines in self.lines]
        front = None if self.front is None else Front(self.front.node, self.front.value[entries])
        return Relaxed(self.graph, self.region.select(entries), self.bounds, lines, front)

    def lower(
        self,
        node: int,
        rows: Rows,
        own: Callable[[int, Rows], Lines | None] = lambda index, rows: None,
    ) -> Float[Tensor, "spec batch"]:
        """A lower bound of A x_node over the region: [spec, batch].   Source: Zhang et al. 2018, theorem 3.2.

        own(index, rows): the lines to pull those rows over node `index` through, None for the shared ones.
        """
        shape = (rows.cells if isinstance(rows, Windowed) else rows).shape[:2]
        return self._down(node, {node: rows}, None, own).expand(shape)

    def form(self, node: int, rows: Tensor) -> tuple[Float[Tensor, "spec batch *input"], Float[Tensor, "spec batch"]]:
        """The coefficients over the input of a linear function below A x_node, and its minimum over the region."""
        found, constant, centred = self._pulled(node, {node: rows}, None, lambda index, here: None)
        shape = (*rows.shape[:2], *self.graph.input_shape)
        dense = rows.new_zeros(shape) if found is None else _dense(found, self.graph.input_shape).expand(shape)
        return dense, self._lowest(found, constant, centred).expand(rows.shape[:2])

    def lower_of(self, node: int, rows: schedule.Chunk) -> Float[Tensor, "rows some"]:
        """A lower bound of signed coordinates of a node, for the entries of the batch that the rows name."""
        part, read = self.select(rows.entries), self.graph.nodes[node]
        first = read.op.units(rows.index, rows.sign) if read.op is not None and len(read.shape) == 1 else None
        if first is None:
            return part.lower(node, rows.coefficients(read.shape))
        return part._down(node - 1, {read.inputs[0]: first[0]}, first[1], lambda index, rows: None)

    def _down(
        self, last: int, pending: dict[int, Rows], constant: Tensor | None, own: Callable[[int, Rows], Lines | None]
    ) -> Tensor:
        """The rows pulled from node `last` and those before it to the input, and bounded there."""
        return self._lowest(*self._pulled(last, pending, constant, own))

    def _pulled(
        self, last: int, pending: dict[int, Rows], constant: Tensor | None, own: Callable[[int, Rows], Lines | None]
    ) -> tuple[Rows | None, Tensor | None, bool]:
        """The rows at the input, None for zeros; the constant beside them; whether it holds their value at the centre.

        pending: rows by node, taken out as they are pulled.
        """
        centred = False
        for index in range(last, 0, -1):
            here = pending.pop(index, None)
            if here is None:
                continue
            here, offset = self._cut(index, self._shaped(index, here))
            constant = _plus(constant, offset)
            lines = own(index, here) or self.lines[index]
            assert lines is not None
            pulled, offset = lines.through(here)
            if self.front is not None and self.front.node == index and not isinstance(here, Windowed):
                centred, offset = True, weighed(here, self.front.value)
            elif centred:
                offset = None
            constant = _plus(constant, offset)
            for source, part in zip(self.graph.nodes[index].inputs, pulled, strict=True):
                pending[source] = self._sum(source, pending.get(source), part)
        return pending.get(0), constant, centred

    def _cut(self, index: int, rows: Rows) -> tuple[Rows, Tensor | None]:
        """Rows over node `index` and a constant whose sum is, over the region, nowhere above the rows given.

        Here they are the same; where a region is cut by what is known of the node, multipliers of it come in.
        """
        return rows, None

    def _lowest(self, rows: Rows | None, constant: Tensor | None, centred: bool) -> Tensor:
        best = self.bounds[0].lower.new_zeros((1, 1)) if rows is None else self._concretize(rows, centred)
        return sure(best if constant is None else best + constant)

    def output_lower(
        self, matrix: Float[Tensor, "spec batch outputs"], memory: float = schedule.MEMORY
    ) -> Float[Tensor, "spec batch"]:
        """A lower bound of C y for the network's flattened output y, in chunks of rows, never below interval's."""
        last = len(self.graph.nodes) - 1
        shaped = matrix.reshape(*matrix.shape[:2], *self.graph.output_shape)
        per_row = matrix.shape[1] * schedule.widest(self.graph, last)
        chunks = schedule.slices(matrix.shape[0], per_row, matrix.dtype, memory)
        parts = [self.lower(last, shaped[part]) for part in chunks]
        return torch.maximum(torch.cat(parts), output_lower(self.graph, self.bounds, matrix))

    def _shaped(self, index: int, rows: Rows) -> Rows:
        """Windows made dense where the op has no rule for them, or where the node is hardly larger."""
        if not isinstance(rows, Windowed) or schedule.windowed(self.graph, index, rows.window):
            return rows
        return rows.dense(self.graph.nodes[index].shape)

    def _sum(self, node: int, first: Rows | None, second: Rows) -> Rows:
        if first is None:
            return second
        both = first.plus(second) if isinstance(first, Windowed) and isinstance(second, Windowed) else None
        if both is not None:
            return both
        shape = self.graph.nodes[node].shape
        return _dense(first, shape) + _dense(second, shape)

    def _concretize(self, rows: Rows, centred: bool) -> Tensor:
        """The smallest value of the rows over the region; centred: less that at the box's centre."""
        box = self.region.box
        if centred:
            return -weighed(_dense(rows, self.graph.input_shape).abs(), (box.upper - box.lower) / 2)
        if not isinstance(rows, Windowed) or not self.region.is_box:
            return self.region.concretize(_dense(rows, self.graph.input_shape))
        middle, radius = rows.look(torch.cat([(box.lower + box.upper) / 2, (box.upper - box.lower) / 2], 1)).chunk(2, 2)
        return (rows.values * middle - rows.values.abs() * radius).flatten(2).sum(2)


def _plus(constant: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if constant is None else constant if more is None else constant + more


def _dense(rows: Rows, shape: tuple[int, ...]) -> Tensor:
    return rows.dense(shape) if isinstance(rows, Windowed) else rows


@dataclass(frozen=True, eq=False)
class Edge:
    """One input of one node: node `source`, read by node `reader` at `position`.

    done [batch, *source]: the coordinates that were tightened for an earlier reader.
    """

    reader: int
    position: int
    source: int
    done: Tensor | None = None


Tighten = Callable[[Relaxed, Edge, Tensor], None]
"""Tightens relaxed.bounds[source] where the reader's lines can gain; the sign of the source somewhere in the region."""


def relax(
    graph: Graph, region: Region, tighten: Tighten | None, within: Mapping[int, Interval] | None = None
) -> Relaxed:
    """Linear bounds of every op, front to back; `tighten` sees every edge to a node that IBP may not bound exactly.

    within: bounds of some nodes that are known to hold over the region.   Raises: InvalidBounds.
    """
    known = within or {}
    relaxed = Relaxed(graph, region, [region.box], [None], Front.of(graph, region))
    values = [(region.box.lower + region.box.upper) / 2]
    aligned, exact = [region.is_box], [True]
    done: dict[int, Tensor] = {}
    for index, node in enumerate(graph.nodes[1:], start=1):
        assert node.op is not None
        for position, source in enumerate(node.inputs):
            if tighten is not None and not exact[source]:
                edge = Edge(index, position, source, done.get(source))
                if graph.last_use[source] > index or node.inputs.count(source) > 1:
                    mask = relaxed.improvable(edge)
                    done[source] = mask if edge.done is None else mask | edge.done
                tighten(relaxed, edge, values[source])
        relaxed.lines.append(Lines(node.op, [relaxed.bounds[i] for i in node.inputs]))
        bounds = step(graph, index, relaxed.bounds)
        relaxed.bounds.append(_within(bounds, known[index]) if index in known else bounds)
        values.append(node.op.forward(*(values[i] for i in node.inputs)))
        alone = len(node.inputs) == 1 and aligned[node.inputs[0]]
        aligned.append(alone and node.op.separable)
        exact.append(alone and node.op.affine)
    require_valid(graph, relaxed.bounds)
    return relaxed


def _within(bounds: Interval, known: Interval) -> Interval:
    """Both bounds together; where roundings cross them, they change places."""
    both = bounds.intersect(known)
    return Interval(torch.minimum(both.lower, both.upper), torch.maximum(both.lower, both.upper))


def crown(
    graph: Graph, region: Region, memory: float = schedule.MEMORY, within: Mapping[int, Interval] | None = None
) -> Relaxed:
    """Bounds of every node, by backward passes wherever a relaxation depends on them, intersected with IBP.

    within: bounds of some nodes that are known to hold over the region: what they settle takes no pass.

    Only coordinates whose bound matters (for a ReLU: the unstable ones) get a pass.   Raises: InvalidBounds.
    Time: sum over nonlinear layers of (unstable neurons) x (cost of one backward row to the input), linear in the
    batch; memory: about `memory` MiB beyond the bounds themselves.   Source: Zhang et al. 2018.
    """
    return relax(graph, region, lambda relaxed, edge, value: by_rows(relaxed, edge, value, memory), within)


def crown_ibp(graph: Graph, region: Region, within: Mapping[int, Interval] | None = None) -> Relaxed:
    """CROWN-IBP: linear bounds of every op over interval bounds; no intermediate backward pass.

    within: bounds of some nodes that are known to hold over the region.
    Source: Zhang et al. 2020.   Time: two forward passes, then one backward pass for the rows asked for.
    """
    return relax(graph, region, None, within)


def by_rows(relaxed: Relaxed, edge: Edge, value: Tensor, memory: float) -> None:
    """Tightens by a backward pass for every coordinate that its reader gains from.

    The bound on the other side of zero from `value` comes first: it settles a neuron that is stable, and only those
    left open need their second bound. Few rows take both at once.
    """
    source, bounds = edge.source, relaxed.bounds
    side = torch.where(value > 0, 1, -1).to(value.dtype)
    for number, sign in enumerate((side, -side)):
        plans = schedule.Plan.each(relaxed.graph, source, relaxed.improvable(edge), sign)
        # A pass over everything that costs less than starting another one takes both sides.
        both = number == 0 and sum(plan.work for plan in plans) <= schedule.SMALL_ELEMENTS
        for rows in (rows for plan in plans for rows in plan.chunks(memory, both)):
            bounds[source] = rows.tighten(bounds[source], relaxed.lower_of(source, rows))
        if both:
            break
