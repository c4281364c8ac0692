"""What is asked of a Lipschitz constant: norms, rows of outputs, a region; and what the checker is to be told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from typing import Any

from provenn.verifier.certificate.lipschitz import Statement
from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import hexadecimal, spoken, written
from provenn.verifier.spec import InputSet
from provenn.verifier.spec_json import robustness

NORMS, OUTPUT_NORMS = ("2", "inf", "1"), ("2", "inf", "1", "each")
CELLS = 4_000_000
"""Largest number of entries of all rows together."""

_SPAN = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_HOW = "give all, pairs, pairs:3, or numbers such as 3, 0,2 or 3-5"


@dataclass(frozen=True)
class Around:
    """The inputs within `epsilon` of a centre (flat), in norm "inf", "2" or "1", and within clip (lowest, highest).

    epsilon, clip: a float stands for its shortest decimal, text such as "8/255" is exact.
    """

    centre: Sequence[float]
    epsilon: str | float
    norm: str = "inf"
    clip: tuple[str | float, str | float] | None = None

    def inputs(self) -> InputSet:
        """The same set as that of a robustness question.   Raises: InvalidSpecification, EmptyRegion."""
        around = {"epsilon": self.epsilon, "norm": self.norm, "clip": self.clip}
        return robustness(list(self.centre), label=0, outputs=2, **around).cases[0].inputs  # type: ignore[arg-type]

    def as_json(self) -> dict[str, Any]:
        """The region of a Lipschitz statement."""
        found = {"input": [hexadecimal(float(x)) for x in self.centre], "epsilon": written(spoken(self.epsilon))}
        found |= {"norm": self.norm}
        return found if self.clip is None else found | {"clip": [written(spoken(end)) for end in self.clip]}


@dataclass(frozen=True)
class Question:
    """The least L with |C (f(x) - f(y))|_output <= L |scale * (x - y)|_norm, over a region or everywhere.

    norm: "2" or "inf"; output: "2", "inf", "1", or "each" for a number a row; None: "each" for pairs, "2" otherwise.
    rows: of C, as text: "all" outputs, some ("3", "0,2", "3-5"), all differences of two ("pairs"), or those of one
    output to every other ("pairs:3"). scale: one number > 0 an input, flat; None: all 1.
    """

    norm: str = "2"
    output: str | None = None
    rows: str = "all"
    scale: Sequence[float] | None = None
    region: Around | None = None

    @property
    def outward(self) -> str:
        """The output's norm."""
        return self.output or ("each" if self.rows.startswith("pairs") else "2")

    def statement(self, inputs: int, outputs: int) -> Statement:
        """For a network of these sizes.   Raises: InvalidSpecification saying what is wrong; ResourceLimit."""
        if self.norm not in NORMS or self.outward not in OUTPUT_NORMS:
            known = f"inputs are measured in {', '.join(NORMS)}, outputs in {', '.join(OUTPUT_NORMS)}"
            raise InvalidSpecification(f"norm '{self.norm}' to '{self.outward}' is not known: {known}")
        scale = self._weights(inputs)
        region = self.region
        if region is not None:
            if len(region.centre) != inputs:
                raise InvalidSpecification(f"the centre has {len(region.centre)} numbers for {inputs} inputs")
            region.inputs()
        around = None if region is None else region.as_json()
        return Statement(matrix(self.rows, outputs), self.norm, self.outward, scale, around)

    def _weights(self, inputs: int) -> tuple[float, ...] | None:
        if self.scale is None:
            return None
        if len(self.scale) != inputs:
            raise InvalidSpecification(f"the scale has {len(self.scale)} numbers for {inputs} inputs")
        for i, weight in enumerate(self.scale):
            if not 0 < weight < inf:
                raise InvalidSpecification(f"the scale of input {i} is {weight}: weights are finite and above 0")
        return tuple(map(float, self.scale))


def matrix(text: str, outputs: int) -> tuple[tuple[float, ...], ...]:
    """The rows that a text names: see Question.   Raises: InvalidSpecification; ResourceLimit."""
    kind, _, one = text.partition(":")
    if kind == "pairs":
        return differences(_pairs(one if ":" in text else None, outputs), outputs)
    chosen = list(range(outputs)) if text == "all" else _numbers(text, outputs)
    _limit(len(chosen), outputs)
    return tuple(tuple(float(i == j) for j in range(outputs)) for i in chosen)


def differences(pairs: Sequence[tuple[int, int]], outputs: int) -> tuple[tuple[float, ...], ...]:
    """The rows e_i - e_j.   Raises: ResourceLimit."""
    _limit(len(pairs), outputs)
    return tuple(tuple(float(k == i) - float(k == j) for k in range(outputs)) for i, j in pairs)


def _pairs(one: str | None, outputs: int) -> list[tuple[int, int]]:
    if outputs < 2:
        raise InvalidSpecification("there are no pairs of outputs: the network has one output")
    if one is None:
        _limit(outputs * (outputs - 1) // 2, outputs)
        return list(combinations(range(outputs), 2))
    numbers = _numbers(one, outputs)
    return [(i, j) for i in numbers for j in range(outputs) if j != i]


def _numbers(text: str, outputs: int) -> list[int]:
    """In the order given.   Raises: InvalidSpecification."""
    found: list[int] = []
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        if span is None:
            raise InvalidSpecification(f"'{text}' does not name rows of outputs: {_HOW}")
        first, last = int(span[1]), int(span[2] or span[1])
        for number in (first, last):
            if number >= outputs:
                reason = f"row {number} is not an output of this network; the outputs are 0 to {outputs - 1}"
                raise InvalidSpecification(reason)
        if first > last:
            raise InvalidSpecification(f"'{part}' names no rows: {last} comes before {first}")
        found += range(first, last + 1)
    if len(set(found)) < len(found):
        raise InvalidSpecification(f"'{text}' names a row twice")
    return found


def _limit(rows: int, outputs: int) -> None:
    if rows * outputs > CELLS:
        raise ResourceLimit(f"rows times outputs ({rows} x {outputs})", str(CELLS))
