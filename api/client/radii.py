"""The largest radius that a service proves, with a pattern or without: its certificate is checked here.

What a pattern makes of the network is made here; the service's certificate has to be about that very file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, TypedDict

import numpy as np
from pydantic import ValidationError

from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.client.evidence import FALSIFIED, VERIFIED, Answer, Robust
from provenn.api.client.verbs import said
from provenn.api.keywords import Shape
from provenn.api.pattern_schemas import Radius, RadiusRequest
from provenn.api.radius_question import document, specification
from provenn.api.results import ItemResult, Origin
from provenn.api.schemas import Counterexample
from provenn.models.activation_pattern import Pattern
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import spoken


class HowRadius(TypedDict, total=False):
    """What `Client.radius` takes besides network and input, by name; the defaults are those of `RadiusAsked`."""

    label: int | None
    pattern: Pattern | Mapping[str, Any] | None
    clip: tuple[float, float] | None
    largest: float
    method: str
    timeout: float
    seed: int
    semantics: Literal["real", "float32"]


@dataclass(frozen=True)
class RadiusAsked:
    """Around one input: the class that must win, or the pattern that says it."""

    label: int | None = None
    pattern: Pattern | Mapping[str, Any] | None = None
    clip: tuple[float, float] | None = None
    largest: float = 1.0
    method: str = "auto"
    timeout: float = 60.0
    seed: int = 0
    semantics: Literal["real", "float32"] = "real"

    def request(self, x: np.ndarray, shape: Shape) -> RadiusRequest:
        """For an input of this shape.   Raises: InvalidSpecification naming the member that makes no sense."""
        if x.shape != shape:
            reason = f"the input has shape {list(x.shape)}, but the network takes {list(shape)}, without a batch axis"
            raise InvalidSpecification(reason)
        members = {"label": self.label, "pattern": self.pattern, "clip": self.clip, "largest": self.largest}
        try:
            return RadiusRequest.model_validate({"input": x.astype(np.float64).ravel().tolist(), **members})
        except ValidationError as error:
            raise InvalidSpecification(said(error)) from None


@dataclass(frozen=True, eq=False)
class RadiusResult:
    """verified: the largest radius with a proof, 0 without; item: its proof, or why there is none.

    falsified: the smallest with a counterexample that was run here, or None; whole: the proof is at the largest radius
    that was asked about. inhabited: as the service says it, whether an input was seen that follows the pattern, True or
    None.
    """

    verified: float
    falsified: float | None
    whole: bool
    inhabited: bool | None
    item: ItemResult
    origin: Origin


@dataclass(frozen=True, eq=False)
class Judge:
    """Knows what was asked. outputs: of the network; model: its file, or that of the one restricted to the pattern."""

    asked: RadiusRequest
    outputs: int
    model: bytes
    semantics: Literal["real", "float32"]

    @classmethod
    def of(cls, asked: RadiusRequest, model: bytes, output: Shape, semantics: Literal["real", "float32"]) -> Judge:
        """About a network's file.   Raises: InvalidSpecification for a pattern of another; InvalidModel."""
        if asked.pattern is not None:
            from provenn.models.specification.activation_pattern import stated
            from provenn.models.specification.documents import no_files

            model = stated(document(asked), model, no_files).model
        return cls(asked, prod(output), model, semantics)

    def judged(self, answer: Answer) -> RadiusResult:
        """Radii that are proved, or refuted, here.   Raises: CertificateRejected; UnexpectedAnswer."""
        told, item = answer.item.radius, answer.item
        if told is None or (item.verdict == VERIFIED and not 0 < told.verified <= self.asked.largest):
            raise UnexpectedAnswer("the service says nothing of a radius, or of one that was not asked about")
        found = self._at(told.verified, answer) if item.verdict == VERIFIED else None
        proved = found is not None and found.verdict == VERIFIED
        known = found or ItemResult(answer.undecided, item.method, None, item.seconds, reason=item.reason)
        return RadiusResult(
            verified=told.verified if proved else 0.0,
            falsified=self._falsified(told, answer),
            whole=proved and spoken(told.verified) == spoken(self.asked.largest),
            inhabited=told.inhabited,
            item=replace(known, origin=answer.origin),
            origin=answer.origin,
        )

    def _at(self, radius: float, answer: Answer) -> ItemResult:
        """What of an answer at a radius is believed."""
        text = specification(self.asked, spoken(radius), self.outputs)
        return Robust(text, None, self.semantics, accept_computed=False).judged(replace(answer, model=self.model))

    def _falsified(self, told: Radius, answer: Answer) -> float | None:
        """The radius, if its counterexample is one in the executor here."""
        if told.falsified is None or told.counterexample is None or not 0 < told.falsified <= self.asked.largest:
            return None
        shown = Counterexample(input=told.counterexample, output=[], original=None)
        item = answer.item.model_copy(update={"verdict": FALSIFIED, "counterexample": shown})
        found = self._at(told.falsified, replace(answer, item=item, files=None))
        return told.falsified if found.verdict == FALSIFIED else None
