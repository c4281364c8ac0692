"""A question that was answered, with checked certificates, is answered again at once; nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_kit import SMALL, Server, small_request
from store_kit import OTHER, door, new

import provenn
from provenn.api.database import Database
from provenn.api.jobs.questions import question
from provenn.api.jobs.store import Answer, Ticket
from provenn.api.jobs.submissions import Submissions
from provenn.api.report import joined
from provenn.api.schemas import Item, JobRequest
from provenn.api.tables import JobRow

VERSION = provenn.__version__
ASKED = {"model": "0" * 64, "inputs": {"inputs": [[0.5]], "labels": [0], "epsilons": [0.1]}}


def test_a_proved_answer_comes_at_once_with_its_certificates(server: Server) -> None:
    body = small_request(server.model(SMALL), labels=[1], epsilons=[0.0003]) | {"seed": 4}
    first = server.ended(server.submit(body))
    again = server.job(server.submit(body | {"budget": {"seconds": 1}, "priority": -3}))
    assert (first["verdict"], first["reused"]) == ("verified", None)
    assert (again["state"], again["verdict"], again["reused"]) == ("succeeded", "verified", first["id"])
    assert again["id"] != first["id"]
    assert again["result"] == first["result"]
    assert (again["compute_seconds"], again["attempt"], again["progress"]["fraction"]) == (0, 0, 1)
    assert [(each["state"], each["reason"]) for each in again["history"]] == [
        ("succeeded", f"job {first['id']} has answered this question")
    ]
    certificate = again["result"]["items"][0]["certificate"]
    assert server.client.get(f"/v1/certificates/{certificate}/bundle").status_code == 200
    third = server.job(server.submit(body))
    assert third["reused"] == first["id"]
    assert server.ended(server.submit(body | {"cache": False}))["reused"] is None


def test_a_submission_says_that_nothing_is_left_to_do(server: Server) -> None:
    body = small_request(server.model(SMALL), labels=[1], epsilons=[0.0004])
    assert server.client.post("/v1/jobs", json=body).status_code == 202
    server.ended(server.client.get("/v1/jobs").json()["items"][0]["id"])
    assert server.client.post("/v1/jobs", json=body).status_code == 200


@pytest.mark.parametrize("changes", [{"labels": [0], "epsilons": [5.0]}, {"labels": [1], "epsilons": [5.0]}])
def test_what_is_not_proved_is_computed_again(server: Server, changes: dict[str, Any]) -> None:
    body = small_request(server.model(SMALL), **changes)
    assert server.ended(server.submit(body))["verdict"] != "verified"
    assert server.ended(server.submit(body))["reused"] is None


def test_a_vanished_certificate_is_made_again(server: Server) -> None:
    body = small_request(server.model(SMALL), labels=[1], epsilons=[0.0005])
    first = server.ended(server.submit(body))
    path = server.service.blobs.local(first["result"]["items"][0]["certificate"])
    path.unlink()
    again = server.ended(server.submit(body))
    assert again["reused"] is None
    assert again["result"]["items"][0]["certificate"] == first["result"]["items"][0]["certificate"]
    assert path.exists()


@pytest.fixture
def entrance(database: Database, tmp_path: Path) -> Submissions:
    return door(database, tmp_path)


def answered(entrance: Submissions, name: str, **changes: Any) -> JobRow:
    """A job about the question `q` that has succeeded."""
    about = {"reusable": True, "verdict": "verified", "version": VERSION} | {
        key: changes.pop(key) for key in ("reusable", "verdict", "version") if key in changes
    }
    entrance.submit(new(name, **({"question": "q", "kind": "inputs"} | changes)))
    job = entrance.store.claim("me", 60)
    assert job is not None
    certificate = entrance.blobs.put(b"certificate")
    result = entrance.blobs.put(joined([item(certificate)], {}).model_dump_json().encode())
    ticket = Ticket(job.id, job.attempt)
    answer = Answer(result, [certificate], about["verdict"], about["reusable"], about["version"])
    entrance.store.finish(ticket, answer)
    found = entrance.store.get(job.id)
    assert found is not None
    return found


def item(certificate: str) -> Item:
    nothing = dict.fromkeys(("input", "epsilon", "margin", "reason", "counterexample"))
    told = {"index": 0, "verdict": "verified", "method": "m", "seconds": 1.0, "assurance": "checked"}
    return Item.model_validate(nothing | told | {"certificate": certificate})


def reused(entrance: Submissions, name: str = "b", **changes: Any) -> str | None:
    return entrance.submit(new(name, **({"question": "q", "kind": "inputs"} | changes))).reused


def test_the_same_question_is_answered(entrance: Submissions) -> None:
    first = answered(entrance, "a")
    again = entrance.submit(new("b", question="q", kind="inputs"))
    assert (again.state, again.reused, again.result) == ("succeeded", "a", first.result)
    assert [state.state for state in entrance.store.transitions("b")] == ["succeeded"]
    assert reused(entrance, "c") == "a"


@pytest.mark.parametrize(
    "changes",
    [{"question": "another"}, {"question": None}, {"project": OTHER}],
    ids=["another question", "no question", "another project"],
)
def test_another_question_is_not(entrance: Submissions, changes: dict[str, Any]) -> None:
    answered(entrance, "a")
    assert reused(entrance, **changes) is None


@pytest.mark.parametrize("changes", [{"reusable": False}, {"version": "0.0"}], ids=["no certificate", "old version"])
def test_only_checked_answers_of_this_version_count(entrance: Submissions, changes: dict[str, Any]) -> None:
    answered(entrance, "a", **changes)
    assert reused(entrance) is None


@pytest.mark.parametrize(
    ("kind", "verdict", "seconds", "taken"),
    [
        ("inputs", "verified", 100.0, True),
        ("specification", "verified", 100.0, True),
        ("monotonicity", "verified", 100.0, True),
        ("monotonicity", "unknown", 100.0, False),
        ("monotonicity", "unknown", 10.0, True),
        ("lipschitz", "verified", 100.0, False),
        ("lipschitz", "verified", 10.0, True),
        ("lipschitz", "verified", 1.0, True),
        ("jacobian", "verified", 10.1, False),
    ],
)
def test_what_gets_better_with_time_needs_as_much_of_it(
    entrance: Submissions, kind: str, verdict: str, seconds: float, taken: bool
) -> None:
    answered(entrance, "a", kind=kind, verdict=verdict, seconds=10.0)
    assert reused(entrance, kind=kind, seconds=seconds) == ("a" if taken else None)


def test_the_largest_budget_counts(entrance: Submissions) -> None:
    for name, seconds in (("a", 10.0), ("c", 30.0)):
        answered(entrance, name, kind="lipschitz", seconds=seconds)
    assert reused(entrance, "d", kind="lipschitz", seconds=20.0) == "c"
    assert reused(entrance, "e", kind="lipschitz", seconds=10.0) == "c"


def test_parts_neither_ask_nor_answer(entrance: Submissions) -> None:
    entrance.submit(new("whole"))
    part = answered(entrance, "a", parent_id="whole", part=0, priority=5)
    assert part.id == "a"
    assert reused(entrance) is None


def test_a_missing_blob_is_noticed(entrance: Submissions) -> None:
    row = answered(entrance, "a")
    assert row.result is not None
    entrance.blobs.local(row.result).unlink()
    assert reused(entrance) is None


@given(st.sampled_from(["budget", "priority", "cache"]), st.integers(1, 10))
def test_a_question_leaves_out_what_an_answer_does_not_depend_on(name: str, value: int) -> None:
    changed = {"budget": {"seconds": value}, "priority": value, "cache": False}[name]
    assert asked(**{name: changed}) == asked()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "1" * 64},
        {"method": "crown"},
        {"seed": 1},
        {"certificates": False},
        {"semantics": "float32"},
        {"inputs": ASKED["inputs"] | {"clip": [0, 1]}},  # type: ignore[operator]
        {"inputs": ASKED["inputs"] | {"norm": "2"}},  # type: ignore[operator]
        {"inputs": None, "lipschitz": {}},
    ],
    ids=lambda change: " ".join(change),
)
def test_a_question_is_all_that_the_answer_depends_on(change: dict[str, Any]) -> None:
    assert asked(**change) != asked()


def test_a_question_depends_on_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = asked()
    monkeypatch.setattr("provenn.api.jobs.questions.provenn_version", lambda: "99")
    assert asked() != before


def asked(**changes: Any) -> str:
    body = {key: value for key, value in (ASKED | changes).items() if value is not None}
    return question(JobRequest.model_validate_json(json.dumps(body)))
