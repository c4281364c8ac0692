"""What several processes need in common: a database and blobs that all of them reach."""

from __future__ import annotations

from provenn.api.database import database_url
from provenn.api.settings import Settings
from provenn.verifier.errors import ProvennError


class NotShared(ProvennError):
    """Several processes cannot use the database, or the blobs, that the settings name."""


def require_shared(settings: Settings) -> None:
    """Raises: NotShared unless processes on other machines can use what the settings name; UnusableDatabase."""
    if database_url(settings.database_url).get_backend_name() == "sqlite":
        raise NotShared(
            "an SQLite database serves one process alone, `provenn serve`: give PROVENN_DATABASE=postgresql://..."
        )
    if settings.blobs is None:
        raise NotShared("the blobs are in a folder of this process alone: give PROVENN_BLOBS, where all find them")
