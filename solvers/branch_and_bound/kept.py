"""In which file the search of a case is kept, and how often."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from provenn.solvers.branch_and_bound.exhaustion import require_exhausted
from provenn.solvers.branch_and_bound.state import State, owner
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph
from provenn.verifier.spec import Case

EVERY, SHARE = 60.0, 0.05
"""Seconds between two savings, at least; share of the time that they take together, at most."""

LETTERS = 12
"""Of a case's key, in the name of its file."""


@dataclass(eq=False)
class Pace:
    """When to save: EVERY seconds after the last time, or as much later as keeps savings within SHARE of the time.

    started: seconds on any clock; cost: what the last saving took.
    """

    started: float
    cost: float = 0.0

    def due(self, now: float) -> bool:
        """Whether it is time."""
        return now >= self.started + max(EVERY, self.cost / SHARE)

    def saved(self, began: float, ended: float) -> None:
        """It was done."""
        self.started, self.cost = ended, ended - began


@dataclass(eq=False)
class Kept:
    """The file of one case's search. trouble: why the last thing that was done with it failed, if it did."""

    path: Path
    network: str
    key: str
    pace: Pace = field(default_factory=lambda: Pace(time.monotonic()))
    trouble: str | None = None

    @classmethod
    def at(cls, path: Path, network: str, case: Case, alone: bool) -> Kept:
        """The file at `path` if it is this case's, or if this is the only open case and there is none yet.

        Else the one beside it whose name ends with the case's key: which cases are open differs from run to run, so a
        file of another case is nobody's mistake.   Raises: BackendError if the file is broken or of another network, or
        the folder is not there.
        """
        if not path.parent.is_dir():
            raise BackendError("branch-and-bound", f"there is no folder {path.parent} to keep the search in")
        key = key_of(network, case)
        beside = path.with_name(f"{path.name}.{key[:LETTERS]}")
        own = owner(path, network) == key if path.exists() else alone and not beside.exists()
        return cls(path if own else beside, network, key)

    def load(self) -> State | None:
        """What the file holds, if it is there.   Raises: BackendError if it is broken, or of another case."""
        return State.load(self.path, self.network, self.key) if self.path.exists() else None

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self.pace.due(time.monotonic())

    def save(self, state: State) -> None:
        """Replaces the file; where disk or memory does not suffice, the old one stays, and `trouble` says so."""
        began, self.trouble = time.monotonic(), None
        try:
            state.save(self.path, self.network, self.key)
        except OSError as error:
            self.trouble = f"the search could not be kept: {error}"
        except (MemoryError, RuntimeError) as error:
            self.trouble = f"the search could not be kept: {require_exhausted(error)}"
        self.pace.saved(began, time.monotonic())

    def remove(self) -> None:
        """The search is over; where the file cannot be removed `trouble` says so."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            self.trouble = f"the file of the search could not be removed: {error}"


def network_of(graph: Graph, dtype: torch.dtype) -> str:
    """A digest of the network and the kind of numbers."""
    digest = hashlib.sha256(repr((str(dtype), [(n.name, n.inputs, n.shape) for n in graph.nodes])).encode())
    for node in graph.nodes:
        digest.update(f"{type(node.op).__module__}.{type(node.op).__qualname__}".encode())
        for one in fields(node.op) if node.op is not None else ():
            value = getattr(node.op, one.name)
            if isinstance(value, torch.Tensor):
                digest.update(f"{one.name} {tuple(value.shape)} {value.dtype}".encode() + value.cpu().numpy().tobytes())
            else:
                digest.update(f"{one.name} {value!r}".encode())
    return digest.hexdigest()


def key_of(network: str, case: Case) -> str:
    """A digest of a case of a network."""
    return hashlib.sha256(f"{network} {case!r}".encode()).hexdigest()
