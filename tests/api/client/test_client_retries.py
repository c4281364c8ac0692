"""What is tried again, for how long, and what never is: a real server between that is busy, or loses answers."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import numpy as np
import pytest
from cli_kit import PLAIN, PROPERTY
from client_kit import BUSY, Between, Reply
from service_kit import LARGE

from provenn.api.client import Client, RequestRefused, ServiceUnreachable, UnexpectedAnswer
from provenn.api.client.flow import FIRST_PAUSE, GROWTH, LONGEST_PAUSE, Exchange, Pause, answered, refusal
from provenn.api.schemas import JobRequest

AT = np.array([1.0, 0.0])


def test_a_service_that_is_busy_is_asked_again(between: Between, kind: Any) -> None:
    with kind(between.url) as client:
        between.fail("POST", "/v1/models", BUSY, Reply(429, b"", {"Retry-After": "0"}))
        between.fail("GET", "/v1/models", BUSY, BUSY)
        between.fail("POST", "/v1/jobs", BUSY, Reply(429, b"{}"))
        between.fail("GET", "/v1/jobs", BUSY, Reply(lost=True), Reply(cut=20))
        between.fail("GET", "/v1/certificates", Reply(cut=100), BUSY)
        assert client.verify(PLAIN, AT, label=0, eps=0.25).verdict == "verified"
        client.upload(PLAIN)
    assert between.faults == []


def test_an_answer_that_was_lost_makes_no_second_job(between: Between, misled: Client) -> None:
    model = misled.upload(PLAIN).id
    between.fail("POST", "/v1/jobs", Reply(lost=True))
    job = misled.submit(JobRequest(model=model, specification=PROPERTY, cache=False))
    first, again = (r for r in between.seen if r.path == "/v1/jobs")
    assert first.headers["Idempotency-Key"] == again.headers["Idempotency-Key"]
    before = [each.id for each in misled.jobs(model=model)]
    assert before.count(job.id) == 1
    assert misled.submit(JobRequest(model=model, specification=PROPERTY, cache=False)).id != job.id
    assert [each.id for each in misled.jobs(model=model)][1:] == before


def test_a_cancellation_whose_answer_was_lost(between: Between, misled: Client) -> None:
    asked = {"region": {"input": [0.0] * 64, "epsilon": 1.0}}
    body = {"model": misled.upload(LARGE).id, "method": "bab", "lipschitz": asked, "budget": {"seconds": 600}}
    job = misled.submit(JobRequest.model_validate(body))
    between.fail("DELETE", "/v1/jobs", Reply(lost=True))
    assert misled.cancel(job.id).state == "cancelled"
    assert between.count("DELETE", "/v1/jobs") == 2
    between.fail("POST", "/v1/jobs", BUSY)
    with pytest.raises(RequestRefused, match="not now"):
        misled.retry(job.id)
    assert sum(r.path.endswith("/retry") for r in between.seen) == 1


def test_what_will_not_do_is_not_tried_again(between: Between, misled: Client) -> None:
    between.fail("GET", "/v1/jobs", Reply(500, b'{"detail": "a mistake"}'))
    with pytest.raises(RequestRefused, match=r"a mistake \(HTTP 500\)"):
        misled.job("any")
    with pytest.raises(RequestRefused, match="no job 'any'"):
        misled.job("any")
    assert between.count("GET", "/v1/jobs") == 2


def test_a_wait_that_is_too_long_is_not_begun(between: Between, kind: Any) -> None:
    with kind(between.url) as client:
        between.fail("GET", "/v1/jobs", Reply(429, b'{"detail": "a quota"}', {"Retry-After": "3600"}))
        with pytest.raises(RequestRefused, match="a quota") as refused:
            client.job("any")
    assert refused.value.retry_after == 3600


def test_there_is_an_end(between: Between) -> None:
    between.fail("GET", "/v1/jobs", *[Reply(lost=True)] * 100)
    with Client(between.url, retry_seconds=0.4) as client, pytest.raises(ServiceUnreachable, match=between.url):
        client.job("any")
    assert 2 <= between.count("GET", "/v1/jobs") <= 10
    with Client(between.url, retry_seconds=0) as client, pytest.raises(ServiceUnreachable):
        client.job("any")


def test_pauses_grow_until_the_service_is_back() -> None:
    """The conversation alone, without a clock or a network."""
    flow, pauses = answered(Exchange("GET", "/v1/keys", repeatable=True), "http://service", 1000.0), list[float]()
    assert isinstance(next(flow), Exchange)
    for _ in range(9):
        pause = flow.throw(httpx.ConnectError("nobody listens"))
        assert isinstance(pause, Pause)
        pauses.append(pause.seconds)
        assert isinstance(flow.send(None), Exchange)
    for number, seconds in enumerate(pauses):
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * GROWTH**number)
        assert longest / 2 <= seconds <= longest
    with pytest.raises(StopIteration) as end:
        flow.send(httpx.Response(200, content=b"back"))
    assert end.value.value.content == b"back"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(url, retry_seconds=0.3) as client:
        assert not client.ready()
        with pytest.raises(ServiceUnreachable, match="provenn serve"):
            client.keys()
    with Client("localhost:1") as client, pytest.raises(ServiceUnreachable, match="protocol"):
        client.keys()


def test_the_question_is_kept_open_for_as_long_as_is_asked(between: Between, misled: Client) -> None:
    job = misled.certify(misled.upload(PLAIN).id, PROPERTY)
    assert misled.wait(job.id).verdict == "verified"
    assert misled.wait(job.id, lambda *_: None, poll_seconds=0.5).verdict == "verified"
    asked = [r.path.partition("?")[2] for r in between.seen if r.method == "GET" and "/v1/jobs" in r.path]
    assert asked[0] == "wait=20.0"
    assert asked[-1] == "wait=0.5"


def test_when_to_come_back() -> None:
    hour, now = timedelta(hours=1), datetime.now(UTC)
    for told, least, most in [
        ("7", 7, 7),
        (format_datetime(now + hour, usegmt=True), 3000, 3600),
        (format_datetime(now - hour), 0, 0),
    ]:
        found = refusal(httpx.Response(429, headers={"Retry-After": told}))
        assert found.retry_after is not None
        assert least <= found.retry_after <= most


@pytest.mark.parametrize("told", ["", "soon", "-1", "9" * 30, "Mon, 99 Nov 2026 00:00:00 GMT"])
def test_when_nobody_says(told: str) -> None:
    assert refusal(httpx.Response(503, headers={"Retry-After": told}, content=b"[]")).retry_after is None


def test_answers_that_are_not_understood(between: Between, misled: Client) -> None:
    for body in (b"", b"<html>", b"[]", b'{"id": 3}', b"\xff" * 10):
        between.fail("GET", "/v1/models", Reply(200, body))
        with pytest.raises(UnexpectedAnswer, match="/v1/models/any with no Model"):
            misled.model("any")
    between.fail("GET", "/v1/models", Reply(200, b"no gzip", {"Content-Encoding": "gzip"}), Reply(302, b""))
    with pytest.raises(RequestRefused, match="302"):
        misled.model("any")
