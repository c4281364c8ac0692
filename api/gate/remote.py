"""Answers to questions, found by a service, and believed as far as their certificates are proved again here."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from provenn.api.batch.rows import exact_values
from provenn.api.client import Client
from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.client.evidence import FALSIFIED, NOT_REPLAYED, UNPROVED, VERIFIED, single
from provenn.api.gate.answers import at_radius, classified, constant_found, trend_found
from provenn.api.gate.found import Found, Item, sha256
from provenn.api.gate.proofs import believed
from provenn.api.gate.questions import Constant, Difference, Property, Question, Robustness, Trend
from provenn.api.gate.shown import unsafe
from provenn.api.gate.statements import Subject, around, differences, stated_property, trends
from provenn.api.keywords import HowDerivatives, HowLipschitz
from provenn.api.monotone import over_which
from provenn.api.schemas import Inputs
from provenn.api.schemas import Item as Told
from provenn.api.signing_bundle import detach
from provenn.api.specifications import monotone_in
from provenn.models.parametrization import Parametrized
from provenn.solvers.base import Progress
from provenn.verifier.numbers import exact, spoken, written
from provenn.verifier.spec import Specification

if TYPE_CHECKING:
    from provenn.solvers.attack import Replayed


class Remote:
    """Measures by jobs of a service. seed: of everything that is searched; progress: of every job."""

    def __init__(self, client: Client, seed: int, progress: Progress) -> None:
        self._client, self._seed, self._progress = client, seed, progress
        self._sent: dict[str, str] = {}

    def measure(self, question: Question, subject: Subject, seconds: float) -> Found:
        """What is found in the time.   Raises: ServiceError in one of its kinds, and ProvennError in others."""
        match question:
            case Robustness():
                found = self._robustness(question, subject, seconds)
            case Constant():
                asked = HowLipschitz(norm=question.norm, to=question.to, rows=question.rows)
                asked |= {"timeout": seconds, "seed": self._seed}
                return constant_found(self._client.lipschitz(subject.data, progress=self._progress, **asked))
            case Trend():
                over = HowDerivatives(domain=question.domain, rows=question.rows)
                document = monotone_in(question.domain) if question.document else None
                over |= {} if document is None else over_which(document, subject.executor.input_shape)
                over |= {"timeout": seconds, "seed": self._seed}
                features = list(question.features)
                result = self._client.monotonicity(subject.data, features, progress=self._progress, **over)
                return trend_found(question, trends(question, subject), result)
            case Property():
                found = self._stated([(0, "", stated_property(question, subject))], subject, seconds)
            case Difference():
                found = self._stated(list(differences(question, subject)), subject, seconds)
        return believed(question, subject, found)

    def _robustness(self, question: Robustness, subject: Subject, seconds: float) -> Found:
        data = subject.sample(question.sample)
        plain = classified(subject, data)
        if not question.radii:
            return Found(tuple(plain), {})
        radii = {upward(exact(radius)): radius for radius in question.radii}
        inputs = Inputs(
            inputs=exact_values(data.inputs).tolist(),
            labels=list(data.labels),
            epsilons=list(radii),
            norm=question.norm,
            target=None,
            clip=question.clip,
        )
        job = self._client.certify(self._model(subject), inputs, seconds, seed=self._seed)
        told = {(each.input, each.epsilon): each for each in self._client.wait(job.id, self._progress).items}
        items: list[Item] = []
        certificates: dict[str, bytes] = {}
        for own in plain:
            items.append(own)
            for epsilon, radius in radii.items():
                each = told.get((own.index, epsilon))
                if each is None:
                    raise UnexpectedAnswer(f"the service says nothing of input {own.index} within {epsilon}")
                certificates |= self._certificate(each)
                larger = None if spoken(epsilon) == exact(radius) else written(spoken(epsilon))
                stated = around(question, data, own.index, radius, subject.outputs)
                item, found = _judged(each, _item(each, own.index, larger), stated, subject)
                shown = None if found is None else found.witness.ravel().tolist()
                items.append(at_radius(subject, data, plain, radius, (item, shown)))
        return Found(tuple(items), certificates)

    def _stated(self, stated: list[tuple[int, str, Specification]], subject: Subject, seconds: float) -> Found:
        """A job a specification; they run at the same time as far as the service has workers."""
        model, each = self._model(subject), seconds / len(stated)
        jobs = [self._client.certify(model, one.text.decode(), each, seed=self._seed) for *_, one in stated]
        items: list[Item] = []
        certificates: dict[str, bytes] = {}
        for (index, name, specification), job in zip(stated, jobs, strict=True):
            told = self._client.wait(job.id, self._progress).items
            if len(told) != 1:
                raise UnexpectedAnswer(f"the service has {len(told)} answers to one question")
            certificates |= self._certificate(told[0])
            item, found = _judged(told[0], _item(told[0], index, None, name), specification, subject)
            if found is not None:
                where = f"around input {name}: " if name else ""
                output, witness = found.output.ravel().tolist(), found.witness.ravel().tolist()
                run = subject.executor
                made = run.image(found.witness[None]).ravel().tolist() if isinstance(run, Parametrized) else None
                item = replace(item, shown=where + unsafe(output, witness, made))
            items.append(item)
        return Found(tuple(items), certificates)

    def _certificate(self, told: Told) -> dict[str, bytes]:
        """The zip, without its signature, by its digest."""
        if told.certificate is None:
            return {}
        return {told.certificate: detach(self._client.bundle(told.certificate))}

    def _model(self, subject: Subject) -> str:
        """The id of the network there, which is the digest of the file here."""
        digest = sha256(subject.data)
        if digest not in self._sent:
            self._sent[digest] = self._client.upload(subject.data).id
        return self._sent[digest]


def upward(radius: Fraction) -> float:
    """A float whose shortest decimal is no less: what is certain within it is certain within the radius."""
    found = float(radius)
    while spoken(found) < radius:
        found = math.nextafter(found, math.inf)
    return found


def _judged(told: Told, item: Item, stated: Specification, subject: Subject) -> tuple[Item, Replayed | None]:
    """The item as far as it is known here, and the counterexample: without a certificate nothing is verified.

    That no input is allowed is seen here, of the specification as it is read here; a counterexample is executed here.
    Raises: UnexpectedAnswer for a counterexample that is no input; ProvennError in other kinds.
    """
    if not stated.cases:
        return _vacuous(item, stated, subject), None
    if told.verdict == VERIFIED and told.certificate is None:
        reason = f"{UNPROVED}: {told.reason}" if told.reason else UNPROVED
        return replace(item, verdict="unknown", assurance=None, reason=reason), None
    if told.verdict != FALSIFIED:
        return item, None
    found = None if told.counterexample is None else _replayed(told.counterexample.input, stated, subject)
    if found is None:
        return replace(item, verdict="unknown", assurance=None, certificate=None, reason=NOT_REPLAYED), None
    return item, found


def _vacuous(item: Item, stated: Specification, subject: Subject) -> Item:
    """What is found here of a specification that allows no input."""
    from provenn.api.certification import Options, certify, load_model

    (own,) = certify(load_model(subject.data), [stated], Options())
    return replace(item, verdict=own.verdict, assurance=own.assurance, certificate=None, reason=own.reason)


def _replayed(values: list[float], stated: Specification, subject: Subject) -> Replayed | None:
    """The counterexample, if it is one of some case in the executor that is installed here."""
    from provenn.solvers.attack import replay

    point = single(values, subject.executor.input_shape)
    if point is None:
        raise UnexpectedAnswer(f"the service's counterexample of {len(values)} numbers is no input of the network")
    hits = (replay(subject.executor, case, point[None]) for case in stated.cases)
    return next((hit for hit in hits if hit is not None), None)


def _item(told: Told, index: int, proved_at: str | None, name: str = "") -> Item:
    return Item(
        told.verdict,
        told.assurance,
        told.certificate,
        told.reason,
        index,
        name,
        margin=told.margin,
        proved_at=proved_at,
    )
