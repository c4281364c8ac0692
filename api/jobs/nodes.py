"""Who supervises: one row a supervisor, renewed while it lives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, select, update

from provenn.api.database import Database
from provenn.api.jobs.gpus import Memory
from provenn.api.jobs.model import State
from provenn.api.settings import Settings
from provenn.api.tables import JobRow, NodeRow

SILENCE = 2.0
"""Leases after which a supervisor that says nothing counts for nothing."""
REMEMBERED = 100
"""Silences after which a supervisor that says nothing is forgotten."""


@dataclass(frozen=True)
class Node:
    """slots: jobs it runs at the same time."""

    id: str
    slots: int
    device: str


@dataclass(frozen=True)
class Known:
    """What is known of a supervisor: its row, how many jobs it runs, and whether it was heard of lately."""

    row: NodeRow
    running: int
    alive: bool


class Nodes:
    """The table of supervisors. silence: seconds after which one that says nothing counts for nothing."""

    def __init__(self, database: Database, silence: float) -> None:
        self._database, self._silence = database, silence

    @property
    def shared(self) -> bool:
        """Whether there may be several."""
        return self._database.shared

    def join(self, node: Node) -> None:
        """From now on it counts; on a database of one machine it is the only one."""
        with self._database.writing() as session:
            if not self.shared:
                session.execute(delete(NodeRow))
            session.add(_row(node))

    def beat(self, node: Node, draining: bool = False, gpus: Memory | None = None) -> None:
        """It lives; those that have long been silent are forgotten, and come back by their next beat."""
        now = time.time()
        mine = update(NodeRow).where(NodeRow.id == node.id).values(seen_at=now, draining=draining, gpus=gpus)
        with self._database.writing() as session:
            if session.scalar(mine.returning(NodeRow.id)) is None:
                session.add(_row(node))
            session.execute(delete(NodeRow).where(NodeRow.seen_at < now - REMEMBERED * self._silence))

    def leave(self, node: Node) -> None:
        """It has stopped."""
        with self._database.writing() as session:
            session.execute(delete(NodeRow).where(NodeRow.id == node.id))

    def alive(self) -> Sequence[NodeRow]:
        """Those that were heard of lately."""
        with self._database.reading() as session:
            return session.scalars(select(NodeRow).where(self._heard())).all()

    def known(self) -> list[Known]:
        """All that are remembered, by the time they began."""
        claimed = select(func.count()).where(JobRow.state == State.RUNNING, JobRow.owner == NodeRow.id)
        query = select(NodeRow, claimed.scalar_subquery(), self._heard()).order_by(NodeRow.started_at, NodeRow.id)
        with self._database.reading() as session:
            return [Known(row, running, bool(alive)) for row, running, alive in session.execute(query)]

    def slots(self) -> int:
        """Jobs that all of them run at the same time; those that are about to stop take no more."""
        query = select(func.sum(NodeRow.slots)).where(self._heard(), NodeRow.draining.is_(False))
        with self._database.reading() as session:
            return session.scalar(query) or 0

    def _heard(self) -> ColumnElement[bool]:
        return NodeRow.seen_at > time.time() - self._silence


def nodes_of(database: Database, settings: Settings) -> Nodes:
    """The table, with the settings' patience."""
    return Nodes(database, SILENCE * settings.lease_seconds)


def _row(node: Node) -> NodeRow:
    return NodeRow(id=node.id, host=socket.gethostname(), pid=os.getpid(), slots=node.slots, device=node.device)
