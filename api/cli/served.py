"""Exit codes where a service was asked: whether it was the question, the proofs, or the service itself."""

from __future__ import annotations

from collections.abc import Callable

from provenn.api.cli import outcome
from provenn.api.cli.outcome import ExitCode
from provenn.api.client.errors import JobFailed, RequestRefused, ServiceUnreachable, UnexpectedAnswer
from provenn.verifier.check import CertificateRejected

REFUSED = (401, 403, 408, 429)
"""HTTP statuses that are not about what was asked."""


def asking(command: Callable[[], int], as_json: bool) -> int:
    """The command's code; REJECTED for proofs that do not hold, INTERNAL where the service did not answer.

    Raises: RequestRefused where the question was refused, which is usage.
    """
    try:
        return command()
    except CertificateRejected as rejected:
        outcome.complain(rejected, as_json)
        return ExitCode.REJECTED
    except (ServiceUnreachable, JobFailed, UnexpectedAnswer) as failure:
        outcome.complain(failure, as_json)
        return ExitCode.INTERNAL
    except RequestRefused as refused:
        if refused.status not in REFUSED and refused.status < 500:
            raise
        outcome.complain(refused, as_json)
        return ExitCode.INTERNAL
