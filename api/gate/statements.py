"""What a question says exactly: the network as one file, and what a certificate of it has to be about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from provenn.api.batch.data import Data, read_data
from provenn.api.batch.rows import exact_values
from provenn.api.domain import Place, columns, read_domain
from provenn.api.files import InvalidFile, read_file
from provenn.api.gate.config import Preprocessing
from provenn.api.gate.questions import Constant, Difference, Network, Property, Question, Robustness, Sample, Trend
from provenn.api.lipschitz_question import Question as Asked
from provenn.api.lipschitz_question import matrix
from provenn.api.monotone import question as asked_by
from provenn.api.specifications import monotone_in, read_property
from provenn.models import preprocessing
from provenn.models.difference import difference
from provenn.models.parametrization import Parametrized
from provenn.models.reading import Executor, executor
from provenn.models.specification.monotone import Monotone
from provenn.models.specification.stated import Stated
from provenn.verifier.certificate.lipschitz import Statement
from provenn.verifier.errors import InvalidSpecification, ProvennError, in_file
from provenn.verifier.numbers import exact, spoken
from provenn.verifier.spec import Case, Clause, InputSet, Specification
from provenn.verifier.spec_json import from_cases, robustness


@dataclass(frozen=True, eq=False)
class Subject:
    """The network that a question is about, as one file, and what runs it: a document may compose it with others."""

    data: bytes
    executor: Executor

    @classmethod
    def of(cls, question: Question) -> Subject:
        """Raises: InvalidFile; InvalidModel, UnsupportedOp, ResourceLimit."""
        given = data = network_file(question.network)
        if isinstance(question, Difference):
            other = Network(question.other, question.network.preprocessing)
            data = difference(data, network_file(other))
        elif isinstance(question, Property):
            data = _stated(question, given).model
        composed = None if data == given else Parametrized.of(data, given)
        return cls(data, composed or executor(data))

    @property
    def inputs(self) -> int:
        """How many numbers an input has."""
        return prod(self.executor.input_shape)

    @property
    def outputs(self) -> int:
        """How many numbers an output has."""
        return prod(self.executor.output_shape)

    def sample(self, sample: Sample) -> Data:
        """The inputs with their labels.   Raises: InvalidFile, also for a label that is no class."""
        data = read_data(sample.data, self.executor.input_shape, sample.labels)
        wrong = next((i for i, label in enumerate(data.labels) if label >= self.outputs), None)
        if wrong is not None:
            said = f"input {data.names[wrong]} has label {data.labels[wrong]}"
            raise InvalidFile(sample.data, f"{said}, but the classes of the network are 0 to {self.outputs - 1}")
        return data


def network_file(network: Network) -> bytes:
    """The file, behind its preprocessing.   Raises: InvalidFile; InvalidModel, UnsupportedOp, ResourceLimit."""
    data, how = read_file(network.file), network.preprocessing
    return data if how is None else preprocessing.preprocessed(data, _as_told(how))


def _as_told(how: Preprocessing) -> preprocessing.Preprocessing:
    return preprocessing.Preprocessing(how.divide, how.mean, how.std, how.layout)


def around(question: Robustness, data: Data, index: int, radius: str, outputs: int) -> Specification:
    """Robustness at one input and radius.   Raises: InvalidSpecification."""
    return robustness(
        exact_values(data.inputs[index]),
        label=data.labels[index],
        epsilon=exact(radius),
        outputs=outputs,
        norm=question.norm,
        clip=question.clip,
    )


def stated_property(question: Property, subject: Subject) -> Specification:
    """The property in a file, which has to fit the network.   Raises: InvalidFile; InvalidSpecification naming it."""
    found = _stated(question, network_file(question.network)).specification
    try:
        found.require_fits(subject.inputs, subject.outputs)
    except ProvennError as error:
        raise in_file(question.file, error) from None
    return found


def _stated(question: Property, model: bytes) -> Stated:
    found = read_property(question.file, model)
    if isinstance(found, Monotone):  # the file has changed since the questions were planned
        raise InvalidSpecification(f"{question.file}: it was about cases before, and is of kind monotone now")
    return found


def differences(question: Difference, subject: Subject) -> Iterator[tuple[int, str, Specification]]:
    """(index, name, that the outputs of the difference lie strictly between -delta and delta) for every region."""
    clauses, delta = [], exact(question.delta)
    for output in range(subject.outputs):
        for sign in (1, -1):
            row = tuple(Fraction(sign * (output == other)) for other in range(subject.outputs))
            clauses.append(Clause((row,), (delta,)))
    if question.sample is None or question.radius is None:
        low, high = (spoken(end) for end in question.box or ())
        whole = InputSet((low,) * subject.inputs, (high,) * subject.inputs)
        yield 0, "", from_cases([Case(whole, tuple(clauses))])
        return
    data = subject.sample(question.sample)
    for index, name in enumerate(data.names):
        ball = robustness(
            exact_values(data.inputs[index]), label=0, epsilon=exact(question.radius), outputs=2, clip=question.clip
        )
        yield index, name, from_cases([Case(ball.cases[0].inputs, tuple(clauses))])


def statement(question: Constant, subject: Subject) -> Statement:
    """What a Lipschitz certificate says but for its numbers.   Raises: InvalidSpecification."""
    return Asked(question.norm, question.to, question.rows).statement(subject.inputs, subject.outputs)


@dataclass(frozen=True, eq=False)
class Trends:
    """The inputs that the features are, the regions, and the rows of outputs."""

    columns: tuple[int, ...]
    places: tuple[Place, ...]
    rows: tuple[tuple[float, ...], ...]
    names: dict[int, str]


def trends(question: Trend, subject: Subject) -> Trends:
    """What is asked of derivatives.   Raises: InvalidFile; InvalidSpecification naming the file; ResourceLimit."""
    try:
        if question.document:
            return _documented(question, subject)
        domain = read_domain(read_file(question.domain), subject.inputs)
        asked = columns(question.features, subject.inputs, domain)
        if not asked:
            raise InvalidSpecification("no feature has an order and more than one value")
        names = {column: domain.feature(str(column)).name for column in asked}
        return Trends(asked, tuple(domain.places(asked)), matrix(question.rows, subject.outputs), names)
    except ProvennError as error:
        raise in_file(question.domain, error) from None


def _documented(question: Trend, subject: Subject) -> Trends:
    """What a document asks."""
    document = monotone_in(question.domain)
    if document is None:
        raise InvalidSpecification("it is no document of kind monotone any more")
    found, names = asked_by(document, subject.inputs, subject.outputs)
    return Trends(found.columns, found.places, matrix(found.rows, subject.outputs), names)
