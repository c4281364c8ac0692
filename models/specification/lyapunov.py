"""Kind "lyapunov": from a region {V <= rho} every trajectory of a closed loop comes into a small one, and stays there.

The network is the controller; the document names the other networks of the loop (models.closed_loop), the box B of
states, a small box N in it around the equilibrium, a rate r > 0, and two levels sigma <= rho. Let S_c = {z in B : V(z)
<= c}. What is proved, for every disturbance w of its box:

    faces    V > rho on the faces of B
    shell    V > 0 on B without the inside of N; and where besides V <= rho:
             V(f(z, w)) - V(z) < -r and f(z, w) in B (discrete), or dV/dt < -r along z' = f(z, w) (continuous)
    centre   V < sigma on N; in discrete time V(f(z, w)) < sigma and f(z, w) in B there, too

Discrete time. Let z be in S_rho. Outside N the next state has a V smaller by r or more, and is in B; from N it comes to
S_sigma. So S_rho and S_sigma are never left again. Since N lies in S_sigma, V falls by more than r a step as long as z
is not in S_sigma: after at most ceil((rho - sigma) / r) steps it is. That is an induction over the steps, of which each
is an inequality between numbers: neither V nor f need be continuous (a controller may round, or switch), S_rho need not
be connected, and V > 0 and the faces are not used.

Continuous time. A proof excludes what it excludes by a margin, on finitely many closed parts: it holds of a level a
little above rho, too. f and V are continuous and V is locally Lipschitz, which models.closed_loop sees to: networks
that jump are refused. So there are solutions, which have the velocity f for almost every t, and S_rho, a compact set
that meets no face, can only be left through {V = rho}; but V(z(t)) is absolutely continuous, and falls at rate r or
faster for almost every t at which sigma <= V(z(t)) <= rho or a little above, since then z(t) is not in N. So S_rho and
S_sigma are never left, solutions exist for all times, and after time (rho - sigma) / r every one is in S_sigma. With a
"step" h what is proved is V(z + h f) - V(z) < -h r, of a convex V (why that is enough: models.closed_loop), else it is
of the derivative itself.

All conditions hold for every smaller rho >= sigma as well: whatever is proved of a level is proved of those below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from math import ceil
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from provenn.models.closed_loop import Change, ClosedLoop, closed_loop
from provenn.models.enclosure import enclosed
from provenn.models.specification.fields import Document as Base
from provenn.models.specification.fields import Number, Range, Vector, Whole, fails, validated
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import written
from provenn.verifier.spec import Case, Clause, InputSet
from provenn.verifier.spec_json import from_cases

LEAST_STEP, LARGEST_STEP = Fraction(1, 2**40), Fraction(2**40)
"""h becomes a float32 number."""

Span = tuple[Fraction, Fraction]
Box = tuple[Span, ...]
Positive = Annotated[Number, Field(gt=0)]
Name = Annotated[str, Field(min_length=1)]


class Document(Base):
    """A loop, where it is looked at, and which levels of V are claimed; without levels they are searched for."""

    kind: Literal["lyapunov"]
    time: Literal["discrete", "continuous"]
    dynamics: Name = Field(description="ONNX file: (states, controls, disturbances) to next states, or velocities")
    candidate: Name = Field(description="ONNX file of V: (states, estimates) to one number")
    observer: Name | None = Field(None, description="ONNX file: (estimates, controls, measurements) to next estimates")
    measurement: Name | None = Field(None, description="ONNX file: states to measurements; null: the states")
    lower: Vector = Field(description="of the box of states, then of estimates")
    upper: Vector
    centre: Vector | None = Field(None, description="of the small box; null: the origin")
    small: Vector = Field(description="half the widths of the small box")
    decrease: Positive = Field(description="by how much V falls a step, or a unit of time, outside the small box")
    disturbances: tuple[Range, ...] = Field((), description="the range of each")
    step: Positive | None = Field(None, description="h, of continuous time and convex V; null: the derivative of V")
    pieces: Annotated[Whole, Field(ge=1, le=4096)] | None = Field(
        None, description="of broken lines in the place of sin, cos, 1/z, squares, products; null: those themselves"
    )
    level: Positive | None = Field(None, description="rho: the region is {V <= rho}")
    inner: Positive | None = Field(None, description="sigma: trajectories come into {V <= sigma}")

    @model_validator(mode="after")
    def _fits(self) -> Document:
        if len(self.upper) != len(self.lower):
            raise fails("it must have as many numbers as lower", "upper")
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise fails("every number of it must be below that of upper", "lower")
        if len(self.small) != len(self.lower):
            raise fails("it must have as many numbers as lower and upper", "small")
        if self.centre is not None and len(self.centre) != len(self.lower):
            raise fails("it must have as many numbers as lower", "centre")
        if not all(r > 0 for r in self.small) or not all(
            low < inner[0] and inner[1] < high
            for low, high, inner in zip(self.lower, self.upper, self.near, strict=True)
        ):
            raise fails("the small box must have widths, and lie inside the box", "small")
        if self.step is not None and self.time == "discrete":
            raise fails("it belongs to continuous time", "step")
        if self.step is not None and not LEAST_STEP <= self.step <= LARGEST_STEP:
            raise fails(f"it must be from {float(LEAST_STEP):g} to {float(LARGEST_STEP):g}", "step")
        if self.level is not None and self.inner is not None and self.inner > self.level:
            raise fails('it must not be above "level"', "inner")
        return self

    @property
    def near(self) -> Box:
        """N."""
        centre = self.centre or (Fraction(0),) * len(self.small)
        return tuple((c - r, c + r) for c, r in zip(centre, self.small, strict=True))

    @property
    def change(self) -> Change:
        """How V goes on."""
        if self.time == "discrete":
            return Change("discrete")
        return Change("derivative") if self.step is None else Change("difference", float(np.float32(self.step)))


@dataclass(frozen=True, eq=False)
class Conditions:
    """What has to be excluded, at any levels.

    model: of which the cases speak; loop: the composition itself, model unless functions in it are enclosed. box: B,
    near: N; others: the ranges of disturbances, then of errors; threshold: what the change of V stays below is
    -threshold; arguments: of enclosed functions, which are the last outputs of the model, their ends.
    """

    document: Document
    model: bytes
    loop: ClosedLoop
    others: Box
    threshold: Fraction
    arguments: Box

    @property
    def box(self) -> Box:
        """B."""
        return tuple(zip(self.document.lower, self.document.upper, strict=True))

    def all(self, level: Fraction, inner: Fraction) -> list[Case]:
        """Everything there is to prove of the levels rho and sigma.

        Raises: InvalidSpecification if sigma is above rho: what is proved says nothing then.
        """
        if inner > level:
            raise InvalidSpecification(f'"inner" is {written(inner)}: it must not be above "level", {written(level)}')
        return [*self.faces(level), *self.shell(level), self.centre(inner)]

    def faces(self, level: Fraction) -> Iterator[Case]:
        """V > rho where a state has an extreme coordinate."""
        for i, (low, high) in enumerate(self.box):
            for end in (low, high):
                yield self._case((*self.box[:i], (end, end), *self.box[i + 1 :]), [self._row({0: -1}, -level)])

    def shell(self, level: Fraction) -> Iterator[Case]:
        """V > 0, and the fall of V, on boxes that cover B without the inside of N."""
        below = self._row({0: -1}, -level)
        falls = self._both(below, self._row({1: 1}, -self.threshold))
        clauses = [falls, self._row({0: -1}, Fraction(0)), *(self._both(below, leaves) for leaves in self._leaving())]
        for i, ((low, high), (left, right)) in enumerate(zip(self.box, self.document.near, strict=True)):
            for part in ((low, left), (right, high)):
                yield self._case((*self.document.near[:i], part, *self.box[i + 1 :]), clauses)

    def centre(self, inner: Fraction) -> Case:
        """V < sigma on N, and in discrete time a step later."""
        later = [self._row({0: 1, 1: 1}, inner)] if self.loop.steps else []
        return self._case(self.document.near, [self._row({0: 1}, inner), *later, *self._leaving()])

    def words(self, level: Fraction, inner: Fraction) -> str:
        """What the cases prove."""
        span = (level - inner) / self.document.decrease
        within = f"{ceil(span)} steps" if self.loop.steps else f"time {above(span)}"
        with_errors = " (functions by broken lines, with their errors)" if self.arguments else ""
        return (
            f"in real arithmetic, every trajectory from {{V <= {written(level)}}} in the box stays there, and is after "
            f"{within} in {{V <= {written(inner)}}}, for ever; {{V <= {written(level)}}} touches no face of the box"
            f"{with_errors}"
        )

    @property
    def outputs(self) -> int:
        """Of the model."""
        return 2 + self.loop.states + len(self.arguments)

    def _leaving(self) -> Iterator[Clause]:
        """The next state is outside B, or on a face."""
        if self.loop.steps:
            for i, (low, high) in enumerate(self.box):
                yield self._row({2 + i: 1}, high)
                yield self._row({2 + i: -1}, -low)

    def _strays(self) -> Iterator[Clause]:
        """The argument of an enclosed function is beyond the ends of its line."""
        first = self.outputs - len(self.arguments)
        for i, (low, high) in enumerate(self.arguments):
            yield self._row({first + i: 1}, high)
            yield self._row({first + i: -1}, -low)

    def _case(self, states: Box, clauses: list[Clause]) -> Case:
        lower, upper = zip(*states, *self.others, strict=True)
        return Case(InputSet(lower, upper), (*clauses, *self._strays()))

    def _row(self, weights: Mapping[int, int], bound: Fraction) -> Clause:
        """{y : weights y >= bound}."""
        row = tuple(Fraction(weights.get(i, 0)) for i in range(self.outputs))
        return Clause((row,), (bound,))

    def _both(self, first: Clause, second: Clause) -> Clause:
        return Clause((*first.matrix, *second.matrix), (*first.bound, *second.bound))


def conditions(document: Mapping[str, Any], model: bytes, files: Callable[[str], bytes]) -> Conditions:
    """What a document asks of a controller.

    Raises: InvalidSpecification naming the key; InvalidModel where networks do not fit; UnsupportedOp; ResourceLimit.
    """
    asked = validated(Document, document)
    roles = {"dynamics": asked.dynamics, "candidate": asked.candidate}
    roles |= {"observer": asked.observer} if asked.observer is not None else {}
    roles |= {"measurement": asked.measurement} if asked.measurement is not None else {}
    parts = {"controller": model, **{role: files(name) for role, name in roles.items()}}
    change = asked.change
    loop = closed_loop(parts, len(asked.disturbances), change)
    if loop.states != len(asked.lower):
        raise InvalidSpecification(f'"lower" has {len(asked.lower)} numbers; the loop has {loop.states} states')
    threshold = asked.decrease * (Fraction(change.step) if asked.step is not None else 1)
    if asked.pieces is None:
        return Conditions(asked, loop.model, loop, asked.disturbances, threshold, ())
    lower = (*asked.lower, *(low for low, _ in asked.disturbances))
    upper = (*asked.upper, *(high for _, high in asked.disturbances))
    found = enclosed(loop.model, lower, upper, asked.pieces)
    others = tuple(zip(found.lower, found.upper, strict=True))[len(asked.lower) :]
    return Conditions(asked, found.model, loop, others, threshold, found.arguments)


def stated(document: Mapping[str, Any], model: bytes, files: Callable[[str], bytes]) -> Stated:
    """The loop and its conditions at the document's levels.   Raises: as `conditions`; where a level is missing."""
    found = conditions(document, model, files)
    level, inner = found.document.level, found.document.inner
    if level is None or inner is None:
        missing = "level" if level is None else "inner"
        raise InvalidSpecification(f'"{missing}" is missing: provenn stability finds the levels that can be proved')
    return Stated(found.model, from_cases(found.all(level, inner)), found.words(level, inner))


def above(value: Fraction) -> str:
    """The least number of six digits that is not below the value."""
    context = Context(prec=6, rounding=ROUND_CEILING)
    return format(context.divide(Decimal(value.numerator), Decimal(value.denominator)), "g")


def at_levels(document: Document, level: Fraction, inner: Fraction, folder: str) -> dict[str, Any]:
    """The document, as JSON, that claims these levels; names of files are now relative to where it is from `folder`."""
    given = {name: value for name in Document.model_fields if (value := getattr(document, name)) is not None}
    given |= {"level": level, "inner": inner}
    for role in ("dynamics", "candidate", "observer", "measurement"):
        if role in given:
            given[role] = PurePosixPath(folder, given[role]).as_posix()
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    """What JSON has; numbers as texts, exactly."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return written(value) if isinstance(value, Fraction) else value
