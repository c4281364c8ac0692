"""Both clients of the one warm server, and a server between them and it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from client_kit import Awaited, Between, standing_between
from service_kit import Server

from provenn.api.client import Client


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "asynchronous"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="session")
def honest(server: Server) -> Iterator[Client]:
    """A client of the service itself."""
    with Client(server.url) as client:
        yield client


@pytest.fixture(scope="session")
def awaited(server: Server) -> Iterator[Awaited]:
    """The same, asynchronous."""
    with Awaited(server.url) as client:
        yield client


@pytest.fixture
def client(kind: Any, honest: Client, awaited: Awaited) -> Any:
    return honest if kind is Client else awaited


@pytest.fixture(scope="session")
def middle(server: Server) -> Iterator[tuple[Between, Client]]:
    with standing_between(server.url) as found, Client(found.url) as client:
        yield found, client


@pytest.fixture
def between(middle: tuple[Between, Client]) -> Iterator[Between]:
    yield middle[0]
    middle[0].forget()


@pytest.fixture
def misled(middle: tuple[Between, Client], between: Between) -> Client:
    """A client that talks to the server between."""
    return middle[1]
