"""What a job about the largest radius asks at every radius: of the network, or of one restricted to a pattern."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from provenn.api.pattern_schemas import RadiusRequest
from provenn.verifier.numbers import hexadecimal, spoken, written
from provenn.verifier.spec import Case, Specification
from provenn.verifier.spec_json import FORMAT, from_cases, robustness


def document(asked: RadiusRequest) -> dict[str, Any]:
    """Of a question with a pattern: what is asked at the largest radius, whose restricted network is that of all."""
    assert asked.pattern is not None
    around = {"input": [hexadecimal(v) for v in asked.input], "epsilon": written(spoken(asked.largest))}
    cut = {} if asked.clip is None else {"clip": [written(spoken(end)) for end in asked.clip]}
    pattern = asked.pattern.model_dump(by_alias=True, exclude_none=True)
    return {"format": FORMAT, "kind": "activation-pattern", "pattern": pattern, **around, **cut}


def specification(asked: RadiusRequest, radius: Fraction, outputs: int) -> Specification:
    """What is asked at a radius; outputs: of the network that was given, not of the restricted one.

    Raises: InvalidSpecification if that has other classes.
    """
    plain = robustness(asked.input, label=asked.winner, epsilon=radius, outputs=outputs, clip=asked.clip)
    if asked.pattern is None:
        return plain
    from provenn.models.specification.activation_pattern import rivals

    return from_cases([Case(case.inputs, rivals(asked.winner, outputs)) for case in plain.cases])
