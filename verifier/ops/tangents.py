"""Lines below and above a scalar function: tangents where it bends away from them, chords elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from provenn.verifier.ops.lines import held

if TYPE_CHECKING:
    from provenn.verifier.ops.univariate import Univariate

STEPS = 20
"""Of the search for the first and the last useful tangent point. Soundness does not depend on it."""

SUMS = 4
"""Roundings of the products and sums that make an intercept."""


class Tangents:
    """Lines below g = sign f on boxes [l, u], one side after another on the first axis: [sides, batch, *node].

    The tangent at a point t of a convex piece of g is below g all over the box if and only if it is below g at l and
    at u, since elsewhere g is concave. Below g(l) it is for t right of some `first`, below g(u) for t left of
    some `last`; where last < first the chord is below g. Of two pieces at most one has such points, if the slopes of g
    on the two do not overlap, or g is periodic and the box shorter than a period.
    """

    def __init__(self, function: Univariate, lower: Tensor, upper: Tensor) -> None:
        self.function = function
        pieces = function.pieces(lower, upper)
        self.sign, self.lower, self.upper = pieces.sign, lower.unsqueeze(0), upper.unsqueeze(0)
        before, after = function.unfolded(self.lower, True), function.unfolded(self.upper, False)
        # A box that is one kink unfolds to nothing, its ends swapped.
        self.low, self.high = torch.minimum(before, after), torch.maximum(before, after)
        start, end = held(pieces.start, self.low, self.high), held(pieces.end, self.low, self.high)
        form = function.form()
        self.whole = bool(form.convex) != bool(form.concave)
        if self.whole:
            self.first, self.last = start, end
            return
        self._values()
        self.two = pieces.next_start is not None
        if pieces.next_start is not None and pieces.next_end is not None:
            following = held(pieces.next_start, self.low, self.high)
            beyond = self.at_lower + self.slope_low * (self.upper - self.lower) > self.at_upper
            second = (following < self.high) & ((end <= self.low) | beyond)
            self.reach_low = torch.where(second, self._folded(end), self.lower)
            self.reach_high = torch.where(second, self.upper, self._folded(following))
            start = torch.where(second, following, start)
            end = torch.where(second, held(pieces.next_end, self.low, self.high), end)
        self.start, self.end = self._folded(start), self._folded(end)
        self._search(start, end)

    def _folded(self, place: Tensor) -> Tensor:
        """The number z at an unfolded coordinate, that of the box's ends exactly."""
        inside = torch.where(place <= self.low, self.lower, self.function.contact(place)[0])
        return torch.where(place >= self.high, self.upper, inside)

    def _values(self) -> None:
        """What is asked of the ends of the box, and the chord."""
        f = self.function
        at_lower, at_upper = f.value(self.lower), f.value(self.upper)
        self.at_lower, self.at_upper = self.sign * at_lower, self.sign * at_upper
        self.error_low, self.error_high = f.value_error(self.lower, at_lower), f.value_error(self.upper, at_upper)
        low, high = f.slope(self.lower), f.slope(self.upper)
        self.slope_low, self.slope_high = self.sign * low, self.sign * high
        self.unsure_low, self.unsure_high = f.slope_error(self.lower, low), f.slope_error(self.upper, high)
        self.width = self.upper - self.lower
        self.thin = self.width <= thinnest(self.lower, self.upper)
        self.chord = (self.at_upper - self.at_lower) / torch.where(self.thin, 1.0, self.width)

    @torch.no_grad()
    def _tangents(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(first, last, whether there is any point between them), by halving and secants in turn."""
        excess = self._excess(start)
        good, bad = torch.stack([end, start]), torch.stack([start, end])
        over, under = excess(bad), excess(good)
        all_good, possible = over <= 0, under <= 0
        for step in range(STEPS):
            share = 0.5 if step % 2 else (under / (under - over)).nan_to_num(0.5).clamp(0.001, 0.999)
            place = good + share * (bad - good)
            level = excess(place)
            fine = level <= 0
            good, under = torch.where(fine, place, good), torch.where(fine, level, under)
            bad, over = torch.where(fine, bad, place), torch.where(fine, over, level)
        first, last = torch.where(all_good, torch.stack([start, end]), good)
        return first, last, possible[0] & possible[1] & (first <= last)

    def _excess(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """Unfolded coordinates [2, sides, batch, *node] -> how far the tangents there are above g at l, and at u."""
        across = torch.stack([self.lower.expand_as(like), self.upper.expand_as(like)])
        target = torch.stack([self.at_lower, self.at_upper])

        def excess(place: Tensor) -> Tensor:
            point, slope = self.function.contact(place)
            return self.sign * (self.function.value(point) + slope * (across - point)) - target

        return excess

    def _moving(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """The same points with derivatives in l and u that keep the excess 0: a step of Newton's of length 0."""
        place, excess = torch.stack([first, last]), self._excess(first)
        free = place.clone().requires_grad_()
        (rate,) = torch.autograd.grad(excess(free).sum(), free, retain_graph=True)
        level = excess(place)
        step = (level - level.detach()) / torch.where(rate == 0, float("inf"), rate)
        moving = place - step
        return moving[0], moving[1]

    def _search(self, start: Tensor, end: Tensor) -> None:
        start, end = start.expand_as(self.at_lower), end.expand_as(self.at_lower)
        first, last, found = self._tangents(start, end)
        # Between last and first every tangent is above the chord at both ends: there the piece cannot bind it.
        between = (first + last) / 2
        if torch.is_grad_enabled() and self.at_lower.requires_grad:
            first, last = self._moving(first, last)
        # Where gradients are taken, ends of the box move with it, and so do the points found in between.
        self.first = torch.where(found, torch.where(first <= start, start, first), between)
        self.last = torch.where(found, torch.where(last >= end, end, last), between)
        self.touches = found | self.thin

    def midpoint(self) -> Tensor:
        """Where the midpoint of the box lies between `first` and `last`: [sides, batch, *node] in [0, 1]."""
        length = self.last - self.first
        some = length > torch.finfo(length.dtype).tiny
        middle = self.function.unfolded(self.lower / 2 + self.upper / 2, True)
        place = (middle - self.first) / torch.where(some, length, 1.0)
        return torch.where(some, place, 0.0).clamp(0, 1)

    def lines(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """(slope, intercept) of lines on the function's side, the intercept times `sign`."""
        f, unit = self.function, SUMS * torch.finfo(place.dtype).eps
        spot = torch.maximum(torch.minimum(self.first + place * (self.last - self.first), self.last), self.first)
        point, slope = f.contact(spot)
        value = f.value(point)
        error = f.value_error(point, value)
        if self.whole:
            error = error + unit * (slope * point).abs() + f.slope_error(point, slope) * self._farthest(point)
            level = self.sign * (value - slope * point) - error
            return slope, torch.maximum(level, self._flat(slope)) if f.vertical else level
        s = torch.where(self.touches, self.sign * slope, self.chord)
        turn, left, right = self.sign * slope - s, self.start - point, self.end - point
        reach = torch.maximum(left.abs(), right.abs())
        error = error + unit * (s * point).abs() + (f.slope_error(point, slope) + unit * turn.abs()) * reach
        inner = self.sign * value - s * point - error + torch.minimum(turn * left, turn * right)
        return self.sign * s, torch.minimum(self._ends(s), inner)

    def _ends(self, s: Tensor) -> Tensor:
        """The intercept of a line of slope s below g at l and at u, and below the piece that has no tangent point."""
        unit = SUMS * torch.finfo(s.dtype).eps
        low = self.at_lower - self.error_low - s * self.lower - unit * (s * self.lower).abs()
        high = self.at_upper - self.error_high - s * self.upper - unit * (s * self.upper).abs()
        if self.two:
            low = low + self._elsewhere(self.slope_low - s, self.unsure_low, self.reach_low - self.lower)
            high = high + self._elsewhere(self.slope_high - s, self.unsure_high, self.reach_high - self.upper)
        return torch.minimum(low, high)

    def _elsewhere(self, turn: Tensor, error: Tensor, reach: Tensor) -> Tensor:
        """What the other piece, from the end of the box in it, adds: at most 0, and 0 where there is none."""
        return (turn * reach).clamp(max=0) - (error + SUMS * torch.finfo(turn.dtype).eps * turn.abs()) * reach.abs()

    def _flat(self, slope: Tensor) -> Tensor:
        """The intercept of a line below everything in the box of a monotone function: on a point, the exact one."""
        f, unit = self.function, SUMS * torch.finfo(slope.dtype).eps
        low, high = f.value(self.lower), f.value(self.upper)
        least = torch.minimum(
            self.sign * low - f.value_error(self.lower, low), self.sign * high - f.value_error(self.upper, high)
        )
        left, right = self.sign * slope * self.lower, self.sign * slope * self.upper
        return least - torch.maximum(left + unit * left.abs(), right + unit * right.abs())

    def _farthest(self, point: Tensor) -> Tensor:
        return torch.maximum((self.upper - point).abs(), (self.lower - point).abs())


def chord_above(function: Univariate, lower: Tensor, upper: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """The chord: above a convex function (sign 1), below a concave one (sign -1)."""
    first, second = function.value(lower), function.value(upper)
    width = upper - lower
    thin = width <= thinnest(lower, upper)
    slope = torch.where(thin, function.slope(upper), (second - first) / torch.where(thin, 1.0, width))
    unit = SUMS * torch.finfo(slope.dtype).eps
    left = sign * (first - slope * lower) + function.value_error(lower, first) + unit * (slope * lower).abs()
    right = sign * (second - slope * upper) + function.value_error(upper, second) + unit * (slope * upper).abs()
    return slope, sign * torch.maximum(left, right)


def thinnest(lower: Tensor, upper: Tensor) -> Tensor:
    """Boxes no wider than this take a tangent's slope for the chord's.

    A difference of values would be mostly rounding; with a width of sqrt(eps) the two lines differ by about eps.
    """
    numbers = torch.finfo(lower.dtype)
    largest = torch.maximum(lower.abs(), upper.abs())
    return 8 * numbers.eps * largest + math.sqrt(numbers.eps) * largest.clamp(max=1) + numbers.tiny
