"""A batch through the service: parts that stay done, rows and a bundle that need not be believed."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service_kit import SMALL, Server, mlp, serving, wait_for

from provenn.api.batch.checking import Given, check_batch
from provenn.api.batch.data import Data
from provenn.api.batch.rows import Row
from provenn.api.batch_schemas import BatchRequest
from provenn.api.client import Client
from provenn.models.reading import read_model
from provenn.verifier.check import CertificateRejected

pytestmark = pytest.mark.xdist_group("batch jobs")
"""What the tests share is made once."""
POINTS = np.random.default_rng(3).random((23, 4)).astype(np.float32)
LABELS = [1] * 23


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("batches"), workers=2, part_items=5) as running:
        yield running


def batch(service: Server, **asked: Any) -> dict[str, Any]:
    model, dataset = service.model(SMALL), service.dataset(POINTS, LABELS)
    answer = service.client.post("/v1/batches", json={"model": model, "dataset": dataset, "clip": [0, 1], **asked})
    assert answer.status_code == 202, answer.text
    found = service.ended(answer.json()["id"])
    assert found["state"] == "succeeded", found
    return found


def rows(service: Server, job: str) -> list[Row]:
    return [Row.from_json(line) for line in service.client.get(f"/v1/batches/{job}/files/rows.jsonl").iter_lines()]


def test_every_input_and_radius_has_its_row_and_its_proof(service: Server, tmp_path: Path) -> None:
    found = batch(service, epsilons=[0.001, "1/64", 0.5])
    assert found["kind"] == "batch"
    assert found["parts"] == {"succeeded": 5}
    told = rows(service, found["id"])
    assert [(row.index, row.epsilon) for row in told] == [(i, e) for i in range(23) for e in (0.001, 1 / 64, 0.5)]
    assert {row.verdict for row in told} == {"verified", "falsified"}
    bundle = tmp_path / "batch.zip"
    bundle.write_bytes(service.client.get(f"/v1/batches/{found['id']}/files/batch.zip").content)
    report = check_batch(bundle, SMALL)
    assert (report.rows, report.root) == (69, found["result"]["batch"]["root"])
    assert report.certificates == sum(row.verdict == "verified" for row in told)
    (first, *_) = found["result"]["batch"]["radii"]
    assert first["verdicts"]["verified"] == sum(r.verdict == "verified" and r.epsilon == 0.001 for r in told)
    assert first["certified"]["low"] <= first["certified"]["value"] <= first["certified"]["high"]
    with pytest.raises(CertificateRejected, match="another model"):
        check_batch(bundle, mlp([4, 6, 2], seed=9))


def test_brackets_and_a_span_of_the_data(service: Server) -> None:
    found = batch(service, largest=0.5, tolerance=0.1, first=20, count=7)
    told = rows(service, found["id"])
    assert [row.index for row in told] == [20, 21, 22]
    assert any(row.certified for row in told)
    for row in told:
        assert row.certified is None or row.attacked is None or row.certified < row.attacked


def test_a_part_that_is_done_stays_done(service: Server) -> None:
    """The worker of one part is killed: that part alone is tried again."""
    model, dataset = service.model(SMALL), service.dataset(POINTS, LABELS)
    asked = {"model": model, "dataset": dataset, "largest": 0.9, "tolerance": 0.0001, "budget": {"seconds": 5}}
    job = service.client.post("/v1/batches", json=asked).json()["id"]

    def parts() -> list[dict[str, Any]]:
        return list(service.client.get("/v1/jobs", params={"parent": job}).json()["items"])

    def killed() -> str | None:
        for part in parts():
            for pid in service.service.engine.worker_pids(part["id"]):
                os.kill(pid, signal.SIGKILL)
                return str(part["id"])
        return None

    victim = wait_for(killed)
    found = service.ended(job)
    assert found["state"] == "succeeded", found
    attempts = {part["id"]: part["attempt"] for part in parts()}
    assert attempts.pop(victim) == 2
    assert set(attempts.values()) == {1}
    assert len(rows(service, job)) == 23


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no archive", "is not a complete .npz file"),
        (archive(x=POINTS), "holds no classes"),
        (archive(x=POINTS, y=[1, 2]), "23"),
        (archive(x=POINTS, y=[-1] * 23), "classes count from 0"),
        (archive(x=POINTS * np.nan, y=LABELS), "finite"),
        (archive(x=POINTS[:, 0], y=LABELS), "inputs are [n, ...]"),
        (archive(x=np.array([{}] * 2, object), y=[0, 0]), "pickled"),
    ],
    ids=["no archive", "no classes", "too few", "negative", "nan", "flat", "pickled"],
)
def test_broken_data_are_refused(service: Server, data: bytes, reason: str) -> None:
    answer = service.client.post("/v1/datasets", files={"file": ("theirs.npz", data)})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert reason in answer.json()["detail"]
    assert "theirs.npz" in answer.json()["detail"]


def test_what_does_not_fit_is_refused(service: Server) -> None:
    model, small = service.model(SMALL), service.dataset(POINTS[:, :3], LABELS)
    other, good = service.dataset(POINTS, [9] * 23), service.dataset(POINTS, LABELS)
    for body, status, reason in (
        ({"dataset": small, "epsilons": [0.1]}, 422, "inputs of 3 numbers, but the network has 4 inputs"),
        ({"dataset": other, "epsilons": [0.1]}, 422, "class 9, but the classes are 0 to"),
        ({"dataset": "0" * 64, "epsilons": [0.1]}, 404, "dataset"),
        ({"dataset": good}, 422, "one of the two"),
        ({"dataset": good, "epsilons": [0.1], "first": 23}, 422, "the dataset has 23 inputs"),
        ({"dataset": good, "epsilons": ["a/b"]}, 422, "a/b"),
    ):
        answer = service.client.post("/v1/batches", json={"model": model, **body})
        assert (answer.status_code, reason in json.dumps(answer.json())) == (status, True), answer.text


def test_the_same_data_are_one_dataset(service: Server) -> None:
    first = service.dataset(POINTS, LABELS)
    assert service.dataset(POINTS.reshape(23, 2, 2), LABELS) == first
    assert first in {each["id"] for each in service.client.get("/v1/datasets").json()["items"]}
    told = service.client.get(f"/v1/datasets/{first}").json()
    assert (told["count"], told["width"], told["classes"]) == (23, 4, 2)


def test_from_python(service: Server, tmp_path: Path) -> None:
    data = Data(POINTS, tuple(LABELS), tuple(map(str, range(23))))
    with Client(service.url) as client:
        model, dataset = client.upload(SMALL), client.upload_data(data)
        assert dataset.id == service.dataset(POINTS, LABELS)
        job = client.certify(model.id, BatchRequest(dataset=dataset.id, epsilons=["1/100"], clip=(0, 1)))
        found = client.wait(job.id)
        bundle = tmp_path / "batch.zip"
        bundle.write_bytes(client.batch_file(job.id, "batch.zip"))
    assert found.batch is not None
    report = check_batch(bundle, SMALL, Given(data, read_model(SMALL)[1], (4,)))
    assert (report.rows, report.root) == (23, found.batch.root)
