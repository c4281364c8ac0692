"""Neural activation patterns: which hidden ReLU neurons are active, which inactive, where a class is likely.

An input follows a pattern where every active neuron's pre-activation z is above 0 and every inactive one's is not.
Source: Geng et al. 2023, "Towards Reliable Neural Specifications" (arXiv 2210.16114), Algorithm 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import exact, written

FORMAT: Literal["provenn-activation-pattern/1"] = "provenn-activation-pattern/1"
Labels = Literal["dataset", "predicted"]


def _share(text: str) -> str:
    """The text of a delta.   Raises: ValueError unless 1/2 < delta <= 1."""
    try:
        value = exact(text)
    except InvalidSpecification as error:
        raise ValueError(str(error)) from None
    if not Fraction(1, 2) < value <= 1:
        raise ValueError(f"delta is {text}: it must be above 1/2 and at most 1")
    return text


Index = Annotated[int, Field(strict=True, ge=0)]
Name = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""What a file may hold: with UTF-8, and no NUL."""


class PatternLayer(BaseModel):
    """One ReLU: the name of its output in the ONNX file, how many neurons it has, which are constrained.

    counts: of how many of the samples every neuron's pre-activation was above 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    relu: Name
    neurons: Annotated[int, Field(strict=True, ge=1)]
    active: list[Index]
    inactive: list[Index]
    counts: list[Index] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        both = [*self.active, *self.inactive]
        if len(set(both)) != len(both):
            raise ValueError(f"layer {self.relu!r}: a neuron is listed twice")
        if both and max(both) >= self.neurons:
            raise ValueError(f"layer {self.relu!r}: neuron {max(both)} is listed, and there are {self.neurons}")
        if self.counts is not None and len(self.counts) != self.neurons:
            raise ValueError(f"layer {self.relu!r}: {len(self.counts)} counts for {self.neurons} neurons")
        return self

    @property
    def constrained(self) -> int:
        """How many neurons."""
        return len(self.active) + len(self.inactive)


class Pattern(BaseModel):
    """The pattern of one class, as its file has it.

    model: SHA-256 of the (uncompressed) ONNX file whose neurons it speaks of; label: the class; labels: whether
    samples counted by their label in the data or by what the network says; delta: share of samples, a decimal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    format: Literal["provenn-activation-pattern/1"] = FORMAT
    model: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    label: Annotated[int, Field(strict=True, ge=0, alias="class")]
    labels: Labels = "dataset"
    delta: Annotated[str, AfterValidator(_share)] = "1"
    samples: Annotated[int, Field(strict=True, ge=0)] = 0
    layers: list[PatternLayer] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({layer.relu for layer in self.layers}) != len(self.layers):
            raise ValueError("a layer is listed twice")
        return self

    @property
    def constrained(self) -> int:
        """How many neurons."""
        return sum(layer.constrained for layer in self.layers)

    @property
    def neurons(self) -> int:
        """Of all its layers."""
        return sum(layer.neurons for layer in self.layers)

    def followed(self, values: Sequence[NDArray[np.float32]]) -> NDArray[np.bool_]:
        """Which samples follow it: pre-activations of its layers, [samples, neurons] each -> [samples]."""
        found = np.ones(len(values[0]), bool)
        for layer, z in zip(self.layers, values, strict=True):
            found &= (z[:, layer.active] > 0).all(axis=1) & (z[:, layer.inactive] <= 0).all(axis=1)
        return found

    def as_bytes(self) -> bytes:
        """The file."""
        content = self.model_dump(by_alias=True, exclude_none=True)
        layers = content.pop("layers")
        lines = ",\n".join("  " + json.dumps(layer, separators=(",", ":")) for layer in layers)
        head = json.dumps(content)[:-1]
        return f'{head}, "layers": [\n{lines}\n]}}\n'.encode()


def read_pattern(data: bytes | dict[str, Any]) -> Pattern:
    """The pattern of a file, or of an object in place of one.   Raises: InvalidSpecification naming the member."""
    try:
        found = Pattern.model_validate_json(data) if isinstance(data, bytes) else Pattern.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = str(first["msg"]).removeprefix("Value error, ")
        raise InvalidSpecification(f"activation pattern: {where + ': ' if where else ''}{said}") from None
    if "format" not in found.model_fields_set:
        raise InvalidSpecification(f'activation pattern: format: is missing; it is "{FORMAT}"')
    return found


@dataclass(frozen=True)
class Cutoffs:
    """From which count a neuron is active, up to which it is inactive, among n samples: exact whole numbers."""

    active: int
    inactive: int

    @classmethod
    def of(cls, delta: Fraction, samples: int) -> Cutoffs:
        """Active iff count >= ceil(delta n), inactive iff count <= floor((1 - delta) n)."""
        return cls(ceil(delta * samples), floor((1 - delta) * samples))


@dataclass(frozen=True, eq=False)
class Mined:
    """Of how many samples of every class a neuron's pre-activation was above 0, added up: names, labels as a pattern's.

    samples: a class's; counts: a class's, a list of [neurons] in the order of the names.
    """

    model: str
    names: Sequence[str]
    labels: Labels
    samples: dict[int, int] = field(default_factory=dict)
    counts: dict[int, list[NDArray[np.int64]]] = field(default_factory=dict)

    def add(self, values: Sequence[NDArray[np.float32]], classes: NDArray[np.int64]) -> None:
        """Some more samples: pre-activations of the layers, [samples, neurons] each; a class a sample."""
        for label in np.unique(classes).tolist():
            mine = classes == label
            before = self.counts.get(label, [np.zeros(z.shape[1], np.int64) for z in values])
            self.counts[label] = [n + (z[mine] > 0).sum(axis=0) for n, z in zip(before, values, strict=True)]
            self.samples[label] = self.samples.get(label, 0) + int(mine.sum())

    def pattern(self, label: int, delta: Fraction) -> Pattern:
        """The delta-relaxed pattern of a class.   Raises: InvalidSpecification if no sample has it."""
        if label not in self.samples:
            raise InvalidSpecification(f"no sample has class {label}: there is nothing to mine a pattern from")
        layers = [PatternLayer(relu=n, neurons=len(c), active=[], inactive=[], counts=c.tolist())
                  for n, c in zip(self.names, self.counts[label], strict=True)]  # fmt: skip
        about = {"model": self.model, "class": label, "labels": self.labels, "samples": self.samples[label]}
        return relaxed(Pattern.model_validate({**about, "layers": layers}), delta)


def relaxed(pattern: Pattern, delta: Fraction) -> Pattern:
    """The pattern of another delta, from the counts.   Raises: InvalidSpecification without them, or for a bad one."""
    if not Fraction(1, 2) < delta <= 1:
        raise InvalidSpecification(f"delta is {float(delta)!r}: it must be above 1/2 and at most 1")
    cut = Cutoffs.of(delta, pattern.samples)
    layers = []
    for layer in pattern.layers:
        if layer.counts is None:
            raise InvalidSpecification(f"layer {layer.relu!r} has no counts: mine the pattern again for another delta")
        counts = np.array(layer.counts)
        active, inactive = np.flatnonzero(counts >= cut.active), np.flatnonzero(counts <= cut.inactive)
        layers.append(layer.model_copy(update={"active": active.tolist(), "inactive": inactive.tolist()}))
    return pattern.model_copy(update={"delta": written(delta), "layers": layers})


def conflicts(first: Pattern, second: Pattern) -> list[tuple[str, int]]:
    """(layer, neuron) that one of two patterns has active and the other inactive: no input follows both, if any."""
    found = []
    others = {layer.relu: layer for layer in second.layers}
    for layer in first.layers:
        if (other := others.get(layer.relu)) is not None:
            clash = {*layer.active} & {*other.inactive} | {*layer.inactive} & {*other.active}
            found += [(layer.relu, neuron) for neuron in sorted(clash)]
    return found
