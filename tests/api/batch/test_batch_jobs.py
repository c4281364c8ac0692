"""A batch through the service: parts that stay done, rows and a bundle that need not be believed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import Command
from PIL import Image
from service_kit import SMALL, Server, mlp, serving, wait_for

from provenn.api.batch.bundle import opened
from provenn.api.batch.checking import Given, check_batch
from provenn.api.batch.data import Data
from provenn.api.batch.rows import Row
from provenn.api.batch_schemas import BatchRequest
from provenn.api.client import Client, RequestRefused
from provenn.api.signing import Status, examine
from provenn.api.signing_batch import BATCH
from provenn.api.signing_bundle import detach
from provenn.api.signing_keys import PublicKeys
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
    plain = Data(POINTS, tuple(LABELS), tuple(map(str, range(23))))
    data = Data(POINTS, tuple(LABELS), tuple(f"cat/{k}.png" for k in range(23)))
    with Client(service.url) as client:
        model, dataset = client.upload(SMALL), client.upload_data(data)
        assert client.upload_data(plain).id == service.dataset(POINTS, LABELS) != dataset.id
        job = client.certify(model.id, BatchRequest(dataset=dataset.id, epsilons=["1/100"], clip=(0, 1)))
        found = client.wait(job.id)
        bundle, keys = tmp_path / "batch.zip", client.keys()
        bundle.write_bytes(client.batch_file(job.id, "batch.zip"))
        alone = tmp_path / "row.zip"
        alone.write_bytes(client.batch_item(job.id, 20))
        for wrong in (23, 10**30):
            with pytest.raises(RequestRefused, match=r"there is no row|less"):
                client.batch_item(job.id, wrong)
    assert found.batch is not None
    assert rows(service, job.id)[7].name == "cat/7.png"
    given, whole = Given(data, read_model(SMALL)[1], (4,)), hashlib.sha256(detach(bundle.read_bytes())).hexdigest()
    for path, count in ((bundle, 23), (alone, 1)):
        report = check_batch(path, SMALL, given)
        assert (report.rows, report.root) == (count, found.batch.root)
        with opened(path) as opened_again:
            said = examine(opened_again.signed(), SMALL, keys, BATCH)
            assert (said.status, said.certificate) == (Status.VALID, whole)
            assert examine(opened_again.signed(), SMALL, PublicKeys(), BATCH).status == Status.UNKNOWN_KEY
            assert examine(opened_again.signed(), mlp([4, 6, 2]), keys, BATCH).status == Status.INVALID
    with pytest.raises(CertificateRejected, match="data"):
        check_batch(bundle, SMALL, replace(given, data=plain))


def test_a_service_does_the_work_of_the_command(
    service: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every row is proved again here; images keep the names of their files."""
    monkeypatch.chdir(tmp_path)
    provenn = Command(capsys)
    Path("m.onnx").write_bytes(SMALL)
    for number, pixels in enumerate(POINTS[:4]):
        Path(f"images/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * pixels.reshape(2, 2)).astype(np.uint8)).save(f"images/{number % 2}/photo {number}.png")
    Path("keys.json").write_bytes(service.client.get("/v1/keys").content)
    about = ("--eps", "0.5,1", "--method", "crown", "--clip", "0", "255", "--divide", "255")
    ran = provenn("batch", "m.onnx", "images", *about, "--server", service.url, "--out", "o", "--json")
    assert (ran.code in (0, 10, 11), ran.json["inputs"], ran.json["rows"]) == (True, 4, 8), ran.err
    assert ran.json["root"] == service.job(ran.json["job"])["result"]["batch"]["root"]
    told = [Row.from_json(line) for line in Path("o/results.jsonl").read_text().splitlines()]
    assert told[2].name == "0/photo 2.png"
    assert all(row.seconds >= 0 for row in told)
    require = ("--model", "o/model.onnx", "--data", "images", "--keys", "keys.json", "--require-signature", "--json")
    checked = provenn("check", "o/batch.zip", *require)
    assert (checked.code, checked.json["signature"]["status"], checked.json["replayed"]) == (
        0,
        "valid",
        sum(row.verdict == "falsified" for row in told),
    )
    taken = provenn("batch-item", ran.json["job"], "5", "--server", service.url, "--out", "row.zip", "--json")
    assert (taken.code, taken.json["name"], taken.json["signed"]) == (0, told[5].name, True)
    alone = provenn("check", "row.zip", *require)
    assert (alone.code, alone.json["rows"], alone.json["root"]) == (0, 1, ran.json["root"])
    assert provenn("batch-item", "0" * 32, "5", "--server", service.url, "--out", "none.zip").code == 2
