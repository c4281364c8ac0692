"""Batched input regions for the search: a box, optionally intersected with a norm ball.

The exact region is `provenn.verifier.spec.InputSet`; this is its outward-rounded image in torch, and a bound over it
is a search result. The proof is made again, rigorously, by provenn.verifier.check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.spec import InputSet

DUAL = {1.0: float("inf"), 2.0: 2.0}
"""Norm of the ball -> its dual norm, which measures the coefficients. (l_inf balls are boxes.)"""


@dataclass(frozen=True, eq=False)
class Region:
    """{x : lower <= x <= upper} and, if given, |x - centre|_norm <= radius; one region a batch entry.

    box.lower, box.upper, centre: [batch, *input]; radius: [batch]; norm: 1 or 2, the same for the whole batch.
    """

    box: Interval
    centre: Tensor | None = None
    radius: Tensor | None = None
    norm: float | None = None

    @classmethod
    def of(
        cls, sets: Sequence[InputSet], shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype
    ) -> Region:
        """The outward-rounded image of exact input sets, which must share one norm."""
        lower = _rounded([s.lower for s in sets], shape, device, dtype, -np.inf)
        upper = _rounded([s.upper for s in sets], shape, device, dtype, np.inf)
        box = Interval(lower, upper)
        first = sets[0].ball
        if first is None:
            return cls(box)
        balls = [s.ball for s in sets if s.ball is not None]
        assert len(balls) == len(sets) and all(b.norm == first.norm for b in balls), "one norm a batch"
        rows = [[float(c) for c in b.centre] for b in balls]
        centre = torch.tensor(rows, dtype=dtype, device=device).reshape(-1, *shape)
        slack = torch.finfo(dtype).eps * centre.abs().flatten(1).sum(1)
        radius = torch.tensor([float(b.radius) for b in balls], device=device, dtype=dtype)
        return cls(box, centre, radius * (1 + 4 * torch.finfo(dtype).eps) + slack, first.norm)

    @property
    def batch(self) -> int:
        """How many regions."""
        return self.box.lower.shape[0]

    def concretize(self, coefficients: Float[Tensor, "spec batch *input"]) -> Float[Tensor, "spec batch"]:
        """Min of A x over the region: the better of the box's and the ball's minimum, both below it."""
        a = coefficients.flatten(2)
        centre = ((self.box.lower + self.box.upper) / 2).flatten(1)
        radius = ((self.box.upper - self.box.lower) / 2).flatten(1)
        best = torch.einsum("sbn,bn->sb", a, centre) - torch.einsum("sbn,bn->sb", a.abs(), radius)
        if self.centre is None or self.radius is None or self.norm is None:
            return best
        dual = torch.linalg.vector_norm(a, ord=DUAL[self.norm], dim=-1)
        ball = torch.einsum("sbn,bn->sb", a, self.centre.flatten(1)) - dual * self.radius
        return torch.maximum(best, ball)

    def select(self, index: Tensor | slice) -> Region:
        """The regions at `index` of the batch axis."""
        box = Interval(self.box.lower[index], self.box.upper[index])
        if self.centre is None or self.radius is None:
            return Region(box)
        return Region(box, self.centre[index], self.radius[index], self.norm)


def _rounded(
    rows: list[np.ndarray], shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype, toward: float
) -> Tensor:
    """float64 rows in `dtype`, moved outward where rounding moved them inward: [batch, *shape]."""
    exact = np.stack(rows)
    if dtype == torch.float32:
        single = exact.astype(np.float32)
        inward = single > exact if toward < 0 else single < exact
        exact = np.where(inward, np.nextafter(single, np.float32(toward)), single)
    return torch.as_tensor(exact, device=device).reshape(-1, *shape)
