"""Kind "monotone": outputs only rise, or only fall, with features: a question about derivatives, not about cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from provenn.models.specification import fields
from provenn.models.specification.fields import Norm, Positive, Range, Table, Vector, Whole, fails, validated

Name = Annotated[str, Field(min_length=1)]


class Region(Table):
    """All inputs within a distance of one."""

    input: Vector = Field(description="the centre, flat, in C order")
    epsilon: Positive = Field(description="the radius")
    norm: Norm = "inf"
    clip: Range | None = Field(None, description="the range that every input stays in, such as [0, 1]")


class Document(fields.Document):
    """Which outputs, with which features, over which inputs."""

    kind: Literal["monotone"]
    features: Annotated[tuple[Name | Whole, ...], Field(min_length=1)] = Field(
        description="names of the domain's features, numbers of inputs (flat, from 0), spans as 3-5, or all"
    )
    expect: Literal["increasing", "decreasing"]
    rows: Name = Field("all", description="outputs: all, 3, 0,2 or 3-5; differences of outputs: pairs, pairs:3")
    domain: Name | dict[str, Any] | None = Field(
        None, description="of a tabular model: a file beside the document, or what would be in it; this or region"
    )
    fixed: dict[Name, Any] = Field({}, description="features of the domain that are held: name to value")
    region: Region | None = Field(None, description="the inputs around one; this or domain")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.region is None) == (self.domain is None):
            raise fails('give either "domain" or "region"')
        if self.fixed and self.domain is None:
            raise fails('holds features of a domain: give "domain"', "fixed")
        return self


@dataclass(frozen=True, eq=False)
class Monotone:
    """The question. domain: JSON, or None where there is a region, file: where it is from; fixed: values as text."""

    features: tuple[str, ...]
    expect: Literal["increasing", "decreasing"]
    rows: str
    domain: bytes | None
    fixed: Mapping[str, str]
    region: Region | None
    file: str | None = None

    @property
    def words(self) -> str:
        """One sentence."""
        verb = "rise" if self.expect == "increasing" else "fall"
        return f"{self._outputs} only {verb} with {', '.join(self.features)}, for {self._place}"

    @property
    def _outputs(self) -> str:
        if self.rows == "all":
            return "all outputs"
        return f"differences of outputs ({self.rows})" if self.rows.startswith("pairs") else f"outputs {self.rows}"

    @property
    def _place(self) -> str:
        if (region := self.region) is not None:
            exact = all(Fraction(float(x)) == x for x in region.input)
            rounded = "" if exact else " (its numbers rounded to float64)"
            return fields.around(region.epsilon, region.norm, region.clip) + rounded
        held = [f"{name} held at {value}" for name, value in self.fixed.items()]
        return ", ".join([f"every input of the domain in {self.file or 'the document'}", *held])


def asked(document: Mapping[str, Any], files: Callable[[str], bytes]) -> Monotone:
    """What the document asks.   Raises: InvalidSpecification naming the key; what `files` raises."""
    read = validated(Document, document)
    domain = read.domain
    text = files(domain) if isinstance(domain, str) else None if domain is None else fields.as_json(domain)
    fixed = {name: str(value) for name, value in read.fixed.items()}
    file = domain if isinstance(domain, str) else None
    return Monotone(tuple(map(str, read.features)), read.expect, read.rows, text, fixed, read.region, file)
