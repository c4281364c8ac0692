"""Messages that a job is over: written in the transaction that ends it, so that none is lost and none is invented."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from provenn.api.database import Database
from provenn.api.jobs.quotas import hold
from provenn.api.jobs.refusals import UnusableWebhook
from provenn.api.tables import DeliveryRow, JobRow, WebhookRow

LEASE_SECONDS = 60.0
"""After which a message that its sender says nothing about is due again."""
DELAYS = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18000.0, 28800.0, 28800.0)
"""Seconds between attempts: nearly a day in all."""
DELIVERED = "delivered"
MOST = 10
"""Webhooks of one project."""


@dataclass(frozen=True)
class Message:
    """One attempt at a delivery."""

    id: str
    attempt: int
    webhook: WebhookRow
    job: JobRow


def announce(session: Session, job: JobRow) -> None:
    """The job is over: one message to every webhook of its project. Parts are nobody's concern."""
    if job.parent_id is not None:
        return
    webhooks = select(WebhookRow.id).where(WebhookRow.project_id == job.project_id)
    # Shared: none of them can be deleted before the messages that refer to them are there.
    for webhook in session.scalars(webhooks.with_for_update(read=True, key_share=True)):
        session.add(DeliveryRow(id=f"msg_{uuid.uuid4().hex}", webhook_id=webhook, job_id=job.id))


class Deliveries:
    """Webhooks, and the messages to them: several replicas may take from these."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, webhook: WebhookRow) -> None:
        """Adds a webhook.   Raises: UnusableWebhook if its project has MOST already."""
        mine = select(func.count()).select_from(WebhookRow).where(WebhookRow.project_id == webhook.project_id)
        with self._database.writing() as session:
            hold(session, webhook.project_id)
            if (session.scalar(mine) or 0) >= MOST:
                raise UnusableWebhook(f"a project has at most {MOST} webhooks: delete one")
            session.add(webhook)

    def webhooks(self, project: str) -> Sequence[WebhookRow]:
        """A project's, oldest first."""
        query = select(WebhookRow).where(WebhookRow.project_id == project).order_by(WebhookRow.created_at)
        with self._database.reading() as session:
            return session.scalars(query).all()

    def remove(self, project: str, webhook: str) -> bool:
        """Forgets a webhook of the project, with its messages; False if there is none of that id."""
        mine = delete(WebhookRow).where(WebhookRow.project_id == project, WebhookRow.id == webhook)
        with self._database.writing() as session:
            return session.scalar(mine.returning(WebhookRow.id)) is not None

    def take(self, busy: Collection[str]) -> Message | None:
        """The message that has been due for longest, of a webhook that is not `busy`; leased for LEASE_SECONDS."""
        due = (
            select(DeliveryRow, WebhookRow, JobRow)
            .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
            .join(JobRow, JobRow.id == DeliveryRow.job_id)
            .where(DeliveryRow.ended_at.is_(None), DeliveryRow.due_at <= time.time())
            .where(DeliveryRow.webhook_id.not_in(busy))
            .order_by(DeliveryRow.due_at)
            .limit(1)
        )
        with self._database.reading() as session:
            if session.execute(due).first() is None:
                return None
        with self._database.writing() as session:
            found = session.execute(due.with_for_update(skip_locked=True, of=DeliveryRow)).first()
            if found is None:
                return None
            row, webhook, job = found
            row.attempts, row.due_at = row.attempts + 1, time.time() + LEASE_SECONDS
            return Message(row.id, row.attempts, webhook, job)

    def delivered(self, message: Message) -> None:
        """It has arrived."""
        self._note(message, ended_at=time.time(), status=DELIVERED)

    def failed(self, message: Message, why: str) -> None:
        """It has not: it is due again later, or given up after the last of DELAYS."""
        if message.attempt <= len(DELAYS):
            self._note(message, due_at=time.time() + DELAYS[message.attempt - 1], status=why)
        else:
            self._note(message, ended_at=time.time(), status=why)

    def backlog(self, project: str) -> dict[str, int]:
        """Messages that are due, by webhook."""
        query = (
            select(DeliveryRow.webhook_id, func.count().label("due"))
            .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
            .where(WebhookRow.project_id == project, DeliveryRow.ended_at.is_(None))
            .group_by(DeliveryRow.webhook_id)
        )
        with self._database.reading() as session:
            return {row.webhook_id: row.due for row in session.execute(query)}

    def _note(self, message: Message, **values: float | str) -> None:
        """Unless another has taken it since."""
        mine = (DeliveryRow.id == message.id, DeliveryRow.attempts == message.attempt)
        with self._database.writing() as session:
            session.execute(update(DeliveryRow).where(*mine).values(**values))
