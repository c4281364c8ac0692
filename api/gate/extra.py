"""Packages that write reports, and come with the extra `gate`."""

from __future__ import annotations

from importlib.util import find_spec

from provenn.verifier.errors import BackendError

WRITERS = {"junitparser": "--junit", "sarif_pydantic": "--sarif"}


def require_writer(name: str) -> None:
    """Raises: BackendError saying what to install: before anything is computed."""
    if find_spec(name) is None:
        raise BackendError(name, f"it writes {WRITERS[name]}, and is not installed: pip install 'provenn[gate]'")
