"""One warm server for the tests that need nothing special; databases of either kind for those that need no server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_kit import Server, serving
from store_kit import MODEL, OTHER

from provenn.api.catalogue import Catalogue
from provenn.api.database import Database
from provenn.api.tables import DEFAULT_PROJECT, KeyRow, ModelRow, ProjectRow


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("data"), upload_limit=1 << 20, request_limit=1 << 20) as running:
        yield running


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same for those who have a key."""
    settings = {"authentication": "keys", "failed_limit": "10000/minute", "webhook_private": True}
    with serving(tmp_path_factory.mktemp("keyed"), **settings) as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Two projects, a model and a key each."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    database = Database(url if request.param == "sqlite" else request.getfixturevalue("postgresql")())
    with database.writing() as session:
        session.add(ProjectRow(id=OTHER, name=OTHER))
        session.flush()
        for project in (DEFAULT_PROJECT, OTHER):
            session.add(KeyRow(id=f"key-{project}", project_id=project, name="k", digest=project, scopes="submit"))
    for project in (DEFAULT_PROJECT, OTHER):
        Catalogue(database).add(ModelRow(project_id=project, id=MODEL, filename="m", bytes=100, summary={}))
    yield database
    database.close()
