"""LipSDP: quadratic forms of increments through any graph, and the matrix whose positivity bounds a Lipschitz constant.

With the coordinates z = (dx, dw_1, .., dw_K) of verifier.ops.increments, v_k = V_k z the arguments of the units, w_k
their results, slopes in [a, b] and dy = C z the rows asked for, any multipliers t >= 0 and input metric d with

    M(d, t) = diag(d) - C'C - sum_k [ (w_k - a v_k)' t_k (b v_k - w_k) + transposed ]  >= 0                          (1)

give  |dy|^2 <= dx' diag(d) dx,  for the sum is >= 0 at every pair of inputs. d = rho bounds l2 -> l2 by sqrt(rho); any
d >= 0 bounds l_inf -> l2 by sqrt(sum d) (Fazlyab et al. 2019; lipschitz.md, sections 1 and 2). Implicit layers have w
in their own v. A chain makes (1) block tridiagonal; `pulled` eliminates units last to first, which is the backward
propagation of the form C'C to the input and the Schur complement of (1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from provenn.verifier.errors import ResourceLimit, Unbounded, UnsupportedOp
from provenn.verifier.graph import Graph, Node
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise
from provenn.verifier.ops.implicit import Implicit
from provenn.verifier.ops.increments import Increments

FAR = 1e100
"""Slopes on [-FAR, FAR] are slopes everywhere, for every function whose slopes are finite everywhere."""

SNAP, STEEPEST = 1e-9, 1e9
"""Slopes this near to 0 and 1 are those (the checker has its own, exact or enclosed); above STEEPEST is infinite."""

ENTRIES = 2**28
"""Largest number of entries of a matrix from coordinates to a value."""

Rows = dict[int, Tensor]
"""A linear map of the coordinates: by block a matrix [rows, size]."""


@dataclass(frozen=True, eq=False)
class Units:
    """One layer of units  w = phi(v),  v = sum_k rows[k] z_k.

    node: the name of its op; stage: how many layers of the network come before it, those without coordinates counted;
    lower, upper: slopes [n]; places: which of the layer's `length` cells these are: the others have one slope only and
    need no coordinate. The layer's own block in `rows` is that of an implicit layer.
    """

    node: str
    stage: int
    lower: Tensor
    upper: Tensor
    rows: Rows
    places: Tensor
    length: int


@dataclass(frozen=True, eq=False)
class Program:
    """Everything that (1) is made of: sizes of the blocks (the input's first), layers of units, C by block."""

    sizes: tuple[int, ...]
    units: tuple[Units, ...]
    output: Rows
    starts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        starts = torch.tensor([0, *self.sizes]).cumsum(0).tolist()
        object.__setattr__(self, "starts", tuple(starts))

    @property
    def size(self) -> int:
        """How many coordinates there are."""
        return self.starts[-1]

    def block(self, k: int) -> slice:
        """Where block k lies among the coordinates."""
        return slice(self.starts[k], self.starts[k + 1])

    @property
    def lower(self) -> Tensor:
        """Every unit's smallest slope."""
        return torch.cat([u.lower for u in self.units]) if self.units else torch.zeros(0, dtype=torch.float64)

    @property
    def upper(self) -> Tensor:
        """Every unit's largest slope."""
        return torch.cat([u.upper for u in self.units]) if self.units else torch.zeros(0, dtype=torch.float64)

    def arguments(self, columns: Tensor) -> Tensor:
        """V times columns [size, any]: [units, any]."""
        parts = [self.applied(u.rows, columns) for u in self.units]
        return torch.cat(parts) if parts else columns[:0]

    def applied(self, rows: Rows, columns: Tensor) -> Tensor:
        """A linear map of the coordinates, at columns [size, any]."""
        (first, matrix), *others = rows.items()
        total = matrix @ columns[self.block(first)]
        for k, matrix in others:
            total.addmm_(matrix, columns[self.block(k)])
        return total

    def scaled(self, scale: Tensor) -> Program:
        """The same in coordinates u with z = scale * u, scale [size] > 0. Multipliers become scale^2 times theirs."""
        parts = torch.split(scale, list(self.sizes))

        def columns(rows: Rows) -> Rows:
            return {k: matrix * parts[k] for k, matrix in rows.items()}

        units = tuple(
            replace(u, rows={k: m / own[:, None] for k, m in columns(u.rows).items()})
            for u, own in zip(self.units, parts[1:], strict=True)
        )
        return Program(self.sizes, units, columns(self.output))

    def with_output(self, rows: Rows) -> Program:
        """The same network, other rows of the output."""
        return Program(self.sizes, self.units, rows)

    def form(self, metric: Tensor, multipliers: Tensor, output: bool = True) -> Tensor:
        """M(metric, multipliers), dense and symmetric, or without -C'C: the linear part of (1)."""
        total = metric.new_zeros((self.size, self.size))
        first = torch.arange(self.sizes[0], device=metric.device)
        total[first, first] = metric
        for (i, j), block in self.blocks(multipliers, output).items():
            total[self.block(i), self.block(j)] += block
            if i != j:
                total[self.block(j), self.block(i)] += block.T
        return total

    def blocks(self, multipliers: Tensor, output: bool = True) -> Blocks:
        """The blocks of (1) without the metric; differentiable in the multipliers."""
        found = Blocks()
        for k, t in enumerate(torch.split(multipliers, list(self.sizes[1:])), start=1):
            self.add_units(found, k, t)
        if output:
            self.add_output(found)
        return found

    def add_units(self, blocks: Blocks, own: int, multipliers: Tensor) -> None:
        """Adds what layer `own` brings into (1) with multipliers of its own."""
        units = self.units[own - 1]
        middle, product = (units.lower + units.upper) * multipliers, units.lower * units.upper * multipliers
        blocks.add(own, own, torch.diag(2 * multipliers))
        for k, matrix in units.rows.items():
            cross = -middle[:, None] * matrix
            blocks.add(own, k, cross + cross.mH if k == own else cross)
            for j, other in units.rows.items() if bool(product.any()) else ():
                if j <= k:
                    blocks.add(k, j, 2 * matrix.mH @ (product[:, None] * other))

    def add_output(self, blocks: Blocks) -> None:
        """Adds -C'C."""
        for k, matrix in self.output.items():
            for j, other in self.output.items():
                if j <= k:
                    blocks.add(k, j, -matrix.mH @ other)

    def pulled(self, multipliers: Tensor) -> Tensor | None:
        """S [inputs, inputs] with |C z|^2 <= dx' S dx: (1) holds where diag(d) >= S. None where no d makes it hold.

        Differentiable in the multipliers. Time grows with the cubes of the layers' widths, memory with their squares.
        """
        blocks = self.blocks(multipliers)
        for k in range(len(self.units), 0, -1):
            if not blocks.eliminate(k):
                return None
        zero = multipliers.new_zeros((self.sizes[0], self.sizes[0]))
        return -blocks.get((0, 0), zero)


class Blocks(dict[tuple[int, int], Tensor]):
    """A symmetric or Hermitian matrix by its blocks (i, j), i >= j; those that are absent are zero. May be a batch."""

    def add(self, i: int, j: int, block: Tensor) -> None:
        """Adds a block, given in either order."""
        key, block = ((i, j), block) if i >= j else ((j, i), block.mH)
        self[key] = self[key] + block if key in self else block

    def eliminate(self, k: int) -> bool:
        """Replaces the matrix by its Schur complement without the last block, k; False where that block is not > 0."""
        factor, failed = torch.linalg.cholesky_ex(self.pop((k, k)))
        if bool(failed.any()):
            return False
        beside = {j: self.pop((k, j)) for j in range(k) if (k, j) in self}
        solved = {j: torch.linalg.solve_triangular(factor, block, upper=False) for j, block in beside.items()}
        for i, left in solved.items():
            for j, right in solved.items():
                if j <= i:
                    self.add(i, j, -left.mH @ right)
        return True


def read(
    graph: Graph, rows: Tensor, scale: Tensor | None = None, boxes: Mapping[int, Interval] | None = None
) -> Program:
    """The program for rows C [rows, outputs] of a float64 graph; the input is measured as scale * dx, scale [inputs].

    boxes: by node an enclosure [1, *node] of its values, for the arguments of units in a local region; elsewhere, and
    for nodes without one, slopes are those on the whole line.
    Raises: UnsupportedOp naming the node where increments have no rule, or no finite slope; ResourceLimit.
    """
    reading = _Reading(graph, dict(boxes or {}))
    last = reading.run(scale).rows()
    flat = {k: rows.to(matrix.dtype) @ matrix for k, matrix in last.items()}
    used = {k: matrix for k, matrix in flat.items() if bool(matrix.any())} or {0: rows.new_zeros((1, reading.sizes[0]))}
    return Program(tuple(reading.sizes), tuple(reading.layers), used)


class _Reading:
    """One walk over the graph: verifier.ops.increments.Scope."""

    def __init__(self, graph: Graph, boxes: Mapping[int, Interval]) -> None:
        self.graph, self.known = graph, boxes
        self.sizes, self.layers = [prod(graph.input_shape)], list[Units]()
        self.node: Node = graph.nodes[0]
        self.stages = 0
        self.compared: dict[bytes, Increments] = {}

    def run(self, scale: Tensor | None) -> Increments:
        """The output's increments."""
        shape, size = self.graph.input_shape, self.sizes[0]
        start = torch.eye(size, dtype=self.graph.dtype)
        start = start if scale is None else start / scale.reshape(-1, 1)
        values = {0: Increments({0: start.reshape(size, *shape)})}
        for index, node in enumerate(self.graph.nodes[1:], start=1):
            assert node.op is not None
            self.node = node
            if size * prod(node.shape) > ENTRIES:
                raise self._too_large()
            found = node.op.increments([values[i] for i in node.inputs], self)
            if found is None:
                raise self._refusal("the increments of its result have no bound in terms of those of its inputs")
            values[index] = found
            for i in node.inputs:
                if self.graph.last_use[i] == index:
                    values.pop(i, None)
        return values[len(self.graph.nodes) - 1]

    def slopes(self) -> tuple[Tensor, Tensor]:
        """See Scope."""
        op, source = self.node.op, self.node.inputs[0]
        op = op.function if isinstance(op, Implicit) else op
        assert isinstance(op, Elementwise)
        far = torch.full((1, *self.node.shape), FAR, dtype=self.graph.dtype)
        box = self.known.get(source, Interval(-far, far))
        try:
            found = op.derivative(box)
        except Unbounded as error:
            raise self._refusal(f"its slopes are not bounded ({error})") from error
        lower, upper = (_snapped(end) for end in (found.lower, found.upper))
        return lower.expand_as(far), upper.expand_as(far)

    def boxes(self) -> Sequence[Interval]:
        """See Scope."""
        if not all(i in self.known for i in self.node.inputs):
            raise self._refusal("its slopes are bounded over a region only, from enclosures of all its inputs")
        return [self.known[i] for i in self.node.inputs]

    def units(self, argument: Increments, lower: Tensor, upper: Tensor) -> Increments:
        """See Scope.   Raises: ResourceLimit."""
        size = max(lower.numel(), *map(len, argument.blocks.values()))
        if lower.numel() > prod(self.node.shape) and size * lower.numel() > ENTRIES:
            raise self._too_large()
        return self._layer(argument, lower, upper, None)

    def rectified(self, gap: Increments) -> Increments:
        """See Scope."""
        mirrored = gap.through(torch.neg)
        if (key := _digest(gap)) in self.compared:
            return self.compared[key]
        if (key := _digest(mirrored)) in self.compared:
            return self.compared[key] + gap
        like = gap.like
        part = self.units(gap, torch.zeros_like(like), torch.ones_like(like))
        self.compared[_digest(gap)] = part
        return part

    def fixed_point(self, weight: Tensor, argument: Increments) -> Increments:
        """See Scope."""
        return self._layer(argument, *self.slopes(), weight)

    def _layer(self, argument: Increments, lower: Tensor, upper: Tensor, weight: Tensor | None) -> Increments:
        """Units where the slopes differ, lower times the argument elsewhere."""
        steepest = torch.maximum(lower.abs(), upper.abs()).max().item() if lower.numel() else 0.0
        if not steepest < STEEPEST:
            raise self._refusal("its slopes are not bounded")
        rows, own, shape = argument.rows(), len(self.sizes), lower.shape[1:]
        low, high = lower.flatten(), upper.flatten()
        free = torch.ones_like(low, dtype=torch.bool) if weight is not None else low < high
        places, stage, self.stages = free.nonzero()[:, 0], self.stages, self.stages + 1
        fixed = torch.where(free, 0.0, low).reshape(lower.shape)
        result = argument.through(lambda x: x * fixed) if bool(fixed.any()) else Increments({})
        if not len(places):
            return result if result.blocks else argument.through(torch.zeros_like)
        chosen = {k: matrix[places] for k, matrix in rows.items()}
        zero = {0: low.new_zeros((len(places), self.sizes[0]))}
        chosen = {k: matrix for k, matrix in chosen.items() if bool(matrix.any())} or zero
        chosen |= {} if weight is None else {own: weight.to(low.dtype)}
        self.sizes.append(len(places))
        self.layers.append(Units(self.node.name, stage, low[places], high[places], chosen, places, len(low)))
        made = torch.zeros((len(places), len(low)), dtype=low.dtype)
        made[torch.arange(len(places)), places] = 1
        return result + Increments({own: made.reshape(len(places), *shape)})

    def _too_large(self) -> ResourceLimit:
        return ResourceLimit(f"node '{self.node.name}': entries of its Jacobian", f"{ENTRIES}")

    def _refusal(self, reason: str) -> UnsupportedOp:
        helpful = "a region where they are finite" if self.known else "a bounded region (an input and a radius)"
        what = f"{reason}, so no Lipschitz constant of the network can be bounded here; what may help: {helpful}"
        return UnsupportedOp(self.node.name, type(self.node.op).__name__, what)


def _snapped(slopes: Tensor) -> Tensor:
    """0 and 1 where the slopes are within SNAP of them."""
    for whole in (0.0, 1.0):
        slopes = torch.where((slopes - whole).abs() < SNAP, whole, slopes)
    return slopes


def _digest(increments: Increments) -> bytes:
    """Of all entries; 0 and -0 are the same."""
    total = hashlib.sha256()
    for k, block in sorted(increments.blocks.items()):
        total.update(repr((k, tuple(block.shape))).encode())
        total.update((block + 0.0).contiguous().numpy().tobytes())
    return total.digest()
