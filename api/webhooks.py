"""Webhooks: a small signed message (Standard Webhooks) to whoever wants to know that a job is over."""

from __future__ import annotations

import base64
import json
import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError
from standardwebhooks import Webhook

from provenn.api.jobs.deliveries import Deliveries, Message
from provenn.api.jobs.refusals import UnusableWebhook
from provenn.api.tables import JobRow
from provenn.api.webhook_sending import NotDelivered, Sender

SENDERS = 4
SECRET_BYTES = 32
log = logging.getLogger("provenn.api")


def new_secret() -> str:
    """A signing secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def body(job: JobRow) -> bytes:
    """What a webhook is told of a job that is over."""
    ended = datetime.fromtimestamp(job.finished_at or job.changed_at, UTC)
    about = {"id": job.id, "model": job.model_id, "state": job.state, "verdict": job.verdict, "reason": job.reason}
    return json.dumps({"type": f"job.{job.state}", "timestamp": ended.isoformat(), "data": about}).encode()


def signed(message: str, secret: str, content: bytes) -> dict[str, str]:
    """The headers that say which message it is, when it was sent, and that the secret's owner sent it."""
    now = datetime.now(UTC)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, now, content.decode()),
    }


class Deliverer:
    """Threads that deliver what is due: one message at a time to a webhook, so that a slow one holds up itself."""

    def __init__(self, deliveries: Deliveries, sender: Sender, poll_seconds: float) -> None:
        self._deliveries, self._sender, self._poll = deliveries, sender, poll_seconds
        self._busy: set[str] = set()
        self._taking = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._work, name=f"webhooks-{n}", daemon=True) for n in range(SENDERS)]

    def start(self) -> None:
        """Begins to deliver."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the attempts under way, which takes ten seconds at most."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._taken() as message:
                    if message is not None:
                        self._deliver(message)
                        continue
            except SQLAlchemyError as error:
                log.warning("webhooks: the database cannot be used: %s", type(error).__name__)
            self._stopping.wait(self._poll)

    @contextmanager
    def _taken(self) -> Iterator[Message | None]:
        """A message that is due, if any; nobody else here takes one of the same webhook until the end."""
        with self._taking:
            message = self._deliveries.take(self._busy)
            if message is not None:
                self._busy.add(message.webhook.id)
        try:
            yield message
        finally:
            if message is not None:
                with self._taking:
                    self._busy.discard(message.webhook.id)

    def _deliver(self, message: Message) -> None:
        content = body(message.job)
        try:
            status = self._sender.post(
                message.webhook.url, signed(message.id, message.webhook.secret, content), content
            )
        except (NotDelivered, UnusableWebhook) as error:
            why = str(error)
        else:
            if 200 <= status < 300:
                self._deliveries.delivered(message)
                return
            why = f"HTTP status {status}"
        log.info("webhook %s: %s: %s", message.webhook.id, message.id, why)
        self._deliveries.failed(message, why)
