"""The kernel's only negative answer."""


class CertificateRejected(Exception):
    """The certificate proves nothing: `claim` is the id or the part of the bundle that failed, `reason` says why."""

    def __init__(self, claim: int | str, reason: str) -> None:
        self.claim, self.reason = claim, reason
        super().__init__(f"claim {claim}: {reason}" if isinstance(claim, int) else f"{claim}: {reason}")


def require(condition: object, claim: int | str, reason: str) -> None:
    """Raises: CertificateRejected unless the condition is true."""
    if not condition:
        raise CertificateRejected(claim, reason)
