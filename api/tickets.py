"""Tickets: short-lived rights to follow one job, for what cannot send a header (a browser's EventSource).

A ticket is signed with the digest of the key that asked for it, which only the service knows: every process that uses
the database can verify it, nothing is stored, and it ends with its key.
"""

from __future__ import annotations

import hashlib
import hmac
import re

SECONDS = 60
SHAPE = re.compile(r"([0-9a-f]{16})\.([0-9]{1,12})\.[0-9a-f]{64}", re.ASCII)


def issue(key: str, digest: str, job: str, now: float) -> str:
    """A ticket for the job's events, for SECONDS, from the key with this id and digest."""
    expires = int(now) + SECONDS
    return f"{key}.{expires}.{_signature(digest, job, expires)}"


def key_of(ticket: str) -> str | None:
    """The id of the key that a ticket claims to be from; None if it is none."""
    shape = SHAPE.fullmatch(ticket)
    return None if shape is None else shape[1]


def valid(ticket: str, digest: str, job: str, now: float) -> bool:
    """Whether the key with this digest has issued it for this job, not too long ago."""
    shape = SHAPE.fullmatch(ticket)
    if shape is None:
        return False
    expires = int(shape[2])
    signature = ticket.rpartition(".")[2]
    return hmac.compare_digest(signature, _signature(digest, job, expires)) and now < expires


def _signature(digest: str, job: str, expires: int) -> str:
    said = f"provenn ticket: events of {job} until {expires}"
    return hmac.new(bytes.fromhex(digest), said.encode(), hashlib.sha256).hexdigest()
