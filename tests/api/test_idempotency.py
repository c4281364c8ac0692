"""Idempotency-Key: the same request twice is one job, whatever happens between and at the same time."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import httpx
import pytest
from service_kit import SMALL, Server, small_request
from store_kit import OTHER, at_once, door, new
from test_routes import problem

from provenn.api.database import Database
from provenn.api.jobs.refusals import IdempotencyConflict
from provenn.api.jobs.store import Which
from provenn.api.tables import DEFAULT_PROJECT, IdempotencyRow, JobRow


def test_the_same_key_and_request_are_one_job(server: Server) -> None:
    body = small_request(server.model(SMALL), epsilons=[0.021]) | {"cache": False}
    first, again = post(server, body, "one"), post(server, body, "one")
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    server.ended(first.json()["id"])
    assert post(server, body, "one").json()["state"] == "succeeded"
    assert post(server, body, "two").json()["id"] != first.json()["id"]


def post(server: Server, body: dict[str, object], key: str) -> httpx.Response:
    return server.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})


def test_another_request_with_the_key_is_refused(server: Server) -> None:
    body = small_request(server.model(SMALL), epsilons=[0.022])
    first = post(server, body, "mine").json()["id"]
    assert problem(post(server, body | {"seed": 1}, "mine"), 422, "idempotency-conflict")["job"] == first


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_keys_are_short_and_printable(server: Server, key: str) -> None:
    response = post(server, small_request(server.model(SMALL)), key)
    assert problem(response, 422, "invalid-request")["errors"][0]["pointer"] == "Idempotency-Key"


def test_many_at_the_same_time_make_one_job(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path)
    found = at_once([partial(entrance.submit, new(f"job{n}"), "key") for n in range(8)])
    assert len({job.id for job in found if isinstance(job, JobRow)}) == 1
    assert all(isinstance(job, JobRow) for job in found), found
    assert len(entrance.store.page(10, Which(DEFAULT_PROJECT))) == 1


def test_a_conflict_adds_nothing(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path)
    entrance.submit(new("a"), "key")
    with pytest.raises(IdempotencyConflict):
        entrance.submit(new("b", request="s" * 64), "key")
    assert entrance.store.get("b") is None


def test_keys_of_another_project_are_other_keys(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path)
    entrance.submit(new("a"), "key")
    assert entrance.submit(new("b", OTHER), "key").id == "b"


def test_keys_are_forgotten(database: Database, tmp_path: Path) -> None:
    entrance = door(database, tmp_path, idempotency_hours=1)
    entrance.submit(new("a"), "key")
    with database.writing() as session:
        row = session.get_one(IdempotencyRow, (DEFAULT_PROJECT, "key"))
        row.created_at = time.time() - 3601
    assert entrance.submit(new("b", request="s" * 64), "key").id == "b"
    assert entrance.submit(new("c", request="s" * 64), "key").id == "b"
