"""What goes over the wire about batches and the data that they are about."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from provenn.api.batch.question import Question
from provenn.api.wire import Digest, Number, Range, Request, Response, Text
from provenn.verifier.errors import InvalidSpecification


class BatchRequest(Request):
    """Robustness of a dataset: verdicts at some radii, or every input's largest radius."""

    dataset: Digest = Field(description="the dataset's id, as POST /v1/datasets returned it")
    epsilons: list[Number | Text] = Field([], description='radii: numbers, or text such as "8/255"; or largest')
    largest: Number | None = Field(None, description="instead: every input's radius up to this is bracketed")
    tolerance: Number = Field(0.01, description="of the brackets, as a share of their upper ends")
    norm: Literal["inf", "2", "1"] = "inf"
    clip: Range | None = Field(None, description="range every input coordinate stays in, e.g. [0, 1]")
    first: Annotated[int, Field(strict=True, ge=0)] = Field(0, description="the first input that it is about, from 0")
    count: Annotated[int, Field(strict=True, ge=1)] | None = Field(None, description="how many; null: all from there")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.question()
        except InvalidSpecification as error:
            raise ValueError(str(error)) from error
        return self

    def question(self) -> Question:
        """The same, as the library has it.   Raises: InvalidSpecification."""
        return Question(tuple(self.epsilons), self.largest, self.tolerance, self.norm, self.clip)

    @property
    def radii(self) -> int:
        """Rows an input."""
        return max(1, len(self.epsilons))

    def span(self, inputs: int) -> range:
        """The inputs that it is about, of so many."""
        last = inputs if self.count is None else min(inputs, self.first + self.count)
        return range(self.first, last)


class Dataset(Response):
    """Inputs with their classes."""

    id: str = Field(description="SHA-256 of the canonical file")
    filename: str
    bytes: int = Field(description="of the canonical file")
    count: int = Field(description="inputs")
    width: int = Field(description="numbers of one input")
    classes: int = Field(description="one more than the largest class")
    created_at: AwareDatetime


class Datasets(Response):
    """A page of datasets, newest first."""

    items: list[Dataset]
    next: str | None = Field(description="cursor of the next page; null at the end")


class Share(Response):
    """A share of the inputs, with Wilson's interval at 95 %."""

    count: int
    total: int
    value: float
    low: float
    high: float


class AtRadius(Response):
    """What was found at one radius."""

    epsilon: float
    certified: Share = Field(description="proved: accepted by the trusted checker, not only computed")
    attacked: Share = Field(description="without a counterexample so far")
    verdicts: dict[str, int] = Field(description="inputs by verdict")


class Accuracies(Response):
    """Of some inputs."""

    clean: Share = Field(description="classified rightly")
    radii: list[AtRadius]


class BatchSummary(Accuracies):
    """Of all inputs, and by class."""

    classes: dict[str, Accuracies] = Field({}, description="the same of every class, by its number")
    root: str = Field(description="of the Merkle tree over the rows")


class File(Response):
    """A file that a job has left: GET /v1/batches/{id}/files/{name}."""

    name: str
    sha256: str
    bytes: int
