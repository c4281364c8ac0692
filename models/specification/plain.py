"""The kinds that certificates are about themselves, as JSON schema has them; `verifier.spec_json` reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from provenn.models.specification.fields import Document, Norm, Positive, Range, Table, Vector, Whole
from provenn.models.specification.outputs import Row, Unsafe

Rows = Annotated[tuple[Row, ...], Field(min_length=1)]


class Constraints(Table):
    """P x <= q, one row a constraint."""

    P: Rows
    q: Vector


class Robustness(Document):
    """No input within epsilon of `input`, in a norm and inside `clip`, gets another class than `label`."""

    kind: Literal["robustness"]
    input: Vector = Field(description="the centre, flat, in C order")
    label: Whole
    outputs: Whole = Field(description="how many classes there are")
    target: Whole | None = Field(None, description="the one class that must not win; null: any other than the label")
    epsilon: Positive = Field(description="the radius")
    norm: Norm
    clip: Range | None = Field(None, description="the range that every input stays in, such as [0, 1]")
    constraints: Constraints | None = None


class Ball(Table):
    """The inputs within epsilon of `input`, in the l2 or l1 norm."""

    input: Vector = Field(description="the centre, flat, in C order")
    epsilon: Positive = Field(description="the radius")
    norm: Literal["2", "1"]


class Case(Table):
    """A box of inputs (what lies in the ball, too), and what must not come out."""

    lower: Vector
    upper: Vector
    unsafe: Annotated[tuple[Unsafe, ...], Field(min_length=1)]
    ball: Ball | None = None
    constraints: Constraints | None = None


class Box(Document):
    """One case: no input of the box has an output in {y : C y >= d}."""

    kind: Literal["box"]
    lower: Vector
    upper: Vector
    unsafe: Annotated[tuple[Unsafe, ...], Field(min_length=1)]
    ball: Ball | None = None
    constraints: Constraints | None = None


class Cases(Document):
    """Several cases, all of which have to hold."""

    kind: Literal["cases"]
    cases: Annotated[tuple[Case, ...], Field(min_length=1)]


KINDS: dict[str, type[Document]] = {"robustness": Robustness, "box": Box, "cases": Cases}
"""By the document's "kind"."""
