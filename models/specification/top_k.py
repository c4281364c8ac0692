"""Kind "top-k": within a radius of an input, in a norm, the k largest outputs keep their labels.

In order, or as a set; or only one other list of labels must not take their place. See verifier.top_k for what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from provenn.models.reading import Executor, executor
from provenn.models.specification import fields
from provenn.models.specification.fields import Document as Base
from provenn.models.specification.fields import Norm, Positive, Range, Vector, Whole, fails, validated
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.spec import InputSet, Specification
from provenn.verifier.spec_json import around
from provenn.verifier.top_k import top_k

Labels = Annotated[tuple[Whole, ...], Field(min_length=1)]


class Document(Base):
    """An input, a radius, and how many of the largest outputs keep their labels."""

    kind: Literal["top-k"]
    input: Vector = Field(description="flat, in C order")
    epsilon: Positive = Field(description="the radius: in the norm inf, how far every coordinate may move")
    norm: Norm = "inf"
    clip: Range | None = Field(None, description="the range that every coordinate stays in, such as [0, 1]")
    k: Annotated[Whole, Field(ge=1)] | None = Field(None, description="how many labels; null: as many as are given")
    labels: Labels | None = Field(
        None, description="largest output first; null: those that the network has at the input"
    )
    ordered: bool = Field(True, strict=True, description="whether their order must stay, too; else they stay as a set")
    target: Labels | None = Field(None, description="the only labels that must not take their place; null: any others")

    @model_validator(mode="after")
    def _so_many(self) -> Self:
        if self.k is None and self.labels is None:
            raise fails('give "k", or "labels"', "k")
        if self.k is not None and self.labels is not None and len(self.labels) != self.k:
            raise fails(f"they are {len(self.labels)}, but k is {self.k}", "labels")
        return self

    def near(self, inputs: int) -> InputSet:
        """The inputs, of a network of so many.   Raises: InvalidSpecification if they do not fit, or are none."""
        if len(self.input) != inputs:
            raise InvalidSpecification(f'"input" has {len(self.input)} numbers, the network has {inputs} inputs')
        return around(self.input, self.epsilon, self.norm, self.clip)


def stated(document: Mapping[str, Any], model: bytes, files: Callable[[str], bytes]) -> Stated:
    """The network itself, and the clauses of every change of its top labels.

    Raises: InvalidSpecification naming the key; ResourceLimit; InvalidModel, UnsupportedOp as for any network.
    """
    asked = validated(Document, document)
    specification, labels = specified(asked, executor(model))
    return Stated(model, specification, words(asked, labels))


def specified(asked: Document, network: Executor) -> tuple[Specification, tuple[int, ...]]:
    """What a document says of a network, and the labels that stay.   Raises: InvalidSpecification; ResourceLimit."""
    outputs = prod(network.output_shape)
    near = asked.near(prod(network.input_shape))
    if asked.k is not None and asked.k > outputs:
        raise InvalidSpecification(f'"k" is {asked.k}, but the network has {outputs} outputs')
    labels = asked.labels
    if labels is None:
        assert asked.k is not None
        x = np.array([float(v) for v in asked.input], np.float32).reshape(1, *network.input_shape)
        labels = largest(network.run(x)[0], asked.k)
    return top_k(near, labels, outputs, ordered=asked.ordered, target=asked.target), labels


def largest(outputs: np.ndarray, k: int) -> tuple[int, ...]:
    """The labels of the k largest outputs, largest first; of equal ones the first first."""
    return tuple(np.argsort(-outputs.ravel(), kind="stable")[:k].tolist())


def words(asked: Document, labels: tuple[int, ...]) -> str:
    """What a document says where these are the labels that stay."""
    return f"{stay(asked, labels)}, for {fields.around(asked.epsilon, asked.norm, asked.clip)}."


def stay(asked: Document, labels: tuple[int, ...]) -> str:
    """The same, but for the inputs."""
    manner = "in this order" if asked.ordered else "in any order"
    if asked.target is None:
        return f"The largest outputs are {_listed(labels)}, {manner}"
    return f"The largest outputs are never {_listed(asked.target)}, {manner}"


def _listed(labels: tuple[int, ...]) -> str:
    return ", ".join(map(str, labels))
