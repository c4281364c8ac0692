"""Event streams: every state once and in order, taken up again after any event, whoever changes the row."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastapi.routing
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_kit import SMALL, Server, serving, small_request, wait_for

from provenn.api.database import Database
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.model import State
from provenn.api.jobs.progressing import told
from provenn.api.jobs.store import Answer, JobStore, Step, Ticket
from provenn.api.routes.events import PROGRESS_SECONDS, Feed, seen
from provenn.api.tables import JobRow, TransitionRow
from provenn.solvers.base import Phase


@dataclass
class Event:
    """What came over the wire."""

    kind: str
    data: dict[str, Any]
    id: int | None


def events(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], json.loads(fields["data"]), int(fields["id"]) if "id" in fields else None)
            fields = {}


def stream(server: Server, job: str, last: str | None = None) -> list[Event]:
    headers = {} if last is None else {"Last-Event-ID": last}
    return list(events(iter(server.client.get(f"/v1/jobs/{job}/events", headers=headers).text.splitlines())))


def states(found: list[Event]) -> list[str]:
    return [event.data["state"] for event in found if event.kind == "state"]


def test_every_state_comes_with_its_reason_and_time_and_ids_increase(server: Server) -> None:
    job = server.slow_job(seed=70)
    server.pid(job)
    server.client.delete(f"/v1/jobs/{job}")
    found = stream(server, job)
    assert states(found) == ["queued", "running", "cancelled"]
    assert [event.kind for event in found][-1] == "end"
    ids = [event.id for event in found if event.id is not None]
    assert all(first < second for first, second in pairwise(ids))
    last = found[-2].data
    assert (last["reason"], last["attempt"]) == ("cancelled on request", 1)
    assert last["at"] > found[-1].data["started_at"]
    assert server.job(job)["history"] == [event.data for event in found if event.kind == "state"]


def test_a_stream_is_taken_up_after_any_event(server: Server) -> None:
    job = server.submit(small_request(server.model(SMALL), epsilons=[0.011]))
    server.ended(job)
    whole = stream(server, job)
    assert states(whole) == ["queued", "running", "succeeded"]
    for event in whole:
        if event.id is not None:
            later = stream(server, job, str(event.id))
            assert states(later) == [e.data["state"] for e in whole if e.kind == "state" and e.id > event.id]  # type: ignore[operator]
            assert later[-1].kind == "end"
            assert stream(server, job, str(event.id)) == later


@pytest.mark.parametrize("last", ["", "x", "-1", "0", "99999", "9" * 400, "1; 2", "\u00b2"])
def test_an_unknown_id_begins_at_the_beginning(server: Server, last: str) -> None:
    job = server.submit(small_request(server.model(SMALL), epsilons=[0.011]))
    server.ended(job)
    headers = {"Last-Event-ID": last.encode("latin-1")}
    found = list(events(iter(server.client.get(f"/v1/jobs/{job}/events", headers=headers).text.splitlines())))
    assert states(found)[0] in ("queued", "succeeded")
    assert found[-1].kind == "end"


def test_progress_while_it_runs_and_an_end_without_delay(server: Server) -> None:
    job = server.slow_job(seed=71)
    with server.client.stream("GET", f"/v1/jobs/{job}/events") as response:
        found = events(response.iter_lines())
        shown = [next(e for e in found if e.kind == "progress" and e.data["progress"]["done"] > 0) for _ in range(3)]
        server.client.delete(f"/v1/jobs/{job}")
        assert [event.kind for event in found][-2:] == ["state", "end"]
    for event in shown:
        about = event.data["progress"]
        assert about["fraction"] == pytest.approx(about["done"] / about["total"], abs=1e-12)
        assert about["phase"]


def test_a_silent_stream_is_kept_alive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastapi.routing._PING_INTERVAL == 15
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.05)
    with serving_paused(server) as (job, response):
        lines = response.iter_lines()
        wait_for(lambda: next(lines).startswith(":"))
    server.client.delete(f"/v1/jobs/{job}")


class serving_paused:  # noqa: N801 - reads as a verb
    """A job that waits for a time that does not come, and its stream."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __enter__(self) -> tuple[str, httpx.Response]:
        store, model = self.server.service.jobs, self.server.model(SMALL)
        row = waiting("f" * 32, model)
        row.not_before = 4e9
        store.add(row)
        self.context = self.server.client.stream("GET", f"/v1/jobs/{row.id}/events")
        return row.id, self.context.__enter__()

    def __exit__(self, *_: object) -> None:
        self.context.__exit__(None, None, None)


def waiting(name: str, model: str) -> JobRow:
    return JobRow(
        id=name, model_id=model, method="auto", seconds=1, seed=0, certificates=True, items=2, request="r" * 64
    )


@pytest.mark.xdist_group("postgresql")
def test_changes_by_another_process_are_seen(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """Another supervisor on the same database, of which this server's `Watch` hears nothing."""
    url = postgresql()
    with serving(tmp_path, database=url, poll_seconds=0.1) as server:
        other = Database(url)
        elsewhere = JobStore(other)
        row = waiting("e" * 32, server.model(SMALL))
        row.not_before = 4e9
        elsewhere.add(row)
        found: list[Event] = []

        def follow() -> None:
            with httpx.stream("GET", f"{server.url}/v1/jobs/{row.id}/events", timeout=60) as response:
                found.extend(events(response.iter_lines()))

        thread = threading.Thread(target=follow)
        thread.start()
        ticket = Ticket(row.id, 1)
        claimed_elsewhere(other, row.id)
        assert elsewhere.progress(ticket, Step(1, 2, "far away", 0.5, 7, 0.25))
        wait_for(lambda: server.job(row.id)["progress"]["phase"] == "far away")
        shown = server.job(row.id)["progress"]
        assert (shown["bound"], shown["domains"], shown["fraction"]) == (0.5, 7, 0.625)
        elsewhere.finish(ticket, Answer("r" * 64, [], "unknown", False, "0"))
        thread.join()
        other.close()
    assert states(found) == ["queued", "running", "succeeded"]
    assert found[-1].kind == "end"


def claimed_elsewhere(database: Database, job: str) -> None:
    from provenn.api.jobs.model import Event as What
    from provenn.api.jobs.rows import move

    with database.writing() as session:
        row = session.query(JobRow).filter_by(id=job).one()
        row.attempt, row.owner, row.lease_until = 1, "elsewhere", 4e9
        move(session, row, What.CLAIM, None)
        row.owner = "elsewhere"


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=30), st.integers(0, 40))
def test_a_feed_tells_every_state_once_with_increasing_ids(changes: list[tuple[bool, float]], last: int) -> None:
    feed, now, change, asked = Feed(last), 0.0, 0, last
    heard: list[tuple[str | None, str | None, float]] = []
    recorded: list[TransitionRow] = []
    for moved, passed in changes:
        change, now = change + 1, now + passed
        if moved:
            recorded.append(TransitionRow(job_id="a", change=change, state="queued", attempt=0, reason=None, at=now))
        row = waiting("a", "m")
        row.change, row.state, row.done, row.share, row.total, row.phase = change, State.QUEUED, 0, 0.0, 2, ""
        row.attempt, row.priority, row.parked, row.compute_seconds = 0, 0, False, 0.0
        row.kind, row.created_at, row.changed_at = "inputs", 0.0, 0.0
        after = feed.seen if feed.seen <= change else 0
        heard += [(e.event, e.id, now) for e in feed.events(row, [t for t in recorded if t.change > after], now)]
    numbers = [int(number) for _, number, _ in heard if number is not None]
    assert all(first < second for first, second in pairwise(numbers))
    expected = [t.change for t in recorded if t.change > asked] if asked <= 1 else None
    if expected is not None:
        assert [int(n or 0) for kind, n, _ in heard if kind == "state"] == expected
    times = [at for kind, _, at in heard if kind == "progress"]
    assert all(second - first >= PROGRESS_SECONDS - 1e-9 for first, second in pairwise(times))


def test_a_report_says_how_much_of_an_item_is_decided() -> None:
    said: list[Any] = []

    class Pipe(Reporter):
        def __init__(self) -> None:
            pass

        def send(self, message: dict[str, Any]) -> None:
            said.append(message["progress"])

    told(Pipe(), 3, 10)(1, 2, Phase("words", 0.5, 7, 0.25))
    told(Pipe(), 3, 10)(1, 2, "words")
    same = {"done": 4, "total": 10, "phase": "words"}
    assert said == [
        same | {"bound": 0.5, "domains": 7, "share": 0.25, "bounds": None},
        same | {"bound": None, "domains": None, "share": 0.0, "bounds": None},
    ]


def test_ids_of_strangers_count_as_none() -> None:
    assert [seen(each) for each in (None, "", "x", "12", "٣", "1" * 10)] == [0, 0, 0, 12, 0, 0]


def test_whoever_waits_is_answered_when_the_job_is_over(server: Server) -> None:
    job = server.submit({**small_request(server.model(SMALL)), "seed": 91})
    found = server.client.get(f"/v1/jobs/{job}", params={"wait": 30}).json()
    assert found["state"] == "succeeded"
    assert found["result"]["items"]


def test_whoever_has_waited_long_enough_is_answered_too(server: Server) -> None:
    job = server.slow_job(seed=92)
    assert server.client.get(f"/v1/jobs/{job}", params={"wait": 0.2}).json()["state"] in ("queued", "running")
    cancelled = threading.Timer(0.2, server.client.delete, [f"/v1/jobs/{job}"])
    cancelled.start()
    assert server.client.get(f"/v1/jobs/{job}", params={"wait": 30}).json()["state"] == "cancelled"
    cancelled.join()
    assert server.client.get(f"/v1/jobs/{job}", params={"wait": 31}).status_code == 422
