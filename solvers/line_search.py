"""Exact line searches through piecewise-linear networks: all breakpoints of a segment, layer by layer.

Along a segment every value is linear between two neighbouring breakpoints of the layers before it. So one pass finds
where each value crosses a kink of the op that reads it, adds those points of the segment to the ones known, and goes
on; at the end the outputs are linear between neighbours. Rounding moves a breakpoint a little: what is found counts
only as a point to be evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from provenn.solvers.goal import Goal
from provenn.solvers.sampling import FEW
from provenn.verifier.graph import Graph
from provenn.verifier.ops.abs import Abs, PRelu
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.relu import Relu

ELEMENTS = 1 << 22
"""Values of the widest node that one search computes at most: its width times all breakpoints."""

CUTS = 4
"""Times that two rows of a clause are made to meet between two breakpoints: exact for clauses of up to five rows."""

GAIN = 1e-6
"""What a line search must gain, as a share of what is missing, to count."""


def affordable(goal: Goal) -> int:
    """From how many points `walk` can search along all lines at once; 0 where it cannot read an op."""
    nodes = [node for node in goal.graph.nodes if node.op is not None]
    bends = [_kinks(node.op) for node in nodes if node.op is not None]
    if any(kinks is None for kinks in bends):
        return 0
    neurons = sum(prod(node.shape) for node, kinks in zip(nodes, bends, strict=True) if kinks)
    return _most(goal.graph) // ((4 + 2 * len(_axes(goal))) * (neurons + 2))


def walk(goal: Goal, x: Tensor, aim: Tensor, rounds: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(points, violation) of x [cases, *input] at the start and after every exact search, the best line a point.

    goal: as many cases as points; aim, violation: [cases]. Lines lead to the point of the region where the linear
    piece at x is largest, and along its gradient to the boundary, for the score and for the smallest row alone; and
    along every input, where few are free. Ends where no point gains.   Source: Frank and Wolfe 1956, steps exact.
    """
    reached = torch.full(aim.shape, -torch.inf, dtype=x.dtype, device=x.device)
    everyone = torch.arange(len(x), device=x.device)
    for _ in range(rounds):
        violation, _, gradient = goal.climbed(x.unsqueeze(0), aim.unsqueeze(0))
        yield x, violation[0]
        steepest = goal.climbed(x.unsqueeze(0), aim.unsqueeze(0), alone=True)[2]
        ends = _ends(goal, x.unsqueeze(0), (gradient, steepest))
        t, value = best_on_lines(goal, x, ends, aim, _most(goal.graph))
        best, line = value.max(0)
        gains = best - reached > GAIN * best.abs()
        if not gains.any():
            return
        share = torch.where(gains, t[line, everyone], 0).reshape(-1, *(1,) * (x.dim() - 1))
        x = goal.room.project(torch.lerp(x, ends[line, everyone], share))
        reached = torch.where(gains, best, reached)
    yield x, goal.clauses(goal.rows(x.unsqueeze(0))).amax(0)[0]


def best_on_lines(goal: Goal, start: Tensor, ends: Tensor, aim: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """(t, value): where the smallest row of the aimed clause is largest on each segment, and how large.

    start: [cases, *input]; ends: [lines, cases, *input]; aim: [cases]; t, value: [lines, cases]. Of breakpoints
    beyond `most` some are left out.
    """
    lines, cases = ends.shape[:2]
    with torch.no_grad():
        points, outputs = _breakpoints(goal.graph, start.expand_as(ends).flatten(0, 1), ends.flatten(0, 1), most)
        case = points.line % cases
        rows = torch.einsum("smo,mo->sm", goal.packed.matrix[:, case], outputs.flatten(1)) - goal.packed.bound[:, case]
        t, value = _highest(points, torch.where(goal.packed.clause[:, case] == aim[case], rows, torch.inf))
        best = value.new_full((lines * cases,), -torch.inf).scatter_reduce(0, points.line, value, "amax")
        last = len(t) - 1
        first = torch.where(value >= best[points.line], torch.arange(len(t), device=t.device), last)
        where = torch.full((lines * cases,), last, device=t.device).scatter_reduce(0, points.line, first, "amin")
        return t[where].to(start.dtype).reshape(lines, cases), best.reshape(lines, cases)


@dataclass(frozen=True, eq=False)
class _Points:
    """Points of the segments, in order: line [points], the number of the segment; t [points] from 0 to 1."""

    line: Tensor
    t: Tensor

    @property
    def followed(self) -> Tensor:
        """[points - 1]: whether the next point lies on the same segment."""
        return self.line[1:] == self.line[:-1]


def _breakpoints(graph: Graph, start: Tensor, end: Tensor, most: int) -> tuple[_Points, Tensor]:
    """All breakpoints of the segments [lines, *input], both ends among them, and the outputs there."""
    line = torch.arange(len(start), device=start.device).repeat_interleave(2)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=start.device)
    points = _Points(line, ends.repeat(len(start)))
    values: dict[int, Tensor] = {0: torch.stack((start, end), 1).flatten(0, 1)}
    for index, node in enumerate(graph.nodes[1:], start=1):
        assert node.op is not None
        for kink in _kinks(node.op) or ():
            points, values = _refined(points, values, values[node.inputs[0]] - kink, most)
        values[index] = node.op.forward(*(values[i] for i in node.inputs))
        for i in node.inputs:
            if graph.last_use[i] == index:
                values.pop(i, None)
    return points, values[len(graph.nodes) - 1]


def _refined(points: _Points, values: dict[int, Tensor], z: Tensor, most: int) -> tuple[_Points, dict[int, Tensor]]:
    """The points and those where z, linear between them, is 0; all values there."""
    z = z.flatten(1)
    left, unit = (((z[1:] < 0) != (z[:-1] < 0)) & points.followed.unsqueeze(1)).nonzero().unbind(1)
    room = max(most - len(points.t), 0)
    if len(left) > room:
        kept = torch.linspace(0, len(left) - 1, room, device=left.device).long()
        left, unit = left[kept], unit[kept]
    if not len(left):
        return points, values
    before, after = z[left, unit].double(), z[left + 1, unit].double()
    share = (before / (before - after)).nan_to_num(nan=0.5).clamp(0, 1)
    line = torch.cat((points.line, points.line[left]))
    t = torch.cat((points.t, torch.lerp(points.t[left], points.t[left + 1], share)))
    order = (2 * line + t).argsort(stable=True)

    def inserted(value: Tensor) -> Tensor:
        weight = share.to(value.dtype).reshape(-1, *(1,) * (value.dim() - 1))
        return torch.cat((value, torch.lerp(value[left], value[left + 1], weight)))[order]

    return _Points(line[order], t[order]), {i: inserted(value) for i, value in values.items()}


def _highest(points: _Points, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(t, value) [points]: where the smallest row is largest from a point to the next one of its segment.

    rows: [rows, points], inf for what does not count. The smallest of linear rows is concave: where one that rises
    and one that falls meet, it is highest, unless a third row is lower there, which then takes the place of one.
    """
    index = torch.arange(len(points.t), device=rows.device)
    right = index + torch.cat((points.followed, points.followed.new_zeros(1))).long()
    left, end = rows, rows[:, right]
    share, value = torch.zeros_like(rows[0]), rows.amin(0)
    rising, falling = left.argmin(0, keepdim=True), end.argmin(0, keepdim=True)
    for _ in range(min(CUTS, len(rows) - 1)):
        gap = left.gather(0, falling) - left.gather(0, rising)
        gain = gap + end.gather(0, rising) - end.gather(0, falling)
        meet = (gap / gain).nan_to_num(nan=0.0).clamp(0, 1)[0]
        here, worst = (left + meet * (end - left).nan_to_num()).min(0, keepdim=True)
        better = here[0] > value
        share, value = torch.where(better, meet, share), torch.where(better, here[0], value)
        up = end.gather(0, worst) > left.gather(0, worst)
        rising, falling = torch.where(up, worst, rising), torch.where(up, falling, worst)
    return torch.lerp(points.t, points.t[right], share.double()), value.nan_to_num(nan=-torch.inf)


def _ends(goal: Goal, x: Tensor, gradients: tuple[Tensor, ...]) -> Tensor:
    """[lines, cases, *input]: where the lines from x end; x and the gradients: [1, cases, *input]."""
    room = goal.room
    ends = [end for g in gradients for end in (room.farthest(x, g), room.boundary(x, g))]
    for axis in _axes(goal):
        for side in (room.lower, room.upper):
            end = x.flatten(2).clone()
            end[..., axis] = side.flatten(1)[:, axis]
            ends.append(end.reshape(x.shape))
    return room.project(torch.cat(ends))


def _axes(goal: Goal) -> list[int]:
    """The inputs that are free in some case, if they are few."""
    free = (goal.room.upper > goal.room.lower).flatten(1).any(0).nonzero().flatten().tolist()
    return free if len(free) <= FEW else []


def _kinks(op: Op) -> tuple[float, ...] | None:
    """Where the op, linear between them, bends; None if it does anything else or this is not known."""
    if op.affine:
        return ()
    if isinstance(op, Relu | LeakyRelu | Abs | PRelu):
        return (0.0,)
    return (op.minimum, op.maximum) if isinstance(op, Clip) else None


def _most(graph: Graph) -> int:
    """Breakpoints of all lines together that one search keeps. Before the first bend there are none."""
    first = next((i for i, node in enumerate(graph.nodes) if node.op is not None and _kinks(node.op)), 1)
    return ELEMENTS // max((prod(node.shape) for node in graph.nodes[first:]), default=1)
