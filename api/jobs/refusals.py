"""Why the service does not take what is well-formed: mapped to problems by `api.problems`."""

from __future__ import annotations

from provenn.verifier.errors import ProvennError


class QuotaExceeded(ProvennError):
    """A key has used what it may: `used` of `limit`, in units of `kind`. retry_after: seconds until it has less."""

    def __init__(self, kind: str, limit: float, used: float, retry_after: int | None = None) -> None:
        self.kind, self.limit, self.used, self.retry_after = kind, limit, used, retry_after
        super().__init__(f"the quota of {kind} is {limit:g}, of which {used:g} are used")


class IdempotencyConflict(ProvennError):
    """An Idempotency-Key has come before, with another request; `job` is what that one made."""

    def __init__(self, job: str) -> None:
        self.job = job
        super().__init__(f"this Idempotency-Key belongs to another request, which made job {job}: take a new key")


class UnusableWebhook(ProvennError):
    """The URL of a webhook is none, or leads where no webhook may; or the project has as many as it may."""
