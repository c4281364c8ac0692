"""Where an attack may move: float32 points that the exact input sets contain, as far as rounding can see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from provenn.verifier.region import Region
from provenn.verifier.spec import Case

ROUNDS = 20
"""Projections onto ball, constraints and box, in turn, where one of each is not enough."""

SHRINK = {False: 1e-5, True: 1e-3}
"""Share of a ball, and of what a constraint's terms add up to, that is kept free at its boundary, where rounding would
decide; more where projections alternate (True), which then end inside after finitely many of them."""

CENTRE = 2.0
"""Roundings of the centre's coordinates that are kept free too: `Region` adds one to the radius."""


@dataclass(frozen=True, eq=False)
class Room:
    """The region of a batch of cases; lower, upper [batch, *input]: its box in float32 rounded inward.

    A float32 point between lower and upper lies in the exact box. aside: whether a ball's centre lies outside its box.
    Points are [batch, *input], or [copies, batch, *input] for several of every region.
    """

    region: Region
    lower: Tensor
    upper: Tensor
    aside: bool

    @property
    def alternating(self) -> bool:
        """Whether one projection onto each part of the region is not enough."""
        return self.aside or self.region.constraints is not None

    @classmethod
    def of(cls, cases: Sequence[Case], region: Region) -> Room:
        """The room of these cases, whose region is given."""
        like = region.box.lower
        ends = [
            torch.as_tensor(np.stack([_single(c.inputs.inner[k], toward) for c in cases]), device=like.device)
            for k, toward in ((0, np.inf), (1, -np.inf))
        ]
        lower, upper = (end.to(like.dtype).reshape(like.shape) for end in ends)
        centre = region.centre
        aside = centre is not None and not bool(((lower <= centre) & (centre <= upper)).all())
        return cls(region, lower, upper, aside)

    def select(self, index: Tensor) -> Room:
        """The rooms at `index` of the batch axis."""
        return Room(self.region.select(index), self.lower[index], self.upper[index], self.aside)

    def project(self, x: Tensor) -> Tensor:
        """X moved into the region: exactly into the box, and into the rest as far as alternating projections get."""
        for _ in range(ROUNDS if self.alternating else 1):
            x = torch.minimum(torch.maximum(self._into_constraints(self._into_ball(x)), self.lower), self.upper)
        return x

    def admits(self, x: Tensor) -> Tensor:
        """Whether the linear constraints hold, as computed: x without its input axes."""
        flat = self._flat(x)
        if self.region.constraints is None:
            return torch.ones(flat.shape[:-1], dtype=torch.bool, device=x.device)
        matrix, bound = self.region.constraints.matrix.flatten(2), self.region.constraints.bound
        reached = torch.einsum("cbn,...bn->...cb", matrix, flat)
        return torch.as_tensor(reached <= bound).all(-2)

    def farthest(self, x: Tensor, directions: Tensor) -> Tensor:
        """The point of box and ball farthest along each direction, as x where it does not matter.

        x, directions: [copies, batch, *input].
        """
        if self.region.centre is None:
            return torch.where(directions > 0, self.upper, torch.where(directions < 0, self.lower, x))
        return self.region.minimizer(-directions)

    def boundary(self, x: Tensor, directions: Tensor) -> Tensor:
        """Where the ray from x of the box leaves it; coordinates that it would leave at once stay as they are.

        x, directions: [copies, batch, *input].
        """
        ends = torch.where(directions > 0, self.upper, torch.where(directions < 0, self.lower, x))
        ranges = self._flat((ends - x) / torch.where(ends == x, torch.inf, directions))
        length = torch.where(ranges > 0, ranges, torch.inf).amin(-1).nan_to_num(posinf=0.0)
        moved = x + length.reshape(*length.shape, *(1,) * (self.lower.dim() - 1)) * directions
        return torch.minimum(torch.maximum(moved, self.lower), self.upper)

    def step(self, x: Tensor, gradient: Tensor, rate: Tensor) -> Tensor:
        """X [copies, batch, *input] moved up the gradient, by `rate` [copies, batch] of the region's width.

        In a box by the gradient's sign; in a ball toward its point where the gradient is largest.
        """
        rate = rate.reshape(*rate.shape, *(1,) * (self.lower.dim() - 1))
        if self.region.centre is None:
            return x + rate * (self.upper - self.lower) * gradient.sign()
        return torch.lerp(x, self.farthest(x, gradient), rate)

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(x.dim() - self.lower.dim() + 1)

    def _into_ball(self, x: Tensor) -> Tensor:
        """Scaled toward the centre."""
        region = self.region
        if region.centre is None or region.radius is None or region.norm is None:
            return x
        away = x - region.centre
        length = torch.linalg.vector_norm(self._flat(away), ord=region.norm, dim=-1).clamp(min=1e-30)
        rounding = CENTRE * torch.finfo(x.dtype).eps * self._flat(region.centre).abs().sum(-1)
        scale = ((region.radius * (1 - SHRINK[self.alternating]) - rounding) / length).clamp(0, 1)
        moved: Tensor = region.centre + away * scale.reshape(*scale.shape, *(1,) * (self.lower.dim() - 1))
        return moved

    def _into_constraints(self, x: Tensor) -> Tensor:
        """Onto each half-space in turn."""
        if self.region.constraints is None:
            return x
        flat = self._flat(x)
        for p, q in zip(self.region.constraints.matrix.flatten(2), self.region.constraints.bound, strict=True):
            margin = SHRINK[True] * (p.abs() * flat.abs()).sum(-1)
            over = ((p * flat).sum(-1) - q + margin).clamp(min=0)
            flat = flat - (over / p.square().sum(-1).clamp(min=torch.finfo(p.dtype).tiny)).unsqueeze(-1) * p
        return flat.reshape(x.shape)


def _single(values: np.ndarray, toward: float) -> np.ndarray:
    """float32, rounded toward one side."""
    with np.errstate(over="ignore"):  # an end beyond all numbers of float32: inf, or the largest of them
        near = values.astype(np.float32)
    wrong = near < values if toward > 0 else near > values
    return np.where(wrong, np.nextafter(near, np.float32(toward)), near)
