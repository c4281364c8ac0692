"""What a document says of the outputs: the class that must win, or clauses that must not hold."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Self

from pydantic import Field, model_validator

from provenn.models.specification.fields import Document, Number, Table, Vector, Whole, fails
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.spec import Clause

Row = Annotated[tuple[Number, ...], Field(min_length=1)]


class Unsafe(Table):
    """{y : C y >= d}, closed and unsafe: one row of C, and one number of d, an inequality."""

    C: Annotated[tuple[Row, ...], Field(min_length=1)]
    d: Vector


def clauses(unsafe: tuple[Unsafe, ...], outputs: int) -> tuple[Clause, ...]:
    """As given.   Raises: InvalidSpecification naming the clause whose sizes do not fit."""
    found = []
    for number, each in enumerate(unsafe):
        where = f'"unsafe"[{number}]'
        if len(each.C) != len(each.d):
            raise InvalidSpecification(f'{where}: "C" has {len(each.C)} rows, "d" {len(each.d)} numbers')
        for place, row in enumerate(each.C):
            if len(row) != outputs:
                said = f'{where}."C"[{place}] has {len(row)} numbers'
                raise InvalidSpecification(f"{said}, but the network has {outputs} outputs")
        found.append(Clause(each.C, each.d))
    return tuple(found)


def rivals(label: int, target: int | None, outputs: int) -> tuple[Clause, ...]:
    """{y_j >= y_label} for the target, or for every j that is not the label.   Raises: InvalidSpecification."""
    for name, value in (("label", label), ("target", target)):
        if value is not None and value >= outputs:
            raise InvalidSpecification(f'"{name}" is {value}, but the classes of the network are 0 to {outputs - 1}')
    if target == label:
        raise InvalidSpecification(f'"target" and "label" are both {label}')
    others = [j for j in range(outputs) if j != label and target in (None, j)]
    if not others:
        raise InvalidSpecification("the network has one output: there is no other class than the label")
    rows = [tuple(Fraction((i == j) - (i == label)) for i in range(outputs)) for j in others]
    return tuple(Clause((row,), (Fraction(0),)) for row in rows)


class Goal(Document):
    """Documents that say what must not come out by a label, or by clauses."""

    label: Whole | None = Field(None, description="the class that must win; this or unsafe")
    target: Whole | None = Field(None, description="the one class that must not win; null: any other than the label")
    unsafe: tuple[Unsafe, ...] = Field((), description="{y : C y >= d}, each of which must not be reached")

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if (self.label is None) == (not self.unsafe):
            raise fails('give either "label" or "unsafe"')
        if self.target is not None and self.label is None:
            raise fails('belongs to "label"', "target")
        return self

    def excluded(self, outputs: int) -> tuple[Clause, ...]:
        """What must not come out.   Raises: InvalidSpecification if it does not fit."""
        if self.label is None:
            return clauses(self.unsafe, outputs)
        return rivals(self.label, self.target, outputs)

    @property
    def wins(self) -> str:
        """The same in words, all of it."""
        if self.label is None:
            return "no output is unsafe"
        return f"class {self.label} wins" + ("" if self.target is None else f" over class {self.target}")
