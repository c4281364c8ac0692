"""One row of a batch, taken out in a sandbox: a worker that computed on a stranger's network has made the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from provenn.api.batch.bundle import batch_item
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspection import Refusal
from provenn.verifier.check import CertificateRejected
from provenn.verifier.errors import InvalidModel


class Taken(BaseModel):
    """Whether there is such a row, and why it could not be taken out of the bundle."""

    model_config = ConfigDict(extra="forbid", strict=True)

    there: bool
    broken: str | None = None

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """A child's answer.   Raises: InvalidModel if it has another form."""
        try:
            return cls.model_validate(answer)
        except ValidationError as error:
            raise InvalidModel("the reader gave no sound answer about it") from error


@dataclass(frozen=True)
class TakeRow:
    """bundle: a whole batch's, open for reading; made: empty: the bundle of row number `row` is written there."""

    refusal: ClassVar[Refusal] = InvalidModel

    bundle: Descriptor
    made: Descriptor
    row: int

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Both files."""
        return self.bundle.number, self.made.number

    def run(self) -> dict[str, Any]:
        """The members of `Taken`."""
        try:
            with open(self.bundle.number, "rb", closefd=False) as file:
                data = batch_item(file, self.row)
        except IndexError:
            return {"there": False}
        except CertificateRejected as refusal:
            return {"there": True, "broken": str(refusal)}
        with open(self.made.number, "wb", closefd=False) as file:
            file.write(data)
        return {"there": True}
