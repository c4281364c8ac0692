"""Numbers that change while a network is trained: radii that grow, weights of losses that move."""

from __future__ import annotations

from dataclasses import dataclass

MIDDLE, POWER = 0.25, 4
"""Where a smoothed ramp turns linear, and with which power of time it begins."""


@dataclass(frozen=True)
class Linear:
    """`first` until step `start`, `last` from step `end` on, a straight line in between.

    A radius: Linear(0, radius, start, end). The weight kappa of the plain loss: Linear(1, 1/2, start, end).
    Source: Gowal et al. 2018.
    """

    first: float
    last: float
    start: float
    end: float

    def __call__(self, step: float) -> float:
        """The number at a step."""
        return self.first + (self.last - self.first) * _place(step, self.start, self.end)


@dataclass(frozen=True)
class Smoothed:
    """As `Linear`, but begun with the fourth power of time: t^4 for the first quarter, then straight on, same slope.

    With t in [0, 1], m = 1/4:  c t^4 for t <= m,  c (m^4 + 4 m^3 (t - m)) after, where c makes it 1 at t = 1.
    Source: Xu et al. 2020 (auto_LiRPA), the schedule of Shi et al. 2021.
    """

    first: float
    last: float
    start: float
    end: float

    def __call__(self, step: float) -> float:
        """The number at a step."""
        t = _place(step, self.start, self.end)
        return self.first + (self.last - self.first) * _ramp(t) / _ramp(1.0)


def _ramp(t: float) -> float:
    bent: float = min(t, MIDDLE) ** POWER
    return bent + POWER * MIDDLE ** (POWER - 1) * max(0.0, t - MIDDLE)


def _place(step: float, start: float, end: float) -> float:
    """Where between start and end the step lies, in [0, 1]; without a length, a jump at `start`."""
    if end <= start:
        return float(step >= start)
    return min(1.0, max(0.0, (step - start) / (end - start)))
