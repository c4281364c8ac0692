"""The keys that sign certificates."""

from __future__ import annotations

from fastapi import APIRouter

from provenn.api.auth import Reader
from provenn.api.service import Parts
from provenn.api.signing_keys import PublicKeys, published

router = APIRouter(prefix="/v1/keys", tags=["certificates"])


@router.get("", summary="List the keys that sign certificates")
def keys(who: Reader, parts: Parts) -> PublicKeys:
    """The public parts of all there have been, the newest first; `provenn check --keys` takes this answer as a file."""
    return published(parts.keyring.folder)
