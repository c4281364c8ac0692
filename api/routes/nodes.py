"""Who runs jobs: every supervisor that shares the database."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import AwareDatetime, Field

from provenn.api import wire
from provenn.api.auth import Operator
from provenn.api.jobs.nodes import Known
from provenn.api.service import Parts

router = APIRouter(prefix="/v1/nodes", tags=["system"])


class Node(wire.Response):
    """A supervisor, and what it does."""

    id: str
    host: str = Field(description="name of its machine")
    pid: int
    device: str = Field(description="torch device of its jobs")
    slots: int = Field(description="jobs it runs at the same time")
    running: int = Field(description="jobs it runs now, of all projects")
    deaths: int = Field(description="of its worker processes")
    draining: bool = Field(description="takes no more jobs: it is about to stop")
    alive: bool = Field(description="was heard of within two leases")
    started_at: AwareDatetime
    seen_at: AwareDatetime


class NodeList(wire.Response):
    """All supervisors, by the time they began."""

    items: list[Node]


@router.get("", summary="List the supervisors")
def nodes(parts: Parts, caller: Operator) -> NodeList:
    """Who claims jobs and runs them; those that have been silent for long are left out."""
    return NodeList(items=[shown(each) for each in parts.nodes.known()])


def shown(known: Known) -> Node:
    """As the API shows it."""
    row = known.row
    return Node(
        **{name: getattr(row, name) for name in ("id", "host", "pid", "device", "slots", "deaths", "draining")},
        running=known.running,
        alive=known.alive,
        started_at=datetime.fromtimestamp(row.started_at, UTC),
        seen_at=datetime.fromtimestamp(row.seen_at, UTC),
    )
