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


@dataclass(frozen=True, eq=False)
class Room:
    """The region of a batch of cases; lower, upper [batch, *input]: its box in float32 rounded inward.

    A float32 point between lower and upper lies in the exact box. aside: whether a ball's centre lies outside its box.
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

    def project(self, x: Tensor) -> Tensor:
        """X moved into the region: exactly into the box, and into the rest as far as alternating projections get."""
        for _ in range(ROUNDS if self.alternating else 1):
            x = torch.minimum(torch.maximum(self._into_constraints(self._into_ball(x)), self.lower), self.upper)
        return x

    def admits(self, x: Tensor) -> Tensor:
        """Whether the linear constraints hold, as computed: [batch]."""
        if self.region.constraints is None:
            return torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
        matrix, bound = self.region.constraints.matrix, self.region.constraints.bound
        reached = torch.einsum("kbn,bn->kb", matrix.flatten(2), x.flatten(1))
        return torch.as_tensor(reached <= bound).all(0)

    def step(self, x: Tensor, gradient: Tensor, progress: float) -> Tensor:
        """X moved up the gradient: by its sign, or, in a ball, toward the point of it where the gradient is largest."""
        rate = 0.25 * (1 - progress) + 0.01
        if self.region.centre is None:
            return x + rate * (self.upper - self.lower) * gradient.sign()
        best: Tensor = self.region.minimizer(-gradient.unsqueeze(0))[0]
        return torch.lerp(x, best, 2 * rate)

    def _into_ball(self, x: Tensor) -> Tensor:
        """Scaled toward the centre."""
        region = self.region
        if region.centre is None or region.radius is None or region.norm is None:
            return x
        away = x - region.centre
        length = torch.linalg.vector_norm(away.flatten(1), ord=region.norm, dim=1).clamp(min=1e-30)
        scale = (region.radius * (1 - SHRINK[self.alternating]) / length).clamp(max=1)
        moved: Tensor = region.centre + away * scale.reshape(-1, *(1,) * (x.dim() - 1))
        return moved

    def _into_constraints(self, x: Tensor) -> Tensor:
        """Onto each half-space in turn."""
        if self.region.constraints is None:
            return x
        flat = x.flatten(1)
        for p, q in zip(self.region.constraints.matrix.flatten(2), self.region.constraints.bound, strict=True):
            margin = SHRINK[True] * (p.abs() * flat.abs()).sum(1)
            over = ((p * flat).sum(1) - q + margin).clamp(min=0)
            flat = flat - (over / p.square().sum(1).clamp(min=torch.finfo(p.dtype).tiny)).unsqueeze(1) * p
        return flat.reshape(x.shape)


def _single(values: np.ndarray, toward: float) -> np.ndarray:
    """float32, rounded toward one side."""
    near = values.astype(np.float32)
    wrong = near < values if toward > 0 else near > values
    return np.where(wrong, np.nextafter(near, np.float32(toward)), near)
