"""Linear forms over a ball cut by a box: the one-dimensional dual, for norms 2 and 1.

With t = (x - c) / r the region is {p <= t <= q, |t| <= 1}. For any multiplier >= 0 the Lagrangian of |t| <= 1 separates
by coordinate, and its minimum over the box is a lower bound (weak duality). So the search for the best multiplier
takes a fixed number of steps, and what it finds need not be the best to be sound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STEPS = {1.0: 10, 2.0: 5}
"""Steps of the search for the multiplier, by norm: what is left of the gap is below 1e-3 of the bound, mostly 0."""

HALVINGS = 2
"""The first steps for norm 1, where tangents are slow: few coordinates of many move."""

LARGEST_MULTIPLIER = 100.0
"""Of |t| <= 1 for a row of norm 1; only a ball that barely touches its box would ask for more, and rounding grows."""


@dataclass(frozen=True, eq=False)
class CutBall:
    """{x : |x - centre|_norm <= radius, lower <= x <= upper}, flat: lower, upper, centre [batch, n], radius [batch]."""

    lower: Tensor
    upper: Tensor
    centre: Tensor
    radius: Tensor
    norm: float

    def minimum(self, rows: Float[Tensor, "spec batch n"]) -> tuple[Tensor, Tensor]:
        """(x, g) with  a x + g <= min of a over the region,  x a minimizer as far as the search got.

        x: [spec, batch, n] in the region up to rounding; g: [spec, batch]. Neither carries gradients: by the envelope
        theorem x is the gradient of the minimum in a. g <= 0 up to roundings; an empty region gives some finite
        numbers.
        """
        with torch.no_grad():
            radius = self.radius.unsqueeze(-1).clamp(min=torch.finfo(rows.dtype).tiny)
            low, high = (((end - self.centre) / radius).clamp(-1, 1) for end in (self.lower, self.upper))
            t, gap = (_euclidean if self.norm == 2 else _absolute)(rows, low, high)
            x = torch.addcmul(self.centre, t, self.radius.unsqueeze(-1))
            return torch.minimum(torch.maximum(x, self.lower), self.upper), gap * self.radius


def _euclidean(rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The minimizer of a t + (|t|^2 - 1) / (2 s) is t = clip(-s a, low, high); the gap is that second term.

    Measured in w = s^2, |t|^2 = sum of clip(a^2 w, near, far), where near and far are the squares of the closest and
    of the farthest that a coordinate can get in the direction -a. The largest s with |t| <= 1 is best. Every step
    solves |t|^2 = 1 as if no coordinate reached `far` that has not yet: this never oversteps, is Newton's method on a
    concave function where the centre lies in the box, and starts above the uncut ball's value.
    """
    eps, tiny = torch.finfo(rows.dtype).eps, torch.finfo(rows.dtype).tiny
    size = rows.abs().amax(-1).clamp(min=tiny)
    square = (rows / size.unsqueeze(-1)).square_()
    near = torch.maximum(low, -high).clamp(min=0).square()
    growing = torch.empty_like(square)
    far = torch.lerp(high.square(), low.square(), torch.gt(rows, 0, out=growing))
    total = square.sum(-1).clamp(min=1)
    w = (1 - near.sum(-1)).clamp(min=LARGEST_MULTIPLIER**-2) / total
    reached = torch.empty_like(square)
    for _ in range(STEPS[2.0]):
        torch.mul(square, w.unsqueeze(-1), out=reached)
        slope = torch.lt(reached, far, out=growing).mul_(square).sum(-1)
        length = torch.clamp(reached, near, far, out=reached).sum(-1)
        w = torch.minimum(w + (1 - length).clamp(min=0) / slope.clamp(min=tiny), 1 / (total * eps * eps))
    scale = w.sqrt()
    t = torch.div(rows, -size.unsqueeze(-1), out=reached).mul_(scale.unsqueeze(-1)).clamp_(low, high)
    return t, size / (2 * scale) * (torch.mul(t, t, out=square).sum(-1) - 1)


def _absolute(rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """A fractional knapsack: the coordinates of the largest |a| move as far as they can until 1 is spent.

    The centre is first moved into the box, to `start`; what is left is `room`. For a price m a unit, the coordinates
    with |a| > m move, and the Lagrangian is -(m room + sum of max(|a| - m, 0) far). Between a price at which too much
    is spent and one at which too little is, its two tangents meet at the mean |a| of the coordinates between (weighed
    by far), which is the next price.
    """
    tiny = torch.finfo(rows.dtype).tiny
    start = torch.minimum(torch.maximum(low, torch.zeros_like(low)), high)
    room = (1 - start.abs().sum(-1)).clamp(min=0)
    gain, chosen = rows.abs(), torch.empty_like(rows)
    far = torch.lerp(high - start, start - low, torch.gt(rows, 0, out=chosen))
    above, below = gain.amax(-1), torch.zeros_like(rows[..., 0])
    few, few_gain, many, many_gain = below, below, far.sum(-1), torch.mul(far, gain, out=chosen).sum(-1)
    best = torch.minimum(above * room, many_gain)
    for step in range(STEPS[1.0]):
        price = (many_gain - few_gain) / (many - few).clamp(min=tiny)
        price = (below + above) / 2 if step < HALVINGS else torch.minimum(torch.maximum(price, below), above)
        moved = torch.gt(gain, price.unsqueeze(-1), out=chosen).mul_(far)
        spent, gained = moved.sum(-1), moved.mul_(gain).sum(-1)
        best = torch.minimum(best, price * (room - spent) + gained)
        over = spent > room
        below, above = torch.where(over, price, below), torch.where(over, above, price)
        many, few = torch.where(over, spent, many), torch.where(over, few, spent)
        many_gain, few_gain = torch.where(over, gained, many_gain), torch.where(over, few_gain, gained)
    part = ((room - few) / (many - few).clamp(min=tiny)).clamp(0, 1).unsqueeze(-1)
    between = torch.gt(gain, below.unsqueeze(-1), out=chosen).mul_(part)
    moved = torch.gt(gain, above.unsqueeze(-1), out=torch.empty_like(rows)).maximum(between).mul_(far)
    return start - moved * rows.sign(), torch.mul(moved, gain, out=chosen).sum(-1) - best
