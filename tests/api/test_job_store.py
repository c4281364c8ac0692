"""The queue in the table: claims, leases, fences."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service_kit import wait_for

from provenn.api.catalogue import Catalogue
from provenn.api.database import Database, DataDirectoryInUse, exclusive
from provenn.api.jobs.model import IllegalTransition, State
from provenn.api.jobs.store import Answer, JobStore, Step, Ticket, Which
from provenn.api.tables import DEFAULT_PROJECT, JobRow, ModelRow

MODEL = "0" * 64
FOUND = Answer("result", [], "unknown", False, "0")
PROVED = Answer("result", ["c" * 64], "verified", True, "0")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    database = Database(url if request.param == "sqlite" else request.getfixturevalue("postgresql")())
    Catalogue(database).add(ModelRow(id=MODEL, filename="m", bytes=1, summary={}))
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def add(store: JobStore, name: str) -> None:
    store.add(
        JobRow(id=name, model_id=MODEL, method="auto", seconds=1, seed=0, certificates=True, items=1, request="r")
    )


def claim(store: JobStore, owner: str = "me", lease: float = 60) -> Ticket:
    job = wait_for(lambda: store.claim(owner, lease))  # a job that was tried before waits a while
    return Ticket(job.id, job.attempt)


def state(store: JobStore, job: str) -> JobRow:
    row = store.get(job)
    assert row is not None
    return row


def test_oldest_first_and_each_once(store: JobStore) -> None:
    for name in "abc":
        add(store, name)
    assert [claim(store).job for _ in "abc"] == ["a", "b", "c"]
    assert store.claim("me", 60) is None


def test_concurrent_claims_never_share_a_job(store: JobStore) -> None:
    for number in range(40):
        add(store, f"job{number}")
    taken: list[str] = []

    def take() -> None:
        while (job := store.claim("me", 60)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(f"job{n}" for n in range(40))


def test_an_old_attempt_can_report_nothing(store: JobStore) -> None:
    add(store, "a")
    old = claim(store)
    store.died(old, "worker died (signal 9)")
    new = claim(store)
    store.finish(old, FOUND)
    store.fail(old, "nonsense")
    assert not store.progress(old, Step(1, 1, "late"))
    assert state(store, "a").state == State.RUNNING
    store.finish(new, PROVED)
    assert (state(store, "a").state, state(store, "a").result) == (State.SUCCEEDED, "result")


def test_three_deaths_fail_a_job_with_the_reason(store: JobStore) -> None:
    add(store, "a")
    for _ in range(2):
        store.died(claim(store), "worker died (signal 9)")
        assert state(store, "a").state == State.QUEUED
    store.died(claim(store), "worker died (signal 9)")
    assert state(store, "a").state == State.FAILED
    assert "worker died (signal 9)" in (state(store, "a").reason or "")


def test_leases_expire_unless_renewed(store: JobStore) -> None:
    add(store, "a")
    add(store, "b")
    kept, lost = claim(store, lease=-1), claim(store, lease=-1)
    store.renew([kept], 60)
    assert store.requeue_expired()
    assert (state(store, kept.job).state, state(store, lost.job).state) == (State.RUNNING, State.QUEUED)
    assert not store.requeue_expired()


def test_only_other_owners_jobs_are_abandoned(store: JobStore) -> None:
    add(store, "a")
    add(store, "b")
    claim(store, "dead")
    claim(store, "me")
    store.requeue_abandoned("me")
    assert (state(store, "a").state, state(store, "b").state) == (State.QUEUED, State.RUNNING)
    assert state(store, "a").reason is not None


def test_release_costs_no_attempt(store: JobStore) -> None:
    add(store, "a")
    for _ in range(5):
        store.release(claim(store), "the server was shut down")
    assert (state(store, "a").state, state(store, "a").deaths) == (State.QUEUED, 0)


def test_cancel_is_final(store: JobStore) -> None:
    add(store, "a")
    ticket = claim(store)
    store.cancel("a")
    store.finish(ticket, FOUND)
    assert state(store, "a").state == State.CANCELLED
    with pytest.raises(IllegalTransition):
        store.cancel("a")
    assert store.cancel("no such job") is None


def test_a_certificate_is_recorded_once(store: JobStore, database: Database) -> None:
    for name in "ab":
        add(store, name)
        store.finish(claim(store), PROVED)
    row = Catalogue(database).certificate(DEFAULT_PROJECT, "c" * 64)
    assert row is not None
    assert row.job_id == "a"


def test_every_change_is_announced(database: Database) -> None:
    heard: list[str] = []
    store = JobStore(database, heard.append)
    add(store, "a")
    ticket = claim(store)
    store.progress(ticket, Step(1, 2, "crown"))
    store.finish(ticket, FOUND)
    assert heard == ["a"] * 4


def test_news_are_the_states_since_a_change(store: JobStore) -> None:
    add(store, "a")
    ticket = claim(store)
    store.progress(ticket, Step(1, 2, "crown", share=0.5))
    store.finish(ticket, FOUND)
    for change, expected in ((0, ["queued", "running", "succeeded"]), (1, ["running", "succeeded"]), (3, ["succeeded"]),
                             (4, []), (5, ["queued", "running", "succeeded"])):  # fmt: skip
        news = store.news("a", change)
        assert news is not None
        assert [each.state for each in news[1]] == expected
        assert (news[0].change, news[0].share) == (4, 0)
    assert store.news("no such job", 0) is None


def test_pages_are_filtered(store: JobStore) -> None:
    for name in "abcd":
        add(store, name)
    store.cancel("b")
    ticket = claim(store)
    store.finish(ticket, PROVED)
    middle = state(store, "c").created_at

    def names(**which: Any) -> list[str]:
        return [job.id for job in store.page(10, Which(DEFAULT_PROJECT, **which))]

    assert names() == ["d", "c", "b", "a"]
    assert names(before="c") == ["b", "a"]
    assert names(states=(State.CANCELLED, State.SUCCEEDED)) == ["b", "a"]
    assert names(verdict="verified", kind="inputs", method="auto", model=MODEL, parked=False) == ["a"]
    assert (names(since=middle), names(until=middle)) == (["d", "c"], ["b", "a"])
    assert (names(parent="a"), names(kind="jacobian")) == ([], [])


def test_parts_are_counted_by_state(store: JobStore) -> None:
    add(store, "a")
    about = {"model_id": MODEL, "method": "auto", "seconds": 1, "seed": 0, "certificates": True, "items": 1}
    parts = [JobRow(id=f"a{n}", parent_id="a", part=n, request="r", **about) for n in range(3)]
    store.split(claim(store), parts)
    claim(store)
    assert store.tally("a") == {State.QUEUED: 2, State.RUNNING: 1}
    assert store.tally("a0") == {}


def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(DataDirectoryInUse, match="in use"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
