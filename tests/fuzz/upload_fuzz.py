"""Uploads that were valid once, changed at random: what reads them must neither fall nor hang nor leave anything.

    python tests/fuzz/upload_fuzz.py [--seconds 300] [--seed 0]

All go to the sandboxed reader, every tenth through a real server too: POST /v1/models, of data POST /v1/datasets, and
of a specification POST /v1/jobs. Every answer must be a success or a problem of status 4xx, in time; the server must
live, with bounded memory; no process, file or open descriptor may be left behind. Readers that died, or raised what is
not theirs to raise, are contained and so no failure, but listed. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fastapi_problem.error import Problem
from fuzz_server import Running, descendants, descriptors, resident, running
from upload_mutations import changed
from upload_reading import Batch
from upload_seeds import DATASET, INPUTS, NETWORK, OUTPUTS, SPECIFICATION, Upload, seeds

from provenn.api import problems
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspecting_data import InspectData, InspectedData
from provenn.api.jobs.inspection import Inspected, InspectModel, InspectSpecification
from provenn.api.jobs.inspector import Inspector
from provenn.api.settings import Settings
from provenn.verifier.errors import InvalidModel, ProvennError

SECONDS, MEMORY = 10, 1024
"""What reading one file may take: seconds, MiB beyond what a warm child has."""
SLACK = 5.0
"""Seconds beyond, for the process to start and end on a busy machine."""
GROWTH = 200.0
"""MiB by which the server may grow at most: what its own parsers and caches take."""
LEFT = 4
"""Descriptors that a server may have open after: idle connections, of the database and of clients."""
BY_HTTP = 10
"""Every so many inputs one takes the whole way."""
BATCH = 40
"""Inputs that one child reads."""
ACCEPTED = "accepted"
UNEXPECTED = "the reader could not take it"


@dataclass
class Outcome:
    """What happened. kinds: of inputs by format; answers: by problem type; strange: what readers died of, by detail."""

    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    strange: dict[str, Upload] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    by_http: int = 0
    slowest: tuple[float, str] = (0.0, "")
    server_memory: float = 0.0
    child_memory: float = 0.0


@dataclass(frozen=True)
class Answer:
    """kind: of problem, or `accepted`; trace: of what a reader had no right to raise."""

    status: int
    kind: str
    detail: str
    seconds: float
    trace: str = ""


class Reader:
    """The sandboxed reader, as the server uses it."""

    def __init__(self) -> None:
        self._inspector = Inspector(Settings(inspect_seconds=SECONDS, inspect_memory_mb=MEMORY))

    def read(self, upload: Upload) -> Answer:
        """In a child of its own."""
        start = time.monotonic()
        try:
            if upload.format == SPECIFICATION:
                self._inspector.inspect(InspectSpecification(upload.data, INPUTS, OUTPUTS))
            elif upload.format == DATASET:
                self._data(upload)
            else:
                self._model(upload)
        except (Problem, ProvennError) as error:
            found = problems.document(error if isinstance(error, Problem) else problems.of(error))
            return _refused(found, time.monotonic() - start)
        return Answer(200, ACCEPTED, "", time.monotonic() - start)

    def _model(self, upload: Upload) -> None:
        with tempfile.TemporaryFile() as sent, tempfile.TemporaryFile() as made:
            sent.write(upload.data)
            sent.flush()
            task = InspectModel(Descriptor(sent.fileno()), Descriptor(made.fileno()), upload.architecture)
            Inspected.of(self._inspector.inspect(task))

    def _data(self, upload: Upload) -> None:
        with tempfile.TemporaryFile() as sent, tempfile.TemporaryFile() as made:
            sent.write(upload.data)
            sent.flush()
            task = InspectData(Descriptor(sent.fileno()), Descriptor(made.fileno()), "fuzz")
            InspectedData.of(self._inspector.inspect(task))

    def read_all(self, uploads: list[Upload]) -> list[Answer]:
        """In one child together; each in one of its own if that child dies or is too slow."""
        try:
            said = self._inspector.inspect(Batch(tuple(uploads)))["said"]
        except (Problem, ProvennError):
            return [self.read(upload) for upload in uploads]
        return [_judged(seconds, told) for seconds, told in said]


def _judged(seconds: float, told: dict[str, Any]) -> Answer:
    if "answer" not in told:
        return _refused(told["problem"], seconds, told.get("trace", ""))
    if "summary" in told["answer"]:
        try:
            json.dumps(Inspected.of(told["answer"]).model_dump(), ensure_ascii=False).encode()
        except (InvalidModel, UnicodeEncodeError) as error:
            return Answer(500, "unspeakable", str(error), seconds)
    return Answer(200, ACCEPTED, "", seconds)


def _refused(found: dict[str, Any], seconds: float, trace: str = "") -> Answer:
    return Answer(found["status"], found["type"].rpartition(":")[2], found["detail"], seconds, trace)


class Service:
    """The same by HTTP; what a specification is about is a network of INPUTS and OUTPUTS."""

    def __init__(self, server: Running) -> None:
        self._client = server.client
        self._model = self._client.post("/v1/models", files={"file": NETWORK}).raise_for_status().json()["id"]

    def read(self, upload: Upload) -> Answer:
        """A job that is queued is cancelled at once."""
        start = time.monotonic()
        if upload.format == SPECIFICATION:
            body = {"model": self._model, "specification": upload.data.decode("latin-1"), "method": "ibp"}
            answer = self._client.post("/v1/jobs", json=body)
            if answer.is_success:
                self._client.delete(f"/v1/jobs/{answer.json()['id']}")
        elif upload.format == DATASET:
            answer = self._client.post("/v1/datasets", files={"file": ("fuzz", upload.data)})
        else:
            given = {} if upload.architecture is None else {"architecture": upload.architecture}
            answer = self._client.post("/v1/models", files={"file": ("fuzz", upload.data)}, data=given)
        took = time.monotonic() - start
        return Answer(answer.status_code, ACCEPTED, "", took) if answer.is_success else _refused(answer.json(), took)

    def alive(self) -> bool:
        """Whether it answers, and lists what it has."""
        return self._client.get("/healthz").is_success and self._client.get("/v1/models").is_success


def fuzz(server: Running, kept: list[Upload], seconds: float, seed: int) -> Outcome:
    """Changed uploads until the time is up."""
    chance, outcome, reader, service = Random(seed), Outcome(), Reader(), Service(server)
    for upload in kept:
        for by in (reader, service):
            answer = by.read(upload)
            if answer.kind != ACCEPTED:
                outcome.failures.append(f"{type(by).__name__} refuses a valid {upload.format}: {answer.detail}")
    before, end = _state(server), time.monotonic() + seconds
    with _watched(server.pid, outcome):
        while time.monotonic() < end:
            uploads = [changed(chance.choice(kept), kept, chance) for _ in range(BATCH)]
            for number, (upload, answer) in enumerate(zip(uploads, reader.read_all(uploads), strict=True)):
                _note(upload, answer, outcome)
                if number % BY_HTTP == 0:
                    _compare(upload, answer, service.read(upload), outcome)
    if not service.alive():
        outcome.failures.append("the server no longer answers")
    outcome.failures.extend(_left(server, before))
    grown = outcome.server_memory - before.memory
    if grown > GROWTH:
        outcome.failures.append(f"the server has grown by {grown:.0f} MiB")
    return outcome


def _note(upload: Upload, answer: Answer, outcome: Outcome) -> None:
    outcome.kinds[upload.format] += 1
    outcome.answers[answer.kind] += 1
    outcome.slowest = max(outcome.slowest, (answer.seconds, upload.format))
    if not answer.status < 500:
        outcome.failures.append(f"{upload.format}: status {answer.status}: {answer.detail}")
    if answer.seconds > SECONDS + SLACK:
        outcome.failures.append(f"{upload.format}: it took {answer.seconds:.1f} s")
    if answer.detail.startswith((UNEXPECTED, "time to read")):
        what = answer.trace.strip().splitlines()[-3:] if answer.trace else []
        outcome.strange.setdefault(" | ".join([f"{upload.format}: {answer.detail}", *map(str.strip, what)]), upload)


def _compare(upload: Upload, answer: Answer, whole: Answer, outcome: Outcome) -> None:
    """The way through the server leads to the same answer."""
    outcome.by_http += 1
    _note(upload, whole, outcome)
    if upload.format != SPECIFICATION and whole.kind != answer.kind:
        outcome.failures.append(f"{upload.format}: {answer.kind} by the reader, {whole.kind} by the server")


@dataclass(frozen=True)
class _State:
    memory: float
    processes: int
    descriptors: int


def _state(server: Running) -> _State:
    return _State(resident(server.pid), len(descendants(server.pid)), descriptors(server.pid))


def _left(server: Running, before: _State) -> Iterator[str]:
    """What there is more of than before, as soon as it had two seconds to go."""
    end = time.monotonic() + 2
    while time.monotonic() < end and len(descendants(server.pid)) > before.processes:
        time.sleep(0.05)
    after = _state(server)
    if after.processes > before.processes:
        yield f"{after.processes - before.processes} processes are left"
    if after.descriptors > before.descriptors + LEFT:
        yield f"{after.descriptors - before.descriptors} descriptors are left open"
    if files := sorted(path.name for path in (server.folder / "work").iterdir() if path.is_file()):
        yield f"files are left: {files[:5]}"


@contextmanager
def _watched(pid: int, outcome: Outcome) -> Iterator[None]:
    """Looks every 50 ms how much memory the server has, and every child of it or of this process."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            outcome.server_memory = max(outcome.server_memory, resident(pid))
            children = map(resident, descendants(pid) | descendants(os.getpid()) - {pid})
            outcome.child_memory = max(outcome.child_memory, *children, 0.0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def report(outcome: Outcome) -> Iterator[str]:
    """The table."""
    yield f"{outcome.kinds.total()} inputs, {outcome.by_http} of them by HTTP"
    yield "  " + ", ".join(f"{name} {count}" for name, count in outcome.kinds.most_common())
    for name, count in outcome.answers.most_common():
        yield f"{count:>8} {name}"
    yield f"slowest: {outcome.slowest[0]:.2f} s ({outcome.slowest[1]})"
    yield f"peak memory: server {outcome.server_memory:.0f} MiB, any child {outcome.child_memory:.0f} MiB"
    for what in outcome.strange:
        yield f"contained: {what}"
    for what in outcome.failures:
        yield f"FAILED {what}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs that readers died of")
    given = parser.parse_args()
    logging.getLogger("provenn.api").setLevel(logging.ERROR)
    limits = {"inspect_seconds": SECONDS, "inspect_memory_mb": MEMORY, "upload_limit": 1 << 23}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data", **limits) as server:
        outcome = fuzz(server, seeds(slow=True), given.seconds, given.seed)
    print("\n".join(report(outcome)))
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        for number, upload in enumerate(outcome.strange.values()):
            (given.keep / f"{number}.bin").write_bytes(upload.data)
            (given.keep / f"{number}.json").write_bytes(upload.architecture or b"")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
