"""A certificate checked again, in a sandbox: the trusted kernel reads what a worker left, and is asked nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspection import Refusal
from provenn.api.statements import stated
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.errors import InvalidModel


class Rechecked(BaseModel):
    """What the kernel says; null where it does not apply."""

    model_config = ConfigDict(extra="forbid", strict=True)

    accepted: bool
    claim: str | None = Field(None, description="the claim that failed, if it is rejected")
    reason: str | None = Field(None, description="why it failed")
    proves: str | None = Field(None, description="what it proves, in a sentence")
    semantics: str | None = Field(None, description="real arithmetic, or every float32 execution")
    assurance: str | None = Field(None, description="checked or deployed")
    margin: float | None = Field(
        None, description="the smallest proved margin, rounded down; not of Lipschitz statements"
    )
    uppers: list[float] | None = Field(None, description="the proved constants, rounded up; of Lipschitz statements")
    claims: int | None = Field(None, description="how many were proved again")
    model_sha256: str | None = None
    specification_sha256: str | None = None
    versions: dict[str, str] | None = Field(None, description="of what the kernel computes with")
    seconds: float | None = Field(None, description="that the kernel took")

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """A child's answer.   Raises: InvalidModel if it has another form."""
        try:
            return cls.model_validate(answer)
        except ValidationError as error:
            raise InvalidModel("the checker gave no sound answer about it") from error


@dataclass(frozen=True)
class CheckCertificate:
    """bundle, model: open for reading: a certificate's zip, and the canonical file that it has to be about."""

    refusal: ClassVar[Refusal] = InvalidModel

    bundle: Descriptor
    model: Descriptor

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Both files."""
        return self.bundle.number, self.model.number

    def run(self) -> dict[str, Any]:
        """The members of `Rechecked`."""
        try:
            files = load_zip(_content(self.bundle))
            report = asdict(check(files, _content(self.model)))
        except CertificateRejected as refusal:
            return {"accepted": False, "claim": str(refusal.claim), "reason": refusal.reason}
        alike = ("semantics", "assurance", "claims", "model_sha256", "specification_sha256", "versions", "seconds")
        numbers = report["uppers"] or report["entries"]
        return {
            "accepted": True,
            "proves": stated(files),
            "margin": None if numbers else report["margin"],
            "uppers": list(report["uppers"]) or None,
            **{name: report[name] for name in alike},
        }


def _content(descriptor: Descriptor) -> bytes:
    with open(descriptor.number, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()
