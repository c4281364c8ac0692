"""What the service can do, and whether it can do it now."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from obstore.exceptions import BaseError
from sqlalchemy.exc import SQLAlchemyError

from provenn.api.problems import UNAVAILABLE, problem
from provenn.api.schemas import BackendInfo, Health, Readiness
from provenn.api.service import Parts, Service
from provenn.solvers.portfolio import BACKENDS

router = APIRouter(tags=["system"])


@router.get("/v1/backends", summary="List the methods")
def backends() -> list[BackendInfo]:
    """The methods a job may name, and what each can do here."""
    return [
        BackendInfo(
            name=backend.name,
            summary=backend.summary,
            verdicts=sorted(backend.verdicts),
            norms=sorted(backend.norms),
            gpu=backend.gpu,
            status=backend.status(),
        )
        for backend in BACKENDS.values()
    ]


@router.get("/healthz", summary="Is the process alive?")
def healthz() -> Health:
    """Answers whenever the process can."""
    return Health(version=version("provenn"))


@router.get("/readyz", summary="Can it take work?")
def readyz(parts: Parts) -> Readiness:
    """Tries the database and the blobs and asks the engine; 503 with the same members if any cannot work."""
    found = Readiness(database=_database(parts), blobs=_blobs(parts), engine=parts.engine.status)
    bad = [f"{name}: {state}" for name, state in found if state != "ready"]
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
    except (OSError, BaseError) as error:
        return f"the blob folder cannot be used ({type(error).__name__})"
    return "ready"
