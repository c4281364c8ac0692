"""What can go wrong between client and service; whatever it is carries the service's own words.

ServiceError
├── ServiceUnreachable      nothing answers, or not in time, or the answer breaks off
├── RequestRefused          the service answered with a problem (RFC 9457)
├── UnexpectedAnswer        the service answered with something that it does not say
└── JobFailed               the job ended without a result

A certificate that does not prove what it should is `provenn.CertificateRejected`, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provenn.verifier.errors import ProvennError


class ServiceError(ProvennError):
    """Base of what can go wrong between client and service."""


class ServiceUnreachable(ServiceError):
    """Nothing answers at `url`, or not in time, or the answer breaks off."""

    def __init__(self, url: str, cause: str) -> None:
        self.url = url
        super().__init__(f"no answer from {url}: {cause}. Is `provenn serve` running there?")


class RequestRefused(ServiceError):
    """The service answered with a problem: `status`, `type`, `detail`, and all of it as `problem`.

    retry_after: seconds after which it may be asked again, where it says so.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status, self.retry_after = status, retry_after
        self.type = str(problem.get("type", "about:blank"))
        self.detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
        self.problem = dict(problem)
        super().__init__(f"{self.detail} (HTTP {status})")


class UnexpectedAnswer(ServiceError):
    """The service sent what this version does not understand, or what contradicts itself or the question."""


class JobFailed(ServiceError):
    """Job `job` ended in `state` (failed, cancelled or timed_out) without a result."""

    def __init__(self, job: str, state: str, why: str) -> None:
        self.job, self.state = job, state
        super().__init__(f"job {job} is {state}: {why}")
