"""What a worker may say: it computes on strangers' networks, and is not believed before its words have this form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
PARTS = 10_000
CERTIFICATES = 100_000
OUTPUTS, STAGES = 100, 16


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Enclosure(_Strict):
    """Between which numbers every output lies over the job's one region, as floating point has it: not a proof."""

    method: Annotated[str, Field(max_length=64)]
    seconds: Annotated[float, Field(ge=0, description="since the attempt began")]
    lower: Annotated[list[float], Field(max_length=OUTPUTS)]
    upper: Annotated[list[float], Field(max_length=OUTPUTS)]


class Advance(_Strict):
    """How far it is; share: of the item at work; bounds: of the outputs, the loosest first."""

    done: Count
    total: Count
    phase: Annotated[str, Field(max_length=2000)]
    bound: float | None = None
    domains: Count | None = None
    share: float = 0.0
    bounds: Annotated[list[Enclosure], Field(max_length=STAGES)] | None = None


class Left(_Strict):
    """A file that an answer consists of."""

    name: Annotated[str, Field(pattern="^[a-z][a-z._-]{0,40}$")]
    sha256: Digest
    bytes: Count


class Found(_Strict):
    """The answer to a job: digests of the files it has left."""

    result: Digest
    certificates: Annotated[list[Digest], Field(max_length=CERTIFICATES)]
    verdict: Literal["verified", "falsified", "unknown", "timeout", "measured"]
    reusable: bool
    version: str
    start: Digest | None = None
    files: Annotated[list[Left], Field(max_length=10)] = []


class Dealt(_Strict):
    """A part of a job."""

    request: Digest
    items: Annotated[int, Field(ge=1, le=1 << 31)]
    bytes: Count = 0
    start: Digest | None = None


class Split(_Strict):
    """The job has fallen into parts."""

    parts: Annotated[list[Dealt], Field(min_length=1, max_length=PARTS)]
    start: Digest | None = None


class Trouble(BaseModel):
    """Why there is no answer, as a problem of RFC 9457."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str

    def document(self) -> dict[str, Any]:
        """As it was said."""
        return self.model_dump()


class Said(_Strict):
    """One message: the one member that is there."""

    progress: Advance | None = None
    answer: Found | Split | None = None
    problem: Trouble | None = None
