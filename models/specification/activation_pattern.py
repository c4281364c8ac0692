"""Kind "activation-pattern": inputs of a region that follow a class's activation pattern get that class.

With "excludes" instead: no input of the region follows both patterns. The network it becomes is the restricted one of
`pattern_network`, x -> (logits y, V), V >= 0 and V = 0 exactly where the pattern is followed. Unsafe, for a rival j:
    y_j - y_class - penalty V >= 0   and   -2^30 V >= 0,
which for every penalty >= 0 is the same set, {V = 0, y_j >= y_class}; one row suffices for a proof, and with it lower
slopes are multipliers of the constraints, as far as the penalty reaches. Constraints are closed, z >= margin where
active and z <= 0 where inactive: with margin 0 a superset of the pattern's inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import prod
from typing import Any, Literal, Self

import numpy as np
from pydantic import model_validator

from provenn.models.activation_pattern import Pattern, PatternLayer, conflicts, read_pattern
from provenn.models.admission import admitted
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.models.pattern_network import below, constraints_of, restricted
from provenn.models.specification import fields
from provenn.models.specification.fields import Number, Positive, Range, Vector, Whole, fails, validated
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import written
from provenn.verifier.spec import Case, Clause, InputSet
from provenn.verifier.spec_json import from_cases

KIND = "activation-pattern"
PENALTY = Fraction(1)
"""Of a broken constraint, per unit of its pre-activation."""

STEEP = Fraction(1 << 30)
"""Of the row that says V = 0. It is true of what follows the pattern, so it proves nothing alone, and its scale says so
to a search that compares rows by their bounds."""

APART = Fraction(1, 1024)
"""Margin where two patterns are told apart: on z = 0 alone both closed sets may meet."""


class Document(fields.Document):
    """Its keys. The region: input and epsilon (cut by clip), or lower and upper: lists, or one number for all inputs.

    pattern, excludes: a pattern file, or its content in place of the name.
    """

    kind: Literal["activation-pattern"]
    pattern: str | Pattern
    excludes: str | Pattern | None = None
    input: Vector | None = None
    epsilon: Positive | None = None
    clip: Range | None = None
    lower: Number | Vector | None = None
    upper: Number | Vector | None = None
    target: Whole | None = None
    margin: Positive | None = None
    penalty: Positive = PENALTY

    @model_validator(mode="after")
    def _one_region(self) -> Self:
        around, box = self.input is not None, self.lower is not None
        if around == box:
            raise fails('give either "input" with "epsilon", or "lower" with "upper"', "input")
        if around != (self.epsilon is not None):
            raise fails('"input" and "epsilon" belong together', "epsilon")
        if box != (self.upper is not None):
            raise fails('"lower" and "upper" belong together', "upper")
        if box and self.clip is not None:
            raise fails('it belongs to "input" with "epsilon"', "clip")
        if self.excludes is not None and self.target is not None:
            raise fails('it belongs to the question of the class, not to "excludes"', "target")
        return self

    def box(self, inputs: int) -> InputSet:
        """The region of a network of so many inputs.   Raises: InvalidSpecification if it does not fit, or is empty."""
        if self.input is not None:
            assert self.epsilon is not None
            ends = self.clip or (min(self.input) - self.epsilon, max(self.input) + self.epsilon)
            lower = tuple(max(x - self.epsilon, ends[0]) for x in _sized("input", self.input, inputs))
            return InputSet(lower, tuple(min(x + self.epsilon, ends[1]) for x in self.input))
        sides = (("lower", self.lower), ("upper", self.upper))
        found = [(side,) * inputs if isinstance(side, Fraction) else _sized(n, side or (), inputs) for n, side in sides]
        return InputSet(found[0], found[1])

    @property
    def place(self) -> str:
        """The region in words."""
        if self.epsilon is not None:
            ends = "" if self.clip is None else f" and within [{written(self.clip[0])}, {written(self.clip[1])}]"
            return f"input at most {written(self.epsilon)} from the given one in every coordinate{ends}"
        if isinstance(self.lower, Fraction) and isinstance(self.upper, Fraction):
            return f"input with every coordinate in [{written(self.lower)}, {written(self.upper)}]"
        return "input of the given box"


def _sized(name: str, values: tuple[Fraction, ...], count: int) -> tuple[Fraction, ...]:
    if len(values) != count:
        raise InvalidSpecification(f'"{name}" has {len(values)} numbers, the network has {count} inputs')
    return values


def stated(document: Mapping[str, Any], model: bytes, files: Callable[[str], bytes]) -> Stated:
    """The restricted network, and its specification.

    Raises: InvalidSpecification for a document or pattern that is malformed or about another network; InvalidModel.
    """
    asked = validated(Document, document)
    network, digest = admitted(model), hashlib.sha256(decompressed(model, Limits())).hexdigest()
    first = _pattern("pattern", asked.pattern, digest, files)
    box, outputs = asked.box(prod(network.input.shape)), prod(network.output.shape)
    if asked.excludes is not None:
        second = _pattern("excludes", asked.excludes, digest, files)
        return _apart(asked, model, (first, second), box, network.input_type)
    for name, label in (("pattern", first.label), ("target", asked.target)):
        if label is not None and label >= outputs:
            raise InvalidSpecification(f'"{name}" speaks of class {label}, the network has {outputs}')
    if asked.target == first.label or outputs < 2:
        raise InvalidSpecification('"target" is the class itself, or there is no other one')
    unsafe = rivals(first.label, outputs, asked.target, asked.penalty)
    made = restricted(model, constraints_of(model, [first.layers]), asked.margin or Fraction(0))
    who = f"the activation pattern of class {first.label} ({first.constrained} of {first.neurons} neurons)"
    who += f", {_active(asked.margin, network.input_type)}," if asked.margin else ""
    words = f"Every {asked.place} that follows {who} gets class {first.label}"
    words += "." if asked.target is None else f" rather than {asked.target}."
    return Stated(made, from_cases([Case(box, unsafe)]), words)


def rivals(label: int, outputs: int, target: int | None = None, penalty: Fraction = PENALTY) -> tuple[Clause, ...]:
    """What must not be of the restricted network of a network with so many outputs: another class, or target, wins."""
    return tuple(_rival(j, label, outputs, penalty) for j in range(outputs) if j != label and target in (None, j))


def _rival(j: int, label: int, outputs: int, penalty: Fraction) -> Clause:
    """{y_j - y_label - penalty V >= 0, -V >= 0} of the outputs (y, V)."""
    row, broken = [Fraction(0)] * (outputs + 1), [Fraction(0)] * (outputs + 1)
    row[j], row[label], row[outputs], broken[outputs] = Fraction(1), Fraction(-1), -penalty, -STEEP
    return Clause((tuple(row), tuple(broken)), (Fraction(0), Fraction(0)))


def _apart(
    asked: Document, model: bytes, patterns: tuple[Pattern, Pattern], box: InputSet, kind: np.dtype[np.floating]
) -> Stated:
    """No input has V = 0 for both patterns' constraints together.

    Where the patterns contradict each other at a neuron, of that neuron's alone: a stronger statement, and V >= margin.
    """
    margin = APART if asked.margin is None else asked.margin
    constraints = constraints_of(model, [p.layers for p in patterns])
    if clash := conflicts(*patterns)[:1]:
        (name, i), size = clash[0], {layer.relu: layer.neurons for layer in patterns[0].layers}
        alone = PatternLayer(relu=name, neurons=size[name], active=[i], inactive=[])
        constraints = constraints_of(model, [[alone], [alone.model_copy(update={"active": [], "inactive": [i]})]])
    made = restricted(model, constraints, margin, logits=False)
    unsafe = Clause(((Fraction(-1),),), (Fraction(0),))
    whose = " and ".join(f"class {p.label} ({p.constrained} of {p.neurons} neurons)" for p in patterns)
    words = f"No {asked.place} follows both the activation patterns of {whose}, {_active(margin, kind)}."
    return Stated(made, from_cases([Case(box, (unsafe,))]), words)


def _active(margin: Fraction, kind: np.dtype[np.floating]) -> str:
    """What active neurons are taken to be, in words."""
    rounded = "" if Fraction(float(below(margin, kind))) == margin else f" (rounded down to {kind})"
    return f"active neurons at least {written(margin)}{rounded}"


def _pattern(name: str, given: str | Pattern, digest: str, files: Callable[[str], bytes]) -> Pattern:
    """The pattern of this network.   Raises: InvalidSpecification."""
    try:
        pattern = read_pattern(files(given)) if isinstance(given, str) else given
    except InvalidSpecification as error:
        raise InvalidSpecification(f'"{name}": {given if isinstance(given, str) else "its content"}: {error}') from None
    if pattern.model != digest:
        known = f"it is about a network of sha256 {pattern.model}, not {digest}"
        raise InvalidSpecification(f'"{name}": {known}: mine it again from this network')
    return pattern
