"""What jobs that mine activation patterns, and those that look for radii with them, say over the wire."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from provenn.api.wire import Digest, Label, Number, Range, Request, Response, Text
from provenn.models.activation_pattern import Pattern
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import require_moderate, spoken

CLASSES, LAYERS = 10_000, 1000
"""Of one job, at most."""
LEAST = Fraction(1, 4096)
"""No smaller radius is asked about, unless the largest is smaller itself."""


class PatternsRequest(Request):
    """The delta-relaxed activation pattern of every class of a dataset: mined, nothing is proved."""

    dataset: Digest = Field(description="the dataset's id, as POST /v1/datasets returned it")
    delta: Number | Text = Field(1.0, description='share of samples that must agree, above 1/2: a number, or "19/20"')
    classes: Annotated[list[Label], Field(min_length=1, max_length=CLASSES)] | None = Field(
        None, description="null: all that occur"
    )
    layers: Annotated[list[Text], Field(min_length=1, max_length=LAYERS)] | None = Field(
        None, description="names of ReLUs' outputs in the ONNX file; null: all ReLUs"
    )
    labels: Literal["dataset", "predicted"] = Field(
        "dataset", description="samples count by the class in the data, or by the one that the network gives them"
    )
    wrong: Annotated[bool, Field(strict=True)] = Field(
        False, description="count samples, too, that the network gives another class than the data"
    )
    held_out: Digest | None = Field(None, description="the dataset whose coverage is measured; this or share")
    share: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        None, description="of every class of the dataset that is not mined from: its coverage is measured"
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            delta = self.exact_delta
        except InvalidSpecification as error:
            raise ValueError(str(error)) from error
        if not Fraction(1, 2) < delta <= 1:
            raise ValueError(f"delta is {self.delta}: it must be above 1/2 and at most 1")
        if self.held_out is not None and self.share is not None:
            raise ValueError("give either held_out or share")
        for name in ("classes", "layers"):
            given = getattr(self, name) or []
            if len(set(given)) != len(given):
                raise ValueError(f"{name} has something twice")
        return self

    @property
    def exact_delta(self) -> Fraction:
        """The number that is meant.   Raises: InvalidSpecification."""
        return spoken(self.delta)


class PatternCoverage(Response):
    """How one pattern does on data."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True, serialize_by_alias=True)

    label: int = Field(alias="class")
    samples: int = Field(description="of its class")
    followed: int = Field(description="of these, how many follow it")
    all_followed: int = Field(description="how many follow it, of whatever class")
    right: int = Field(description="of its class that follow it: how many the network classifies so")
    recall: float | None = Field(description="followed of samples; null without samples")
    precision: float | None = Field(description="followed of all_followed; null where nothing follows it")


class Patterns(Response):
    """The patterns of a network's classes, and how much of data follows them."""

    patterns: list[Pattern] = Field(description="a document a class, as `provenn nap mine` writes it into a file")
    coverage: list[PatternCoverage] = Field(description="of each of them")
    held_out: int = Field(description="samples that the coverage is of; 0: it is of those that were mined from")


class RadiusRequest(Request):
    """The largest radius around an input in which a class is proved to win: everywhere, or where a pattern holds."""

    input: list[Number] = Field(min_length=1, description="the centre, flat, in C order")
    label: Label | None = Field(None, description="the class that must win; this or pattern")
    pattern: Pattern | None = Field(
        None,
        description="only inputs that follow it count, and its class must win: a document as `provenn nap mine` and "
        "jobs about patterns make it, of this very network",
    )
    clip: Range | None = Field(None, description="range every input coordinate stays in, e.g. [0, 1]")
    largest: Annotated[Number, Field(gt=0)] = Field(1.0, description="no larger radius is asked about")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.label is None) == (self.pattern is None):
            raise ValueError("give either label or pattern, which says its class itself")
        if self.clip is not None and not self.clip[0] <= min(self.input) <= max(self.input) <= self.clip[1]:
            raise ValueError(f"the input lies outside of clip {list(self.clip)}")
        try:
            self._require_boxes()
        except InvalidSpecification as error:
            raise ValueError(str(error)) from error
        return self

    def _require_boxes(self) -> None:
        """An end of clip stands for its decimal, the input for its very float, which may be a little outside of it.

        Raises: InvalidSpecification for a box that is empty, or beyond float64.
        """
        lowest, highest, largest = Fraction(min(self.input)), Fraction(max(self.input)), spoken(self.largest)
        require_moderate(lowest - largest)
        require_moderate(highest + largest)
        if self.clip is None:
            return
        low, high, least = spoken(self.clip[0]), spoken(self.clip[1]), min(largest, LEAST)
        if highest - least > high or lowest + least < low:
            raise InvalidSpecification(f"nothing within {float(least):g} of the input lies in clip {list(self.clip)}")

    @property
    def winner(self) -> int:
        """The class that must win."""
        if self.pattern is not None:
            return self.pattern.label
        assert self.label is not None
        return self.label


class Radius(Response):
    """Between which radii the truth lies: in the maximum norm, in units of the input."""

    verified: float = Field(description="the largest with a proof, which the item's certificate is; 0: none was found")
    falsified: float | None = Field(description="the smallest with a counterexample; null: none was found")
    counterexample: list[float] | None = Field(description="an input within falsified, flat, as it was executed")
    whole: bool = Field(description="the proof is at the largest radius that was asked about")
    inhabited: bool | None = Field(
        description="true: an input within verified was seen that follows the pattern (active: z >= 0, inactive: z <= "
        "0); null: none was, so the proof may be one for want of inputs, or there is no pattern"
    )
