"""What `--out DIR` keeps: the same certificate zip that the service hands out, and the counterexample as .npy."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from provenn.api.certification import ItemResult
from provenn.api.cli.outcome import CannotWrite
from provenn.verifier.certificate.bundle import to_zip

COMPOSED = "composed.onnx"
OURS = re.compile(
    r"(composed\.onnx|certificate(-\d{5,})?\.zip|counterexample(-\d{5,})?\.npy|witness-\d+-\d+-(fall|rise)\.npy|jacobian\.npz)",
    re.ASCII,
)


@dataclass(frozen=True)
class Kept:
    """Paths of what was written for one answer."""

    certificate: str | None = None
    counterexample: str | None = None


def prepare(folder: Path) -> None:
    """Makes the folder and removes what an earlier run left there under our names.   Raises: CannotWrite."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if OURS.fullmatch(path.name):
                path.unlink()
    except OSError as error:
        raise CannotWrite(str(folder), error) from error


def prepared(folder: Path | None) -> CannotWrite | None:
    """Says at once, not after an hour, that --out cannot be written; the verdict is still worth having."""
    if folder is None:
        return None
    try:
        prepare(folder)
    except CannotWrite as trouble:
        return trouble
    return None


def keep_certificate(folder: Path, files: Mapping[str, bytes]) -> str:
    """Writes one certificate, and says where.   Raises: CannotWrite."""
    return write(folder / "certificate.zip", to_zip(files))


def keep(folder: Path, results: Sequence[ItemResult], shape: tuple[int, ...]) -> list[Kept]:
    """Writes every certificate and counterexample [*shape], whole or not at all; numbered when there are several.

    A counterexample in parameters is written as the input of the given network that they make.

    Raises: CannotWrite.
    """
    names = [""] if len(results) == 1 else [f"-{i:05d}" for i in range(len(results))]
    shared: dict[int, str] = {}
    return [_keep(folder, name, result, shape, shared) for name, result in zip(names, results, strict=True)]


def _keep(folder: Path, suffix: str, result: ItemResult, shape: tuple[int, ...], shared: dict[int, str]) -> Kept:
    """shared: where certificates have been written, for several items may have one."""
    certificate = counterexample = None
    if result.certificate is not None:
        certificate = shared.get(id(result.certificate))
        certificate = certificate or write(folder / f"certificate{suffix}.zip", to_zip(result.certificate))
        shared[id(result.certificate)] = certificate
    if result.counterexample is not None:
        found = result.counterexample
        values = np.array(found.input if found.original is None else found.original, dtype=np.float32).reshape(shape)
        counterexample = write_array(folder / f"counterexample{suffix}.npy", values)
    return Kept(certificate, counterexample)


def write(path: Path, data: bytes) -> str:
    """Writes a file, whole or not at all, and says where.   Raises: CannotWrite."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(str(path), error) from error
    return str(path)


def write_array(path: Path, values: np.ndarray) -> str:
    """Writes a .npy file likewise.   Raises: CannotWrite."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return write(path, buffer.getvalue())
