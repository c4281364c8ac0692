"""The client against a real service; a stand-in only for services that misbehave."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cli_kit import PLAIN, PROPERTY
from service_kit import LARGE, Server, slow_request

import provenn
from provenn.api.client import Client, JobFailed, RequestRefused, ServiceError, ServiceUnreachable
from provenn.api.schemas import Inputs, JobRequest


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_from_upload_to_a_certificate_that_the_checker_accepts(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    path.write_bytes(PLAIN)
    model = client.upload(path)
    assert (model.input_shape, model.output_shape) == ([2], [2])
    assert client.upload(PLAIN).id == model.id
    inputs = Inputs(inputs=[[1.0, 0.0], [0.0, 1.0]], labels=[0, 0], epsilons=[0.1, 0.25], clip=(0.0, 1.0))
    seen: list[tuple[int, int, str]] = []
    job = client.certify(model.id, inputs, seconds=60)
    result = client.wait(job.id, lambda *progress: seen.append(progress), poll_seconds=0.02)
    assert [item.verdict for item in result.items] == ["verified", "verified", "falsified", "falsified"]
    assert seen[-1][0] <= seen[-1][1]
    for item in result.items[:2]:
        assert item.certificate is not None
        assert provenn.check(client.certificate(item.certificate), PLAIN).margin == item.margin


def test_a_property(client: Client) -> None:
    job = client.certify(client.upload(PLAIN).id, PROPERTY, method="crown")
    result = client.wait(job.id)
    assert (result.verdict, result.items[0].assurance) == ("verified", "checked")
    assert client.job(job.id).method == "crown"


def test_refusals_carry_the_detail_of_the_service(client: Client) -> None:
    with pytest.raises(RequestRefused, match=r"label 7, but the classes are 0 to 1") as refused:
        client.certify(client.upload(PLAIN).id, Inputs(inputs=[[1.0, 0.0]], labels=[7], epsilons=[0.1]))
    assert refused.value.status == 422
    assert refused.value.problem["errors"][0]["pointer"] == "#/inputs/labels/0"
    with pytest.raises(RequestRefused, match=r"\(HTTP 422\)"):
        client.upload(b"This is not a network.")
    with pytest.raises(RequestRefused, match="no certificate") as missing:
        client.certificate("0" * 64)
    assert missing.value.type.endswith("not-found")


def test_a_cancelled_job_has_no_result(client: Client) -> None:
    job = client.submit(JobRequest.model_validate({"model": client.upload(LARGE).id, **slow_request()}))
    client.cancel(job.id)
    with pytest.raises(JobFailed, match=f"job {job.id} is cancelled") as failed:
        client.wait(job.id)
    assert failed.value.state == "cancelled"


def test_nothing_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with Client(f"http://127.0.0.1:{closed.getsockname()[1]}", retry_seconds=0.5) as client:
            assert not client.ready()
            with pytest.raises(ServiceUnreachable, match="provenn serve"):
                client.job("any")


def test_a_request_that_is_sent_again_is_one_job_and_can_be_found(client: Client) -> None:
    model = client.upload(PLAIN).id
    inputs = Inputs(inputs=[[1.0, 0.0]], labels=[0], epsilons=[0.125])
    request = JobRequest(model=model, inputs=inputs, cache=False)
    first, again = client.submit(request, "again"), client.submit(request, "again")
    assert first.id == again.id
    client.wait(first.id)
    found = [job.id for job in client.jobs(model=model, state=["succeeded", "failed"], limit=1)]
    assert first.id in found
    assert len(found) == len(set(found))


def test_events_and_another_try(client: Client) -> None:
    job = client.submit(JobRequest.model_validate({"model": client.upload(LARGE).id, **slow_request()}))
    events = client.events(job.id)
    assert next(events).data["state"] == "queued"
    client.cancel(job.id)
    whole = list(client.events(job.id))
    assert [event.kind for event in list(events)[-2:]] == ["state", "end"]
    assert [event.data["state"] for event in whole if event.kind == "state"][-1] == "cancelled"
    ids = [event.id for event in whole if event.id is not None]
    assert [event.id for event in client.events(job.id, ids[0]) if event.id is not None] == ids[1:]
    again = client.retry(job.id)
    assert again.id != job.id
    client.cancel(again.id)
    with pytest.raises(RequestRefused, match="no job"):
        next(client.events("none"))


def test_a_stream_that_breaks_off_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provenn.api.client.events.RECONNECT_SECONDS", 0.0)
    asked: list[str | None] = []
    first = b': ping\n\nevent: state\ndata: {"state": "queued"}\nid: 1\n\nevent: progress\ndata: {}\n'
    second = b'event: state\ndata: {"state": "running"}\nid: 2\n\nevent: end\ndata: {}\n\n'

    def service(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 2:
            raise httpx.ConnectError("gone")
        return httpx.Response(200, content=first if len(asked) == 1 else second)

    with Client("http://service", transport=httpx.MockTransport(service)) as client:
        assert [(event.kind, event.id) for event in client.events("a")] == [("state", 1), ("state", 2), ("end", None)]
    assert asked == [None, "1", "1"]

    def silence(request: httpx.Request) -> httpx.Response:
        asked.append(None)
        return httpx.Response(200)

    asked.clear()
    with (
        Client("http://service", transport=httpx.MockTransport(silence)) as client,
        pytest.raises(ServiceUnreachable, match="before the job"),
    ):
        next(client.events("a"))
    assert len(asked) == 6


def test_ready(client: Client) -> None:
    assert client.ready()


def test_answers_that_are_not_the_service_s_own() -> None:
    def proxy(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/v1/certificates"):
            return httpx.Response(200, content=b"other bytes")
        return httpx.Response(502, text="<h1>Bad gateway</h1>")

    with Client("http://service", transport=httpx.MockTransport(proxy)) as client:
        with pytest.raises(RequestRefused, match="Bad gateway") as refused:
            client.job("any")
        assert (refused.value.status, refused.value.type) == (502, "about:blank")
        with pytest.raises(ServiceError, match="other bytes"):
            client.certificate("0" * 64)
