"""What an operator sees of a running service: metrics, logs, traces."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_kit import READ, SUBMIT, bearer, member, new_key
from prometheus_client.parser import text_string_to_metric_families
from service_kit import SMALL, Server, small_request, wait_for
from store_kit import new

from provenn.api import logs, tracing
from provenn.api.cli import main
from provenn.api.database import Database
from provenn.api.jobs.nodes import Nodes
from provenn.api.keys import Keys
from provenn.api.metrics import LATE, Metrics

pytestmark = pytest.mark.xdist_group("observability")
"""What the tests share is made once."""

ENDED = {"kind": "inputs", "method": "ibp", "state": "succeeded", "verdict": "verified"}
REQUEST = "submission-of-a-job-0001"


class Scraped:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Of the samples of this name that have these labels, together; 0 if there is none."""
        return float(sum(s.value for s in self._samples if s.name == name and labels.items() <= s.labels.items()))


def scraped(server: Server) -> Scraped:
    response = server.client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Scraped(response.text)


def test_an_ended_job_is_counted_once(server: Server) -> None:
    before = scraped(server)
    request = small_request(server.model(SMALL), epsilons=[1e-5], labels=[0]) | {"method": "ibp", "cache": False}
    job = server.ended(server.submit(request))
    labels = ENDED | {"verdict": job["result"]["verdict"]}
    after, again = scraped(server), scraped(server)
    for name in ("provenn_jobs_total", "provenn_job_seconds_count"):
        assert after.value(name, **labels) == before.value(name, **labels) + 1, name
        assert again.value(name, **labels) == after.value(name, **labels), name
    spent = [each.value("provenn_job_seconds_sum", **labels) for each in (before, after)]
    assert spent[1] - spent[0] == pytest.approx(job["compute_seconds"])
    assert after.value("provenn_queue_seconds_count") == before.value("provenn_queue_seconds_count") + 1


def test_what_is_so_now_is_told(server: Server) -> None:
    job = server.slow_job()
    wait_for(lambda: server.job(job)["state"] == "running")
    busy = scraped(server)
    assert busy.value("provenn_queue_depth", state="running") == 1
    assert busy.value("provenn_queue_depth", state="queued") == 0
    assert busy.value("provenn_queue_oldest_seconds") == 0
    assert busy.value("provenn_slots") == 2
    assert {"provenn_worker_restarts", "provenn_gpu_memory_used_bytes"} <= busy.families.keys()
    server.client.delete(f"/v1/jobs/{job}")
    server.ended(job)
    assert scraped(server).value("provenn_jobs_total", state="cancelled", verdict="none") >= 1


def test_requests_are_counted_by_route(server: Server) -> None:
    route = {"method": "GET", "route": "/v1/models/{model}", "status": "404"}
    before = scraped(server)
    for number in range(3):
        server.client.get(f"/v1/models/{number:064d}")
    server.client.get("/nothing/here-7f3a")
    server.client.request("BREW7F3A", "/v1/models")
    after = scraped(server)
    assert after.value("provenn_http_seconds_count", **route) == before.value("provenn_http_seconds_count", **route) + 3
    assert after.value("provenn_http_seconds_count", route="none", status="404") >= 1
    assert "7f3a" not in after.text.lower()
    assert f"{1:064d}" not in after.text


def test_metrics_are_the_operators(keyed: Server) -> None:
    for project, right in (("default", SUBMIT), ("default", READ), ("strangers", READ)):
        with member(keyed, project, right).client as client:
            assert client.get("/metrics").status_code == 403
    assert keyed.client.get("/metrics").status_code == 401
    with member(keyed, "default").client as client:
        assert "provenn_queue_depth" in client.get("/metrics").text


def test_rows_that_become_visible_late_count_and_those_from_before_do_not(database: Database) -> None:
    def end(name: str, at: float, **changes: Any) -> None:
        times = {"created_at": at - 3, "started_at": at - 2, "finished_at": at, "attempt": 1, "compute_seconds": 2.0}
        with database.writing() as session:
            session.add(new(name, **({"state": "failed"} | times | changes)))

    end("before", time.time() - 1)
    metrics = Metrics(database, Nodes(database, 40.0))
    metrics.refresh()
    began = time.time()
    end("first", began + 10)
    metrics.refresh()
    end("late", began + 9, parked=True)
    end("never-started", began + 9.5, started_at=None, state="cancelled", attempt=0, compute_seconds=0.0)
    metrics.refresh()
    end("later", began + 10 + 2 * LATE)
    for _ in range(2):
        metrics.refresh()
    samples = [s for family in metrics.registry.collect() for s in family.samples]

    def total(name: str) -> float:
        return sum(s.value for s in samples if s.name == name)

    assert total("provenn_jobs_total") == 4
    assert total("provenn_jobs_parked_total") == 1
    assert total("provenn_job_seconds_count") == total("provenn_queue_seconds_count") == 3
    assert total("provenn_job_seconds_sum") == 6
    assert total("provenn_queue_seconds_sum") == pytest.approx(3)


def test_a_part_adds_seconds_but_no_job(database: Database) -> None:
    metrics = Metrics(database, Nodes(database, 40.0))
    times = {"created_at": time.time(), "started_at": time.time(), "finished_at": time.time() + 1, "attempt": 1}
    with database.writing() as session:
        session.add(new("whole", state="running"))
        session.flush()
        session.add(new("part", state="succeeded", parent_id="whole", compute_seconds=3.0, **times))
    metrics.refresh()
    found = {s.name: s.value for family in metrics.registry.collect() for s in family.samples if "le" not in s.labels}
    assert found["provenn_job_seconds_sum"] == 3
    assert "provenn_jobs_total" not in found
    assert found["provenn_queue_seconds_count"] == 0


def test_every_metric_is_documented_with_its_labels(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `provenn_")]
    documented = {name: set(re.findall(r"`(\w+)`", row[2])) for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    found = scraped(server).families.values()
    assert documented.keys() == {
        f"{family.name}_total" if family.type == "counter" else family.name for family in found
    }
    for family in found:
        for sample in family.samples:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert sample.labels.keys() - {"le"} == documented[name], name


class Collector(ThreadingHTTPServer):
    """Takes what an OTLP exporter sends. paths, bodies: of its posts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.paths: list[str] = []
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Post(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.server.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as found:
        thread = threading.Thread(target=found.serve_forever, args=[0.05])
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()


@dataclass(frozen=True)
class Told:
    """What one run of a service has said of one job of one caller."""

    job: str
    key: str
    ticket: str
    lines: list[dict[str, Any]]
    spans: list[Any]
    sent: bytes


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    folder = tmp_path_factory.mktemp("told")
    settings = {"AUTHENTICATION": "keys", "LOG_FORMAT": "json", "THREADS": "1", "WORKERS": "1", "DRAIN_SECONDS": "0"}
    command = [sys.executable, "-m", "provenn", "serve", "--port", "0", "--data-dir", "data", "--json"]
    with collecting() as collector, (folder / "log").open("w") as log:
        variables = {f"PROVENN_{k}": v for k, v in settings.items()} | {"PROVENN_TRACE_ENDPOINT": collector.url}
        environment = {**os.environ, **variables}
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log) as process:
            try:
                assert process.stdout is not None
                job, key, ticket = _used(json.loads(process.stdout.readline())["url"], folder / "data")
            finally:
                process.send_signal(signal.SIGTERM)
    assert set(collector.paths) == {"/v1/traces"}
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    sent = [service.ExportTraceServiceRequest.FromString(body) for body in collector.bodies]
    spans = [
        s for each in sent for resource in each.resource_spans for scope in resource.scope_spans for s in scope.spans
    ]
    return Told(job, key, ticket, lines, spans, b"".join(collector.bodies))


def _used(url: str, folder: Path) -> tuple[str, str, str]:
    """A job of somebody, who follows it with a ticket: its id, the key, the ticket."""
    server = Server(url, None)  # type: ignore[arg-type]  # it is another process
    with server.client as client:
        wait_for(lambda: _ready(client))
        database = Database(f"sqlite:///{folder / 'provenn.db'}")
        key = new_key(Keys(database), "default", SUBMIT)
        database.close()
        client.headers.update(bearer(key))
        model = server.model(SMALL)
        response = client.post("/v1/jobs", json=small_request(model), headers={"X-Request-Id": REQUEST})
        job = str(response.json()["id"])
        server.ended(job)
        followed = client.post(f"/v1/jobs/{job}/ticket").json()["url"]
        assert "end" in httpx.get(url + followed).text
        client.get("/v1/models", params={"key": key})
    return job, key, followed.partition("ticket=")[2]


def _ready(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/readyz").status_code == 200)
    except httpx.TransportError:
        return False


def test_every_line_of_the_log_is_an_object_with_ids(told: Told) -> None:
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in told.lines)
    access = [line for line in told.lines if line["logger"] == "uvicorn.access"]
    assert any('"POST /v1/jobs HTTP/1.1" 202' in line["event"] and line["request"] == REQUEST for line in access)
    assert all("request" in line for line in access)
    engine = [line for line in told.lines if line.get("job") == told.job]
    assert [line["attempt"] for line in engine] == [1, 1]
    audit = [json.loads(line["event"]) for line in told.lines if line["logger"] == "provenn.audit"]
    assert {"object": told.job, "request": REQUEST}.items() <= audit[1].items()


def test_requests_and_jobs_have_spans(told: Told) -> None:
    names = {span.name for span in told.spans}
    assert {"POST /v1/models", "POST /v1/jobs", "GET /v1/jobs/{job}", "job"} <= names
    assert not [name for name in names if "readyz" in name]
    of = {span.name: {a.key: a.value for a in span.attributes} for span in told.spans}
    assert of["job"]["provenn.job"].string_value == told.job
    assert of["POST /v1/jobs"]["http.response.status_code"].int_value == 202
    assert of["POST /v1/jobs"]["provenn.request"].string_value == REQUEST


def test_no_secret_is_told(told: Told) -> None:
    log = json.dumps(told.lines)
    for secret in (told.key, told.ticket):
        assert len(secret) > 40
        assert secret not in log
        assert secret.encode() not in told.sent


def test_traces_without_the_packages_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setenv("PROVENN_TRACE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # that of this process stays as it is
    assert main(["serve", "--port", "0", "--data-dir", str(tmp_path)]) == 2
    assert 'pip install "provenn[tracing]"' in capsys.readouterr().err
    with pytest.raises(tracing.TracingUnavailable):
        tracing.start("http://127.0.0.1:9")
    tracing.start(None)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Puts back what `configure` changes for the whole process."""
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.error", "uvicorn.access")]
    kept = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in kept:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("kind", ["json", "text"])
def test_tracebacks_show_neither_keys_nor_variables(kind: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(kind, "info")
    key = f"pvn_{'0' * 16}_{'A' * 43}"
    log = logging.getLogger("provenn.api")
    log.debug("not this")
    try:
        value = "of a" + " variable"
        raise ValueError(f"no {key}")
    except ValueError:
        log.exception("it failed with %s", key)
    del value
    said = capsys.readouterr().err
    assert "ValueError: no pvn_0000000000000000_redacted" in said
    assert "it failed with pvn_0000000000000000_redacted" in said
    assert not [word for word in ("AAAA", "of a variable", "not this") if word in said]
