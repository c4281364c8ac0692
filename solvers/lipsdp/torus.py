"""Lipschitz bounds of networks that begin with convolutions, too large for one dense program.

Units of a channel (and of a phase, where strides differ) share a multiplier, and are extended by zeros to a torus: the
program is one Hermitian matrix for every frequency (verifier.check.torus). The last convolutional units h are cut from
the rest, which gets the metric d by channel:  |f(h) - f(h')|^2 <= sum d |dh|^2,  one small matrix. Either part is

    diag(q) + c L + (c L)* on its own coordinates, c B on those of its first block, q, c linear in multipliers,

    rho = max over frequencies of the largest eigenvalue of (c B)* U^-1 c B, U > 0; the rest's U - c B d^-1 (c B)' > 0.

Closed form backward, then descent on the logarithms of all variables (solvers.lipsdp.descent) over some frequencies;
those where the eigenvalue is largest join them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from provenn.solvers.lipsdp.descent import TEMPERATURES, Objective, minimised
from provenn.solvers.lipsdp.layout import METHOD, Layout, layout, rows_of
from provenn.verifier.certificate.lipschitz import Channels, Prover
from provenn.verifier.check.bordered import OUTPUT, Border, borders, ending
from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.network import dense
from provenn.verifier.check.quadratic import Layer
from provenn.verifier.check.torus import kernel
from provenn.verifier.errors import BackendError, ResourceLimit
from provenn.verifier.graph import Graph

ROOM, LEAST = 1.25, 1e-60
"""By how much a closed form's multipliers exceed what they must outweigh; the least they are."""

FEW, JOINING, CHUNK = 16, 4, 64
"""Frequencies that the descent begins with, those that join them after every temperature, those looked at together."""

MARGIN = 2.0**-26
"""What a bound is enlarged by, relatively, before it is proved."""

ENTRIES = 2**27
"""Largest number of entries of all frequencies' matrices."""

BEYOND = 2**62
"""The level of the output."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Choice:
    """Multipliers by step, of rows (channel, phase) or units; cut: d by rows; bound: rho, the constant's square."""

    multipliers: Mapping[int, Array]
    cut: Array
    bound: float


Improved = Callable[[Choice], bool]
"""Called with every better choice; False ends the method."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Borders (verifier.check.bordered): q = square y + constant, c = cross y + constant, y that of `variable`.

    level: the step whose units a coordinate belongs to, or whose arguments; own: whether it is a unit; inner
    [batch, n, n]: L, strictly lower; first [batch, n, m]: B.
    """

    square: Tensor
    cross: Tensor
    constant: Tensor
    variable: Tensor
    level: Tensor
    own: Tensor
    inner: Tensor
    first: Tensor

    def at(self, some: Tensor) -> _Part:
        """Some of the batch."""
        return replace(self, inner=self.inner[some], first=self.first[some])

    def matrices(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """U and c B."""
        own = y[self.variable]
        square, cross = (factor * own + self.constant for factor in (self.square, self.cross))
        lower = cross[:, None] * self.inner
        return torch.diag(square) + lower + lower.mH, cross[:, None] * self.first

    def left(self, y: Tensor, step: int, less: Tensor) -> float:
        """The largest eigenvalue of what the coordinates of later levels leave on the units of a step.

        less [n]: what U's diagonal is less.
        """
        later, units = self.level > step, self.own & (self.level == step)
        if not bool(later.any()):
            return 0.0
        inner = self.matrices(y)[0] - torch.diag(less)
        root = torch.linalg.cholesky(inner[:, later][:, :, later])
        half = torch.linalg.solve_triangular(root, inner[:, later][:, :, units], upper=False)
        return _largest(half)

    def free(self, y: Tensor) -> Tensor:
        """The logarithms of q, summed."""
        return (self.square * y[self.variable] + self.constant).log().sum()


@dataclass(frozen=True, eq=False)
class Problem:
    """The whole problem. Its variables: multipliers of rows, d, multipliers of the rest's units.

    places: of each step's variables, d's under -1; last: the step that is cut; rows: of its units, by d; weights: of
    every step, what a closed form multiplies by.
    """

    conv: _Part
    rest: _Part
    places: Mapping[int, slice]
    last: int
    rows: Tensor
    weights: Mapping[int, float]

    @classmethod
    def of(cls, units: Units, where: Layout, rows: Array, scale: Array | None = None) -> Problem:
        """For rows C [m, outputs], the input measured as scale * dx.   Raises: ResourceLimit."""
        grids, every = where.grids, units.increments.layers
        layers, shifts = dict[int, Layer](), dict[tuple[int, int], Any]()
        for i in sorted(grids.keys() - {0}):
            _, a, b, blocks, _ = every[i]
            found = {k: kernel(block, grids[i], grids[k], where.torus) for k, block in blocks.items()}
            shifts |= {(i, k): each[1] for k, each in found.items()}
            low, high = (np.full(grids[i].rows, end) for end in (a.min(), b.max()))
            numbers = {k: each[0] for k, each in found.items()}
            layers[i] = Layer(np.arange(grids[i].rows), low, high, numbers, numbers)
        others = {i: layer for i, layer in every.items() if i not in grids}
        sizes = {i: len(layer.units) for i, layer in layers.items()} | {-1: grids[where.last].rows}
        sizes |= {i: len(layer.units) for i, layer in others.items()}
        ends = np.cumsum([0, *sizes.values()]).tolist()
        places = {i: slice(*pair) for i, pair in zip(sizes, pairwise(ends), strict=True)}
        frequencies, n = _frequencies(where.torus), np.array(where.torus)
        if len(frequencies) * sum(len(layer.units) for layer in layers.values()) ** 2 > ENTRIES:
            raise ResourceLimit(f"entries of {len(frequencies)} frequencies", f"{ENTRIES}")
        length = units.network.steps[0].length
        weight = rows_of(grids[0], np.ones(length) if scale is None else scale)

        def waves(i: int, k: int, numbers: Array) -> NDArray[Any]:
            angle = 2 * np.pi * (frequencies[:, None] * shifts[i, k] % n / n).sum(axis=2)
            found = np.moveaxis(np.tensordot(numbers, np.exp(1j * angle).T, 1), 2, 0)
            return found / weight if k == 0 else found

        conv = _part(borders(layers, _ones(layers)), layers, places, (0, grids[0].rows), waves)
        parts = borders(others, _ones(others)) | ending(units.increments, rows)
        width = units.network.steps[where.last].length
        rest = _part(parts, others, places, (where.last, width), lambda _i, _k, block: dense(block)[None])
        weights = {i: _weight(layer) for i, layer in (layers | others).items()}
        return cls(conv, rest, places, where.last, torch.from_numpy(grids[where.last].places()[0]), weights)

    def forms(self, y: Tensor, conv: _Part) -> tuple[Tensor, Tensor, Tensor]:
        """U and c B of frequencies; U - c B d^-1 (c B)' of the rest."""
        inner, first = conv.matrices(y)
        cut = y[self.places[-1]]
        middle, beside = self.rest.matrices(y)
        return inner - torch.diag(self.less(conv, cut)), first, (middle - (beside / cut[self.rows]) @ beside.mH)[0]

    def less(self, part: _Part, cut: Tensor) -> Tensor:
        """The metric d at the units that are cut, 0 elsewhere."""
        return torch.zeros_like(part.square).masked_scatter(part.own & (part.level == self.last), cut)

    def bounds(self, y: Tensor) -> Tensor:
        """The largest eigenvalue at every frequency; inf where y is not in the domain."""
        parts = []
        for some in torch.split(torch.arange(len(self.conv.inner)), CHUNK):
            inner, first, rest = self.forms(y, self.conv.at(some))
            root, failed = torch.linalg.cholesky_ex(inner)
            half = torch.linalg.solve_triangular(root, first, upper=False)
            outside = (failed > 0) | ~half.isfinite().all(-1).all(-1) | bool(torch.linalg.cholesky_ex(rest)[1])
            half = torch.where(outside[:, None, None], torch.zeros_like(half), half)
            found = torch.linalg.eigvalsh(half.mH @ half)[:, -1]
            parts.append(torch.where(outside, inf, found))
        return torch.cat(parts)

    def choice(self, y: Tensor, bound: float) -> Choice:
        """From the variables."""
        parts = {i: y[place].numpy().copy() for i, place in self.places.items()}
        return Choice({i: part for i, part in parts.items() if i != -1}, parts[-1], bound)

    def start(self) -> Tensor:
        """The closed form: backward, every step's multipliers outweigh what its later readers leave on it."""
        y = torch.ones(max(place.stop for place in self.places.values()), dtype=torch.float64)
        for part in (self.rest, self.conv):
            for step in sorted(set(part.level[part.own].tolist()), reverse=True):
                cut = part is self.conv and step == self.last
                largest = (
                    float(y[self.places[-1]].max()) if cut else part.left(y, step, self.less(part, y[self.places[-1]]))
                )
                y[self.places[step]] = ROOM * self.weights[step] * max(largest, LEAST)
            if part is self.rest:
                inner, beside = part.matrices(y)
                half = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), beside, upper=False)
                y[self.places[-1]] = ROOM * max(_largest(half.mH), LEAST)
        return y

    def objective(self, some: Tensor, mu: float, over: Callable[[], bool]) -> Objective:
        """Of the logarithms: that of a soft maximum over these frequencies, and a barrier; None outside the domain."""
        conv = self.conv.at(some)
        count = len(conv.square) + len(self.rest.square)

        def value(logs: Tensor) -> tuple[float, Tensor] | None:
            logs = logs.detach().requires_grad_()
            y = logs.exp()
            inner, first, rest = self.forms(y, conv)
            (root, failed), (other, wrong) = torch.linalg.cholesky_ex(inner), torch.linalg.cholesky_ex(rest)
            if over() or bool(failed.any()) or bool(wrong):
                return None
            half = torch.linalg.solve_triangular(root, first, upper=False)
            values = torch.linalg.eigvalsh(half.mH @ half).flatten()
            room = 2 * root.diagonal(dim1=-2, dim2=-1).real.log().sum(-1).mean() - conv.free(y)
            room = room + 2 * other.diagonal().log().sum() - self.rest.free(y)
            largest = values.max().detach()
            soft = largest + mu * largest * torch.logsumexp((values - largest) / (mu * largest), 0)
            total = soft.log() - mu * room / count
            (slope,) = torch.autograd.grad(total, logs)
            return (float(total.detach()), slope) if bool(slope.isfinite().all()) else None

        return value


def solve(problem: Problem, improved: Improved, over: Callable[[], bool] = lambda: False) -> Choice | None:
    """From the closed form on, until improved says no, time is over or mu is the last; None where no form is known."""
    try:
        y = problem.start()
    except LinAlgError:
        return None
    values = problem.bounds(y)
    if not bool(values.isfinite().all()):
        return None
    best = problem.choice(y, float(values.max()) * (1 + MARGIN))
    chosen = set(torch.linspace(0, len(values) - 1, FEW).long().tolist()) | _worst(values)
    for mu in TEMPERATURES:
        if not improved(best) or over():
            break
        last = y
        for place in minimised(problem.objective(torch.tensor(sorted(chosen)), mu, over), y.log()):
            last = place.exp()
            if over():
                break
        values = problem.bounds(last)
        if bool(values.isfinite().all()):
            y = last
            if (bound := float(values.max()) * (1 + MARGIN)) < best.bound:
                best = problem.choice(y, bound)
        chosen |= _worst(values)
    improved(best)
    return best


def bounded(
    graph: Graph, prover: Prover, rows: Sequence[int], improved: Improved, over: Callable[[], bool] = lambda: False
) -> tuple[Channels, float] | None:
    """For rows of the prover's statement, what `Prover.least_by_frequency` takes; None where no multipliers are found.

    Raises: BackendError for another norm than l2, or a region, and where the network does not begin with convolutions;
    CertificateRejected, ResourceLimit where its convolutions are too large.
    """
    statement = prover.statement
    if statement.norm != "2" or statement.region is not None:
        raise BackendError(METHOD, "it bounds l2 norms, and everywhere")
    where = layout(graph, prover.units)
    matrix = np.array([statement.rows[i] for i in rows], np.float64)
    scale = None if statement.scale is None else np.array(statement.scale)
    found = solve(Problem.of(prover.units, where, matrix, scale), improved, over)
    if found is None:
        return None
    return Channels(where.maps(prover.units), where.torus, found.multipliers, found.cut), found.bound


def _part(
    parts: Mapping[int, Border],
    layers: Mapping[int, Layer],
    places: Mapping[int, slice],
    first: tuple[int, int],
    blocks: Callable[[int, int, Any], NDArray[Any]],
) -> _Part:
    """first: the key and width of B; blocks: from a step, what it reads and a border's block, [batch, n, m]."""
    ends = np.cumsum([0, *(len(border.square) for border in parts.values())]).tolist()
    at = {key: slice(*pair) for key, pair in zip(parts, pairwise(ends), strict=True)}
    square, cross, constant = np.zeros((3, ends[-1]))
    variable, level, own = np.zeros(ends[-1], np.int64), np.zeros(ends[-1], np.int64), np.zeros(ends[-1], bool)
    found = dict[tuple[int, int], NDArray[Any]]()
    for key, border in parts.items():
        step = max(key, ~key)
        if key == OUTPUT:
            constant[at[key]], level[at[key]] = 1, BEYOND
        else:
            some = np.flatnonzero(layers[step].a * layers[step].b < 0) if key < 0 else np.arange(len(border.square))
            square[at[key]], cross[at[key]] = border.square, border.cross
            variable[at[key]], level[at[key]], own[at[key]] = places[step].start + some, step, key >= 0
        found |= {(key, k): blocks(step, k, block) for k, block in border.blocks.items()}
    like = next(iter(found.values()))
    inner = np.zeros((len(like), ends[-1], ends[-1]), like.dtype)
    before = np.zeros((len(like), ends[-1], first[1]), like.dtype)
    for (key, k), block in found.items():
        if k == first[0]:
            before[:, at[key]] = block
        else:
            inner[:, at[key], at[k]] = block
    return _Part(*map(torch.from_numpy, (square, cross, constant, variable, level, own, inner, before)))


def _ones(layers: Mapping[int, Layer]) -> dict[int, Array]:
    return {i: np.ones(len(layer.units)) for i, layer in layers.items()}


def _weight(layer: Layer) -> float:
    """The t that passes |w|^2 on as max |slope|^2 |v|^2 (start.py), for a step's widest slopes."""
    low, high = float(layer.a.min()), float(layer.b.max())
    return (1 + abs(low + high) / max(high - low, 1e-12)) / 2


def _frequencies(torus: Sequence[int]) -> NDArray[np.int64]:
    """One of f and -f, [frequencies, axes]."""
    every = product(*map(range, torus))
    return np.array([f for f in every if f <= tuple(-k % n for k, n in zip(f, torus, strict=True))])


def _worst(values: Tensor) -> set[int]:
    """Where they are largest."""
    return {int(i) for i in values.topk(min(JOINING, len(values))).indices}


def _largest(half: Tensor) -> float:
    """The largest eigenvalue of half* half, over a batch, by the smaller of the two products."""
    gram = half.mH @ half if half.shape[-1] <= half.shape[-2] else half @ half.mH
    return float(torch.linalg.eigvalsh(gram).max())
