"""A search put on disk and taken up again: what is open, what was split, what was proved."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.solvers.branch_and_bound.queue import Domains
from provenn.solvers.branch_and_bound.record import Record
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph
from provenn.verifier.spec import Case

VERSION = 1
"""Of the file's layout: another one is not read."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class State:
    """A search that was left off.

    way: how it splits; open: the parts; counts: the share decided, parts bounded, parts stuck, the smallest margin.
    """

    way: str
    open: Domains
    record: Record
    counts: tuple[float, int, int, float]

    def save(self, path: Path, key: str) -> None:
        """Replaces the file when the new one is whole.   Raises: OSError (a full disk): the old file stays."""
        arrays: dict[str, Any] = {f"open.{name}": values.cpu().numpy() for name, values in self.open.fields.items()}
        arrays |= {f"record.{name}": values for name, values in self.record.arrays().items()}
        arrays |= {"about": np.array([VERSION, *self.counts], np.float64)}
        arrays |= {"key": np.frombuffer(key.encode(), np.uint8), "way": np.frombuffer(self.way.encode(), np.uint8)}
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                np.savez_compressed(file, **arrays)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, key: str, device: str) -> State:
        """The state in a file.   Raises: BackendError if it is broken, or of another network or specification."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (ValueError, OSError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
            raise _refused(path, f"holds no state of a search: {error}") from error
        if not {"about", "key", "way"} <= arrays.keys() or arrays["about"][0] != VERSION:
            raise _refused(path, "holds no state of a search, or that of another version")
        if arrays["key"].tobytes().decode(errors="replace") != key:
            raise _refused(path, "holds the state of another network, specification or case")
        fields = {name[5:]: torch.from_numpy(v).to(device) for name, v in arrays.items() if name.startswith("open.")}
        record = Record.of({name[7:]: values for name, values in arrays.items() if name.startswith("record.")})
        _, closed, domains, stuck, least = arrays["about"].tolist()
        counts = (closed, int(domains), int(stuck), least)
        return cls(arrays["way"].tobytes().decode(), Domains(fields), record, counts)


def _refused(path: Path, why: str) -> BackendError:
    return BackendError("branch-and-bound", f"{path} {why}; give another file, or remove it to begin anew")


def key_of(graph: Graph, case: Case, dtype: torch.dtype) -> str:
    """A digest of the network, the case and the kind of numbers."""
    digest = hashlib.sha256(repr((case, str(dtype), [(n.name, n.inputs, n.shape) for n in graph.nodes])).encode())
    for node in graph.nodes:
        digest.update(f"{type(node.op).__module__}.{type(node.op).__qualname__}".encode())
        for name, value in vars(node.op).items() if node.op is not None else ():
            if isinstance(value, torch.Tensor):
                digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode() + value.cpu().numpy().tobytes())
            else:
                digest.update(f"{name} {value!r}".encode())
    return digest.hexdigest()
