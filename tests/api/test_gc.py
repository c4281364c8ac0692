"""What `provenn gc` deletes, what it keeps, and that a writer at the wrong moment loses nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Command
from s3_kit import Store, moto
from sqlalchemy import select

from provenn.api import gc as collection
from provenn.api.blobs import BlobMissing, Blobs
from provenn.api.catalogue import Catalogue
from provenn.api.database import Database
from provenn.api.gc import GRACE_SECONDS, Policy, collect
from provenn.api.jobs.store import Answer, JobStore, Ticket
from provenn.api.settings import Settings
from provenn.api.tables import (
    DEFAULT_PROJECT,
    CertificateRow,
    DatasetRow,
    DeliveryRow,
    FileRow,
    IdempotencyRow,
    JobRow,
    ModelRow,
    TransitionRow,
    WebhookRow,
)

OLD = 40 * 86_400.0
POLICY = Policy(30, models=False, key_hours=24)


class World:
    """A service's rows and blobs, as if they had been there for a while."""

    def __init__(self, url: str, folder: Path) -> None:
        self.settings = Settings(data_dir=folder, database=url)
        self.database, self.blobs = Database(url), Blobs.of(self.settings)
        self.store, self.catalogue = JobStore(self.database), Catalogue(self.database)

    def blob(self, data: bytes, age: float = OLD) -> str:
        name = self.blobs.put(data)
        self.age(self.settings.data_dir / "blobs" / name[:2] / name, age)
        return name

    def age(self, path: Path, age: float = OLD) -> None:
        os.utime(path, (time.time() - age,) * 2)

    def model(self, data: bytes, age: float = OLD) -> str:
        name = self.blob(data, age)
        created = time.time() - age
        self.catalogue.add(ModelRow(id=name, filename="m", bytes=len(data), summary={}, created_at=created))
        return name

    def job(self, name: str, model: str, certificates: tuple[bytes, ...] = (), age: float = OLD, **more: Any) -> str:
        """One that has succeeded so long ago."""
        row = JobRow(id=name, model_id=model, method="auto", seconds=1, seed=0, certificates=True, items=1,
                     request=self.blob(f"request {name}".encode(), age), **more)  # fmt: skip
        self.store.add(row)
        claimed = self.store.claim("me", 60)
        assert claimed is not None
        made = [self.blob(data, age) for data in certificates]
        result = self.blob(json.dumps({"job": name, "items": [{"certificate": c} for c in made]}).encode(), age)
        self.store.finish(Ticket(claimed.id, claimed.attempt), Answer(result, made, "verified", True, "0"))
        with self.database.writing() as session:
            kept = session.get(JobRow, claimed.sequence)
            assert kept is not None
            kept.changed_at = kept.finished_at = time.time() - age
        return name

    def collect(self, policy: Policy = POLICY, really: bool = True) -> dict[str, int]:
        return {each.what: each.count for each in collect(self.database, self.blobs, policy, really)}

    def later(self) -> None:
        """Everything set aside has been for long."""
        for path in (self.settings.data_dir / "blobs" / "aside").iterdir():
            self.age(path)

    def rows(self, table: Any) -> list[Any]:
        with self.database.reading() as session:
            return list(session.scalars(select(table)).all())

    def kept(self) -> set[bytes]:
        return {self.blobs.get(blob.digest) for blob in self.blobs.digests()}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    found = World(url if request.param == "sqlite" else request.getfixturevalue("postgresql")(), tmp_path)
    yield found
    found.database.close()


def test_old_jobs_go_with_all_that_is_theirs(world: World) -> None:
    model = world.model(b"model")
    world.job("old", model, (b"shared", b"alone"))
    world.job("young", model, (b"shared", b"new"), age=1)
    with world.database.writing() as session:
        session.add(WebhookRow(id="hook", project_id=DEFAULT_PROJECT, url="u", secret="s"))
        for job, age in (("old", OLD), ("young", 1)):
            session.add(IdempotencyRow(project_id=DEFAULT_PROJECT, key=job, digest="d", job_id=job,
                                       created_at=time.time() - age))  # fmt: skip
            session.flush()
            session.add(DeliveryRow(id=job, webhook_id="hook", job_id=job))
    planned = world.collect(really=False)
    assert {row.id for row in world.rows(JobRow)} == {"old", "young"}
    assert not list(world.blobs.aside())
    done = world.collect()
    assert planned == done == {
        "jobs": 1, "transitions": 3, "deliveries": 1, "certificates": 1, "idempotency keys": 1, "models": 0,
        "datasets": 0, "blobs to set aside": 3, "blobs to bring back": 0, "blobs to delete": 0, "unfinished files": 0,
    }  # fmt: skip
    for table in (TransitionRow, DeliveryRow, IdempotencyRow):
        assert {row.job_id for row in world.rows(table)} == {"young"}
    assert {(world.blobs.get(row.id), row.job_id) for row in world.rows(CertificateRow)} == {
        (b"shared", "young"),
        (b"new", "young"),
    }
    assert world.kept() >= {b"model", b"shared", b"new", b"request young"}
    assert not world.kept() & {b"alone", b"request old"}
    world.later()
    assert world.collect()["blobs to delete"] == 3
    assert not list(world.blobs.aside())
    assert not any(world.collect().values())


def test_nothing_is_old_unless_a_time_is_given(world: World) -> None:
    world.job("old", world.model(b"model"), (b"certificate",))
    assert not any(world.collect(Policy(None, models=True, key_hours=24)).values())


def test_jobs_that_are_not_over_stay_however_old(world: World) -> None:
    model = world.model(b"model")
    world.job("whole", model)
    world.job("part", model, parent_id="whole")
    world.store.add(JobRow(id="open", parent_id="whole", model_id=model, method="auto", seconds=1, seed=0,
                           certificates=True, items=1, request=world.blob(b"request open")))  # fmt: skip
    assert world.collect()["jobs"] == 0
    claimed = world.store.claim("me", 60)
    assert claimed is not None
    world.store.cancel("open")
    with world.database.writing() as session:
        row = session.get(JobRow, claimed.sequence)
        assert row is not None
        row.changed_at = 1.0
    assert world.collect()["jobs"] == 3
    assert world.kept() == {b"model"}


def test_what_a_batch_is_about_and_what_it_has_left(world: World) -> None:
    """Its files go with it; its dataset stays, until it is unused and unused ones are asked for."""
    model, data, unused = world.model(b"model"), world.blob(b"data"), world.blob(b"unused data")
    with world.database.writing() as session:
        for name in (data, unused):
            row = DatasetRow(id=name, filename="d", bytes=4, count=1, width=4, classes=2)
            row.created_at = time.time() - OLD
            session.add(row)
    for job, age in (("old", OLD), ("young", 1.0)):
        world.job(job, model, age=age, dataset_id=data, kind="batch")
        with world.database.writing() as session:
            session.add(FileRow(job_id=job, name="rows.jsonl", id=world.blob(job.encode()), bytes=3))
    assert world.collect(really=False) == world.collect()
    world.later()
    world.collect()
    assert {b"young", b"data", b"unused data"} <= world.kept()
    assert b"old" not in world.kept()
    assert [row.job_id for row in world.rows(FileRow)] == ["young"]
    asked = Policy(30, models=True, key_hours=24)
    assert world.collect(asked, really=False)["datasets"] == world.collect(asked)["datasets"] == 1
    assert [row.id for row in world.rows(DatasetRow)] == [data]


def test_networks_go_only_when_asked_for_and_unused(world: World) -> None:
    world.job("old", world.model(b"of an old job"))
    world.job("young", world.model(b"of a young job"), age=1)
    world.model(b"of none")
    world.model(b"just uploaded", age=1)
    assert world.collect()["models"] == 0
    asked = Policy(30, models=True, key_hours=24)
    assert world.collect(asked, really=False)["models"] == world.collect(asked)["models"] == 2
    assert {world.blobs.get(row.id) for row in world.rows(ModelRow)} == {b"of a young job", b"just uploaded"}


def test_a_dry_run_says_what_of_unused_networks_would_go(world: World) -> None:
    world.job("old", world.model(b"model"), (b"certificate",))
    asked = Policy(30, models=True, key_hours=24)
    assert world.collect(asked, really=False) == world.collect(asked)
    assert world.rows(ModelRow) == []
    assert world.kept() == set()


def test_young_blobs_and_files_stay(world: World) -> None:
    world.blob(b"uploaded just now", age=GRACE_SECONDS / 2)
    folder = world.settings.data_dir / "blobs" / "ab"
    folder.mkdir()
    for name, age in (("young#1", 1.0), ("old#2", OLD)):
        (folder / name).write_bytes(b"half")
        world.age(folder / name, age)
    found = world.collect()
    assert (found["blobs to set aside"], found["unfinished files"]) == (0, 1)
    assert [path.name for path in folder.iterdir()] == ["young#1"]


def test_a_blob_put_again_while_it_is_collected_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer between the reading of the rows and the setting aside, with its row after both: the worst moment."""
    name = world.blob(b"again")
    needed = collection._needed

    def interrupted(*arguments: Any) -> set[str]:
        found = needed(*arguments)
        world.blobs.put(b"again")
        return found

    monkeypatch.setattr(collection, "_needed", interrupted)
    assert world.collect()["blobs to set aside"] == 1
    monkeypatch.undo()
    world.catalogue.add(ModelRow(id=name, filename="m", bytes=1, summary={}))
    world.later()
    found = world.collect()
    assert (found["blobs to bring back"], found["blobs to delete"]) == (1, 0)
    assert world.blobs.get(name) == b"again"


def test_a_reader_does_not_notice(world: World) -> None:
    name = world.blob(b"unneeded")
    world.collect()
    assert world.blobs.local(name).read_bytes() == b"unneeded"


def test_a_result_that_cannot_be_read_names_nothing(world: World) -> None:
    model = world.model(b"model")
    world.job("old", model, (b"shared",))
    world.job("young", model, (b"shared",), age=1)
    (young,) = (row for row in world.rows(JobRow) if row.id == "young")
    world.blobs.withdraw(young.result)
    world.blobs.discard(young.result)
    with pytest.raises(BlobMissing):
        world.blobs.get(young.result)
    assert world.collect()["certificates"] == 1


def test_many_jobs_go_in_several_transactions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provenn.api.retention.BATCH", 2)
    model = world.model(b"model")
    for number in range(5):
        world.job(f"job{number}", model, (b"shared", f"of {number % 2}".encode()))
    planned = world.collect(really=False)
    assert world.collect() == planned
    assert (planned["jobs"], planned["certificates"]) == (5, 3)
    assert world.rows(CertificateRow) == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = Command(capsys)
    monkeypatch.setenv("PROVENN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PROVENN_RETENTION_DAYS", "30")
    assert "provenn db upgrade" in run("gc").err
    assert run("db", "upgrade").code == 0
    world = World(f"sqlite:///{tmp_path / 'provenn.db'}", tmp_path)
    world.job("old", world.model(b"model"))
    world.database.close()
    dry = run("gc")
    assert dry.code == 0
    assert "Nothing was changed: add --yes" in dry.out
    assert run("gc", "--dry-run", "--yes").code == 2
    found = run("gc", "--yes", "--json").json
    assert (found["dry_run"], found["keep_days"]) == (False, 30)
    amounts = {each["what"]: each for each in found["amounts"]}
    assert (amounts["jobs"]["count"], amounts["blobs to set aside"]["count"]) == (1, 2)
    assert amounts["blobs to set aside"]["bytes"] > 0
    kept = run("gc", "--keep-days", "1000", "--json").json
    assert (kept["dry_run"], kept["keep_days"]) == (True, 1000)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Store]:
    with moto() as running:
        yield running


@pytest.mark.xdist_group("blobs")
def test_in_a_bucket(bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path, **bucket.settings())  # type: ignore[arg-type]
    database, blobs = Database(settings.database_url), Blobs.of(settings)
    name = blobs.put(b"unneeded")
    assert blobs.local(name).exists()
    assert {a.what: a.count for a in collect(database, blobs, POLICY, True)}["blobs to set aside"] == 0
    monkeypatch.setattr(collection, "GRACE_SECONDS", -2.0)  # a bucket's times cannot be changed
    found = {a.what: a.count for a in collect(database, blobs, POLICY, True)}
    assert (found["blobs to set aside"], found["blobs to delete"]) == (1, 1)
    assert not (tmp_path / "cache" / name).exists()
    assert not blobs.exists(name)
    database.close()
