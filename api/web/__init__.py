"""The web page: static files of our own, read once; each has one path, and no other path leads to a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT, PREFIX, SERVICE = "/", "/web/", "/web/service.json"
"""Where the page is, where its parts are, and what it needs to know of the service before it has a key."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class File:
    """What is served under a path: its bytes, their media type, and their digest, quoted, as HTTP has it."""

    data: bytes
    type: str
    etag: str


@cache
def files() -> dict[str, File]:
    """Every file of the page by its path."""
    found = sorted(path for path in FOLDER.rglob("*") if path.suffix in TYPES)
    return {_path(path): _read(path) for path in found}


@cache
def paths() -> frozenset[str]:
    """All that is served, to whoever asks: it is the same in every installation but for SERVICE."""
    return frozenset({SERVICE, *files()})


def _path(file: Path) -> str:
    name = file.relative_to(FOLDER).as_posix()
    return ROOT if name == "index.html" else PREFIX + name


def _read(path: Path) -> File:
    data = path.read_bytes()
    return File(data, TYPES[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
