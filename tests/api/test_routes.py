"""The service as a client sees it: the good path, and every bad input as a problem."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_kit import SMALL, Server, mlp, serving, small_request, wait_for

from provenn.api.jobs.model import State
from provenn.api.problems import PREFIX
from provenn.api.signing_bundle import detach
from provenn.models.sandbox import LAYERS
from provenn.solvers.portfolio import BACKENDS

VNNLIB = "".join(f"(declare-const X_{i} Real)\n" for i in range(4)) + "".join(
    f"(declare-const Y_{i} Real)\n" for i in range(3)
)
BOX = "".join(f"(assert (>= X_{i} 0.1))\n(assert (<= X_{i} 0.2))\n" for i in range(4))
SPECIFICATION = VNNLIB + BOX + "(assert (>= Y_0 1000.0))\n"


def problem(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """The body of a response that must be this problem."""
    assert response.headers["content-type"] == "application/problem+json"
    found = dict(response.json())
    assert (response.status_code, found["status"], found["type"]) == (status, status, PREFIX + name), found
    assert found["title"]
    assert found["detail"]
    return found


def test_from_upload_to_certificate(server: Server) -> None:
    data = mlp([4, 8, 3], seed=5)
    model = server.upload(data, "folder/small.onnx").json()
    assert model["id"] == hashlib.sha256(data).hexdigest()
    assert (model["input_shape"], model["output_shape"], model["bytes"]) == ([4], [3], len(data))
    assert model["filename"] == "small.onnx"
    job = server.submit(small_request(model["id"], epsilons=[0.0001, 5.0], clip=None))
    found = server.ended(job)
    assert (found["state"], found["reason"]) == (State.SUCCEEDED, None)
    result = found["result"]
    assert [(i["index"], i["input"], i["epsilon"]) for i in result["items"]] == [(0, 0, 0.0001), (1, 0, 5.0)]
    assert [sum(c[v] for v in ("verified", "falsified", "unknown", "timeout")) for c in result["summary"]] == [1, 1]
    assert [c["epsilon"] for c in result["summary"]] == [0.0001, 5.0]


def test_a_verified_item_has_its_certificate(server: Server) -> None:
    model = server.model(SMALL)
    labels = [0, 1, 2]
    body = small_request(model, inputs=[[0.1, 0.2, 0.3, 0.4]] * 3, labels=labels, epsilons=[0.0001])
    items = server.ended(server.submit(body))["result"]["items"]
    assert sorted(i["verdict"] for i in items) == ["falsified", "falsified", "verified"]
    proved = next(i for i in items if i["verdict"] == "verified")
    assert (proved["assurance"], proved["counterexample"]) == ("checked", None)
    assert proved["margin"] > 0
    bundle = server.client.get(f"/v1/certificates/{proved['certificate']}/bundle")
    assert bundle.headers["content-type"] == "application/zip"
    assert hashlib.sha256(detach(bundle.content)).hexdigest() == proved["certificate"]
    manifest = server.client.get(f"/v1/certificates/{proved['certificate']}")
    with zipfile.ZipFile(io.BytesIO(bundle.content)) as files:
        assert files.read("manifest.json") == manifest.content
    assert isinstance(manifest.json(), dict)
    refuted = next(i for i in items if i["verdict"] == "falsified")
    assert (refuted["assurance"], refuted["certificate"]) == ("replayed", None)
    assert (len(refuted["counterexample"]["input"]), len(refuted["counterexample"]["output"])) == (4, 3)


def test_no_certificates_on_request(server: Server) -> None:
    body = small_request(server.model(SMALL), epsilons=[0.0001]) | {"certificates": False}
    items = server.ended(server.submit(body))["result"]["items"]
    assert [i["certificate"] for i in items] == [None]


@pytest.mark.parametrize("method", ["auto", "ibp", "crown"])
def test_a_vnnlib_property(server: Server, method: str) -> None:
    job = server.submit({"model": server.model(SMALL), "specification": SPECIFICATION, "method": method})
    found = server.ended(job)
    assert found["state"] == State.SUCCEEDED, found
    (item,) = found["result"]["items"]
    assert (item["input"], item["epsilon"], found["result"]["verdict"]) == (None, None, item["verdict"])
    assert item["verdict"] == "verified"


def test_the_same_bytes_are_one_model(server: Server) -> None:
    data = mlp([3, 5, 2], seed=7)
    first, second = server.upload(data, "one.onnx"), server.upload(data, "two.onnx")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json() == server.client.get(first.headers["location"]).json()


def test_events_end_with_the_final_state(server: Server) -> None:
    job = server.submit(small_request(server.model(SMALL)))
    response = server.client.get(f"/v1/jobs/{job}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.partition(": ") for line in response.text.splitlines() if line]
    names = [value for key, _, value in lines if key == "event"]
    data = [json.loads(value) for key, _, value in lines if key == "data"]
    assert names[-1] == "end"
    assert set(names[:-1]) <= {"state", "progress"}
    assert data[-1]["state"] == State.SUCCEEDED
    assert all("result" not in d for d in data)


def test_events_are_sent_while_the_job_runs(server: Server) -> None:
    job = server.slow_job()
    with server.client.stream("GET", f"/v1/jobs/{job}/events") as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        seen = next(d for d in map(progress, lines) if d["state"] == State.RUNNING and "progress" in d)
        assert seen["progress"]["total"] == 10_000
        server.client.delete(f"/v1/jobs/{job}")
        assert [progress(line) for line in lines][-1]["state"] == State.CANCELLED


def test_a_stopping_server_ends_its_streams(tmp_path: Path) -> None:
    heard: list[str] = []

    def follow(url: str) -> None:
        with httpx.stream("GET", url) as response:
            heard.extend(response.iter_lines())

    with serving(tmp_path) as server:
        thread = threading.Thread(target=follow, args=[f"{server.url}/v1/jobs/{server.slow_job()}/events"])
        thread.start()
        wait_for(lambda: heard)
    thread.join()
    assert "event: progress" in heard
    assert "event: end" not in heard


def progress(line: str) -> dict[str, Any]:
    return dict(json.loads(line.removeprefix("data: ")))


def test_jobs_are_paged_and_filtered(server: Server) -> None:
    model = server.model(SMALL)
    jobs = [server.submit(small_request(model)) for _ in range(3)]
    for job in jobs:
        server.ended(job)
    first = server.client.get("/v1/jobs", params={"limit": 2}).json()
    assert [j["id"] for j in first["items"]] == jobs[:0:-1]
    second = server.client.get("/v1/jobs", params={"limit": 2, "cursor": first["next"]}).json()
    assert second["items"][0]["id"] == jobs[0]
    done = server.client.get("/v1/jobs", params={"state": "succeeded", "limit": 100}).json()["items"]
    assert {j["state"] for j in done} == {"succeeded"}
    assert server.client.get("/v1/models", params={"limit": 1}).json()["items"]


def test_backends_and_health(server: Server) -> None:
    found = server.client.get("/v1/backends").json()
    assert [b["name"] for b in found] == list(BACKENDS)
    assert all(b["status"] and b["summary"] and b["norms"] for b in found)
    assert server.client.get("/healthz").json()["status"] == "ok"
    ready = server.client.get("/readyz").json()
    assert set(ready.pop("sandbox")) == set(LAYERS)
    assert ready.pop("slots") == 2
    assert set(ready.values()) == {"ready"}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "invalid-model"),
        (b"certainly not an ONNX file", "invalid-model"),
        (SMALL[: len(SMALL) // 2], "invalid-model"),
        (mlp([4, 8, 3], poison=float("nan")), "invalid-model"),
        (mlp([4, 8, 3], poison=float("inf")), "invalid-model"),
        (mlp([4, 8, 3], activation="Hardmax"), "unsupported-op"),
    ],
    ids=["empty", "text", "truncated", "nan", "inf", "unknown op"],
)
def test_bad_files_are_refused(server: Server, data: bytes, name: str) -> None:
    found = problem(server.upload(data), 422, name)
    if name == "unsupported-op":
        assert (found["node"], found["op_type"]) == ("act0", "Hardmax")
    digest = hashlib.sha256(data).hexdigest()
    assert server.client.get(f"/v1/models/{digest}").status_code == 404
    assert not (server.service.settings.data_dir / "blobs" / digest[:2] / digest).exists()


def test_uploads_are_limited_while_they_stream(server: Server) -> None:
    def chunks(total: int) -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(total):
            yield b"0" * 65536
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    problem(server.client.post("/v1/models", content=chunks(40), headers=headers), 413, "resource-limit")
    problem(server.upload(b"0" * (2 << 20)), 413, "resource-limit")
    problem(server.client.post("/v1/jobs", json={"model": "0" * (2 << 20)}), 413, "resource-limit")


def test_uploads_have_one_file_and_nothing_else(server: Server) -> None:
    two = [("file", ("a", SMALL)), ("file", ("b", SMALL))]
    problem(server.client.post("/v1/models", files=two), 422, "invalid-request")
    extra = server.client.post("/v1/models", files={"file": ("a", SMALL)}, data={"note": "hello"})
    problem(extra, 422, "invalid-request")
    assert "file" in problem(server.client.post("/v1/models"), 422, "invalid-request")["detail"]
    problem(server.client.post("/v1/models", files={"other": ("a", SMALL)}), 422, "invalid-request")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"inputs": [[0.1, 0.2, 0.3]]}, "#/inputs/inputs/0"),
        ({"inputs": []}, "#/inputs/inputs"),
        ({"inputs": [[0.1, 0.2, 0.3, "0.4"]]}, "#/inputs/inputs/0/3"),
        ({"inputs": [[0.1, float("nan"), 0.3, 0.4]]}, "#/inputs/inputs/0/1"),
        ({"inputs": [[0.1, 0.2, float("inf"), 0.4]]}, "#/inputs/inputs/0/2"),
        ({"labels": [3]}, "#/inputs/labels/0"),
        ({"labels": [-1]}, "#/inputs/labels/0"),
        ({"labels": [0, 1]}, "#/inputs"),
        ({"epsilons": [-0.1]}, "#/inputs/epsilons/0"),
        ({"epsilons": [float("nan")]}, "#/inputs/epsilons/0"),
        ({"epsilons": []}, "#/inputs/epsilons"),
        ({"norm": "3"}, "#/inputs/norm"),
        ({"clip": [1, 0]}, "#/inputs/clip"),
        ({"clip": [0]}, "#/inputs/clip/1"),
        ({"target": 3}, "#/inputs/target"),
        ({"target": 1}, "#/inputs/target"),
        ({"clip": [0, 0.3]}, "#/inputs/inputs/0"),
        ({"surprise": 1}, "#/inputs/surprise"),
    ],
)
def test_bad_inputs_are_refused_with_a_pointer(server: Server, changes: dict[str, Any], pointer: str) -> None:
    body = json.dumps(small_request(server.model(SMALL), **changes))
    response = server.client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    found = problem(response, 422, "invalid-request")
    assert found["errors"][0]["pointer"] == pointer
    assert found["errors"][0]["detail"] in found["detail"]


@pytest.mark.parametrize(
    ("changes", "status", "name"),
    [
        ({"method": "magic"}, 422, "backend-error"),
        ({"model": "0" * 64}, 404, "not-found"),
        ({"model": "small"}, 422, "invalid-request"),
        ({"budget": {"seconds": 0}}, 422, "invalid-request"),
        ({"budget": {"seconds": 1e9}}, 422, "invalid-request"),
        ({"inputs": None}, 422, "invalid-request"),
        ({"specification": SPECIFICATION}, 422, "invalid-request"),
        ({"inputs": None, "specification": "(assert"}, 422, "invalid-specification"),
        ({"inputs": None, "specification": ""}, 422, "invalid-specification"),
        ({"inputs": None, "specification": "(" * 100_000}, 413, "resource-limit"),
        ({"inputs": None, "specification": {"format": "no such"}}, 422, "invalid-specification"),
        ({"inputs": None, "specification": SPECIFICATION.replace("X_3", "X_2")}, 422, "invalid-specification"),
        ({"seed": -1}, 422, "invalid-request"),
        ({"surprise": 1}, 422, "invalid-request"),
    ],
)
def test_bad_requests_are_refused(server: Server, changes: dict[str, Any], status: int, name: str) -> None:
    body = small_request(server.model(SMALL)) | changes
    body = {key: value for key, value in body.items() if value is not None}
    problem(server.client.post("/v1/jobs", json=body), status, name)


def test_a_batch_has_a_limit(server: Server) -> None:
    body = small_request(server.model(SMALL), epsilons=[0.0] * 10_001)
    assert problem(server.client.post("/v1/jobs", json=body), 413, "resource-limit")["limit"] == "10000"


def test_what_is_not_json_is_refused(server: Server) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"{", b"[]", b"", b"\xff", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"):
        problem(server.client.post("/v1/jobs", content=content, headers=headers), 422, "invalid-request")


@pytest.mark.parametrize("path", ["/x", "/v1", "/v1/jobs/x", "/v1/jobs/x/events", "/v1/models/x", "/v1/certificates/x"])
def test_what_is_not_there_is_a_problem(server: Server, path: str) -> None:
    problem(server.client.get(path), 404, "not-found")


def test_other_methods_and_parameters_are_problems(server: Server) -> None:
    response = server.client.put("/v1/models")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"]
    for parameters in ({"limit": 0}, {"limit": 101}, {"cursor": "x"}, {"state": "lost"}):
        problem(server.client.get("/v1/jobs", params=parameters), 422, "invalid-request")


def test_our_own_mistakes_say_nothing_about_us(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(server.service.catalogue), "model", lambda *_: 1 / 0)
    found = problem(server.client.get("/v1/models/x"), 500, "internal-error")
    assert "division" not in json.dumps(found)
    assert server.client.get("/healthz").status_code == 200


def test_a_job_that_cannot_start_fails_with_its_problem(server: Server) -> None:
    model = server.model(SMALL)
    path = server.service.settings.data_dir / "blobs" / model[:2] / model
    data = path.read_bytes()
    path.write_bytes(b"rotten")
    try:
        found = server.ended(server.submit(small_request(model) | {"cache": False}))
    finally:
        path.write_bytes(data)
    assert found["state"] == State.FAILED
    assert found["error"]["type"] == PREFIX + "data-damaged"
    assert f"the blob {model} has other bytes" in found["reason"]
    assert found["reason"] == found["error"]["detail"]
    wait_for(lambda: server.service.engine.status == "ready")
