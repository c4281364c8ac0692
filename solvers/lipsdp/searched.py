"""A Lipschitz constant from below: a pair of inputs whose outputs lie far apart, found by search.

A pair has a centre c, a direction u of length one and a half length h. Toward larger |f(c + hu) - f(c - hu)| / 2h,
with v the vector that measures the difference of the outputs (|d| = v'd), both ends' gradients of v'f are known from
one backward pass: their sum turns u (power iteration, for any pair of norms: Boyd 1974; Higham 1992), their difference
moves c. Long pairs see far, also across the pieces of a piecewise linear network, whose Jacobian says nothing of its
neighbours; of a pair's two halves one is at least as good. So pairs start long and are halved until they are short.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.graph import Graph
from provenn.verifier.ops.base import Affine
from provenn.verifier.ops.implicit import TOLERANCE, Implicit
from provenn.verifier.region import Region

SECONDS, ROUNDS = 1.0, 1 << 30
"""Time for the search and its largest number of rounds, unless said otherwise."""

PAIRS, CELLS = 64, 1 << 21
"""Pairs that are moved together; numbers that their values in the network may take."""

LEVELS, MOVES = 12, 6
"""How often a pair is halved, and its moves before every time."""

SCALES = 2.0
"""Starting points lie 10^-SCALES .. 10^SCALES from the origin (in every coordinate, about)."""

CULLED = 2
"""Halvings after which the worse half of the pairs gives way to copies of the better one."""

NOISE = 0.5
"""Length of the random part of a centre's step, beside one along the gradient."""

GROWTH, SHRINKAGE = 1.5, 0.6
"""Of a centre's step, in half lengths, after it was a gain, and after it was not."""

POLISH = 12
"""Moves of the direction alone, of a short pair."""

FEW = 4
"""Pairs of a round that are polished."""

LENGTHS = tuple(10.0**k for k in range(-5, 10))
"""Half lengths that are tried at last, in units of a pair's."""

PROBES, ROUNDINGS, CAUTION = 6, 8.0, 8.0
"""Evaluations with other roundings; how large these are, in eps times the sum of absolute summands; by how much the
largest deviation that they show is enlarged."""

INSIDE, TURNS = 1e-9, 20
"""Share of a ball that is kept free at its boundary; projections in turn where a region has several parts."""

EPS = torch.finfo(torch.float64).eps

SHORT = 1e-6
"""Half length of pairs beside a point that is known, of the region's."""

FAINT = 1e-300
"""Norms below it count as it: nothing is divided by zero."""


@dataclass(frozen=True, eq=False)
class Measure:
    """|C (f(x) - f(y))| in the norm `outputs` over |scale * (x - y)| in the norm `inputs`.

    rows C [rows, outputs]; inputs: "2" or "inf"; outputs: "2", "inf" or "1"; scale [inputs] > 0, or None for 1.
    """

    rows: Tensor
    inputs: str = "2"
    outputs: str = "2"
    scale: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """value <= the Lipschitz constant, of the pair first, second, each [*input]: see `searched`."""

    value: float
    first: Tensor
    second: Tensor


def searched(
    graph: Graph,
    measure: Measure,
    region: Region | None = None,
    seconds: float = SECONDS,
    seed: int = 0,
    rounds: int = ROUNDS,
    near: Tensor | None = None,
) -> Found:
    """A pair of inputs, both in the region (a batch of one) where it is given, and its quotient.

    The quotient is what float64 gives, less an estimate of its rounding: deviations under random roundings (stochastic
    arithmetic: Vignes 1993), enlarged; 0 where nothing is left. near: points [any, *input] beside which short pairs are
    tried first. The same for one seed and one number of rounds; where
    time ends them, not quite.
    Raises: InvalidSpecification if the network is not float64, or the region is not one.
    """
    if graph.dtype != torch.float64 or measure.rows.dtype != torch.float64:
        raise InvalidSpecification("a Lipschitz constant is searched for in float64 only")
    if region is not None and region.batch != 1:
        raise InvalidSpecification("a Lipschitz constant is searched for in one region at a time")
    return _Search(graph, measure, region, seed).run(time.monotonic() + seconds, rounds, near)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Ends x, y [pairs, inputs] in scaled coordinates (lengths are plain norms), the value of each pair [pairs].

    turn, shift: gradients of v'(f(x) - f(y)) by (x - y) / 2 and by (x + y) / 2; zero if unknown.
    length: the half length that a move aims at; pace: how far it goes, in (0, 1].
    """

    first: Tensor
    second: Tensor
    value: Tensor
    turn: Tensor
    shift: Tensor
    length: Tensor
    pace: Tensor

    def where(self, better: Tensor, other: _Pairs) -> _Pairs:
        """The other ones where `better` [pairs]."""
        own, others = vars(self).values(), vars(other).values()
        return _Pairs(
            *(torch.where(better if a.dim() == 1 else better[:, None], b, a) for a, b in zip(own, others, strict=True))
        )

    def select(self, index: Tensor) -> _Pairs:
        """Those at `index`."""
        return _Pairs(*(part[index] for part in vars(self).values()))


class _Search:
    """One search: the network in scaled coordinates, its region, the source of chance, the best pair so far."""

    def __init__(self, graph: Graph, measure: Measure, region: Region | None, seed: int) -> None:
        self.graph, self.measure, self.room = graph, measure, None if region is None else _Room(region)
        self.rows = measure.rows
        self.inputs = torch.Size(graph.input_shape).numel()
        ones = torch.ones(self.inputs, dtype=torch.float64, device=self.rows.device)
        self.scale = ones if measure.scale is None else measure.scale.reshape(-1).to(ones)
        cells = sum(torch.Size(node.shape).numel() for node in graph.nodes)
        self.count = max(4, min(PAIRS, CELLS // cells))
        self.generator = torch.Generator().manual_seed(seed)

    def run(self, deadline: float, rounds: int, near: Tensor | None) -> Found:
        """Rounds until the deadline; every second one begins near the best pair so far."""
        start = self.shaped(self.projected(torch.zeros((1, self.inputs)).to(self.rows)))[0]
        best, known = Found(0.0, start, start), None
        if near is not None:
            best = self.guarded(self.polished(self.short(self.projected(near.flatten(1) * self.scale))))
        for number in range(rounds):
            pairs = self.descended(self.started(known if number % 2 else None), deadline)
            few = pairs.select(pairs.value.argsort(descending=True, stable=True)[:FEW])
            found = self.guarded(self.polished(few))
            if found.value > best.value:
                best, known = found, (self.flat(found.first) + self.flat(found.second)) / 2
            if time.monotonic() > deadline:
                break
        return best

    def descended(self, pairs: _Pairs, deadline: float) -> _Pairs:
        """Moved and halved, level by level."""
        for level in range(LEVELS):
            for _ in range(MOVES):
                if time.monotonic() > deadline and float(pairs.value.max()) > 0:
                    return pairs
                pairs = self.moved(pairs, 1.0)
            if level + 1 < LEVELS:
                pairs = self.halved(pairs)
            if level % CULLED == CULLED - 1:
                order = pairs.value.argsort(descending=True, stable=True)
                pairs = pairs.select(order[: (self.count + 1) // 2].repeat(2)[: self.count])
        return pairs

    def short(self, points: Tensor) -> _Pairs:
        """Pairs around points, in random directions, far shorter than the region."""
        kind, step = self.measure.inputs, self.normal(*points.shape)
        size = self.room.size(self.scale, kind) if self.room is not None and self.room.bounded else step.new_ones(1)
        length = (SHORT * size).expand(len(points))
        return self.evaluated(points, step * (length / _norm(step, kind))[:, None], length, torch.ones_like(length))

    def started(self, known: Tensor | None) -> _Pairs:
        """Around random points, of every scale, or around a known one [1, inputs]."""
        kind, shape = self.measure.inputs, (self.count, self.inputs)
        centre, step = self.normal(*shape), self.normal(*shape)
        if self.room is not None and self.room.bounded:
            unit = torch.rand(shape, generator=self.generator, dtype=torch.float64).to(centre)
            centre, size = self.room.spread(unit) * self.scale, self.room.size(self.scale, kind)
            length = size * 10 ** self.spaced(-3.0, 0.0)
            centre[2:] += (_dual(self.uphill(centre), kind) * size)[2:]
        else:
            centre = centre * 10 ** self.spaced(-SCALES, SCALES)[:, None]
            length = _norm(centre, kind)
            centre[0] = 0
        if known is not None:
            length = length.mean() * 10 ** self.spaced(-3.0, -0.5)
            centre = self.normal(*shape)
            centre = known + centre * (length / _norm(centre, kind))[:, None]
        step = step * (length / _norm(step, kind))[:, None]
        return self.evaluated(centre, step, length, torch.ones_like(length))

    def uphill(self, points: Tensor) -> Tensor:
        """For every point the gradient of some cell of the network, or its negative: toward where a unit switches."""
        start = self.shaped(points).requires_grad_()
        values, total = [start], start.new_zeros(())
        for node in self.graph.nodes[1:]:
            assert node.op is not None
            values.append(node.op.forward(*(values[i] for i in node.inputs)))
        chosen = torch.randint(len(values), (len(points),), generator=self.generator).tolist()
        signs = self.uniform(points[:, 0])
        for k, index in enumerate(chosen):
            cells = values[index][k].flatten()
            total = total + signs[k] * cells[int(torch.randint(len(cells), (1,), generator=self.generator))]
        gradient = torch.autograd.grad(total, start, allow_unused=True)[0] if total.requires_grad else None
        return torch.zeros_like(points) if gradient is None else gradient.flatten(1).nan_to_num(0.0) / self.scale

    def moved(self, pairs: _Pairs, share: float) -> _Pairs:
        """Every pair one step up its gradients, where that is a gain."""
        centre, step = (pairs.first + pairs.second) / 2, (pairs.first - pairs.second) / 2
        length, pace = pairs.length[:, None], pairs.pace[:, None]
        kind = self.measure.inputs
        now = step / _norm(step, kind).clamp(min=FAINT)[:, None]
        direction = now + pace * (_dual(pairs.turn, kind) - now)
        direction = direction / _norm(direction, kind).clamp(min=FAINT)[:, None]
        noise = self.normal(*centre.shape)
        shift = _dual(pairs.shift, kind) + NOISE * noise / _norm(noise, kind)[:, None]
        tried = self.evaluated(centre + share * pace * length * shift, length * direction, pairs.length, pairs.pace)
        better = tried.value > pairs.value
        pace = (pairs.pace * torch.where(better, GROWTH, SHRINKAGE)).clamp(max=1.0)
        return replace(pairs.where(better, tried), pace=pace)

    def halved(self, pairs: _Pairs) -> _Pairs:
        """The better half of every pair."""
        middle, quarter = (pairs.first + pairs.second) / 2, (pairs.first - pairs.second) / 4
        near, far = (
            self.evaluated(middle + s * quarter, quarter, pairs.length / 2, torch.ones_like(pairs.pace))
            for s in (1, -1)
        )
        return near.where(far.value > near.value, far)

    def polished(self, pairs: _Pairs) -> _Pairs:
        """Their directions alone improved."""
        pairs = replace(pairs, pace=torch.ones_like(pairs.pace))
        for _ in range(POLISH):
            pairs = self.moved(pairs, 0.0)
        return pairs

    def evaluated(self, centre: Tensor, step: Tensor, length: Tensor, pace: Tensor) -> _Pairs:
        """The pairs centre +- step, moved into the region, with their values and gradients."""
        first, second = self.ends(centre, step)
        both = torch.cat([first, second]).requires_grad_()
        gap = _difference(self.graph.forward(self.shaped(both))) @ self.rows.T
        weight = _dual(gap.detach(), _DUAL[self.measure.outputs])
        gradient = torch.zeros_like(both)
        if gap.requires_grad:
            gradient = torch.autograd.grad((gap * weight).sum(), both)[0].nan_to_num(0.0, 0.0, 0.0)
        one, other = gradient[: len(first)], gradient[len(first) :]
        value = _norm(gap.detach(), self.measure.outputs) / _norm(first - second, self.measure.inputs)
        value = value.nan_to_num(0.0, 0.0, 0.0)
        return _Pairs(first, second, value, one - other, one + other, length, pace)

    def ends(self, centre: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Centre +- step, shifted into the region, and what is still outside projected."""
        if self.room is None:
            return centre + step, centre - step
        for _ in range(2):
            first, second = centre + step, centre - step
            centre = centre + (self.projected(first) - first) + (self.projected(second) - second)
        return self.projected(centre + step), self.projected(centre - step)

    def shaped(self, points: Tensor) -> Tensor:
        """Scaled coordinates as inputs."""
        return (points / self.scale).reshape(-1, *self.graph.input_shape)

    def admitted(self, points: Tensor) -> Tensor:
        """Scaled coordinates as inputs, in the region's box exactly."""
        shaped = self.shaped(points)
        return shaped if self.room is None else self.room.project(shaped.flatten(1)).reshape(shaped.shape)

    def projected(self, points: Tensor) -> Tensor:
        """Into the region."""
        return points if self.room is None else self.room.project(points / self.scale) * self.scale

    def flat(self, points: Tensor) -> Tensor:
        """An input [*input] in scaled coordinates [1, inputs]."""
        return points.reshape(1, -1) * self.scale

    def normal(self, *shape: int) -> Tensor:
        """Random numbers."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.rows.device)

    def uniform(self, like: Tensor) -> Tensor:
        """Random numbers in [-1, 1]."""
        unit = torch.rand(like.shape, generator=self.generator, dtype=torch.float64)
        return (2 * unit - 1).to(like.device)

    def spaced(self, first: float, last: float) -> Tensor:
        """Numbers from first to last, evenly, in random order: [pairs]."""
        order = torch.randperm(self.count, generator=self.generator)
        return torch.linspace(first, last, self.count, dtype=torch.float64)[order].to(self.rows.device)

    def guarded(self, pairs: _Pairs) -> Found:
        """The best pair after rounding, among these and longer and shorter ones of the same centres and directions."""
        lengths = torch.tensor((1.0, *LENGTHS), dtype=torch.float64, device=self.rows.device)
        centre, step = (pairs.first + pairs.second) / 2, (pairs.first - pairs.second) / 2
        steps = (lengths[:, None, None] * step).flatten(0, 1)
        first, second = (self.admitted(end) for end in self.ends(centre.repeat(len(lengths), 1), steps))
        gap, wrong = self.rounded(torch.cat([first, second]))
        apart = _norm((first - second).flatten(1) * self.scale, self.measure.inputs)
        apart = apart * (1 + ROUNDINGS * EPS * self.inputs)
        value = (_norm(gap, self.measure.outputs) - wrong) / apart.clamp(min=FAINT)
        valid = value.isfinite()
        if self.room is not None:
            valid &= self.room.contains(first.flatten(1)) & self.room.contains(second.flatten(1))
        value = torch.where(valid, value, 0.0)
        best = int(value.argmax())
        return Found(max(float(value[best]), 0.0), first[best], second[best])

    def rounded(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """C (f(x) - f(y)) for x, y stacked, and how far rounding may move it in the output's norm: [pairs]."""
        kind = self.measure.outputs
        with torch.no_grad():
            outputs = _difference(self.graph.forward(points))
            gap = outputs @ self.rows.T
            wrong = torch.zeros_like(gap[:, 0])
            for _ in range(PROBES):
                other = _difference(self.shaken(points)) @ self.rows.T
                wrong = torch.maximum(wrong, _norm(other - gap, kind).nan_to_num(torch.inf))
            return gap, CAUTION * wrong + ROUNDINGS * EPS * _norm(outputs.abs() @ self.rows.abs().T, kind)

    def shaken(self, points: Tensor) -> Tensor:
        """F with every op's result moved at random as far as its own rounding may move it."""
        values = [points]
        for node in self.graph.nodes[1:]:
            assert node.op is not None
            inputs = [values[i] for i in node.inputs]
            result = node.op.forward(*inputs)
            size = result.abs()
            if isinstance(node.op, Affine):
                size = size + node.op.magnitude(*(x.abs() for x in inputs))
            elif isinstance(node.op, Implicit):
                inputs = [x + TOLERANCE * self.uniform(x) * (1 + result.abs()) for x in inputs]
                result = node.op.forward(*inputs)
            values.append(result + ROUNDINGS * EPS * size * self.uniform(size))
        return values[-1]


class _Room:
    """The inside of a region of one batch entry, points [any, inputs]."""

    def __init__(self, region: Region) -> None:
        self.lower, self.upper = region.box.lower.flatten(), region.box.upper.flatten()
        self.centre: Tensor | None = None
        self.radius, self.norm = 0.0, region.norm
        if region.centre is not None and region.radius is not None:
            self.centre, self.radius = region.centre.flatten(), float(region.radius) * (1 - INSIDE)
            self.lower = torch.maximum(self.lower, self.centre - self.radius)
            self.upper = torch.minimum(self.upper, self.centre + self.radius)
        parts = region.constraints
        self.matrix = self.lower.new_zeros((0, len(self.lower))) if parts is None else parts.matrix[:, 0].flatten(1)
        self.bound = self.lower.new_zeros(0) if parts is None else parts.bound[:, 0]
        aside = self.centre is not None and not bool(((self.lower <= self.centre) & (self.centre <= self.upper)).all())
        self.turns = TURNS if len(self.bound) or aside else 1

    @property
    def bounded(self) -> bool:
        """Whether no coordinate is free to go anywhere."""
        return bool((self.lower.isfinite() & self.upper.isfinite()).all())

    def spread(self, unit: Tensor) -> Tensor:
        """Points of the box by their place in it, the first one its middle, half of the others corners."""
        unit[1::2] = unit[1::2].round()
        unit[0] = 0.5
        return self.lower + unit * (self.upper - self.lower)

    def size(self, scale: Tensor, kind: str) -> Tensor:
        """About half the largest distance of two points, each multiplied by `scale`."""
        half = _norm((self.upper - self.lower) * scale / 2, kind)
        return half if self.centre is None else half.clamp(max=self.radius * float(scale.max()))

    def project(self, points: Tensor) -> Tensor:
        """Into ball, half spaces and box, in turn: into the box exactly."""
        for _ in range(self.turns):
            if self.centre is not None:
                away = points - self.centre
                length = torch.linalg.vector_norm(away, ord=self.norm, dim=-1, keepdim=True)
                points = self.centre + away * (self.radius / length.clamp(min=FAINT)).clamp(max=1)
            for row, limit in zip(self.matrix, self.bound, strict=True):
                beyond = (points @ row - limit + INSIDE * limit.abs()).clamp(min=0) / (row @ row).clamp(min=FAINT)
                points = points - beyond[:, None] * row
            points = torch.minimum(torch.maximum(points, self.lower), self.upper)
        return points

    def contains(self, points: Tensor) -> Tensor:
        """Whether they lie inside: [any]."""
        inside = ((points >= self.lower) & (points <= self.upper)).all(-1)
        inside &= (points @ self.matrix.T <= self.bound).all(-1)
        if self.centre is not None:
            away = torch.linalg.vector_norm(points - self.centre, ord=self.norm, dim=-1)
            inside &= away <= self.radius * (1 + INSIDE / 2)
        return inside


_DUAL = {"2": "2", "inf": "1", "1": "inf"}


def _difference(outputs: Tensor) -> Tensor:
    """F(x) - f(y) for x, y stacked: [pairs, outputs]."""
    flat, half = outputs.flatten(1), len(outputs) // 2
    return flat[:half] - flat[half:]


def _norm(x: Tensor, kind: str) -> Tensor:
    """Of the rows of x, where squares neither overflow nor vanish."""
    largest = x.abs().amax(-1, keepdim=True).clamp(min=FAINT)
    order = {"1": 1.0, "2": 2.0, "inf": torch.inf}[kind]
    length: Tensor = torch.linalg.vector_norm(x / largest, ord=order, dim=-1) * largest[..., 0]
    return length


def _dual(x: Tensor, kind: str) -> Tensor:
    """The vector of norm `kind` one with the largest product with x (zero for zero)."""
    if kind == "inf":
        return x.sign()
    if kind == "1":
        return torch.nn.functional.one_hot(x.abs().argmax(-1), x.shape[-1]) * x.sign()
    return x / _norm(x, "2").clamp(min=FAINT).unsqueeze(-1)
