"""No object of another project can be read, guessed or felt: every route, asked as a stranger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from access_kit import ADMIN, NOBODYS, RULES, Route, member, possessions, routes
from service_kit import SMALL, Server, mlp, small_request

pytestmark = pytest.mark.xdist_group("tenancy")
"""What the tests share is made once."""

HIDING = [route for route, rule in RULES.items() if rule.hides]
LISTING = [route for route, rule in RULES.items() if rule.lists]


def named(routes: list[Route]) -> Any:
    return pytest.mark.parametrize(("method", "path"), routes, ids=[" ".join(route) for route in routes])


@pytest.fixture(scope="module")
def owner(keyed: Server) -> Iterator[Server]:
    found = member(keyed, "owner")
    with found.client:
        yield found


@pytest.fixture(scope="module")
def stranger(keyed: Server) -> Iterator[Server]:
    found = member(keyed, "stranger")
    with found.client:
        yield found


@pytest.fixture(scope="module")
def owned(owner: Server) -> dict[str, str]:
    return possessions(owner)


def filled(path: str, names: dict[str, str]) -> tuple[str, str]:
    """The path about this project's object, and the object's name."""
    kind, *_ = re.findall(r"\{(\w+)\}", path)
    return path.replace(f"{{{kind}}}", names[kind]).replace("{name}", "rows.jsonl").replace("{row}", "0"), names[kind]


def same(one: httpx.Response, name: str, other: httpx.Response, other_name: str) -> bool:
    """Whether the answers differ in nothing but the names they were asked about."""
    theirs = {key: value for key, value in one.headers.items() if key not in ("date", "x-request-id")}
    ours = {key: value for key, value in other.headers.items() if key not in ("date", "x-request-id")}
    return (one.status_code, one.text.replace(name, "NAME"), theirs) == (
        other.status_code,
        other.text.replace(other_name, "NAME"),
        ours,
    )


def test_every_route_has_its_rule() -> None:
    assert routes() == set(RULES), "say in access_kit.RULES what a stranger gets of a new route"


def test_a_rule_says_what_the_path_shows() -> None:
    alike = {("GET", "/v1/schemas/{schema}")}  # for everybody
    assert {route for route in RULES if "{" in route[1]} - alike == set(HIDING)


@named(HIDING)
def test_what_others_have_is_not_there(stranger: Server, owned: dict[str, str], method: str, path: str) -> None:
    theirs, name = filled(path, owned)
    nobodys, none = filled(path, NOBODYS)
    found = stranger.client.request(method, theirs)
    assert found.status_code == 404
    assert same(found, name, stranger.client.request(method, nobodys), none)


def test_all_of_it_is_there_for_its_owner(owner: Server, owned: dict[str, str]) -> None:
    for method, path in HIDING:
        if method == "GET":
            assert owner.client.get(filled(path, owned)[0]).status_code == 200, path
    job = owner.client.get(f"/v1/jobs/{owned['job']}").json()
    assert job["result"]["items"][0]["verdict"] == "verified"


@named(LISTING)
def test_lists_are_of_the_own_project(stranger: Server, owned: dict[str, str], method: str, path: str) -> None:
    fresh = member(stranger, f"empty {path}")
    with fresh.client as client:
        items = client.get(path).json()["items"]
        assert items == [] if path != "/v1/api-keys" else len(items) == 1
        text = client.get(path).text
    assert not [name for name in owned.values() if name in text]


@pytest.mark.parametrize(("path", "kind"), [("models", "model"), ("jobs", "job"), ("api-keys", "key")])
def test_cursors_of_others_are_nobody_s(stranger: Server, owned: dict[str, str], path: str, kind: str) -> None:
    stranger.model(mlp([4, 6, 3], seed=43))
    theirs = stranger.client.get(f"/v1/{path}", params={"cursor": owned[kind]})
    nobodys = stranger.client.get(f"/v1/{path}", params={"cursor": NOBODYS[kind]})
    assert same(theirs, owned[kind], nobodys, NOBODYS[kind])


def test_cursors_into_the_audit_log_of_others(owner: Server, stranger: Server, owned: dict[str, str]) -> None:
    theirs = owner.client.get("/v1/audit", params={"limit": 1}).json()["next"]
    one = stranger.client.get("/v1/audit", params={"cursor": theirs})
    assert theirs is not None
    assert one.json() == stranger.client.get("/v1/audit", params={"cursor": NOBODYS["job"]}).json()


def test_filters_by_what_others_have_find_nothing(stranger: Server, owned: dict[str, str]) -> None:
    for asked in ({"model": owned["model"]}, {"parent": owned["job"]}):
        assert stranger.client.get("/v1/jobs", params=asked).json()["items"] == []


def test_no_job_about_a_network_of_others(keyed: Server, owned: dict[str, str]) -> None:
    with member(keyed, "poor").client as client:
        found = client.post("/v1/jobs", json=small_request(owned["model"]))
        assert found.status_code == 404
        nobodys = client.post("/v1/jobs", json=small_request(NOBODYS["model"]))
        assert same(found, owned["model"], nobodys, NOBODYS["model"])


def test_the_same_bytes_are_new_to_every_project(keyed: Server) -> None:
    data = mlp([4, 6, 3], seed=42)
    answers = []
    for project in ("north", "south"):
        with member(keyed, project).client as client:
            answers.append(client.post("/v1/models", files={"file": ("network.onnx", data)}))
    assert [answer.status_code for answer in answers] == [201, 201]
    one, two = (answer.json() for answer in answers)
    assert one.pop("created_at") != two.pop("created_at")
    assert one == two


def test_an_answer_is_reused_within_a_project_alone(keyed: Server) -> None:
    answers = []
    for project in ("east", "west"):
        seen = member(keyed, project)
        with seen.client:
            answers.append(seen.ended(seen.submit(small_request(seen.model(SMALL), epsilons=[0.0001]))))
    for job in answers:
        assert job["state"] == "succeeded"
        assert job["attempt"] == 1  # computed, not taken from the other project
        assert job.get("reused") is None


def test_an_idempotency_key_is_the_project_s_own(keyed: Server) -> None:
    made = []
    for project in ("first", "second"):
        seen = member(keyed, project)
        with seen.client:
            body = small_request(seen.model(SMALL))
            answer = seen.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "the same everywhere"})
            assert answer.status_code == 202
            made.append(answer.json()["id"])
            seen.ended(made[-1])
    assert made[0] != made[1]


def test_keys_of_others_cannot_be_revoked(keyed: Server, stranger: Server, owned: dict[str, str]) -> None:
    assert stranger.client.delete(f"/v1/api-keys/{owned['key']}").status_code == 404
    row = keyed.service.keys.get(owned["key"])
    assert row is not None
    assert row.revoked_at is None


def test_a_job_goes_on_although_strangers_cancel_it(owner: Server, stranger: Server) -> None:
    job = owner.slow_job()
    assert stranger.client.delete(f"/v1/jobs/{job}").status_code == 404
    assert owner.job(job)["state"] in ("queued", "running")
    owner.client.delete(f"/v1/jobs/{job}")


def test_admin_is_of_the_own_project(stranger: Server) -> None:
    made = stranger.client.post("/v1/api-keys", json={"name": "deputy", "scopes": [ADMIN]}).json()
    row = stranger.service.keys.get(made["id"])
    assert row is not None
    assert row.project_id == stranger.service.keys.project("stranger").id
