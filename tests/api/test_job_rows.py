"""What the end of a part means for the other parts, and for the whole."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from store_kit import new

from provenn.api.database import Database
from provenn.api.jobs.model import State
from provenn.api.jobs.rows import failed
from provenn.api.jobs.said import Said
from provenn.api.jobs.store import Answer, JobStore, Ticket


def split(store: JobStore, kind: str) -> list[Ticket]:
    """A job that has fallen into three parts, all of which run."""
    store.add(new("whole", kind=kind, items=3))
    store.split(claim(store), [new(f"part{k}", kind=kind, parent_id="whole", part=k) for k in range(3)], "s" * 64)
    return [claim(store) for _ in range(3)]


def claim(store: JobStore) -> Ticket:
    job = store.claim("me", 60)
    assert job is not None
    return Ticket(job.id, job.attempt)


def states(store: JobStore) -> list[str]:
    rows = [store.get("whole"), *store.parts("whole")]
    return [row.state for row in rows if row is not None]


def answer(verdict: str) -> Answer:
    return Answer("r" * 64, [], verdict, False, "0")


def test_the_whole_goes_on_when_the_last_part_is_over(database: Database) -> None:
    store = JobStore(database)
    parts = split(store, "inputs")
    store.finish(parts[1], answer("falsified"))
    store.time_out(parts[0], "too long")
    assert states(store) == [State.RUNNING, State.TIMED_OUT, State.SUCCEEDED, State.RUNNING]
    store.finish(parts[2], answer("verified"))
    assert states(store)[0] == State.QUEUED
    assert failed(store.parts("whole")) is None
    joining = store.claim("me", 60)
    assert joining is not None
    assert (joining.id, joining.attempt, joining.parts, joining.start) == ("whole", 2, 3, "s" * 64)


@pytest.mark.parametrize(
    ("kind", "verdict"), [("specification", "falsified"), ("inputs", None), ("specification", None)]
)
def test_a_part_that_decides_all_ends_the_others(database: Database, kind: str, verdict: str | None) -> None:
    """A counterexample to a search, or a failure of any part."""
    store = JobStore(database)
    parts = split(store, kind)
    if verdict is None:
        store.fail(parts[1], "no luck")
    else:
        store.finish(parts[1], answer(verdict))
    ends = [State.CANCELLED, State.FAILED if verdict is None else State.SUCCEEDED, State.CANCELLED]
    assert states(store) == [State.QUEUED, *ends]
    assert failed(store.parts("whole")) == ("part 2 of 3 failed: no luck" if verdict is None else None)
    assert set(store.void(parts)) == set(parts)


def test_cancelling_the_whole_ends_every_part(database: Database) -> None:
    store = JobStore(database)
    parts = split(store, "inputs")
    store.finish(parts[0], answer("verified"))
    store.cancel("whole")
    assert states(store) == [State.CANCELLED, State.SUCCEEDED, State.CANCELLED, State.CANCELLED]
    store.finish(parts[1], answer("verified"))
    assert states(store)[2] == State.CANCELLED


def test_a_job_that_has_split_is_held_by_nobody(database: Database) -> None:
    """A renewal that was on its way, or a second try at splitting, changes nothing."""
    store = JobStore(database)
    store.add(new("whole", kind="inputs", items=2))
    ticket = claim(store)
    for _ in range(2):
        store.split(ticket, [new(f"part{k}", kind="inputs", parent_id="whole", part=k) for k in range(2)])
        assert store.renew([ticket], 60) == [ticket]
        row = store.get("whole")
        assert row is not None
        assert (row.state, row.owner, row.lease_until, row.waiting) == (State.RUNNING, None, None, 2)
    assert not store.requeue_expired()
    for _ in range(2):
        store.finish(claim(store), answer("verified"))
    assert states(store)[0] == State.QUEUED


@pytest.mark.parametrize("said", [
    {}, {"answer": {}}, {"answer": {"parts": []}}, {"progress": [1, 2, "x"]}, {"problem": "no"}, {"other": 1},
    {"answer": {"result": "../x", "certificates": [], "verdict": "verified", "reusable": True, "version": "1"}},
    {"answer": {"parts": [{"request": "0" * 64, "items": 1, "verdict": "verified"}]}},
])  # fmt: skip
def test_what_no_worker_says_is_not_believed(said: dict[str, object]) -> None:
    try:
        heard = Said.model_validate(said)
    except ValidationError:
        return
    assert (heard.progress, heard.answer, heard.problem) == (None, None, None)
