"""Lists of jobs by what they are, page by page; jobs that are tried again; priorities."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_kit import ADMIN, SUBMIT, member
from service_kit import SMALL, Server, mlp, serving, small_request
from test_routes import problem

from provenn.api.jobs.store import Ticket
from provenn.api.tables import JobRow

pytestmark = pytest.mark.xdist_group("job filters")
"""What the tests share is made once."""

A, B = mlp([3, 4, 2], seed=31), mlp([3, 4, 2], seed=32)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Five jobs that nobody will run, and what they are."""
    with serving(tmp_path_factory.mktemp("listed")) as server:
        models = [server.model(A), server.model(B)]
        rows = [
            ("inputs", "crown", models[0], {}),
            ("lipschitz", "auto", models[0], {"state": "succeeded", "verdict": "verified"}),
            ("inputs", "auto", models[1], {"state": "failed", "parked": True}),
            ("inputs", "auto", models[1], {"state": "succeeded", "verdict": "falsified"}),
            ("jacobian", "ibp", models[1], {"state": "cancelled"}),
        ]
        for number, (kind, method, model, more) in enumerate(rows):
            server.service.jobs.add(row(f"{number:032x}", model, kind=kind, method=method, **more))
        for number in range(2):
            server.service.jobs.add(
                row(f"{10 + number:032x}", models[0], parent_id=f"{0:032x}", part=number, state="succeeded")
            )
        yield server, models


def row(name: str, model: str, **more: Any) -> JobRow:
    about = {"method": "auto", "seconds": 1, "seed": 0, "certificates": True, "items": 4, "request": "r" * 64}
    return JobRow(id=name, model_id=model, **(about | {"not_before": 4e9, "created_at": float(int(name, 16))} | more))


def numbers(response: httpx.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return [int(job["id"], 16) for job in response.json()["items"]]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [4, 3, 2, 1, 0]),
        ({"state": "succeeded"}, [3, 1]),
        ({"state": ["failed", "cancelled"]}, [4, 2]),
        ({"kind": "inputs"}, [3, 2, 0]),
        ({"method": "auto"}, [3, 2, 1]),
        ({"verdict": "verified"}, [1]),
        ({"parked": "true"}, [2]),
        ({"parked": "false", "kind": "inputs"}, [3, 0]),
        ({"parent": f"{0:032x}"}, [11, 10]),
        ({"parent": "f" * 32}, []),
        ({"created_after": "1970-01-01T00:00:03Z"}, [4, 3]),
        ({"created_before": "1970-01-01T01:00:02+01:00"}, [1, 0]),
        ({"created_after": "1970-01-01T00:00:01Z", "created_before": "1970-01-01T00:00:03Z"}, [2, 1]),
    ],
    ids=str,
)
def test_filters(listed: tuple[Server, list[str]], asked: dict[str, Any], found: list[int]) -> None:
    assert numbers(listed[0].client.get("/v1/jobs", params=asked)) == found


def test_models_are_a_filter(listed: tuple[Server, list[str]]) -> None:
    server, models = listed
    assert numbers(server.client.get("/v1/jobs", params={"model": models[0]})) == [1, 0]


def test_pages_keep_the_filter(listed: tuple[Server, list[str]]) -> None:
    server, asked, seen = listed[0], {"kind": "inputs", "limit": "2"}, []
    for _ in range(2):
        page = server.client.get("/v1/jobs", params=asked)
        seen.append(numbers(page))
        asked["cursor"] = page.json()["next"]
    assert seen == [[3, 2], [0]]
    assert page.json()["next"] is None


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models"])
def test_an_unknown_cursor_is_a_problem(listed: tuple[Server, list[str]], path: str) -> None:
    response = listed[0].client.get(path, params={"cursor": "a" * 32})
    assert problem(response, 422, "invalid-request")["errors"][0]["pointer"] == "cursor"


@pytest.mark.parametrize(
    "asked", [{"state": "lost"}, {"model": "x"}, {"created_after": "2020-01-01T00:00:00"}, {"parent": "x"}], ids=str
)
def test_bad_filters_are_problems(listed: tuple[Server, list[str]], asked: dict[str, str]) -> None:
    problem(listed[0].client.get("/v1/jobs", params=asked), 422, "invalid-request")


def test_a_job_shows_its_parts_and_what_it_is(listed: tuple[Server, list[str]]) -> None:
    server, models = listed
    whole, part = server.job(f"{0:032x}"), server.job(f"{10:032x}")
    assert (whole["parts"], part["parts"]) == ({"succeeded": 2}, {})
    assert (whole["parent"], part["parent"]) == (None, whole["id"])
    told = {"kind": "inputs", "model": models[0], "priority": 0, "verdict": None, "reused": None, "parked": False}
    assert whole.items() >= told.items()
    assert (whole["compute_seconds"], whole["progress"]["fraction"]) == (0, 0)
    assert [each["state"] for each in whole["history"]] == ["queued"]


def test_time_and_verdict_are_told(server: Server) -> None:
    began = datetime.now(UTC)
    found = server.ended(server.submit(small_request(server.model(SMALL), epsilons=[0.031])))
    assert found["verdict"] == found["result"]["verdict"]
    assert 0 < found["compute_seconds"] < 60
    assert found["progress"]["fraction"] == 1
    assert [each["state"] for each in found["history"]] == ["queued", "running", "succeeded"]
    assert began <= datetime.fromisoformat(found["history"][0]["at"]) <= datetime.now(UTC)


def test_urgent_jobs_come_first(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        busy = server.slow_job()
        server.pid(busy)
        model = server.model(SMALL)
        jobs = {
            priority: server.submit(small_request(model, epsilons=[0.04 + 0.001 * priority]) | {"priority": priority})
            for priority in (-10, 0, 10)
        }
        server.client.delete(f"/v1/jobs/{busy}")
        started = {priority: server.ended(job)["started_at"] for priority, job in jobs.items()}
    assert sorted(started, key=started.__getitem__) == [10, 0, -10]


@pytest.mark.parametrize("priority", [11, -11, 0.5, "1", True])
def test_priorities_have_a_range(server: Server, priority: object) -> None:
    response = server.client.post("/v1/jobs", json=small_request(server.model(SMALL)) | {"priority": priority})
    assert problem(response, 422, "invalid-request")["errors"][0]["pointer"] == "#/priority"


def test_urgency_needs_the_scope_admin(keyed: Server) -> None:
    submitter, admin = member(keyed, "urgent", SUBMIT), member(keyed, "urgent", ADMIN)
    with submitter.client, admin.client:
        body = small_request(submitter.model(SMALL))
        found = problem(submitter.client.post("/v1/jobs", json=body | {"priority": 1}), 403, "forbidden")
        assert found["scope"] == "admin"
        assert submitter.job(submitter.submit(body | {"priority": -1}))["priority"] == -1
        urgent = admin.slow_job(priority=5)
        admin.client.delete(f"/v1/jobs/{urgent}")
        again = submitter.client.post(f"/v1/jobs/{urgent}/retry").json()
        assert (admin.job(urgent)["priority"], again["priority"]) == (5, 0)
        admin.client.delete(f"/v1/jobs/{again['id']}")


def test_a_job_that_has_not_succeeded_is_tried_again(server: Server) -> None:
    doomed = server.slow_job(seed=90, priority=-2)
    early = server.client.post(f"/v1/jobs/{doomed}/retry")
    assert problem(early, 409, "conflict")["state"] in ("queued", "running")
    server.client.delete(f"/v1/jobs/{doomed}")
    response = server.client.post(f"/v1/jobs/{doomed}/retry")
    again = response.json()
    assert (response.status_code, response.headers["Location"]) == (202, f"/v1/jobs/{again['id']}")
    assert again["id"] != doomed
    first = server.job(doomed)
    same = ("model", "kind", "method", "seconds", "seed", "certificates", "priority")
    assert {name: again[name] for name in same} == {name: first[name] for name in same}
    assert (again["priority"], first["state"]) == (-2, "cancelled")
    assert server.pid(again["id"])
    server.client.delete(f"/v1/jobs/{again['id']}")


def test_what_has_succeeded_is_not_tried_again_nor_is_a_part(server: Server) -> None:
    done = server.submit(small_request(server.model(SMALL), epsilons=[0.032]))
    server.ended(done)
    problem(server.client.post(f"/v1/jobs/{done}/retry"), 409, "conflict")
    part = row("d" * 32, server.model(SMALL), created_at=1.0, parent_id=done, part=0, state="failed")
    server.service.jobs.add(part)
    assert done in problem(server.client.post(f"/v1/jobs/{part.id}/retry"), 409, "conflict")["detail"]
    problem(server.client.post("/v1/jobs/x/retry"), 404, "not-found")


def test_a_parked_job_is_shown_as_one(server: Server) -> None:
    name = "c" * 32
    server.service.jobs.add(row(name, server.model(SMALL), created_at=1.0, state="running", attempt=3, deaths=2))
    server.service.jobs.died(Ticket(name, 3), "worker died (signal 9)")
    found = server.job(name)
    assert (found["state"], found["parked"]) == ("failed", True)
    assert int(name, 16) in numbers(server.client.get("/v1/jobs", params={"parked": True}))
