"""The queue in the table: claims, leases, fences."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from provenn.api.catalogue import Catalogue
from provenn.api.database import Database, DataDirectoryInUse, JobRow, ModelRow, exclusive
from provenn.api.jobs.model import IllegalTransition, State
from provenn.api.jobs.store import JobStore, Ticket

MODEL = "0" * 64


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "test.db")
    Catalogue(database).add_model(ModelRow(id=MODEL, filename="m", bytes=1, summary={}))
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
    job = store.claim(owner, lease)
    assert job is not None
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
    store.finish(old, "result", [])
    store.fail(old, "nonsense")
    assert not store.progress(old, 1, 1, "late")
    assert state(store, "a").state == State.RUNNING
    store.finish(new, "result", ["c" * 64])
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
    store.finish(ticket, "result", [])
    assert state(store, "a").state == State.CANCELLED
    with pytest.raises(IllegalTransition):
        store.cancel("a")
    assert store.cancel("no such job") is None


def test_a_certificate_is_recorded_once(store: JobStore, database: Database) -> None:
    for name in "ab":
        add(store, name)
        store.finish(claim(store), "result", ["c" * 64])
    row = Catalogue(database).certificate("c" * 64)
    assert row is not None
    assert row.job_id == "a"


def test_every_change_is_announced(database: Database) -> None:
    heard: list[str] = []
    store = JobStore(database, heard.append)
    add(store, "a")
    ticket = claim(store)
    store.progress(ticket, 1, 2, "crown")
    store.finish(ticket, "result", [])
    assert heard == ["a"] * 4


def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(DataDirectoryInUse, match="in use"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
