"""Webhooks: signed, tried again, never lost with a job's end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from service_kit import SMALL, Server, serving, small_request, wait_for
from standardwebhooks import Webhook, WebhookVerificationError
from store_kit import OTHER, at_once, door, new
from test_routes import problem
from webhook_kit import OK, Listener, saying

from provenn.api.database import Database
from provenn.api.jobs.deliveries import DELAYS, DELIVERED, Deliveries
from provenn.api.jobs.store import Answer, Ticket
from provenn.api.tables import DEFAULT_PROJECT, DeliveryRow, WebhookRow
from provenn.api.webhook_sending import Sender
from provenn.api.webhooks import Deliverer, new_secret

pytestmark = pytest.mark.xdist_group("webhooks")
"""What the tests share is made once."""


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hooked"), webhook_private=True, poll_seconds=0.05) as server:
        yield server


@contextmanager
def webhook(server: Server, url: str) -> Iterator[dict[str, Any]]:
    made = server.client.post("/v1/webhooks", json={"url": url})
    assert made.status_code == 201, made.text
    yield made.json()
    assert server.client.delete(f"/v1/webhooks/{made.json()['id']}").status_code == 204


def test_a_message_says_that_a_job_is_over_and_who_says_so(hooked: Server) -> None:
    with Listener(saying(OK)) as listener, webhook(hooked, f"http://127.0.0.1:{listener.port}/hook") as made:
        job = hooked.ended(hooked.submit(small_request(hooked.model(SMALL), epsilons=[0.051])))
        headers, content = wait_for(lambda: listener.requests)[0]
        assert made["secret"].startswith("whsec_")
        told = Webhook(made["secret"]).verify(content, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(new_secret()).verify(content, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(made["secret"]).verify(content.replace(b"succeeded", b"cancelled"), headers)
        about = {
            "id": job["id"],
            "model": job["model"],
            "state": "succeeded",
            "verdict": job["verdict"],
            "reason": None,
        }
        assert (told["type"], told["data"]) == ("job.succeeded", about)
        assert datetime.fromisoformat(told["timestamp"]) == datetime.fromisoformat(job["finished_at"])
        assert headers["content-type"] == "application/json"
        listed = wait_for(lambda: [w for w in hooked.client.get("/v1/webhooks").json()["items"] if w["due"] == 0])
        assert listed == [{**{k: made[k] for k in ("id", "url", "created_at")}, "due": 0}]
        assert "secret" not in listed[0]


def test_every_end_is_told(hooked: Server) -> None:
    with Listener(saying(OK)) as listener, webhook(hooked, f"http://127.0.0.1:{listener.port}/hook"):
        slow = hooked.slow_job()
        hooked.client.delete(f"/v1/jobs/{slow}")
        wait_for(lambda: listener.requests)
        assert json.loads(listener.requests[0][1])["type"] == "job.cancelled"


def test_an_answer_from_the_cache_is_told_too(hooked: Server) -> None:
    body = small_request(hooked.model(SMALL), labels=[1], epsilons=[0.0007])
    first = hooked.ended(hooked.submit(body))
    with Listener(saying(OK)) as listener, webhook(hooked, f"http://127.0.0.1:{listener.port}/hook"):
        again = hooked.job(hooked.submit(body))
        assert again["reused"] == first["id"]
        wait_for(lambda: listener.requests)
        assert json.loads(listener.requests[0][1])["data"]["id"] == again["id"]


def test_a_failure_is_tried_again_with_the_same_id(hooked: Server) -> None:
    answers = [b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", OK]
    with (
        Listener(lambda connection: connection.sendall(answers[len(listener.requests) - 1])) as listener,
        webhook(hooked, f"http://127.0.0.1:{listener.port}/hook") as made,
    ):
        hooked.ended(hooked.submit(small_request(hooked.model(SMALL), epsilons=[0.052])))
        row = wait_for(lambda: tried(hooked, made["id"], 1))
        assert (row.status, row.ended_at) == ("HTTP status 500", None)
        assert DELAYS[0] - 1 < row.due_at - time.time() <= DELAYS[0]
        hurry(hooked.service.database)
        row = wait_for(lambda: tried(hooked, made["id"], 2))
        assert row.status == DELIVERED
        first, second = (headers["webhook-id"] for headers, _ in listener.requests)
        assert first == second == row.id


def tried(server: Server, webhook: str, times: int) -> DeliveryRow | None:
    """The message, once so many attempts are noted."""
    with server.service.database.reading() as session:
        row = session.query(DeliveryRow).filter_by(webhook_id=webhook, attempts=times).one_or_none()
    return row if row is not None and row.status != "due" and (times == 1 or row.ended_at) else None


def hurry(database: Database) -> None:
    with database.writing() as session:
        session.query(DeliveryRow).update({"due_at": 0.0})


def test_a_webhook_that_leads_inside_by_now_gets_nothing(tmp_path: Path) -> None:
    """It was registered while its name led elsewhere; the settings allow nothing private."""
    with Listener(saying(OK)) as listener, serving(tmp_path, poll_seconds=0.05) as server:
        urls = [f"https://{host}:{listener.port}/" for host in ("localhost", "127.0.0.1", "2130706433", "[::1]")]
        urls.append(f"http://127.0.0.1:{listener.port}/")
        for number, url in enumerate(urls):
            server.service.webhooks.register(
                WebhookRow(id=str(number), project_id=DEFAULT_PROJECT, url=url, secret=new_secret())
            )
        server.ended(server.submit(small_request(server.model(SMALL))))
        rows = [wait_for(lambda n=n: tried(server, str(n), 1)) for n in range(len(urls))]  # type: ignore[misc]
        assert listener.connections == 0
        assert all("public internet" in row.status or "begins with https" in row.status for row in rows)


def test_a_project_has_so_many_webhooks_and_no_more(hooked: Server) -> None:
    made = [hooked.client.post("/v1/webhooks", json={"url": "https://127.0.0.1/"}) for _ in range(11)]
    problem(made.pop(), 422, "unusable-webhook")
    for each in made:
        hooked.client.delete(f"/v1/webhooks/{each.json()['id']}")
    problem(hooked.client.delete("/v1/webhooks/none"), 404, "not-found")


def hook(deliveries: Deliveries, name: str, project: str = DEFAULT_PROJECT) -> None:
    deliveries.register(WebhookRow(id=name, project_id=project, url="https://x/", secret=new_secret()))


def test_a_message_is_written_with_the_end_of_the_job_and_for_its_project(database: Database, tmp_path: Path) -> None:
    deliveries, entrance = Deliveries(database), door(database, tmp_path)
    hook(deliveries, "mine")
    hook(deliveries, "theirs", OTHER)
    entrance.submit(new("a"))
    assert deliveries.take(()) is None
    entrance.store.cancel("a")
    message = deliveries.take(())
    assert message is not None
    assert (message.webhook.id, message.job.id, message.attempt) == ("mine", "a", 1)
    assert deliveries.take(()) is None
    assert deliveries.backlog(DEFAULT_PROJECT) == {"mine": 1}
    deliveries.delivered(message)
    hurry(database)
    assert deliveries.take(()) is None
    assert deliveries.backlog(DEFAULT_PROJECT) == {}


def test_parts_are_not_told(database: Database, tmp_path: Path) -> None:
    deliveries, entrance = Deliveries(database), door(database, tmp_path)
    hook(deliveries, "mine")
    entrance.submit(new("whole"))
    claimed = entrance.store.claim("me", 60)
    assert claimed is not None
    entrance.store.split(Ticket("whole", 1), [new("part", parent_id="whole", part=0)])
    entrance.store.claim("me", 60)
    entrance.store.finish(Ticket("part", 1), Answer("r" * 64, [], "unknown", False, "0"))
    assert deliveries.take(()) is None


def test_a_message_whose_sender_died_is_sent_again(database: Database, tmp_path: Path) -> None:
    deliveries, entrance = Deliveries(database), door(database, tmp_path)
    hook(deliveries, "mine")
    entrance.submit(new("a"))
    entrance.store.cancel("a")
    lost = deliveries.take(())
    hurry(database)
    again = deliveries.take(())
    assert lost is not None
    assert again is not None
    assert (again.id, again.attempt) == (lost.id, 2)
    deliveries.delivered(lost)
    assert deliveries.backlog(DEFAULT_PROJECT) == {"mine": 1}, "the first sender has lost its right to say anything"
    deliveries.delivered(again)


def test_after_a_day_it_is_given_up(database: Database, tmp_path: Path) -> None:
    deliveries, entrance = Deliveries(database), door(database, tmp_path)
    hook(deliveries, "mine")
    entrance.submit(new("a"))
    entrance.store.cancel("a")
    for _ in range(len(DELAYS) + 1):
        hurry(database)
        message = deliveries.take(())
        assert message is not None
        deliveries.failed(message, "no answer")
    hurry(database)
    assert deliveries.take(()) is None
    assert 80_000 < sum(DELAYS) < 90_000


def test_replicas_share_the_work(database: Database, tmp_path: Path) -> None:
    deliveries, entrance = Deliveries(database), door(database, tmp_path)
    for name in "xyz":
        hook(deliveries, name)
    for number in range(4):
        entrance.submit(new(f"job{number}"))
        entrance.store.cancel(f"job{number}")

    def drain() -> list[str]:
        found = []
        while (message := deliveries.take(())) is not None:
            found.append(message.id)
        return found

    taken = [name for found in at_once([drain] * 4) for name in (found if isinstance(found, list) else [repr(found)])]
    hurry(database)
    left = drain()
    assert len(set(left)) == 12
    assert len(taken) == len(set(taken))


def test_deleting_a_webhook_takes_its_messages_along(database: Database, tmp_path: Path) -> None:
    deliveries, entrance = Deliveries(database), door(database, tmp_path)
    hook(deliveries, "mine")
    entrance.submit(new("a"))
    entrance.store.cancel("a")
    assert not deliveries.remove(OTHER, "mine")
    assert deliveries.remove(DEFAULT_PROJECT, "mine")
    assert not deliveries.remove(DEFAULT_PROJECT, "mine")
    assert deliveries.take(()) is None


def test_a_slow_webhook_holds_up_itself_alone(database: Database, tmp_path: Path) -> None:
    deliveries, entrance = Deliveries(database), door(database, tmp_path)
    released = threading.Event()

    def wait(connection: socket.socket) -> None:
        released.wait(20)
        connection.sendall(OK)

    with Listener(wait) as slow, Listener(saying(OK)) as quick:
        for name, listener in (("slow", slow), ("quick", quick)):
            row = WebhookRow(
                id=name, project_id=DEFAULT_PROJECT, url=f"http://127.0.0.1:{listener.port}/", secret=new_secret()
            )
            deliveries.register(row)
        for number in range(6):
            entrance.submit(new(f"job{number}"))
            entrance.store.cancel(f"job{number}")
        deliverer = Deliverer(deliveries, Sender(private=True), 0.02)
        deliverer.start()
        try:
            wait_for(lambda: len(quick.requests) == 6)
            assert slow.connections == 1
            released.set()
            wait_for(lambda: not deliveries.backlog(DEFAULT_PROJECT))
        finally:
            released.set()
            deliverer.stop()
