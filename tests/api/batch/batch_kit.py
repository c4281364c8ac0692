"""Tiny networks whose radii are known exactly, data around them, and bundles taken apart and put together again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from cli_kit import two_layers

from provenn.api.batch.bundle import Manifest, write_bundle
from provenn.api.batch.data import Data
from provenn.api.batch.digests import Digest
from provenn.api.batch.merkle import leaf_hash, root
from provenn.api.batch.rows import canonical

ROOMY = two_layers([[1, 0], [0, 1]], [10, 10], [[1, 0], [0, 1]])
"""y = x + 10 wherever x > -10: the larger coordinate is the class; the radius is their distance over 2, sqrt 2 or 1."""

POINTS = [[1, 0], [0, 1], [0.25, 1], [0.5, 0.375], [0.75, 1], [0.25, 0]]
LABELS = (0, 1, 1, 0, 0, 0)
"""The fifth is misclassified."""


def data(points: Any = POINTS, labels: Iterable[int] = LABELS) -> Data:
    """Named by their numbers."""
    values = np.array(points, np.float32)
    return Data(values, tuple(labels), tuple(map(str, range(len(values)))))


def taken_apart(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, bytes]]:
    """Manifest, leaves and certificates of a bundle."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest, rows = json.loads(files.pop("batch.json")), files.pop("rows.jsonl").splitlines()
    return manifest, [json.loads(row) for row in rows], {name[13:-4]: data for name, data in files.items()}


def put_together(path: Path, manifest: dict[str, Any], rows: list[dict[str, Any]], kept: dict[str, bytes]) -> Path:
    """A bundle by someone who knows how: root, counts and digests are right."""
    leaves = [canonical(row) for row in rows]
    digest = Digest()
    radii = max(1, len(manifest["question"]["epsilons"]))
    for row in rows[::radii]:
        digest.add(str(row["input_sha256"]), row["label"])
    right = {"rows": len(rows), "inputs": len(rows) // radii, "data": {"sha256": digest.hex()}}
    written = Manifest.read(canonical({**manifest, **right})).over(root([leaf_hash(leaf) for leaf in leaves]))
    with path.open("wb") as file:
        write_bundle(file, written, leaves, sorted(kept.items()))
    return path
