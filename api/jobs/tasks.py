"""What children are asked to do for jobs: plain fields, which travel by pickle, and who does it.

A supervisor makes these and computes nothing, so it loads none of what computes: that is imported in the child.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provenn.api.jobs.child import Reporter

PATTERNS = "patterns"
"""The kind of a job that mines them."""
LIPSCHITZ = "lipschitz"
"""The method that answers for all inputs at once: such a job has no parts."""
DIVISIBLE = ("auto", "branch-and-bound")
"""Methods whose searches fall into parts."""
ROWS, CERTIFICATES = "rows.jsonl", "certificates.zip"
"""The files that a part of a batch leaves."""


@dataclass(frozen=True)
class Certify:
    """A job: the files of its model and its request, where to leave what is made, and where to compute."""

    model: Path
    request: Path
    folder: Path
    device: str

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The digests of the result's and the certificates' files, each of which is written before it is named."""
        from provenn.api.jobs import worker

        return worker.certified(self, reporter)


@dataclass(frozen=True)
class Mine:
    """A job: the files of its model, its request and its data; where to leave what is made."""

    model: Path
    request: Path
    dataset: Path
    held_out: Path | None
    folder: Path

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """What the supervisor needs to know.   Raises: as `mining.mined`."""
        from provenn.api.jobs import mining

        return mining.answer(self, reporter)


@dataclass(frozen=True)
class SplitInputs:
    """Cuts a job's inputs into `parts` consecutive blocks, as even as they can be."""

    request: Path
    folder: Path
    parts: int

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Each part's request, written and named, with how many items it has."""
        from provenn.api.jobs import parts

        return parts.split(self)


@dataclass(frozen=True)
class InputsPart:
    """What became of a part."""

    items: int
    result: Path | None


@dataclass(frozen=True)
class JoinInputs:
    """Puts the results of parts together again."""

    request: Path
    folder: Path
    parts: tuple[InputsPart, ...]

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The answer of the whole job: items of a part that was killed for its time are timeouts."""
        from provenn.api.jobs import parts

        return parts.join(self)


@dataclass(frozen=True)
class SplitBatch:
    """Cuts the inputs of a batch into parts of `size` of them."""

    request: Path
    dataset: Path
    folder: Path
    size: int

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Each part's request, written and named, with how many rows it has."""
        from provenn.api.jobs import batches

        return batches.split(self)


@dataclass(frozen=True)
class CertifyPart:
    """A part of a batch, in so many seconds."""

    model: Path
    request: Path
    dataset: Path
    folder: Path
    device: str
    seconds: float

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Its rows and its certificates, in a file each."""
        from provenn.api.jobs import batches

        return batches.certified(self, reporter)


@dataclass(frozen=True)
class BatchPart:
    """What became of a part: its request, and its files unless it was killed for the time it took."""

    request: Path
    rows: Path | None
    certificates: Path | None


@dataclass(frozen=True)
class JoinBatch:
    """Puts the parts of a batch together."""

    model: Path
    model_sha256: str
    request: Path
    dataset: Path
    parts: tuple[BatchPart, ...]
    folder: Path

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The rows, and the bundle with the root of all of them."""
        from provenn.api.jobs import batches

        return batches.joined(self)


@dataclass(frozen=True)
class BeginSearch:
    """A job's search until it is decided, or, of one case, until after `seconds` it may fall into `parts`."""

    model: Path
    request: Path
    folder: Path
    device: str
    parts: int
    seconds: float

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The answer; or the parts, each with the search it goes on with, and `start`, the one that was dealt out."""
        from provenn.api.jobs import searching

        return searching.begun(self, reporter)


@dataclass(frozen=True)
class GoOn:
    """A part of a search, to its end or that of its time."""

    model: Path
    request: Path
    start: Path
    folder: Path
    device: str

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """A result that counts where it is a counterexample, and `start`, the searches as far as they got."""
        from provenn.api.jobs import searching

        return searching.gone_on(self, reporter)


@dataclass(frozen=True)
class Searched:
    """What became of a part. start: its searches as far as they got, or as it got them if it died."""

    result: Path | None
    verdict: str | None
    start: Path


@dataclass(frozen=True)
class Conclude:
    """The searches of all parts put together, gone on with if some are open, and proved."""

    model: Path
    request: Path
    start: Path
    parts: tuple[Searched, ...]
    folder: Path
    device: str

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The answer of the whole job."""
        from provenn.api.jobs import searching

        return searching.concluded(self, reporter)
