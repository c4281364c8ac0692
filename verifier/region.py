"""Batched input regions for the search: a box, optionally cut by a norm ball and by linear constraints.

The exact region is `provenn.verifier.spec.InputSet`; this is its outward-rounded image in torch, and a bound over it
is a search result. The proof is made again, rigorously, by provenn.verifier.check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.ball import CutBall
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.interval import Interval
from provenn.verifier.spec import InputSet, enclosed

SMALL, NARROW = 1 << 16, 16
"""Up to so many coefficients, or inputs, three elementwise passes are faster than two products with a vector."""

STEPS = 8
"""Of the search for the multiplier of one linear constraint, the others fixed."""

CLIMB, STRIDE, DECAY = 30, 0.5, 0.85
"""Steps of the search for all multipliers together, the first one's length in units of the row's largest coefficient,
and by how much they shrink. Of what 2, 4, 8 random constraints can gain in a small box, 99, 98, 95 % is found."""

LARGEST_MULTIPLIER = 1000.0
"""In units of (largest coefficient of the row) / (largest of the constraint): beyond it rounding outweighs the gain."""

ROUNDINGS = 4
"""Of a product of multipliers and constraints, beside one a coordinate that it sums."""


@dataclass(frozen=True, eq=False)
class Constraints:
    """P x <= q.  matrix P: [constraints, batch, *input]; bound q: [constraints, batch]. A row of zeros is padding."""

    matrix: Tensor
    bound: Tensor

    def select(self, index: Tensor | slice) -> Constraints:
        """Those of the regions at `index` of the batch axis."""
        return Constraints(self.matrix[:, index], self.bound[:, index])


@dataclass(frozen=True, eq=False)
class Region:
    """{x : lower <= x <= upper} and, if given, |x - centre|_norm <= radius, P x <= q; one region a batch entry.

    box.lower, box.upper, centre: [batch, *input]; radius: [batch]; norm: 1 or 2, the same for the whole batch. Bounds
    hold up to rounding, about the size of the input times eps of the dtype for every |a| x they add. Of an empty
    region every bound is true and none means anything: exact sets that can be seen to be empty are refused earlier.
    """

    box: Interval
    centre: Tensor | None = None
    radius: Tensor | None = None
    norm: float | None = None
    constraints: Constraints | None = None

    @classmethod
    def of(
        cls, sets: Sequence[InputSet], shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype
    ) -> Region:
        """The outward-rounded image of exact input sets, which must share one norm."""
        lower = _rounded([s.lower for s in sets], shape, device, dtype, -np.inf)
        upper = _rounded([s.upper for s in sets], shape, device, dtype, np.inf)
        box = Interval(lower, upper)
        constraints = _constraints(sets, shape, device, dtype) if any(s.constraints for s in sets) else None
        first = sets[0].ball
        if first is None:
            return cls(box, constraints=constraints)
        balls = [s.ball for s in sets if s.ball is not None]
        assert len(balls) == len(sets) and all(b.norm == first.norm for b in balls), "one norm a batch"
        rows = [[float(c) for c in b.centre] for b in balls]
        centre = torch.tensor(rows, dtype=dtype, device=device).reshape(-1, *shape)
        slack = torch.finfo(dtype).eps * centre.abs().flatten(1).sum(1)
        radius = torch.tensor([float(b.radius) for b in balls], device=device, dtype=dtype)
        return cls(box, centre, radius * (1 + 4 * torch.finfo(dtype).eps) + slack, first.norm, constraints)

    @property
    def batch(self) -> int:
        """How many regions."""
        return self.box.lower.shape[0]

    @property
    def is_box(self) -> bool:
        """Whether every region is its box."""
        return self.centre is None and self.constraints is None

    def concretize(
        self, coefficients: Float[Tensor, "spec batch *input"], multipliers: Tensor | None = None
    ) -> Float[Tensor, "spec batch"]:
        """A lower bound of A x over the region: the minimum for a box, as good as the search for multipliers else.

        multipliers: [spec or 1, constraints, batch], any numbers (negative ones count as 0 and get no gradient), if the
        caller optimises them; else they are searched for, and never make the bound worse than without constraints.
        Differentiable in coefficients and multipliers: what is found here counts as a constant (envelope theorem).
        """
        a = coefficients.flatten(2)
        if self.constraints is None:
            return self._unconstrained(a)
        p, q = self.constraints.matrix.flatten(2), self.constraints.bound
        if multipliers is not None:
            return self._relaxed(a, p, q, multipliers.clamp(min=0))
        return torch.fmax(self._unconstrained(a), self._relaxed(a, p, q, self.multipliers(coefficients)))

    def multipliers(self, coefficients: Float[Tensor, "spec batch *input"]) -> Float[Tensor, "spec constraints batch"]:
        """Numbers mu >= 0 that make  min of (A + mu P) x - mu q  over box and ball large."""
        a = coefficients.flatten(2)
        with torch.no_grad():
            if self.constraints is None:
                return a.new_zeros((a.shape[0], 0, a.shape[1]))
            return self._ascended(a, self.constraints.matrix.flatten(2), self.constraints.bound)

    def minimizer(self, coefficients: Float[Tensor, "spec batch *input"]) -> Float[Tensor, "spec batch *input"]:
        """A point of box and ball where A x is smallest (up to rounding and to `concretize`'s search).

        Linear constraints are left out; no gradients.
        """
        with torch.no_grad():
            return self._minimizer(coefficients.flatten(2)).reshape(coefficients.shape)

    def select(self, index: Tensor | slice) -> Region:
        """The regions at `index` of the batch axis."""
        box = Interval(self.box.lower[index], self.box.upper[index])
        constraints = None if self.constraints is None else self.constraints.select(index)
        if self.centre is None or self.radius is None:
            return Region(box, constraints=constraints)
        return Region(box, self.centre[index], self.radius[index], self.norm, constraints)

    @property
    def _ball(self) -> CutBall | None:
        if self.centre is None or self.radius is None or self.norm is None:
            return None
        lower, upper = self.box.lower.flatten(1), self.box.upper.flatten(1)
        return CutBall(lower, upper, self.centre.flatten(1), self.radius, self.norm)

    def _unconstrained(self, a: Tensor) -> Tensor:
        """Over box and ball: the better of the box's minimum (multiplier 0) and the dual's value."""
        best = box_minimum(a, self.box.lower.flatten(1), self.box.upper.flatten(1))
        ball = self._ball
        if ball is None:
            return best
        x, gap = ball.minimum(a)
        return torch.maximum(best, torch.linalg.vecdot(a, x) + gap)

    def _minimizer(self, a: Tensor) -> Tensor:
        lower, upper = self.box.lower.flatten(1), self.box.upper.flatten(1)
        ball = self._ball
        return torch.lerp(upper, lower, (a > 0).to(a.dtype)) if ball is None else ball.minimum(a)[0]

    def _relaxed(self, a: Tensor, p: Tensor, q: Tensor, multipliers: Tensor) -> Tensor:
        """Min of (A + mu P) x - mu q over box and ball: below the minimum over the region by weak duality.

        Less what rounding makes of mu P and mu q: where the constraints leave hardly a point, mu grows without end.
        """
        shifted = a + torch.einsum("skb,kbn->sbn", multipliers, p)
        farthest = torch.maximum(self.box.lower.abs(), self.box.upper.abs()).flatten(1)
        size = torch.einsum("kbn,bn->kb", p.abs(), farthest) + q.abs()
        rounding = (ROUNDINGS + a.shape[2]) * torch.finfo(a.dtype).eps * size
        return self._unconstrained(shifted) - torch.einsum("skb,kb->sb", multipliers, q + rounding)

    def _ascended(self, a: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """Every multiplier in turn, the others fixed, by `_best`; then, of several, all of them at once."""
        found = []
        shifted = a
        for one, limit in zip(p, q, strict=True):
            found.append(self._best(shifted, one, limit))
            shifted = torch.addcmul(shifted, found[-1].unsqueeze(-1), one)
        start = torch.stack(found, 1)
        return start if len(p) == 1 else self._climbed(a, p, q, start)

    def _climbed(self, a: Tensor, p: Tensor, q: Tensor, start: Tensor) -> Tensor:
        """The best of the points on the way up the supergradient P x - q, x the minimizer there: shrinking steps.

        A point where no single multiplier gains can still be far from the best one. Rows of P count as scaled to 1.
        """
        tiny = torch.finfo(a.dtype).tiny
        size, stride = p.abs().amax(-1).clamp(min=tiny), a.abs().amax(-1).unsqueeze(1)
        best, value, scaled = start, torch.full_like(a[..., 0], -torch.inf), start * size
        for step in range(CLIMB):
            mu = scaled / size
            shifted = a + torch.einsum("skb,kbn->sbn", mu, p)
            x = self._minimizer(shifted)
            reached = torch.linalg.vecdot(shifted, x) - torch.einsum("skb,kb->sb", mu, q)
            better = reached > value
            best, value = torch.where(better.unsqueeze(1), mu, best), torch.where(better, reached, value)
            slope = (torch.einsum("kbn,sbn->skb", p, x) - q) / size
            slope = torch.where((scaled > 0) | (slope > 0), slope, 0)
            length = torch.linalg.vector_norm(slope, dim=1, keepdim=True).clamp(min=tiny)
            scaled = (scaled + STRIDE * DECAY**step * stride * slope / length).clamp(min=0)
        return best

    def _best(self, a: Tensor, p: Tensor, q: Tensor) -> Tensor:
        """The m >= 0 with nearly the largest f(m) = min of (a + m p) x - m q over box and ball, for one constraint.

        f is concave, and every x of the set gives a line  a x + m (p x - q)  above it: the minimizer at m a tangent.
        Of the largest m known with a rising tangent and the smallest with a falling one, the tangents meet at the next.
        """
        tiny = torch.finfo(a.dtype).tiny
        left, right = self._minimizer(a), self._minimizer(p.unsqueeze(0)).expand_as(a)
        most = LARGEST_MULTIPLIER * a.abs().amax(-1) / p.abs().amax(-1).clamp(min=tiny)
        (low, rise), (high, fall) = (self._line(a, p, q, x) for x in (left, right))
        best, value = torch.zeros_like(low), low
        for _ in range(STEPS):
            m = ((high - low).clamp(min=0) / (rise - fall).clamp(min=tiny)).clamp(max=most)
            start, slope = self._line(a, p, q, self._minimizer(torch.addcmul(a, m.unsqueeze(-1), p)))
            better = start + m * slope > value
            best, value = torch.where(better, m, best), torch.where(better, start + m * slope, value)
            rising = slope > 0
            low, rise = torch.where(rising, start, low), torch.where(rising, slope, rise)
            high, fall = torch.where(rising, high, start), torch.where(rising, fall, slope)
        return best

    def _line(self, a: Tensor, p: Tensor, q: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.linalg.vecdot(a, x), torch.linalg.vecdot(p.expand_as(x), x) - q


def box_minimum(
    rows: Float[Tensor, "spec batch n"], lower: Float[Tensor, "batch n"], upper: Float[Tensor, "batch n"]
) -> Float[Tensor, "spec batch"]:
    """Min of A x over lower <= x <= upper, by whichever of two formulas is faster at this size."""
    if rows.numel() <= SMALL or rows.shape[2] <= NARROW:
        return torch.minimum(rows * lower, rows * upper).sum(-1)
    centre, radius = (lower + upper).unsqueeze(-1) / 2, (upper - lower).unsqueeze(-1) / 2
    by_batch = rows.transpose(0, 1)
    return (by_batch @ centre - by_batch.abs() @ radius).squeeze(-1).T


def _rounded(
    rows: list[np.ndarray], shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype, toward: float
) -> Tensor:
    """float64 rows in `dtype`, moved outward where rounding moved them inward: [batch, *shape]."""
    exact = np.stack(rows)
    if dtype == torch.float32:
        with np.errstate(over="ignore"):  # inf lies outward, or is moved inward to the largest number
            single = exact.astype(np.float32)
        inward = single > exact if toward < 0 else single < exact
        exact = np.where(inward, np.nextafter(single, np.float32(toward)), single)
    return torch.as_tensor(exact, device=device).reshape(-1, *shape)


def _constraints(
    sets: Sequence[InputSet], shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype
) -> Constraints:
    """Rounded so that no point of a set is lost: p = P + e, and q grows by the largest e x of the box.

    Raises: InvalidSpecification if a coefficient is too large for `dtype`.
    """
    most = max(len(s.constraints) for s in sets)
    matrix = np.zeros((most, len(sets), len(sets[0].exact_lower)))
    bound = np.zeros((most, len(sets)))
    for b, inputs in enumerate(sets):
        ends = inputs.exact_lower, inputs.exact_upper
        for k, constraint in enumerate(inputs.constraints):
            grown = constraint.bound
            for i, value in enumerate(constraint.row):
                if value:
                    matrix[k, b, i] = _near(value, dtype)
                    error = Fraction(matrix[k, b, i]) - value
                    grown += max(error * ends[0][i], error * ends[1][i])
            bound[k, b] = enclosed([grown])[1][0]
    return Constraints(
        torch.as_tensor(matrix, device=device).to(dtype).reshape(most, len(sets), *shape),
        _rounded([bound.T], (most,), device, dtype, np.inf).T,
    )


def _near(value: Fraction, dtype: torch.dtype) -> float:
    """The nearest number of `dtype`, or next to it.   Raises: InvalidSpecification if it has none near."""
    if abs(value) > Fraction(torch.finfo(dtype).max):
        raise InvalidSpecification(f"a constraint has a coefficient beyond the range of {dtype}; scale its row down")
    return float(np.float32(float(value))) if dtype == torch.float32 else float(value)
