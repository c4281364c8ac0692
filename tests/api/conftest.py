"""One warm server for the tests that need nothing special."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from service_kit import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("data"), upload_limit=1 << 20, request_limit=1 << 20) as running:
        yield running
