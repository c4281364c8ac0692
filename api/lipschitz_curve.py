"""Local Lipschitz constants against the radius, around one point or several: a proved bound for each of both.

A larger region around the same point has no smaller constant. So what is proved for a radius holds for all smaller
ones, and what a pair of inputs shows at a radius holds for all larger ones: both are used, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.api.lipschitz import INTERRUPTED, Contradiction, LipschitzResult, Options, Readings, bound
from provenn.api.lipschitz_question import Around, Question
from provenn.api.report import overall
from provenn.solvers.base import Budget, Progress, Verdict, silent
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import spoken

Array = NDArray[np.float64]
RADII = "give radii above 0 in increasing order, each once, such as 0.001,1/255,0.01"
QUARTILES = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
LATE = "the time ended before its turn"
STOPPED = "interrupted before it was finished"


@dataclass(frozen=True, eq=False)
class Balls:
    """The inputs within each radius of each centre [points, inputs], in norm "inf", "2" or "1", and within clip.

    radii: numbers as of `Around`, above 0 and increasing.
    Raises: InvalidSpecification where there is no centre, or the radii are not so.
    """

    centres: Array
    radii: Sequence[str | float]
    norm: str = "inf"
    clip: tuple[str | float, str | float] | None = None

    def __post_init__(self) -> None:
        if self.centres.ndim != 2 or not len(self.centres):
            raise InvalidSpecification("there is no point to bound a constant around: give at least one")
        increasing(self.radii)

    @property
    def values(self) -> list[float]:
        """The radii, rounded to nearest."""
        return [float(spoken(radius)) for radius in self.radii]

    def around(self, point: int, radius: int) -> Around:
        """One of the regions, by the numbers of its centre and of its radius."""
        return Around(self.centres[point].tolist(), self.radii[radius], self.norm, self.clip)

    def require_inputs(self) -> None:
        """Raises: InvalidSpecification, EmptyRegion, naming the point, if a smallest region is none, or empty."""
        for point in range(len(self.centres)):
            try:
                self.around(point, 0).inputs()
            except InvalidSpecification as error:
                raise type(error)(f"point {point}: {error}") from None


def increasing(radii: Sequence[str | float]) -> list[Fraction]:
    """The radii, exactly.   Raises: InvalidSpecification unless they are above 0 (as floats too) and increasing."""
    found = []
    for said in radii:
        try:
            found.append(spoken(said))
        except InvalidSpecification as error:
            raise InvalidSpecification(f"{error}: {RADII}") from None
        if float(found[-1]) <= 0:
            raise InvalidSpecification(f"'{said}' is not a radius: {RADII}")
    if not found:
        raise InvalidSpecification(f"there is no radius: {RADII}")
    for (i, before), (j, after) in pairwise(enumerate(found)):
        if after <= before:
            raise InvalidSpecification(f"'{radii[j]}' comes after '{radii[i]}': {RADII}")
    return found


@dataclass(frozen=True, eq=False)
class CurveBound:
    """What is known of one point at one radius, each by its number.

    result: the answer for this region alone; upper: the least number proved for this radius or a larger one, and
    proved_at: the number of that radius, whose certificate proves it; lower: the largest that a pair of inputs shows
    at this radius or a smaller one. Where rows are bounded each by itself, both are of the largest row: the constant
    to the l-infinity norm of the outputs. None where nothing is known.
    """

    point: int
    radius: int
    result: LipschitzResult
    upper: float | None
    lower: float | None
    proved_at: int | None

    @property
    def verdict(self) -> str:
        """`verified` wherever there is an upper bound."""
        return self.result.verdict if self.upper is None else str(Verdict.VERIFIED)


@dataclass(frozen=True)
class Spread:
    """Order statistics over the points at one radius, as `QUARTILES` names them.

    Of n points, quartile i is the number of rank max(1, ceil(i n / 4)), for bounds from above and from below alike: so
    the two enclose the constant of that rank. What is not proved counts as infinite above (None), as 0 below.
    """

    upper: tuple[float | None, ...]
    lower: tuple[float, ...]
    not_proved: int


@dataclass(frozen=True, eq=False)
class LipschitzCurve:
    """Bounds by point, then by radius; seconds: of everything; interrupted: whether Ctrl-C ended it.

    question: what was asked, without its region.
    """

    balls: Balls
    question: Question
    bounds: list[list[CurveBound]]
    seconds: float
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """Verified if every bound is; otherwise timeout before unknown."""
        return overall([found.verdict for row in self.bounds for found in row])

    @property
    def finished(self) -> int:
        """How many bounds were worked on to their end."""
        results = [found.result for row in self.bounds for found in row]
        return sum(result.reason not in (LATE, STOPPED) for result in results)

    def spread(self) -> list[Spread]:
        """By radius."""
        return [_spread([row[radius] for row in self.bounds]) for radius in range(len(self.balls.radii))]

    def method(self, found: CurveBound) -> str:
        """Of what proves a bound; else of what did not."""
        proof = found if found.proved_at is None else self.bounds[found.point][found.proved_at]
        return proof.result.method

    def as_json(self) -> dict[str, Any]:
        """Everything but the certificates."""
        balls, asked, verdict = self.balls, self.question, self.verdict
        summary = [
            {
                "eps": str(said),
                "radius": value,
                "upper": dict(zip(QUARTILES, spread.upper, strict=True)),
                "lower": dict(zip(QUARTILES, spread.lower, strict=True)),
                "not_proved": spread.not_proved,
            }
            for said, value, spread in zip(balls.radii, balls.values, self.spread(), strict=True)
        ]
        return {
            "verdict": verdict,
            "norm": asked.norm,
            "output_norm": asked.outward,
            "rows": asked.rows,
            "region_norm": balls.norm,
            "clip": None if balls.clip is None else list(balls.clip),
            "points": len(balls.centres),
            "eps": [str(said) for said in balls.radii],
            "seconds": self.seconds,
            "assurance": "checked" if verdict == Verdict.VERIFIED else None,
            "interrupted": self.interrupted,
            "summary": summary,
            "bounds": [self._said(found) for row in self.bounds for found in row],
        }

    def _said(self, found: CurveBound) -> dict[str, Any]:
        return {
            "point": found.point,
            "eps": str(self.balls.radii[found.radius]),
            "radius": self.balls.values[found.radius],
            "verdict": found.verdict,
            "upper": found.upper,
            "lower": found.lower,
            "method": self.method(found),
            "seconds": found.result.seconds,
            "assurance": None if found.upper is None else "checked",
            "proved_at": None if found.proved_at is None else str(self.balls.radii[found.proved_at]),
            "reason": found.result.reason,
        }


Finished = Callable[[int, int, LipschitzResult], LipschitzResult]
"""finished(point, radius, result): called with every result at once; what it returns is kept in its place."""


def as_it_is(point: int, radius: int, result: LipschitzResult) -> LipschitzResult:
    """Keeps the certificate too."""
    return result


def curve(
    model: Readings,
    balls: Balls,
    question: Question,
    options: Options,
    progress: Progress = silent,
    finished: Finished = as_it_is,
) -> LipschitzCurve:
    """The constant in every region, each by `bound`. Ctrl-C ends it: what is finished is returned.

    The smallest radius of all points comes first. Each bound may take what time is left over how many are left, so
    that what easy ones do not need passes on to the harder.
    Raises: InvalidSpecification, EmptyRegion, before anything is computed; all that `bound` raises.
    """
    budget, stopped = Budget(options.seconds), False
    points, radii = len(balls.centres), len(balls.radii)
    sizes = prod(model.graph.input_shape), prod(model.graph.output_shape)
    balls.require_inputs()
    replace(question, region=balls.around(0, 0)).statement(*sizes)
    order = [(point, radius) for radius in range(radii) for point in range(points)]
    results: dict[tuple[int, int], LipschitzResult] = {}
    for done, (point, radius) in enumerate(order):
        share = budget.left / (len(order) - done)
        if share <= 0:
            break
        local, where = replace(question, region=balls.around(point, radius)), f"radius {balls.radii[radius]}"
        phase = _Phase(progress, done, len(order), where if points == 1 else f"point {point}, {where}")
        try:
            result = bound(model, local, replace(options, seconds=share), phase)
            results[point, radius] = finished(point, radius, result)
        except KeyboardInterrupt:
            stopped = True
            break
        if result.reason == INTERRUPTED:
            stopped = True
            break
    missing = _missing(question, options, stopped)
    rows = [[results.get((point, radius), missing) for radius in range(radii)] for point in range(points)]
    bounds = [_joined(point, row, balls) for point, row in enumerate(rows)]
    return LipschitzCurve(balls, replace(question, region=None), bounds, options.seconds - budget.left, stopped)


@dataclass(frozen=True)
class _Phase:
    """The progress of one bound as part of all."""

    progress: Progress
    done: int
    total: int
    where: str

    def __call__(self, done: int, total: int, phase: str) -> None:
        self.progress(self.done, self.total, f"{self.where}: {phase}")


def _missing(question: Question, options: Options, stopped: bool) -> LipschitzResult:
    """Of a bound whose turn did not come."""
    verdict, reason = (Verdict.UNKNOWN, STOPPED) if stopped else (Verdict.TIMEOUT, LATE)
    asked = (question.norm, question.outward, question.rows)
    return LipschitzResult(str(verdict), options.method, *asked, seconds=0.0, reason=reason)


def _joined(point: int, results: Sequence[LipschitzResult], balls: Balls) -> list[CurveBound]:
    """The bounds around one point, each with what the other radii say of it.

    Raises: Contradiction if a proved bound lies below what a pair of inputs shows at the same or a smaller radius.
    """
    uppers: list[tuple[float, int] | None] = []
    best: tuple[float, int] | None = None
    for radius, result in reversed(list(enumerate(results))):
        own = _largest(result.upper)
        if own is not None and (best is None or own <= best[0]):
            best = own, radius
        uppers.append(best)
    bounds, lower = [], None
    for radius, (result, least) in enumerate(zip(results, reversed(uppers), strict=True)):
        shown = _largest(result.lower)
        lower = shown if lower is None else max(lower, shown or 0.0)
        upper, proved_at = (None, None) if least is None else least
        if upper is not None and lower is not None and lower > upper:
            where = f"point {point}: the bound {upper!r} proved at radius {balls.radii[proved_at or 0]}"
            raise Contradiction(f"{where} is below {lower!r}, which a pair of inputs shows at {balls.radii[radius]}")
        bounds.append(CurveBound(point, radius, result, upper, lower, proved_at))
    return bounds


def _largest(values: float | list[float] | None) -> float | None:
    """Of all rows where they are bounded each by itself."""
    return max(values) if isinstance(values, list) else values


def _spread(found: Sequence[CurveBound]) -> Spread:
    uppers = sorted(item.upper for item in found if item.upper is not None)
    lowers = sorted(item.lower or 0.0 for item in found)
    ranks = [max(1, -(-i * len(found) // 4)) - 1 for i in range(len(QUARTILES))]
    above = tuple(uppers[rank] if rank < len(uppers) else None for rank in ranks)
    return Spread(above, tuple(lowers[rank] for rank in ranks), len(found) - len(uppers))
