"""Some of the inputs, run once, with what is asked of each; and what is known of them in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.rows import Row, exact_values, input_digest
from provenn.api.certification import Counterexample, ItemResult, LoadedModel, Options
from provenn.solvers.attack import replay
from provenn.solvers.base import Verdict
from provenn.verifier.certificate.bundle import to_zip
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import robustness

EXECUTION = "execution"
"""The method of a verdict that one run of the network gives: on the input itself, or on what a smaller radius had."""

UNPROVED = "bounded in floating point only, without a certificate"

Told = Callable[[int, str], None]
"""told(done, phase): how many rows of a chunk are done; may raise to interrupt."""


@dataclass(frozen=True, eq=False)
class Asked:
    """The network, the question, and how to answer it; options.seconds: for everything."""

    model: LoadedModel
    question: Question
    options: Options

    def proved(self, item: ItemResult) -> ItemResult:
        """The item; where certificates were asked for, unknown if it says verified and has none."""
        if item.verdict != Verdict.VERIFIED or item.certificate is not None or not self.options.certificates:
            return item
        reason = UNPROVED if item.reason is None else f"{UNPROVED}: {item.reason}"
        return replace(item, verdict=str(Verdict.UNKNOWN), assurance="computed", reason=reason)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Inputs from number `first` of the data on, and what the executor says of each, as float32 [n, outputs]."""

    asked: Asked
    data: Data
    first: int
    outputs: NDArray[np.float32]

    @classmethod
    def run(cls, asked: Asked, data: Data, first: int) -> Chunk:
        """Runs them all."""
        points = np.asarray(data.inputs, dtype=np.float32).reshape(-1, *asked.model.graph.input_shape)
        return cls(asked, data, first, asked.model.executor.run(points).reshape(len(points), -1))

    def __len__(self) -> int:
        """How many inputs."""
        return len(self.data.labels)

    def predicted(self, place: int) -> int:
        """The class with the largest output, the first of several."""
        return int(self.outputs[place].argmax())

    def point(self, place: int) -> NDArray[np.float32]:
        """An input as the executor gets it."""
        values = np.asarray(self.data.inputs[place], dtype=np.float32)
        return values.reshape(self.asked.model.graph.input_shape)

    def misclassified(self, place: int) -> bool:
        """Whether another class has at least the output of the label; ties are unsafe."""
        own = self.outputs[place, self.data.labels[place]]
        return bool((np.delete(self.outputs[place], self.data.labels[place]) >= own).any())

    def specification(self, place: int, radius: float | Fraction) -> Specification:
        """What is to be proved around an input.   Raises: InvalidSpecification naming the input."""
        question = self.asked.question
        try:
            return robustness(
                exact_values(self.data.inputs[place]),
                label=self.data.labels[place],
                epsilon=radius,
                outputs=prod(self.asked.model.graph.output_shape),
                norm=question.norm,
                clip=question.clip,
            )
        except InvalidSpecification as error:
            raise InvalidSpecification(f"input {self.first + place} ({self.data.names[place]}): {error}") from None

    def replayed(self, specification: Specification, point: NDArray[np.float32]) -> ItemResult | None:
        """Falsified by this point, if it is inside and its executed output is unsafe."""
        found = replay(self.asked.model.executor, specification.cases[0], point[None])
        if found is None:
            return None
        shown = Counterexample(found.witness.ravel().tolist(), found.output.ravel().tolist())
        verdict, semantics = str(Verdict.FALSIFIED), self.asked.options.semantics
        return ItemResult(verdict, EXECUTION, None, 0.0, "replayed", counterexample=shown, semantics=semantics)


@dataclass(frozen=True, eq=False)
class Answered:
    """The rows of a chunk, and the zips of their certificates by digest."""

    rows: list[Row] = field(default_factory=list)
    certificates: dict[str, bytes] = field(default_factory=dict)

    def add(self, chunk: Chunk, place: int, item: ItemResult, radii: Radii) -> None:
        """The row of an input, with the item's certificate if it has one."""
        item, digest = chunk.asked.proved(item), None
        if item.certificate is not None:
            data = to_zip(item.certificate)
            digest = hashlib.sha256(data).hexdigest()
            self.certificates[digest] = data
        shown = item.counterexample
        self.rows.append(
            Row(
                index=chunk.first + place,
                name=chunk.data.names[place],
                label=chunk.data.labels[place],
                predicted=chunk.predicted(place),
                epsilon=radii.epsilon,
                verdict=item.verdict,
                margin=item.margin,
                method=item.method,
                assurance=item.assurance,
                seconds=float(item.seconds),
                reason=item.reason,
                certificate=digest,
                certified=radii.certified,
                attacked=radii.attacked,
                counterexample=None if shown is None else tuple(shown.input),
                input_sha256=input_digest(chunk.data.inputs[place]),
            )
        )


@dataclass(frozen=True)
class Radii:
    """The radius of a row, or the bracket of its input's radius."""

    epsilon: float | None = None
    certified: float | None = None
    attacked: float | None = None


def later(told: Told, before: int) -> Told:
    """Tells it with so many rows done before."""
    return lambda done, phase: told(before + done, phase)
