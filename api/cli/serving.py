"""`provenn serve`: options over environment over defaults, then the service."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text
from typer import BadParameter

from provenn.api.cli.given import read
from provenn.api.database import exclusive
from provenn.api.exposure import require_authentication
from provenn.api.settings import Settings
from provenn.api.sharing import require_shared
from provenn.models import sandbox


def settings(host: str | None, port: int | None, data_dir: Path | None, workers: int | None) -> Settings:
    """The settings with the given options; port 0 becomes a free port.

    Raises: BadParameter naming the setting; PublicWithoutAuthentication; NotShared if others are to run the jobs and
    cannot; DataDirectoryInUse; SandboxUnavailable.
    """
    found = read(host=host, port=port, data_dir=data_dir, workers=workers)
    require_authentication(found)
    if not found.workers:
        require_shared(found)
    require_usable(found.data_dir)
    sandbox.require(sandbox.demanded(found.require_sandbox))
    return found.model_copy(update={"port": _free_port(found.host, found.port)})


def described(found: Settings) -> dict[str, Any]:
    """Where the service is, as --json prints it before the service starts."""
    host = f"[{found.host}]" if ":" in found.host else found.host
    return {
        "url": f"http://{host}:{found.port}",
        "data_dir": str(found.data_dir.resolve()),
        "workers": found.workers,
        "device": found.device,
    }


def as_view(found: Settings) -> RenderableType:
    """The address and the next step."""
    facts = described(found)
    page = "docs" if found.docs_page else "openapi.json"
    return Text(
        f"Provenn serves at {facts['url']}, data in {facts['data_dir']}. API: {facts['url']}/{page}. Stop: Ctrl-C"
    )


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0; the service binds it a moment later."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            return int(trial.getsockname()[1])
    except OSError as error:
        reason = f"cannot listen on {host} port {port}: {error.strerror or error}; give another --host or --port"
        raise BadParameter(reason, param_hint="--port") from None


def require_usable(folder: Path) -> None:
    """Says now, in one line, what the service would say in a traceback."""
    try:
        with exclusive(folder.resolve()):
            return
    except OSError as error:
        reason = f"{folder} cannot be written: {error.strerror or error}; give another folder"
        raise BadParameter(reason, param_hint="--data-dir") from None


def run(found: Settings) -> None:
    """Serves until interrupted."""
    from provenn.api.app import serve

    serve(found)
