"""The facade's questions, put to a service: upload, submit, wait, download what it says is proof, check it here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, Unpack

import numpy as np

from provenn.api.client.errors import RequestRefused, UnexpectedAnswer
from provenn.api.client.evidence import Answer, Constant, Robust
from provenn.api.client.flow import Flow, done
from provenn.api.client.verbs import Progress, Verbs, requested
from provenn.api.keywords import Constant as ConstantAsked
from provenn.api.keywords import (
    Derivatives,
    HowAsked,
    HowDerivatives,
    HowLipschitz,
    HowProvedThere,
    HowTightness,
    Proving,
    Robustness,
    Shape,
    named,
    network,
)
from provenn.api.results import Asked, ItemResult, LipschitzResult, Origin
from provenn.api.schemas import Model
from provenn.api.specifications import given_property
from provenn.models.specification.monotone import Monotone
from provenn.models.specification.stated import Stated
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import spoken

if TYPE_CHECKING:
    from torch import nn

    from provenn.api.batch.data import Data
    from provenn.api.batch.question import Question
    from provenn.api.client.batches import CheckedBatch, HowBatch
    from provenn.api.client.mining import HowPatterns, MinedPatterns, PatternsAsked
    from provenn.api.client.radii import HowRadius, RadiusAsked, RadiusResult
    from provenn.api.jacobian import JacobianResult
    from provenn.api.monotonicity import MonotonicityResult
    from provenn.api.tightness import TightnessResult
    from provenn.api.tightness_schemas import TightnessRequest

NOT_FOUND = 404
Network: TypeAlias = "str | Path | bytes | Model | nn.Module"
"""A file in any format that the service reads; one that was uploaded, as the service describes it; a torch module."""
R = TypeVar("R", covariant=True)


class Judge(Protocol[R]):
    """Knows the question, and what of an answer to believe."""

    def judged(self, answer: Answer) -> R:
        """What is known, by what was checked here."""
        ...


@dataclass(frozen=True, eq=False)
class Subject:
    """A network that the service has, and its file here.

    converted: the file is a canonical one that was made of what was uploaded.
    """

    model: Model
    file: bytes
    converted: bool

    @property
    def shape(self) -> Shape:
        """Of an input, as the service says: the check is on the file."""
        return tuple(self.model.input_shape)

    @property
    def sizes(self) -> tuple[Shape, Shape]:
        """Of an input and an output."""
        return self.shape, tuple(self.model.output_shape)


class Asking(Verbs):
    """The verbs of `provenn`, answered by the service and checked here.

    A result is `verified` only where the trusted checker has accepted a certificate here, about the model's own file
    and the very question; `falsified` only where the local executor has run the counterexample.
    """

    def verify(
        self,
        model: Network,
        x: np.ndarray,
        *,
        label: int,
        eps: float | str,
        progress: Progress | None = None,
        accept_computed: bool = False,
        **how: Unpack[HowAsked],
    ) -> Flow[ItemResult]:
        """Whether every input within `eps` of `x` is classified as `label`, as `provenn.verify` says it.

        accept_computed: take the service's word where it bounded a network in floating point that no certificate can
        cover; without it such an answer is `unknown`, its assurance `computed`. how: all but device.
        Raises: ServiceError in one of its kinds; CertificateRejected where a proof does not hold; InvalidSpecification.
        """
        asked, point = Robustness(**how), np.asarray(x)
        subject = yield from self._subject(model, point.shape)
        specification = asked.specification(point, label, eps, subject.sizes)
        about = Asked(point, label, eps, asked.norm)
        question = Robust(specification, about, asked.semantics, accept_computed)
        members = {"specification": specification.text.decode(), "semantics": asked.semantics}
        return (yield from self._judged(question, subject, asked, progress, members))

    def prove(
        self,
        model: Network,
        specification: str | Path | bytes | Mapping[str, Any],
        shape: Shape | None = None,
        *,
        progress: Progress | None = None,
        accept_computed: bool = False,
        **how: Unpack[HowProvedThere],
    ) -> Flow[ItemResult | MonotonicityResult]:
        """Whether the network keeps a specification of any kind, as `provenn.prove` says it.

        What a document makes of the network is made here, and uploaded. accept_computed: as of `verify`.
        Raises: as `verify`.
        """
        asked = Proving(**how)
        subject = yield from self._subject(model, shape)
        found = yield from done(partial(given_property, specification, subject.file, asked.semantics))
        if isinstance(found, Monotone):
            trends, wanted = yield from done(partial(_expected, found, asked, subject))
            return (yield from self._judged(trends, subject, asked, progress, {"monotonicity": wanted}))
        if not found.specification.cases:
            return (yield from done(partial(_vacuous, found)))
        given = None if found.model == subject.file else subject.file
        if given is not None:
            subject = yield from self._subject(found.model, None)
        question = Robust(found.specification, None, asked.semantics, accept_computed, given)
        members = {"specification": found.specification.text.decode(), "semantics": asked.semantics}
        return (yield from self._judged(question, subject, asked, progress, members))

    def lipschitz(
        self,
        model: Network,
        shape: Shape | None = None,
        *,
        progress: Progress | None = None,
        **how: Unpack[HowLipschitz],
    ) -> Flow[LipschitzResult]:
        """A proved number L with |C (f(x) - f(y))| <= L |scale * (x - y)|, as `provenn.lipschitz` says it.

        Raises: as `verify`.
        """
        asked = ConstantAsked(**how)
        subject = yield from self._subject(model, shape if asked.at is None else np.shape(asked.at))
        question = yield from done(partial(asked.question, subject.shape))
        region = question.region
        wanted: dict[str, Any] = {"norm": question.norm, "output_norm": question.output, "rows": question.rows}
        wanted |= {"scale": question.scale, "solver": asked.solver}
        wanted |= {"region": None if region is None else _region(region.centre, asked)}
        return (yield from self._judged(Constant(question), subject, asked, progress, {"lipschitz": wanted}))

    def monotonicity(
        self,
        model: Network,
        features: str | Sequence[str | int],
        shape: Shape | None = None,
        *,
        progress: Progress | None = None,
        **how: Unpack[HowDerivatives],
    ) -> Flow[MonotonicityResult]:
        """Whether outputs only rise, or only fall, with each of some features, as `provenn.monotonicity` says it.

        Trends are those that a certificate proves here, or that pairs of inputs show here.   Raises: as `verify`.
        """
        asked, names = Derivatives(**how), named(features)
        subject = yield from self._subject(model, shape if asked.at is None else np.shape(asked.at))
        question = yield from done(partial(_trends, asked, names, subject.shape))
        wanted = {"features": names, **_over(asked)}
        return (yield from self._judged(question, subject, asked, progress, {"monotonicity": wanted}))

    def jacobian(
        self,
        model: Network,
        shape: Shape | None = None,
        *,
        progress: Progress | None = None,
        **how: Unpack[HowDerivatives],
    ) -> Flow[JacobianResult]:
        """Proved bounds of every derivative of the outputs over a region, as `provenn.jacobian` says it.

        What was seen at points of the region is the service's word. Raises: as `verify`.
        """
        asked = Derivatives(**how)
        subject = yield from self._subject(model, shape if asked.at is None else np.shape(asked.at))
        question = yield from done(partial(_derivatives, asked, subject.shape))
        return (yield from self._judged(question, subject, asked, progress, {"jacobian": _over(asked)}))

    def tightness(
        self,
        model: Network,
        x: np.ndarray,
        *,
        progress: Progress | None = None,
        timeout: float = 60.0,
        **how: Unpack[HowTightness],
    ) -> Flow[TightnessResult]:
        """How much of the interval bounds at inputs is the network's, as `provenn.tightness` says it.

        A measurement without a proof: it is the service's word. timeout: seconds.
        Raises: ServiceError in one of its kinds; InvalidSpecification.
        """
        subject = yield from self._subject(model, None if isinstance(model, Model) else np.shape(x)[1:])
        judge, wanted = yield from done(partial(_measured, x, subject.shape, how))
        return (yield from self._judged(judge, subject, Proving(timeout=timeout), progress, {"tightness": wanted}))

    def patterns(
        self,
        model: Network,
        data: Path | bytes | Data,
        held_out: Path | bytes | Data | None = None,
        *,
        progress: Progress | None = None,
        **how: Unpack[HowPatterns],
    ) -> Flow[MinedPatterns]:
        """The activation pattern of every class of the data, and its coverage, as `provenn nap` mines and measures it.

        held_out: data whose coverage is measured; or `share` of the data; without either it is that of all of them.
        Counts are the service's word; that the patterns are what they make, of this very network, is seen here.
        Raises: ServiceError in one of its kinds; InvalidSpecification.
        """
        from provenn.api.client import mining

        asked = mining.PatternsAsked(**how)
        subject = yield from self._subject(model, None)
        dataset = yield from self.upload_data(data)
        held = None if held_out is None else (yield from self.upload_data(held_out)).id
        wanted = yield from done(partial(asked.request, dataset.id, held))
        return (yield from self._judged(mining.Judge(wanted), subject, asked, progress, {"patterns": wanted}))

    def radius(
        self, model: Network, x: np.ndarray, *, progress: Progress | None = None, **how: Unpack[HowRadius]
    ) -> Flow[RadiusResult]:
        """The largest radius around an input in which a class is proved to win, as `provenn nap radius` searches it.

        Of all inputs, with `label`; or, with `pattern`, of those that follow it. timeout: seconds of the whole search.
        Raises: as `verify`.
        """
        from provenn.api.client import radii

        asked, point = radii.RadiusAsked(**how), np.asarray(x)
        subject = yield from self._subject(model, point.shape)
        wanted = yield from done(partial(asked.request, point, subject.shape))
        judge = yield from done(partial(radii.Judge.of, wanted, subject.file, subject.sizes[1], asked.semantics))
        members = {"radius": wanted, "semantics": asked.semantics}
        return (yield from self._judged(judge, subject, asked, progress, members))

    def batch(
        self,
        model: Network,
        data: Data,
        question: Question,
        folder: Path | None = None,
        *,
        progress: Progress | None = None,
        **how: Unpack[HowBatch],
    ) -> Flow[CheckedBatch]:
        """Every input of the data at every radius, or its own radius, as `provenn batch` says it; see docs/batch.md.

        Every certificate of the answer is proved again here, and every counterexample run, before this returns.
        folder: gets batch.zip and results.jsonl then.
        Raises: ServiceError in one of its kinds; CertificateRejected where a proof does not hold; InvalidSpecification.
        """
        from provenn.api.client import batches

        asked = batches.Asked(**how)
        subject = yield from self._subject(model, None)
        dataset = yield from self.upload_data(data)
        wanted = batches.requested(question, dataset.id)
        members = {"method": asked.method, "seed": asked.seed, "semantics": asked.semantics, "batch": wanted}
        job = yield from self.submit(requested(asked.timeout, model=subject.model.id, **members))
        yield from self.outcome(job.id, progress)
        bundle = yield from self.batch_file(job.id, "batch.zip")
        lines = yield from self.batch_file(job.id, "rows.jsonl")
        judge = batches.Judge(subject.file, data, question, asked.semantics, folder)
        origin = Origin(self.url, job.id, subject.model.id, None, subject.converted)
        tick = None if progress is None else lambda row, rows: progress(row, rows, "checking rows")
        return (yield from done(lambda: judge.judged(bundle, lines, origin, tick)))

    def _judged(
        self,
        question: Judge[R],
        subject: Subject,
        asked: Robustness | Proving | ConstantAsked | Derivatives | PatternsAsked | RadiusAsked,
        progress: Progress | None,
        members: dict[str, Any],
    ) -> Flow[R]:
        """Submits, waits, downloads, checks. An interrupted wait cancels the job."""
        request = requested(asked.timeout, model=subject.model.id, method=asked.method, seed=asked.seed, **members)
        job = yield from self.submit(request)
        result = yield from self.outcome(job.id, progress)
        if len(result.items) != 1:
            raise UnexpectedAnswer(f"the service has {len(result.items)} answers to one question")
        (item,) = result.items
        files = None
        if item.certificate is not None:
            if progress is not None:
                progress(0, 1, "certificate")
            bundle = yield from self.bundle(item.certificate)
            files = yield from done(lambda: dict(load_zip(bundle)))
        origin = Origin(self.url, job.id, subject.model.id, item.certificate, subject.converted)
        found = yield from done(lambda: question.judged(Answer(item, files, subject.file, origin)))
        if progress is not None:
            progress(1, 1, "done")
        return found

    def _subject(self, model: Network, shape: Shape | None) -> Flow[Subject]:
        """The network at the service, uploaded unless it is there.

        Raises: UnexpectedAnswer unless the service's file is the one that was sent, or what is made of that here.
        """
        if isinstance(model, Model):
            return Subject(model, (yield from self.file(model.id)), converted=model.id != model.source_digest)
        data = yield from done(partial(network, model, shape))
        digest = hashlib.sha256(data).hexdigest()
        known = yield from self._known(digest)
        if known is None:
            name = Path(model).name if isinstance(model, str | Path) else "model.onnx"
            known = yield from self.send(data, name)
        if known.id == digest:
            return Subject(known, data, converted=False)
        made = yield from done(partial(_canonical, data))
        if known.id != hashlib.sha256(made).hexdigest():
            what = f"the service's model {known.id} is not what this version makes of the file that was sent"
            raise UnexpectedAnswer(f"{what}: pass the answer of `upload` to ask about the service's own file")
        return Subject(known, made, converted=True)

    def _known(self, model: str) -> Flow[Model | None]:
        try:
            return (yield from self.model(model))
        except RequestRefused as refused:
            if refused.status != NOT_FOUND:
                raise
            return None


def _canonical(data: bytes) -> bytes:
    from provenn.models.arrival import arrive
    from provenn.models.limits import Limits

    return arrive(data, None, Limits()).data


def _expected(found: Monotone, asked: Proving, subject: Subject) -> tuple[Judge[MonotonicityResult], dict[str, Any]]:
    """What a document asks of derivatives, and as a request has it.   Raises: InvalidSpecification naming the key."""
    from provenn.api import monotone
    from provenn.api.client.derivatives import Trends

    asked.derivatives()
    inputs, outputs = (int(np.prod(shape)) for shape in subject.sizes)
    question, _ = monotone.question(found, inputs, outputs)
    return Trends(question, subject.shape), monotone.request(found).model_dump(exclude_none=True)


def _measured(x: np.ndarray, shape: Shape, how: HowTightness) -> tuple[Judge[TightnessResult], TightnessRequest]:
    """Who reads the answer, and what is asked.   Raises: InvalidSpecification."""
    from provenn.api.client.measuring import Measured, requested
    from provenn.api.keywords import Measuring

    question = Measuring(**how).question(x, shape)
    return Measured(question), requested(question)


def _vacuous(found: Stated) -> ItemResult:
    """That no input is allowed is seen here."""
    from provenn.api.certification import Options, certify, load_model

    (own,) = certify(load_model(found.model), [found.specification], Options())
    return own


def _trends(asked: Derivatives, names: Sequence[str], shape: Shape) -> Judge[MonotonicityResult]:
    from provenn.api.client.derivatives import Trends
    from provenn.api.domain import columns
    from provenn.api.monotonicity import Question

    domain = asked.over(shape)
    chosen = columns(names, int(np.prod(shape)), domain)
    return Trends(Question(chosen, tuple(asked.places(domain, shape, chosen)), asked.rows), shape)


def _derivatives(asked: Derivatives, shape: Shape) -> Judge[JacobianResult]:
    from provenn.api.client.derivatives import Derivatives as Judged
    from provenn.api.jacobian import Question

    return Judged(Question(asked.one_place(asked.over(shape), shape), asked.rows))


def _over(asked: Derivatives) -> dict[str, Any]:
    """Rows and place, as a request has them."""
    text = asked.domain_text()
    if text is not None:
        return {"rows": asked.rows, "domain": text.decode(), "fixed": asked.held}
    return {"rows": asked.rows, "region": _region(np.asarray(asked.at, float).ravel().tolist(), asked)}


def _region(centre: Sequence[float], asked: ConstantAsked | Derivatives) -> dict[str, Any]:
    """As a request has it.   Raises: InvalidSpecification for a radius that no JSON number is."""
    assert asked.eps is not None
    exact = spoken(asked.eps)
    if spoken(float(exact)) != exact:
        raise InvalidSpecification(f"a service takes radii of regions as decimals, which {asked.eps} is not")
    return {"input": list(centre), "epsilon": float(exact), "norm": asked.region_norm, "clip": asked.clip}
