"""Everything that can go wrong by somebody else's doing, one tree.

ProvennError
├── InvalidModel            the file is not a network we can read: what, which node
│   └── UnsupportedOp       an operator (or a form of it) that no rule covers
├── InvalidSpecification    the property is malformed or does not fit the network: what, which line
│   └── EmptyRegion         no input is allowed by it: whatever it says of the outputs holds vacuously
├── InvalidBounds           lower > upper, or not a number, where a bound was expected
│   └── Unbounded           over this region an op may leave its domain, or a bound overflows
├── ResourceLimit           a size, time or memory limit was reached: which, how much
└── BackendError            a backend is unknown, not installed, or cannot take this problem

`CertificateRejected(claim, reason)` belongs to the trusted kernel, `provenn.verifier.check`, which imports
nothing from here. Timeouts and unknown verdicts are results, not exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable


class ProvennError(Exception):
    """Base of every error whose message is meant for the user."""


class InvalidModel(ProvennError):
    """The file is not a network that can be read. `node` names the offending node when there is one."""

    def __init__(self, message: str, node: str | None = None) -> None:
        self.node = node
        super().__init__(f"node '{node}': {message}" if node else message)


class UnsupportedOp(InvalidModel):
    """Operator `op_type` of node `node` has no rule here (or not in this form: `reason`)."""

    def __init__(self, node: str, op_type: str, reason: str = "", supported: Iterable[str] = ()) -> None:
        self.op_type, self.supported = op_type, tuple(sorted(supported))
        known = ", ".join(self.supported)
        message = f"operator {op_type} is not supported" + (f": {reason}" if reason else "")
        super().__init__(message + (f". Supported operators: {known}" if known else ""), node)


class InvalidSpecification(ProvennError):
    """The property is malformed or does not fit the network. `line` is 1-based, where there is one."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(f"line {line}: {message}" if line else message)


class EmptyRegion(InvalidSpecification):
    """No input satisfies the property's constraints on inputs."""


def in_file(path: object, error: ProvennError) -> ProvennError:
    """The same error about a specification or a limit, its message naming the file first; any other as it is."""
    if isinstance(error, InvalidSpecification):
        named = type(error)(f"{path}: {error}")
        named.line = error.line
        return named
    return ResourceLimit(f"{path}: {error.kind}", error.limit) if isinstance(error, ResourceLimit) else error


class InvalidBounds(ProvennError):
    """A lower bound above its upper bound, or a bound that is not a number."""


class Unbounded(InvalidBounds):
    """Over this region an op may leave its domain, or a bound is not finite: nothing is known, and nothing is wrong."""


class ResourceLimit(ProvennError):
    """A limit was reached: `kind` says which, `limit` how much was allowed."""

    def __init__(self, kind: str, limit: str) -> None:
        self.kind, self.limit = kind, limit
        super().__init__(f"{kind} exceeds the limit of {limit}")


class BackendError(ProvennError):
    """Backend `backend` cannot take this problem: `status` says why and what to do."""

    def __init__(self, backend: str, status: str) -> None:
        self.backend, self.status = backend, status
        super().__init__(f"backend '{backend}': {status}")
