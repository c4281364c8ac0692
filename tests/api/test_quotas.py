"""Quotas: what a key may have at a time is never exceeded, not even by requests at the same time."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from service_kit import SMALL, mlp, serving, small_request
from store_kit import MODEL, OTHER, at_once, door, new
from test_routes import problem

from provenn.api.catalogue import Catalogue
from provenn.api.database import Database
from provenn.api.jobs.quotas import BYTES, DAY, QUEUED, SECONDS, require_bytes
from provenn.api.jobs.refusals import QuotaExceeded
from provenn.api.jobs.store import Answer, Ticket
from provenn.api.settings import Settings
from provenn.api.tables import DEFAULT_PROJECT, JobRow, KeyRow, ModelRow

KEY = f"key-{DEFAULT_PROJECT}"


def test_queued_jobs_are_counted_until_they_are_claimed(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path, max_queued=2)
    for name in "ab":
        entrance.submit(new(name))
    with pytest.raises(QuotaExceeded) as refused:
        entrance.submit(new("c"))
    assert vars(refused.value) == {"kind": QUEUED, "limit": 2, "used": 2, "retry_after": None}
    assert entrance.store.get("c") is None
    entrance.store.claim("me", 60)
    assert entrance.submit(new("c")).id == "c"


def test_requests_at_the_same_time_share_a_quota(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path, max_queued=3)
    found = at_once([partial(entrance.submit, new(f"job{n}", key_id=KEY)) for n in range(8)])
    assert sum(isinstance(job, JobRow) for job in found) == 3
    assert sum(isinstance(job, QuotaExceeded) for job in found) == 5, found


def test_a_key_has_quotas_of_its_own(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path, max_queued=1)
    allow(database, KEY, max_queued=2)
    for name in "ab":
        entrance.submit(new(name, key_id=KEY))
    with pytest.raises(QuotaExceeded, match="queued jobs is 2"):
        entrance.submit(new("c", key_id=KEY))
    assert entrance.submit(new("d", OTHER, key_id=f"key-{OTHER}")).id == "d"
    assert entrance.submit(new("e")).id == "e"


def allow(database: Database, key: str, **limits: Any) -> None:
    with database.writing() as session:
        row = session.get_one(KeyRow, key)
        for name, limit in limits.items():
            setattr(row, name, limit)


def test_networks_and_requests_are_counted_in_bytes(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path, max_bytes=150)
    catalogue = Catalogue(database)

    def add(size: int) -> bool:
        row = ModelRow(id="1" * 64, key_id=KEY, filename="m", bytes=size, summary={})
        return catalogue.add(row, lambda session: require_bytes(session, row, entrance.settings))

    entrance.submit(new("a", key_id=KEY, bytes=50))
    with pytest.raises(QuotaExceeded, match=f"{BYTES} is 150, of which 50 are used"):
        add(101)
    assert catalogue.model(DEFAULT_PROJECT, "1" * 64) is None
    assert add(90)
    entrance.submit(new("b", key_id=KEY, bytes=10))
    with pytest.raises(QuotaExceeded):
        entrance.submit(new("c", key_id=KEY, bytes=1))


def test_seconds_of_compute_roll_over_a_day(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path, max_compute_seconds=100)
    entrance.submit(new("a"))
    spend(database, "a", 60.0, time.time() - 10)
    entrance.submit(new("b"))
    spend(database, "b", 40.0, time.time() - DAY + 50)
    with pytest.raises(QuotaExceeded) as refused:
        entrance.submit(new("c"))
    assert (refused.value.kind, refused.value.limit, refused.value.used) == (SECONDS, 100, 100)
    assert refused.value.retry_after is not None
    assert 40 <= refused.value.retry_after <= 51
    spend(database, "b", 40.0, time.time() - DAY - 1)
    assert entrance.submit(new("c")).id == "c"


def spend(database: Database, job: str, seconds: float, started: float) -> None:
    with database.writing() as session:
        row = session.query(JobRow).filter_by(id=job).one()
        row.compute_seconds, row.started_at = seconds, started


def test_what_runs_now_counts_too(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path, max_compute_seconds=100)
    entrance.submit(new("a"))
    assert entrance.store.claim("me", 60) is not None
    assert entrance.submit(new("b")).id == "b"
    spend(database, "a", 0.0, time.time() - 101)
    with pytest.raises(QuotaExceeded):
        entrance.submit(new("c"))
    entrance.store.finish(Ticket("a", 1), Answer("r" * 64, [], "unknown", False, "0"))
    with pytest.raises(QuotaExceeded, match="of which 101"):
        entrance.submit(new("c"))


def test_without_quotas_nothing_is_counted(database: Database, tmp_path: Path) -> None:
    assert (Settings().max_queued, Settings().max_bytes, Settings().max_compute_seconds) == (None, None, None)
    entrance = door(database, tmp_path)
    assert all(entrance.submit(new(f"job{n}", bytes=1 << 40)).id for n in range(3))
    assert MODEL


def test_quotas_are_problems(tmp_path: Path) -> None:
    with serving(tmp_path, max_queued=0, max_bytes=len(SMALL) + 10_000) as server:
        model = server.model(SMALL)
        response = server.client.post("/v1/jobs", json=small_request(model))
        found = problem(response, 429, "quota-exceeded")
        assert (found["kind"], found["limit"], found["used"]) == (QUEUED, 0, 0)
        assert "Retry-After" not in response.headers
        assert problem(server.upload(mlp([64, 256, 10])), 429, "quota-exceeded")["kind"] == BYTES
    with serving(tmp_path, max_compute_seconds=0) as server:
        response = server.client.post("/v1/jobs", json=small_request(model))
        assert problem(response, 429, "quota-exceeded")["kind"] == SECONDS
        assert 0 < int(response.headers["Retry-After"]) <= DAY
