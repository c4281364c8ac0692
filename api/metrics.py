"""What a scraper is told: the queue, the jobs that have ended, the supervisors and their GPUs, the requests.

Jobs may run on any machine, so all but the requests is read from the database when it is asked for. Every replica of
the API tells the same of jobs: scrape one, or take the maximum over them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provenn.api.database import Database
from provenn.api.jobs.model import State
from provenn.api.jobs.nodes import Nodes
from provenn.api.tables import JobRow

WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600, 3600)
SPENT = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
ANSWERS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
PAGE = 10_000
LATE = 60.0
"""Seconds by which a row may become visible after the time that it bears: transactions take time, and clocks differ."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each of the others


class Metrics(Collector):
    """Everything under one registry. Jobs count from the moment that this process started."""

    def __init__(self, database: Database, nodes: Nodes) -> None:
        self._database, self._nodes = database, nodes
        self._lock = threading.Lock()
        self._began = self._seen = time.time()
        self._counted: dict[str, float] = {}
        self.registry = CollectorRegistry()
        labels = ["kind", "method", "state", "verdict"]
        self._jobs = Counter("provenn_jobs", "Jobs that have ended", labels, registry=self.registry)
        self._parked = Counter("provenn_jobs_parked", "Jobs that several workers died of", registry=self.registry)
        self._seconds = Histogram(
            "provenn_job_seconds",
            "Seconds of workers that a job, or a part of one, took; all attempts",
            labels,
            buckets=SPENT,
            registry=self.registry,
        )
        self._waits = Histogram(
            "provenn_queue_seconds",
            "Seconds from submission to the start, of jobs that were started once",
            buckets=WAITS,
            registry=self.registry,
        )
        self.requests = Histogram(
            "provenn_http_seconds",
            "Seconds until an answer was complete",
            ["method", "route", "status"],
            buckets=ANSWERS,
            registry=self.registry,
        )
        self.registry.register(self)

    def refresh(self) -> None:
        """Counts the jobs that have ended since the last time, and those that come late.   Raises: SQLAlchemyError."""
        with self._lock, self._database.reading() as session:
            since = max(self._began, self._seen - LATE)
            ended = select(JobRow).where(JobRow.finished_at >= since).execution_options(yield_per=PAGE)
            for job in session.scalars(ended):
                if job.id not in self._counted:
                    self._count(job)
            recent = self._seen - LATE
            self._counted = {job: at for job, at in self._counted.items() if at >= recent}

    def _count(self, job: JobRow) -> None:
        assert job.finished_at is not None
        self._seen = max(self._seen, job.finished_at)
        self._counted[job.id] = job.finished_at
        labels = (job.kind, job.method, job.state, job.verdict or "none")
        if job.started_at is not None:
            self._seconds.labels(*labels).observe(job.compute_seconds)
        if job.parent_id is not None:
            return
        self._jobs.labels(*labels).inc()
        if job.parked:
            self._parked.inc()
        if job.started_at is not None and job.attempt == 1:
            self._waits.observe(job.started_at - job.created_at)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not ask the database when it is made."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What is so now."""
        with self._database.reading() as session:
            by_state = select(JobRow.state, func.count()).where(JobRow.state.in_((State.QUEUED, State.RUNNING)))
            counts = dict(session.execute(by_state.group_by(JobRow.state)).all())
            oldest = session.scalar(select(func.min(JobRow.created_at)).where(JobRow.state == State.QUEUED))
        depth = {str(state): counts.get(state, 0) for state in (State.QUEUED, State.RUNNING)}
        yield _gauge("provenn_queue_depth", "Jobs that are not over", "state", depth)
        age = 0.0 if oldest is None else time.time() - oldest
        yield GaugeMetricFamily("provenn_queue_oldest_seconds", "Age of the oldest job that waits", value=age)
        yield from self._supervisors()

    def _supervisors(self) -> Iterator[Metric]:
        alive = list(self._nodes.alive())
        yield _gauge("provenn_slots", "Jobs a supervisor runs at a time", "node", {n.id: n.slots for n in alive})
        deaths = CounterMetricFamily("provenn_worker_restarts", "Workers of a supervisor that died", labels=["node"])
        for node in alive:
            deaths.add_metric([node.id], node.deaths)
        yield deaths
        for name, number in (("used", 0), ("total", 1)):
            family = GaugeMetricFamily(
                f"provenn_gpu_memory_{name}_bytes", f"GPU memory, {name}", labels=["node", "gpu"]
            )
            for node in alive:
                for gpu, sizes in (node.gpus or {}).items():
                    family.add_metric([node.id, gpu], sizes[number])
            yield family


class Timed:
    """Measures every request by its route, whatever the path was."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def relay(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, relay)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            if not route.endswith("/events"):  # a stream takes as long as its job
                method = scope["method"] if scope["method"] in METHODS else "other"
                answers = scope["app"].state.service.metrics.requests
                answers.labels(method, route, str(status)).observe(time.perf_counter() - began)


def _gauge(name: str, what: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
