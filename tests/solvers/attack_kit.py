"""Small cases, goals and an executor for tests of the attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch

from provenn.solvers.goal import Goal
from provenn.solvers.packing import pack
from provenn.solvers.room import Room
from provenn.verifier.graph import Graph
from provenn.verifier.spec import Ball, Case, Clause, Constraint, InputSet

THIRD = Fraction(1, 3)


@dataclass
class GraphExecutor:
    """The graph in some precision, float32 unless told; it keeps what it ran."""

    graph: Graph
    dtype: torch.dtype = torch.float32
    ran: list[np.ndarray] = field(default_factory=list)
    name = "graph"

    def run(self, inputs: np.ndarray) -> np.ndarray:
        self.ran.extend(inputs)
        outputs: np.ndarray = self.graph.to("cpu", self.dtype).forward(torch.as_tensor(inputs).to(self.dtype)).numpy()
        return outputs.astype(np.float32)


def box(inputs: int, ball: Ball | None = None, constraints: tuple[Constraint, ...] = ()) -> InputSet:
    """[-1/3, 1/3] in every coordinate: its ends are no floats."""
    return InputSet((-THIRD,) * inputs, (THIRD,) * inputs, ball, constraints)


def clause(*rows: tuple[list[int], Fraction | int]) -> Clause:
    """Unsafe where C y >= d: rows of whole numbers."""
    return Clause(tuple(tuple(map(Fraction, row)) for row, _ in rows), tuple(Fraction(d) for _, d in rows))


def goal_of(graph: Graph, cases: list[Case]) -> Goal:
    single = graph.to("cpu", torch.float32)
    packed = pack(single, cases, "cpu", torch.float32)
    return Goal.of(single, packed, Room.of(cases, packed.region))
