"""The linear programme of a network's triangle relaxations; its dual solution names slopes of linear bounds.

For fixed bounds of the ReLUs' arguments no slopes give a larger lower bound than the programme's value. The multipliers
of r >= 0 and r >= z name slopes that nearly always reach it: of a ReLU with multipliers a and b the slope b / (a + b).
Only where its argument is at an end of its bounds can the upper line have a multiplier beside these, of which no slope
is made; bounds of the argument as constraints of their own, which the triangle implies, would make that frequent.
What the solver says is never a bound: the slopes are, by a backward pass of their own.
Sources: Ehlers 2017 (the relaxation), Wong and Kolter 2018, Salman et al. 2019 (its dual are slopes).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provenn.verifier.bounds.backward import Relaxed
from provenn.verifier.errors import Unbounded
from provenn.verifier.graph import Graph
from provenn.verifier.ops.relu import Relu

if TYPE_CHECKING:
    import highspy

VARIABLES = 4096
"""Inputs and ReLUs at most: the programme's matrix, and the time of a solution, grow with their square and more."""

ELEMENTS = VARIABLES**2
"""Coefficients at most of one node, which may be larger than all variables together where it is no ReLU."""

TOGETHER = 256
"""Points at which an affine function is computed at a time: convolutions copy their inputs many times over."""

LARGEST = 1e15
"""Of all numbers: HiGHS takes no larger coefficients."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Programme:
    """Variables: the inputs, then every ReLU's outputs and arguments. One solver, which goes on where it was.

    By node, first: of its outputs among the variables; on: neurons that are never below 0; unstable: those of either
    sign, and rows: of the constraints r >= z for these; output: the outputs as functions of the variables, [outputs,
    variables].
    """

    relaxed: Relaxed
    solver: highspy.Highs
    first: dict[int, int]
    on: dict[int, NDArray[np.int64]]
    unstable: dict[int, NDArray[np.int64]]
    rows: dict[int, NDArray[np.int32]]
    output: Array

    @classmethod
    def of(cls, relaxed: Relaxed) -> Programme:
        """Of a relaxation of one box, in float64 on the CPU.

        Raises: Unbounded for other regions, for nonlinear nodes that are no ReLUs, and above the limits here.
        """
        import highspy

        graph, box = relaxed.graph, relaxed.region.box
        if (why := refusal(graph, relaxed.region.is_box)) is not None:
            raise Unbounded(why)
        solver = highspy.Highs()
        for option, value in (("output_flag", False), ("threads", 1)):
            solver.setOptionValue(option, value)
        relus = _relus(graph)
        sizes = [torch.Size(graph.nodes[i].shape).numel() for i in (0, *relus)]
        ends = np.cumsum([0, *sizes])
        before = [graph.nodes[i].inputs[0] for i in relus]
        maps = _affine(graph, ends, [*before, len(graph.nodes) - 1])
        boxes = [box, *(relaxed.bounds[i] for i in before)]
        sides = (side.numpy() for each in boxes for side in (each.lower, each.upper))
        if not all(_moderate(numbers) for numbers in chain(sides, *maps)):
            raise Unbounded(f"it has numbers above {LARGEST:g}: its linear programme would not be solved")
        solver.addVars(int(ends[1]), *(side.flatten().numpy() for side in (box.lower, box.upper)))
        solver.addVars(int(ends[-1] - ends[1]), np.zeros(ends[-1] - ends[1]), np.full(ends[-1] - ends[1], np.inf))
        made = cls(relaxed, solver, {i: int(ends[k]) for k, i in enumerate(relus, 1)}, {}, {}, {}, maps[-1][0])
        for node, (matrix, constant) in zip(relus, maps[:-1], strict=True):
            made._constrain(node, matrix, constant)
        return made

    def slopes(self, row: Array, seconds: float) -> dict[int, Tensor] | None:
        """Those that make the lower bound of row @ outputs largest: node -> [1, 1, *node].

        None if time ran out, or for rows above LARGEST.
        """
        import highspy

        with np.errstate(all="ignore"):
            objective, count = row @ self.output, self.solver.getNumCol()
        if not _moderate(objective):
            return None
        cost = np.pad(objective, (0, count - len(objective)))
        self.solver.changeColsCost(count, np.arange(count, dtype=np.int32), cost)
        self.solver.setOptionValue("time_limit", self.solver.getRunTime() + max(seconds, 0.0))
        self.solver.run()
        if self.solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = self.solver.getSolution()
        columns, rows = np.array(solution.col_dual), np.array(solution.row_dual)
        return {node: self._slopes(node, columns, rows) for node in self.first}

    def _slopes(self, node: int, columns: Array, rows: Array) -> Tensor:
        shape, some = self.relaxed.graph.nodes[node].shape, self.unstable[node]
        slopes = np.zeros(torch.Size(shape).numel())
        flat, steep = (np.maximum(x, 0) for x in (columns[self.first[node] + some], rows[self.rows[node]]))
        slopes[some] = steep / np.maximum(flat + steep, np.finfo(np.float64).tiny)
        slopes[self.on[node]] = 1
        return torch.from_numpy(slopes).reshape(1, 1, *shape)

    def _constrain(self, node: int, matrix: Array, constant: Array) -> None:
        """The triangles of one ReLU, whose arguments are an affine function of the variables so far."""
        solver, first = self.solver, self.first[node]
        box = self.relaxed.bounds[self.relaxed.graph.nodes[node].inputs[0]]
        lower, upper = (side.flatten().numpy() for side in (box.lower, box.upper))
        off, on = np.flatnonzero(upper <= 0), np.flatnonzero((lower >= 0) & (upper > 0))
        some = np.flatnonzero((lower < 0) & (upper > 0))
        zeros = np.zeros(len(off))
        solver.changeColsBounds(len(off), (first + off).astype(np.int32), zeros, zeros)
        start = solver.getNumCol()
        unbounded, none = np.full(len(some), np.inf), np.zeros(len(some))
        # The triangle implies bounds of the argument; wider ones never bind, and the solver is faster with some.
        width = upper[some] - lower[some]
        solver.addVars(len(some), lower[some] - width, upper[some] + width)
        arguments = start + np.arange(len(some))
        self._equal(matrix[on], first + on, constant[on])
        self._equal(matrix[some], arguments, constant[some])
        self.on[node], self.unstable[node] = on, some
        self.rows[node] = (solver.getNumRow() + np.arange(len(some))).astype(np.int32)
        slope = upper[some] / (upper[some] - lower[some])
        self._pairs(first + some, arguments, -np.ones(len(some)), (none, unbounded))
        self._pairs(first + some, arguments, -slope, (-unbounded, -slope * lower[some]))

    def _equal(self, matrix: Array, columns: NDArray[np.int64], constant: Array) -> None:
        """Matrix @ variables - columns = -constant, a row each."""
        row, column = np.nonzero(matrix)
        lengths = np.bincount(row, minlength=len(matrix)) + 1
        starts = np.cumsum(lengths) - lengths
        index, value = np.zeros(lengths.sum(), np.int32), np.full(lengths.sum(), -1.0)
        last = starts + lengths - 1
        index[last] = columns
        others = np.setdiff1d(np.arange(len(index)), last, assume_unique=True)
        index[others], value[others] = column, matrix[row, column]
        self.solver.addRows(len(matrix), -constant, -constant, len(index), starts.astype(np.int32), index, value)

    def _pairs(
        self, first: NDArray[np.int64], second: NDArray[np.int64], factor: Array, ends: tuple[Array, Array]
    ) -> None:
        """Lower <= first + factor second <= upper, a row each."""
        index = np.stack([first, second], 1).ravel().astype(np.int32)
        value = np.stack([np.ones(len(factor)), factor], 1).ravel()
        starts = np.arange(0, len(index), 2, dtype=np.int32)
        self.solver.addRows(len(factor), *ends, len(index), starts, index, value)


def refusal(graph: Graph, box: bool = True) -> str | None:
    """Why a network has no such programme, over a box or another region, or None."""
    if not box:
        return "its linear programme is known for boxes alone"
    relus = _relus(graph)
    for index, node in enumerate(graph.nodes):
        if node.op is not None and not node.op.affine and index not in relus:
            return f"node {node.name!r} is no ReLU and not affine: the linear programme is that of ReLU networks"
    count = sum(torch.Size(graph.nodes[i].shape).numel() for i in (0, *relus))
    if count > VARIABLES:
        return f"its linear programme has {count} variables, over {VARIABLES}"
    widest = max(torch.Size(node.shape).numel() for node in graph.nodes)
    if count * widest > ELEMENTS:
        return f"its linear programme would need {count * widest} coefficients of one node, over {ELEMENTS}"
    return None


def _moderate(numbers: Array) -> bool:
    """Whether none is above LARGEST, or no number."""
    return bool((np.abs(numbers) <= LARGEST).all())


def _relus(graph: Graph) -> list[int]:
    return [i for i, node in enumerate(graph.nodes) if isinstance(node.op, Relu)]


def _affine(graph: Graph, ends: NDArray[np.int64], wanted: list[int]) -> list[tuple[Array, Array]]:
    """Nodes as affine functions of inputs and ReLUs' outputs: matrix [node, variables], constant [node]."""
    count = int(ends[-1])
    basis = torch.cat([torch.zeros((1, count)), torch.eye(count)]).double()
    slices = [basis[start : start + TOGETHER] for start in range(0, len(basis), TOGETHER)]
    parts = [_values(graph, ends, wanted, some) for some in slices]
    found = {}
    for index in set(wanted):
        flat = np.concatenate([part[index] for part in parts])
        found[index] = (np.ascontiguousarray((flat[1:] - flat[0]).T), flat[0].copy())
    return [found[i] for i in wanted]


def _values(graph: Graph, ends: NDArray[np.int64], wanted: list[int], variables: Tensor) -> dict[int, Array]:
    """Of nodes, [points, node], at some values of the variables, [points, variables]."""
    known = [0, *_relus(graph)]
    given = {
        i: variables[:, low:high].reshape(-1, *graph.nodes[i].shape)
        for i, (low, high) in zip(known, pairwise(ends.tolist()), strict=True)
    }
    values: dict[int, Tensor] = {}
    found: dict[int, Array] = {}
    for index, node in enumerate(graph.nodes):
        op = node.op
        read = [values[i] for i in node.inputs]
        values[index] = given[index] if index in given or op is None else op.forward(*read)
        for i in node.inputs:
            if graph.last_use[i] == index:
                values.pop(i, None)
        if index in wanted:
            found[index] = values[index].flatten(1).numpy()
    return found
