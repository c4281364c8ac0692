"""A specification document read and resolved in a sandbox: into the question it is, about the network that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspection import Refusal, Summary
from provenn.verifier.errors import InvalidSpecification

if TYPE_CHECKING:
    from provenn.models.specification import Files

NAMES = "over REST other files are networks that were uploaded, by their ids; or put the content into the document"


class Resolved(BaseModel):
    """What a child says. monotonicity: of a question about derivatives; summary: of a network that was composed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    monotonicity: dict[str, Any] | None = None
    summary: Summary | None = None

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """A child's answer.   Raises: InvalidSpecification if it is of another form."""
        try:
            return cls.model_validate(answer)
        except ValidationError as error:
            raise InvalidSpecification("the reader gave no sound answer about it") from error


@dataclass(frozen=True)
class InspectDocument:
    """text: the document; model: the network that it is about, open for reading; others: those it may refer to.

    composed, specification: empty, open for writing: the network that it makes of them, and the text that the checker
    reads; nothing is written to the first where the network stays as it is. semantics: of what it is to be proved.
    """

    refusal: ClassVar[Refusal] = InvalidSpecification

    text: bytes
    model: Descriptor
    others: Mapping[str, Descriptor]
    composed: Descriptor
    specification: Descriptor
    semantics: str = "real"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All of them."""
        own = (self.model, self.composed, self.specification)
        return tuple(each.number for each in (*own, *self.others.values()))

    def run(self) -> dict[str, Any]:
        """The fields of `Resolved`."""
        from provenn.api import monotone
        from provenn.models.reading import read
        from provenn.models.specification.documents import resolve
        from provenn.models.specification.monotone import Monotone
        from provenn.models.summary import summarize

        given = _content(self.model)
        found = resolve(self.text, given, self._files, self.semantics)
        if isinstance(found, Monotone):
            return {"monotonicity": monotone.request(found).model_dump(exclude_none=True)}
        _write(self.specification, found.specification.text)
        if found.model == given:
            return {}
        _write(self.composed, found.model)
        return {"summary": summarize(found.model, read(found.model)).as_dict()}

    @property
    def _files(self) -> Files:
        def content(name: str) -> bytes:
            if name not in self.others:
                raise InvalidSpecification(f"it refers to the file {name!r}: {NAMES}")
            return _content(self.others[name])

        return content


def _content(descriptor: Descriptor) -> bytes:
    with open(descriptor.number, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _write(descriptor: Descriptor, data: bytes) -> None:
    with open(descriptor.number, "wb", closefd=False) as file:
        file.write(data)
