"""The general mechanism for scalar functions, from value, slope, where they bend which way, and where they turn.

A line below f with slope s has the intercept  min over [l, u] of f(z) - s z.  On a piece [x, y] where f is convex every
tangent lies below f, so for any point t of the piece, d = f'(t),

    f(z) - s z  >=  f(t) - s t + min((d - s) (x - t), (d - s) (y - t)),

and where f is concave f(z) - s z is least at an end. Hence the least of these numbers over the convex pieces and over
l and u is an intercept that holds, whatever s and t are: no search has to succeed for a bound to be right. It is the
best one where t is the tangent point (d = s). Searching decides only which slopes and points are worth choosing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from provenn.verifier.errors import Unbounded
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation
from provenn.verifier.ops.lines import apart, held, per_row, together
from provenn.verifier.ops.tangents import Tangents, chord_above

Piece = tuple[float, float]

ULPS = 8
"""Roundings allowed for in a value or a slope: libraries promise 1 to 4 for a function, a formula has a few of them."""


@dataclass(frozen=True)
class Kink:
    """Where the slope jumps from `left` to `right`."""

    at: float
    left: float
    right: float


@dataclass(frozen=True)
class Form:
    """Where a function is convex and where concave (at most two pieces each), and where its slope changes sign.

    Pieces are stated in the unfolded coordinate, in which every kink is a stretch of length `stretch` along which z
    stands still while the slope goes from `left` to `right`; without kinks it is z itself. The length is about that of
    the pieces between kinks: beside a much longer one they would be lost to rounding. image: a range no value leaves.
    """

    convex: tuple[Piece, ...] = ()
    concave: tuple[Piece, ...] = ()
    turns: tuple[float, ...] = ()
    kinks: tuple[Kink, ...] = ()
    stretch: float = 1.0
    image: Piece = (-inf, inf)


@dataclass(frozen=True, eq=False)
class Pieces:
    """For every side that has any, where tangents can be taken, in the unfolded coordinate; the last two may be None.

    sign: 1 for the lower side, -1 for the upper one: [sides, 1, ..]; the others broadcast to [sides, batch, *node].
    """

    sign: Tensor
    start: Tensor
    end: Tensor
    next_start: Tensor | None
    next_end: Tensor | None


@dataclass(frozen=True)
class Univariate(Elementwise):
    """A function given by `value`, `slope` and `form`."""

    separable = True

    @abstractmethod
    def form(self) -> Form:
        """Pieces, turning points and kinks."""

    @abstractmethod
    def value(self, z: Tensor) -> Tensor:
        """f(z)."""

    @abstractmethod
    def slope(self, z: Tensor) -> Tensor:
        """f'(z); at a kink the slope on either side."""

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Boxes that leave the domain, or where a value or a slope overflows; None where none can."""
        return None

    domain = "every number"
    """The domain in words, for the error message."""

    @property
    def vertical(self) -> bool:
        """Whether the graph of this monotone function starts with an infinite slope."""
        return False

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        """A bound of the rounding in value(z)."""
        return value.abs() * (ULPS * torch.finfo(z.dtype).eps) + torch.finfo(z.dtype).tiny

    def slope_error(self, z: Tensor, slope: Tensor) -> Tensor:
        """A bound of the rounding in slope(z)."""
        return slope.abs() * (ULPS * torch.finfo(z.dtype).eps) + torch.finfo(z.dtype).tiny

    def forward(self, *inputs: Tensor) -> Tensor:
        """The function itself."""
        return self.value(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """Values at the ends and at the turning points between them, widened by their rounding.

        Raises: Unbounded if a box leaves the domain.
        """
        lower, upper = inputs[0].lower, inputs[0].upper
        self.require_domain(lower, upper)
        form = self.form()
        z = torch.stack([lower, upper, *(held(lower.new_full((), t), lower, upper) for t in form.turns)])
        value = self.value(z)
        error = self.value_error(z, value)
        return Interval((value - error).amin(0).clamp(*form.image), (value + error).amax(0).clamp(*form.image))

    def derivative(self, box: Interval) -> Interval:
        """Slopes at the ends and where curvature changes sign between them, widened by their rounding.

        Raises: Unbounded if a box leaves the domain.
        """
        self.require_domain(box.lower, box.upper)
        form = self.form()
        first, last = self.unfolded(box.lower, False), self.unfolded(box.upper, True)
        ends = {end for piece in (*form.convex, *form.concave) for end in piece if abs(end) < inf}
        places = torch.stack([first, last, *(held(first.new_full((), end), first, last) for end in sorted(ends))])
        point, slope = self.contact(places)
        error = self.slope_error(point, slope)
        return Interval((slope - error).amin(0), (slope + error).amax(0))

    def free(self, *inputs: Interval) -> Tensor | None:
        """Where the tangent points lie between the first and the last useful one, for every side that has any.

        [1, batch, sides channels, *size].
        """
        tangents = Tangents(self, inputs[0].lower, inputs[0].upper)
        return together(tangents.midpoint().expand(-1, *inputs[0].lower.shape))

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """Tangents where the function bends away from the line, chords elsewhere; see the head of this file.

        Parameters choose the tangent points; the default is the midpoint of the box or the nearest useful point, the
        line that encloses the least area. The range of useful points is taken as fixed where gradients are taken.
        Raises: Unbounded if a box leaves the domain.
        """
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes: the ranges of the tangent points and the chords are found once."""
        self.require_domain(lower, upper)
        form = self.form()
        tangents = Tangents(self, lower, upper)
        middle = tangents.midpoint()
        above = chord_above(self, lower, upper, 1) if not form.concave else None
        below = chord_above(self, lower, upper, -1) if not form.convex else None

        def lines(parameters: Tensor | None) -> Relaxation:
            if parameters is None:
                slope, intercept = tangents.lines(middle)
            else:
                slope, intercept = per_row(tangents).lines(apart(parameters, lower, middle.shape[0]))
            low = below or (slope[0], intercept[0])
            high = above or (slope[-1], -intercept[-1])
            return Relaxation(*low, *high)

        return lines

    def require_domain(self, lower: Tensor, upper: Tensor) -> None:
        """Raises: Unbounded naming the first box that leaves the domain."""
        bad = self.outside(lower, upper)
        if bad is not None and bool(bad.any()):
            first = bad.flatten().to(torch.uint8).argmax()
            box = f"[{lower.flatten()[first]:.9g}, {upper.flatten()[first]:.9g}]"
            raise Unbounded(
                f"{type(self).__name__}: its input can be anything in {box}, but it is bounded on {self.domain} only; "
                "use a smaller region, or keep the input away from there in the network"
            )

    def pieces(self, lower: Tensor, upper: Tensor) -> Pieces:
        """Where tangents can be taken."""
        form = self.form()
        sides = [(sign, pieces) for sign, pieces in ((1.0, form.convex), (-1.0, form.concave)) if pieces]
        two = any(len(pieces) > 1 for _, pieces in sides)
        shape = (-1, *(1,) * lower.dim())

        def column(numbers: list[float]) -> Tensor:
            return torch.tensor(numbers, dtype=lower.dtype, device=lower.device).reshape(shape)

        nothing = (inf, inf)
        second = [pieces[1] if len(pieces) > 1 else nothing for _, pieces in sides]
        return Pieces(
            column([sign for sign, _ in sides]),
            column([pieces[0][0] for _, pieces in sides]),
            column([pieces[0][1] for _, pieces in sides]),
            column([start for start, _ in second]) if two else None,
            column([end for _, end in second]) if two else None,
        )

    def unfolded(self, z: Tensor, after: bool) -> Tensor:
        """The coordinate of z; at a kink the one before it, or the one after it."""
        form = self.form()
        passed = [(z >= kink.at) if after else (z > kink.at) for kink in form.kinks]
        return sum((form.stretch * p.to(z.dtype) for p in passed), start=z)

    def contact(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """(z, slope) at an unfolded coordinate."""
        kinks, stretch = self.form().kinks, self.form().stretch
        if not kinks:
            return place, self.slope(place)
        turned = [(place - kink.at - index * stretch).clamp(0, stretch) for index, kink in enumerate(kinks)]
        point = place - sum(turned)
        unit = ULPS * torch.finfo(place.dtype).eps
        for index, kink in enumerate(kinks):
            # A coordinate next to the kink's stretch can be rounded to the other side of the kink, and of its slopes.
            near = (point - kink.at).abs() <= unit * (abs(kink.at) + (index + 1) * stretch)
            point = torch.where((turned[index] > 0) & (turned[index] < stretch) | near, kink.at, point)
        slope = self.slope(point)
        for kink, r in zip(kinks, turned, strict=True):
            slope = torch.where(point == kink.at, kink.left + r / stretch * (kink.right - kink.left), slope)
        return point, slope
