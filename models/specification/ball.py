"""Kind "ball": all inputs within a distance of one, in a norm; class that must win, or clauses that must not hold.

With a class it is what kind "robustness" says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from provenn.models.admission import admitted
from provenn.models.specification import fields
from provenn.models.specification.fields import Norm, Positive, Range, Vector, validated
from provenn.models.specification.outputs import Goal
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import written
from provenn.verifier.spec import Case, Specification
from provenn.verifier.spec_json import around, from_cases, parse_json


class Document(Goal):
    """A centre, a radius, and what must not come out."""

    kind: Literal["ball"]
    input: Vector = Field(description="the centre, flat, in C order")
    epsilon: Positive = Field(description="the radius")
    norm: Norm = "inf"
    clip: Range | None = Field(None, description="the range that every input stays in, such as [0, 1]")


def stated(document: Mapping[str, Any], model: bytes, files: Callable[[str], bytes]) -> Stated:
    """The network itself, and the ball.   Raises: InvalidSpecification naming the key; as for any network."""
    asked = validated(Document, document)
    network = admitted(model)
    sizes = (int(np.prod(shape)) for shape in (network.input.held_shape, network.output.held_shape))
    inputs, outputs = sizes
    if len(asked.input) != inputs:
        raise InvalidSpecification(f'"input" has {len(asked.input)} numbers, but the network has {inputs} inputs')
    if asked.label is None:
        near = around(asked.input, asked.epsilon, asked.norm, asked.clip)
        said = from_cases([Case(near, asked.excluded(outputs))])
    else:
        said = _robustness(asked, asked.label, outputs)
    return Stated(model, said, f"{asked.wins} for {fields.around(asked.epsilon, asked.norm, asked.clip)}")


def _robustness(asked: Document, label: int, outputs: int) -> Specification:
    """As kind "robustness" writes it."""
    members: dict[str, Any] = {
        "format": asked.format,
        "kind": "robustness",
        "input": [written(x) for x in asked.input],
        "label": label,
        "outputs": outputs,
        "target": asked.target,
        "epsilon": written(asked.epsilon),
        "norm": asked.norm,
        "clip": None if asked.clip is None else [written(end) for end in asked.clip],
    }
    return parse_json(fields.as_json(members))
