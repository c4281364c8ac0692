"""What is asked of every input: verdicts at some radii, or its own largest radius, bracketed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import isfinite
from typing import Any

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import exact, spoken, written
from provenn.verifier.spec_json import NORMS

LARGEST_RADIUS = 10**30
LEAST_TOLERANCE = 1e-4
"""Radii are written with seven digits."""


@dataclass(frozen=True)
class Question:
    """epsilons: verdicts at each; largest: instead, every input's radius up to it is bracketed by bisection.

    epsilons: numbers, or text such as "8/255"; tolerance: of the bracket, as a share of its upper end; clip: the range
    every input value stays in.   Raises: InvalidSpecification for what makes no sense, or for both or none of the two.
    """

    epsilons: tuple[float | str, ...] = ()
    largest: float | None = None
    tolerance: float = 0.01
    norm: str = "inf"
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if bool(self.epsilons) == (self.largest is not None):
            raise InvalidSpecification("give radii, or the largest radius up to which to search: one of the two")
        for radius in self.radii:
            if not 0 <= radius <= LARGEST_RADIUS:
                raise InvalidSpecification(f"{written(radius)} is not a radius from 0 to {LARGEST_RADIUS:g}")
        if len(set(map(float, self.radii))) < len(self.epsilons):
            raise InvalidSpecification("two radii are the same")
        if self.largest is not None and not (isfinite(self.largest) and 0 < self.largest <= LARGEST_RADIUS):
            raise InvalidSpecification(f"{self.largest} is not a radius above 0 and up to {LARGEST_RADIUS:g}")
        if not LEAST_TOLERANCE <= self.tolerance < 1:
            raise InvalidSpecification(f"the tolerance is {self.tolerance}: it is from {LEAST_TOLERANCE} to below 1")
        if self.norm not in NORMS:
            raise InvalidSpecification(f"the norm is {self.norm!r}: it is one of {', '.join(NORMS)}")
        if self.clip is not None and not -LARGEST_RADIUS <= self.clip[0] < self.clip[1] <= LARGEST_RADIUS:
            raise InvalidSpecification(f"{self.clip} is not a range: it is finite, its first end below the second")

    @cached_property
    def radii(self) -> tuple[Fraction, ...]:
        """The radii exactly, in the order given: 0.03 is 3/100."""
        return tuple(spoken(epsilon) for epsilon in self.epsilons)

    def as_json(self) -> dict[str, Any]:
        """Numbers as text, exactly."""
        return {
            "epsilons": [written(radius) for radius in self.radii],
            "largest": None if self.largest is None else written(spoken(self.largest)),
            "tolerance": written(spoken(self.tolerance)),
            "norm": self.norm,
            "clip": None if self.clip is None else [written(spoken(end)) for end in self.clip],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Question:
        """What `as_json` wrote.   Raises: InvalidSpecification for anything else."""
        match content:
            case {
                "epsilons": [*epsilons],
                "largest": str() | None as largest,
                "tolerance": str(tolerance),
                "norm": str(norm),
                "clip": None | [str(), str()] as clip,
            } if len(content) == 5 and all(isinstance(epsilon, str) for epsilon in epsilons):
                ends = None if clip is None else (float(exact(clip[0])), float(exact(clip[1])))
                most = None if largest is None else float(exact(largest))
                return cls(tuple(epsilons), most, float(exact(tolerance)), norm, ends)
        raise InvalidSpecification("the question is not one of a batch")
