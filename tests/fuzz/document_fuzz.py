"""Requests that the OpenAPI document allows, and ones that it does not, against a real server: does it keep its word?

    python tests/fuzz/document_fuzz.py [--seconds 300] [--seed 0]

Every answer must have a status, a content type and a body that the document states, none a 5xx; what the document
forbids must be refused and what it allows accepted, but for the refusals that `expected` gives the reason of.
Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from fuzz_server import running
from schemathesis.core.failures import Failure
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.run import PhaseName
from schemathesis.generation import GenerationMode
from schemathesis.generation.case import Case
from upload_seeds import DATA, INPUTS, NETWORK, OUTPUTS

TESTING = (PhaseName.EXAMPLES, PhaseName.COVERAGE, PhaseName.FUZZING, PhaseName.STATEFUL_TESTING)
UNREADABLE = {"invalid-model", "unsupported-op", "resource-limit"}
UNFIT = {"invalid-specification", "backend-error", "invalid-request"}
FILES = {"POST /v1/models": NETWORK, "POST /v1/datasets": DATA}
"""What is read, by operation."""
FREE = ("model", "seed", "priority", "certificates", "cache")
"""Members of a job that fit any question."""
SHOWN = 400
"""Characters of a failure's message."""


@dataclass(frozen=True)
class Extent:
    """How much is tried. phases: of TESTING; examples: of one operation and phase; seconds: after which it ends."""

    phases: tuple[PhaseName, ...] = TESTING
    examples: int = 10
    seconds: int | None = None
    seed: int = 0


@dataclass
class Found:
    """answers: how many had which status; failures: what was wrong, with the request."""

    answers: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)


def tried(url: str, key: str | None, known: Mapping[str, str], extent: Extent) -> Found:
    """Requests to a server. key: an API key, None where none is needed; known: ids of what exists, by their name."""
    found = Found()
    for event in from_schema(_schema(url, key, known, extent)).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(event, found)
        elif isinstance(event, events.NonFatalError):
            found.failures[f"{event.label}: error"] = str(event.info.format())[:SHOWN]
        elif isinstance(event, events.FatalError):
            raise event.exception
    return found


def _note(event: events.ScenarioFinished, found: Found) -> None:
    for interaction in event.recorder.interactions.values():
        found.answers[0 if interaction.response is None else interaction.response.status_code] += 1
    for checks in event.recorder.checks.values():
        for check in checks:
            if check.status == Status.FAILURE and check.failure_info is not None:
                failure = check.failure_info.failure
                what = f"{failure.operation}: {check.name}"
                found.failures.setdefault(what, f"{failure.message[:SHOWN]}\n    {check.failure_info.code_sample}")


def _schema(url: str, key: str | None, known: Mapping[str, str], extent: Extent) -> Any:
    phases = {phase.value: {"enabled": phase in extent.phases} for phase in TESTING}
    settings: dict[str, Any] = {
        "base-url": url,
        "seed": extent.seed,
        "continue-on-failure": True,
        "request-timeout": 60,
        "suppress-health-check": ["all"],  # they are about how fast requests are made up, not about the server
        "phases": phases,
        "generation": {"max-examples": extent.examples, "no-shrink": True, "database": "none"},
    }
    if extent.seconds is not None:
        settings["max-time"] = extent.seconds
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if headers:
        settings["headers"] = headers
    config = schemathesis.Config.from_dict(settings)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config, headers=headers)
    for ways in schema.raw_schema["paths"].values():
        for operation in ways.values():
            if key is None:
                # What the document says about keys is about a server that needs them; this one lets everybody in.
                operation.pop("security", None)
            for response in operation["responses"].values():
                for link in response.get("links", {}).values():
                    link["x-schemathesis"] = {"merge_body": False}  # a link's body is all of it, not a part
    schema.hook("filter_failure")(_unexpected)
    schema.hook("map_case")(lambda context, case: _realistic(case, known))
    return schema


def _realistic(case: Case, known: Mapping[str, str]) -> Case:
    """Half of the allowed requests name what exists, half of the uploads hold a network: chance never would."""
    coin = zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode("utf-8", "replace"))
    if coin % 2 or case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return case
    for name in case.path_parameters or {}:
        if name in known:
            case.path_parameters[name] = known[name]
    if isinstance(case.body, dict) and case.operation.label == "POST /v1/jobs" and "model" in case.body:
        case.body["model"] = known["model"]
        if coin % 4 == 0:
            case.body = {"lipschitz": {}} | {k: v for k, v in case.body.items() if k in FREE}
    if isinstance(case.body, dict) and case.operation.label == "POST /v1/batches" and "dataset" in case.body:
        case.body |= {"model": known["model"], "dataset": known["dataset"]}
    if isinstance(case.body, dict) and case.operation.label in FILES and "file" in case.body:
        case.body["file"] = FILES[case.operation.label]
        case.body.pop("architecture", None)
        case.body.pop("preprocessing", None)
    return case


def _unexpected(context: object, failure: Failure, case: Case, response: schemathesis.Response) -> bool:
    return not expected(failure, case.operation.label, response)


def expected(failure: Failure, operation: str, response: schemathesis.Response) -> bool:
    """What the checks call a failure and is none, for a reason."""
    kind = type(failure).__name__
    if kind == "RejectedPositiveData" and response.status_code in (413, 422):
        refused = json.loads(response.content)
        name, pointers = refused["type"].rpartition(":")[2], {e["pointer"] for e in refused.get("errors", ())}
        return (
            # A schema says that there is a file, not what is in it.
            (operation == "POST /v1/models" and name in UNREADABLE)
            or (operation == "POST /v1/datasets" and name == "invalid-specification")
            # A job's parts have to fit each other and the network: exactly one question, a label an input, ...
            or (operation in ("POST /v1/jobs", "POST /v1/batches") and name in UNFIT | {"resource-limit"})
            # A key of idempotency was drawn before, for another request.
            or name == "idempotency-conflict"
            # The host of a URL has to exist, and to be on the public internet.
            or (operation == "POST /v1/webhooks" and name == "unusable-webhook")
            # A cursor has the right form, and nothing the client can see has that id.
            or pointers == {"cursor"}
        )
    # DELETE cancels a job, which stays what it is: its history can be read, and it can be tried again.
    return kind == "UseAfterFree" and "DELETE /v1/jobs/" in failure.message


def report(found: Found) -> Iterator[str]:
    """Lines: answers by status, and every failure."""
    yield f"{sum(found.answers.values())} requests"
    for status, count in sorted(found.answers.items()):
        yield f"{status or 'none':>6} {count}"
    for what, why in found.failures.items():
        yield f"FAILED {what}\n    {why}"


def possessions(client: httpx.Client) -> dict[str, str]:
    """A network and a job with a certificate, and what they are called."""
    model = client.post("/v1/models", files={"file": NETWORK}).raise_for_status().json()["id"]
    inputs = {"inputs": [[0.1] * INPUTS] * OUTPUTS, "labels": [*range(OUTPUTS)], "epsilons": [0.0001]}
    job = client.post("/v1/jobs", json={"model": model, "inputs": inputs}).raise_for_status().json()["id"]
    while client.get(f"/v1/jobs/{job}").json()["result"] is None:
        time.sleep(0.05)
    items = client.get(f"/v1/jobs/{job}").json()["result"]["items"]
    dataset = client.post("/v1/datasets", files={"file": DATA}).raise_for_status().json()["id"]
    certificate = next(item["certificate"] for item in items if item["certificate"])
    return {"model": model, "dataset": dataset, "job": job, "certificate": certificate}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "data") as server:
        extent = Extent(examples=20, seconds=given.seconds, seed=given.seed)
        found = tried(server.url, None, possessions(server.client), extent)
    print("\n".join(report(found)))
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
