"""What the service can do, and whether it can do it now."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError

from provenn.api.auth import Reader
from provenn.api.blob_errors import BlobsUnavailable
from provenn.api.problems import UNAVAILABLE, problem
from provenn.api.schemas import BackendInfo, Health, Readiness
from provenn.api.service import Parts, Service
from provenn.models.sandbox import layers
from provenn.verifier.version import provenn_version

router = APIRouter(tags=["system"])


@router.get("/v1/backends", summary="List the methods")
def backends(who: Reader, parts: Parts) -> list[BackendInfo]:
    """The methods a job may name, and what each can do here."""
    return parts.backends.listed


@router.get("/healthz", summary="Is the process alive?")
def healthz() -> Health:
    """Answers whenever the process can."""
    return Health(version=provenn_version())


@router.get("/readyz", summary="Can it take work?")
def readyz(parts: Parts) -> Readiness:
    """Tries the database and the blobs and asks the engine; 503 with the same members if any cannot work."""
    states = {"database": _database(parts), "blobs": _blobs(parts), "engine": parts.engine.status}
    slots = parts.nodes.slots() if states["database"] == "ready" else None
    found = Readiness(**states, sandbox=dict(layers()), slots=slots)
    bad = [f"{name}: {state}" for name, state in states.items() if state != "ready"]
    if bad:
        raise problem(UNAVAILABLE, "; ".join(bad), **found.model_dump())
    return found


def _database(parts: Service) -> str:
    try:
        parts.database.probe()
    except SQLAlchemyError as error:
        return f"the database does not answer ({type(error).__name__})"
    return "ready"


def _blobs(parts: Service) -> str:
    try:
        parts.blobs.probe()
    except BlobsUnavailable as error:
        return f"blobs cannot be kept: {error.reason}"
    except OSError as error:
        return f"blobs cannot be kept ({type(error).__name__})"
    return "ready"
