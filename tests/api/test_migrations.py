"""The schema's history: up and down with every row, on both databases."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from cli_kit import Command
from sqlalchemy import Engine, inspect, text
from sqlalchemy.orm import Session

from provenn.api import migrations
from provenn.api.catalogue import Catalogue
from provenn.api.database import Database, exclusive, opened, writer
from provenn.api.jobs.model import State
from provenn.api.jobs.nodes import Node, Nodes
from provenn.api.jobs.store import JobStore, Which
from provenn.api.migrations import OtherSchema
from provenn.api.tables import DEFAULT_PROJECT, Base, CertificateRow, JobRow, ModelRow, TransitionRow

FIRST = (Path(__file__).parent / "version-0.1.sql").read_text()
"""What version 0.1 made of its models, in SQLite's words: nothing else wrote this schema."""
MODEL, OTHER, CERTIFICATE = "a" * 64, "b" * 64, "c" * 64
ROWS: dict[str, list[dict[str, Any]]] = {
    "models": [
        {"sequence": 1, "id": MODEL, "filename": "n.onnx", "bytes": 3_000_000_000, "summary": '{"input_shape": [4]}',
         "created_at": 1.5},
        {"sequence": 7, "id": OTHER, "filename": "d.safetensors", "bytes": 1, "summary": "{}", "created_at": 2.5},
    ],
    "jobs": [
        {"sequence": 3, "id": "done", "model_id": MODEL, "method": "auto", "seconds": 60.0, "seed": 2**40,
         "certificates": True, "items": 2, "request": "d" * 64, "state": "succeeded", "reason": None, "error": None,
         "attempt": 1, "deaths": 0, "owner": None, "lease_until": None, "done": 2, "total": 2, "phase": "done",
         "result": "e" * 64, "created_at": 1.0, "changed_at": 3.0, "started_at": 2.0, "finished_at": 3.0},
        {"sequence": 9, "id": "waits", "model_id": OTHER, "method": "crown", "seconds": 0.5, "seed": 0,
         "certificates": False, "items": 1, "request": "f" * 64, "state": "queued", "reason": "the server stopped",
         "error": '{"detail": "it\'s \\"odd\\""}', "attempt": 2, "deaths": 1, "owner": None, "lease_until": None,
         "done": 0, "total": 1, "phase": "", "result": None, "created_at": 4.0, "changed_at": 4.0,
         "started_at": None, "finished_at": None},
    ],
    "certificates": [{"id": CERTIFICATE, "job_id": "done", "model_id": MODEL, "created_at": 3.0}],
}  # fmt: skip


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}" if request.param == "sqlite" else request.getfixturevalue("postgresql")()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    found = writer(opened(url))
    yield found
    found.dispose()


def fill(engine: Engine) -> None:
    """Rows, by plain SQL."""
    with engine.begin() as connection:
        for table, rows in ROWS.items():
            names = ", ".join(rows[0])
            values = ", ".join(f":{name}" for name in rows[0])
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), rows)


def plain(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """The same columns of every row that is there now."""
    found = {}
    with engine.connect() as connection:
        for table, rows in ROWS.items():
            names = ", ".join(
                f"CAST({name} AS VARCHAR) AS {name}" if name in ("summary", "error") else name for name in rows[0]
            )
            answer = connection.execute(text(f"SELECT {names} FROM {table} ORDER BY {next(iter(rows[0]))}"))
            found[table] = [dict(row) for row in answer.mappings()]
    return found


def version_0_1(engine: Engine) -> None:
    """A database of version 0.1: on SQLite as it was, without a history; it had no other."""
    if engine.dialect.name == "sqlite":
        assert engine.url.database is not None
        with sqlite3.connect(engine.url.database) as connection:
            connection.executescript(FIRST)
        connection.close()
    else:
        migrations.upgrade(engine, "v0001")
    fill(engine)


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names()) - {"alembic_version"}


def test_models_and_migrations_make_the_same_schema(engine: Engine) -> None:
    migrations.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_a_database_of_version_0_1_keeps_every_row(engine: Engine, url: str) -> None:
    version_0_1(engine)
    before = plain(engine)
    assert before == {t: [{n: r[n] for n in rows[0]} for r in rows] for t, rows in ROWS.items()}
    database = Database(url)
    assert plain(engine) == before
    assert not {table for table in tables(engine) if table.startswith("kept_")}

    store, catalogue = JobStore(database), Catalogue(database)
    page = store.page(10, Which(DEFAULT_PROJECT))
    assert [(job.id, job.state, job.kind, job.seed) for job in page] == [
        ("waits", "queued", "inputs", 0), ("done", "succeeded", "inputs", 2**40)]  # fmt: skip
    assert page[0].error == {"detail": 'it\'s "odd"'}
    assert [[t.state for t in store.transitions(job.id)] for job in page] == [["queued"], ["succeeded"]]
    assert catalogue.certificate(DEFAULT_PROJECT, CERTIFICATE) is not None
    models = catalogue.models(DEFAULT_PROJECT, 10)
    assert [(m.id, m.format, m.source, m.bytes, m.summary) for m in models] == [
        (OTHER, "provenn-network/1", OTHER, 1, {}),
        (MODEL, "onnx", MODEL, 3_000_000_000, {"input_shape": [4]}),
    ]
    claimed = store.claim("me", 60)
    assert claimed is not None
    assert (claimed.id, claimed.attempt, claimed.change) == ("waits", 3, 2)
    store.add(
        JobRow(id="new", model_id=MODEL, method="auto", seconds=1, seed=0, certificates=True, items=1, request="r")
    )
    new = store.get("new")
    assert new is not None
    assert new.sequence > 9
    database.close()


def test_going_back_keeps_what_the_old_version_knows(engine: Engine, url: str) -> None:
    version_0_1(engine)
    before = plain(engine)
    migrations.upgrade(engine)
    migrations.downgrade(engine, "v0001")
    assert plain(engine) == before
    assert tables(engine) == set(ROWS)
    Database(url).close()
    assert plain(engine) == before


def test_going_back_ends_what_the_old_version_would_never_end(engine: Engine) -> None:
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('p', 'p', 0)"))
    fill_new(engine)
    migrations.downgrade(engine, "v0001")
    with engine.connect() as connection:
        found = connection.execute(text("SELECT id, state FROM jobs ORDER BY sequence")).all()
        models = connection.scalars(text("SELECT id FROM models")).all()
    assert [tuple(row) for row in found] == [("whole", State.QUEUED), ("part", State.CANCELLED)]
    assert models == [MODEL]


def fill_new(engine: Engine) -> None:
    """A job that waits for its part, and the same of another project."""
    shared = {"method": "auto", "seconds": 1, "seed": 0, "certificates": True, "items": 1, "request": "r"}
    with Session(engine) as session, session.begin():
        for project, prefix in ((DEFAULT_PROJECT, ""), ("p", "p-")):
            mine = {"project_id": project, "model_id": MODEL, "state": State.RUNNING}
            session.add(ModelRow(project_id=project, id=MODEL, filename="m", bytes=1, summary={}))
            session.flush()
            session.add(JobRow(id=f"{prefix}whole", waiting=1, **shared, **mine))
            session.flush()
            session.add(JobRow(id=f"{prefix}part", parent_id=f"{prefix}whole", owner="dead", **shared, **mine))
            session.flush()
            session.add(CertificateRow(project_id=project, id=CERTIFICATE, job_id=f"{prefix}part", model_id=MODEL))
            session.add(TransitionRow(job_id=f"{prefix}part", change=1, state="running", attempt=1, reason=None, at=1))


def test_up_and_down_and_up_and_down(engine: Engine) -> None:
    for _ in range(2):
        migrations.upgrade(engine)
        assert tables(engine) == set(Base.metadata.tables)
        migrations.upgrade(engine)
        migrations.downgrade(engine, "base")
        assert tables(engine) == set()


def test_a_failing_migration_changes_nothing(engine: Engine) -> None:
    version_0_1(engine)
    before = plain(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE deliveries (in_the_way INTEGER)"))
    with pytest.raises(Exception, match="deliveries"):
        migrations.upgrade(engine)
    assert plain(engine) == before
    assert tables(engine) == {*ROWS, "deliveries"}


def test_a_newer_schema_is_refused_by_name(engine: Engine, url: str) -> None:
    migrations.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))
    for use in (
        lambda: Database(url),
        lambda: Database(url, upgrade=False),
        lambda: migrations.upgrade(engine, "v0001"),
        lambda: migrations.downgrade(engine, "base"),
    ):
        with pytest.raises(OtherSchema, match="v9999"):
            use()


def test_a_revision_that_is_not_there_is_refused(engine: Engine) -> None:
    for change, revision in ((migrations.upgrade, "v9"), (migrations.downgrade, "v0001"), (migrations.downgrade, "v9")):
        with pytest.raises(OtherSchema, match="there is no revision"):
            change(engine, revision)
    migrations.upgrade(engine)
    with pytest.raises(OtherSchema, match="there is no revision v0001 above v0002"):
        migrations.upgrade(engine, "v0001")


def test_an_old_schema_is_not_used_unasked(engine: Engine, url: str) -> None:
    version_0_1(engine)
    with pytest.raises(OtherSchema, match="provenn db upgrade"):
        Database(url, upgrade=False)


UPGRADE = """
import sys
from provenn.api.database import Database
print("ready", flush=True)
sys.stdin.readline()
Database(sys.argv[1]).close()
"""


def test_several_processes_upgrade_at_once(url: str, engine: Engine) -> None:
    command = [sys.executable, "-c", UPGRADE, url]
    with ExitStack() as stack:
        several = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(3)
        ]
        for process in several:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in several:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.close()
    assert [process.returncode for process in several] == [0, 0, 0]
    assert tables(engine) == set(Base.metadata.tables)


def test_the_newest_revision_is_the_last_of_a_line(engine: Engine) -> None:
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert migrations.current(connection) == migrations.newest() == "v0002"


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run = Command(capsys)
    monkeypatch.setenv("PROVENN_DATA_DIR", str(tmp_path / "data"))
    assert run("db", "upgrade", "--json").json == {"revision": "v0002", "newest": "v0002"}
    assert run("db", "current", "--json").json == {"revision": "v0002", "newest": "v0002"}
    assert run("db", "current", "--data-dir", tmp_path / "data").out.startswith("the schema is v0002")
    refused = run("db", "downgrade", "v0001")
    assert (refused.code, "make a backup" in refused.err) == (2, True)
    assert run("db", "downgrade", "v0001", "--yes", "--json").json["revision"] == "v0001"
    assert run("db", "downgrade", "v0003", "--yes", "--json").json["error"]["type"] == "OtherSchema"
    with exclusive(tmp_path / "data"):
        for words in (["upgrade"], ["downgrade", "base", "--yes"]):
            assert run("db", *words, "--json").json["error"]["type"] == "DataDirectoryInUse"
    assert run("db", "downgrade", "base", "--yes", "--json").json["revision"] is None


@pytest.mark.xdist_group("postgresql")
def test_the_commands_leave_a_database_alone_that_servers_use(
    tmp_path: Path, postgresql: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Command(capsys)
    url = postgresql()
    monkeypatch.setenv("PROVENN_DATABASE", url)
    monkeypatch.setenv("PROVENN_DATA_DIR", str(tmp_path))
    assert run("db", "upgrade").code == 0
    database = Database(url)
    nodes, node = Nodes(database, 40), Node("here", 1, "cpu")
    nodes.join(node)
    refused = run("db", "downgrade", "base", "--yes", "--json").json["error"]
    assert (refused["type"], "stop them first" in refused["message"]) == ("DataDirectoryInUse", True)
    nodes.leave(node)
    assert run("db", "downgrade", "base", "--yes").code == 0
    database.close()
    monkeypatch.setenv("PROVENN_DATABASE", url.replace("/test_", "/no_such_"))
    for words in (["db", "current"], ["gc"]):
        error = run(*words, "--json").json["error"]
        assert (error["type"], "does not exist" in error["message"]) == ("UnusableDatabase", True)
