"""Signing what a worker has left: now, by this process, which alone has the private key."""

from __future__ import annotations

import logging

from provenn.api.problems import UNAVAILABLE, problem
from provenn.api.service import Service
from provenn.api.signing import sign
from provenn.api.signing_keys import SigningKeyError

log = logging.getLogger("provenn.api")


def called(model: str, project: str, parts: Service) -> str:
    """The name that a network's file had, for a statement about it."""
    row = parts.catalogue.model(project, model)
    return row.filename if row is not None else model


def envelope(statement: bytes, parts: Service) -> bytes:
    """The DSSE envelope of a statement.   Raises: a problem if there is no key that can be used."""
    try:
        return sign(statement, parts.keyring.signer())
    except SigningKeyError as error:
        log.error("%s", error)
        raise problem(UNAVAILABLE, "certificates cannot be signed now; the server's log has the reason") from error
