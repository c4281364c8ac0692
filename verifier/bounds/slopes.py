"""alpha-CROWN: the free parameters of linear bounds, optimised by gradient for every row on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.backward import Edge, Lines, Relaxed, Rows, by_rows, relax
from provenn.verifier.graph import Graph
from provenn.verifier.ops.window import Windowed
from provenn.verifier.region import Region

ITERATIONS = 20

STEP, DECAY = 0.35, 0.92
"""First step in units of the parameters' range [0, 1], and its factor an iteration."""

MOMENTUM, SPREAD = 0.5, 0.8
"""Decay rates of the averages of gradients and of their squares: short, because few iterations are made (measured)."""

CHECKS = frozenset({1, 2, 4, 8, 16, 32, 64})
"""Iterations after which rows that need no more are left out."""


@dataclass(frozen=True)
class Effort:
    """How hard to try: passes for every chunk of rows, MiB for a chunk, and whether the time is over."""

    iterations: int = ITERATIONS
    memory: float = schedule.MEMORY
    over: Callable[[], bool] = lambda: False


@dataclass(frozen=True, eq=False)
class Optimum:
    """lower [spec, batch]: the best bounds found; parameters: node -> those that gave them, [spec, batch, *any].

    windows: node -> where its parameters belong, for rows that read windows of it.
    """

    lower: Tensor
    parameters: Mapping[int, Tensor]
    windows: Mapping[int, Windowed] = field(default_factory=dict)

    def over(self, node: int, shape: tuple[int, ...]) -> Tensor:
        """The parameters of an elementwise node, [spec, batch, *shape]; 0 where a row does not read it."""
        if node not in self.windows:
            return self.parameters[node]
        return replace(self.windows[node], values=self.parameters[node]).dense(shape)


FINAL, INTERMEDIATE = Effort(), Effort(ITERATIONS // 2)
"""For the rows asked for, and for the bounds before them, where half as much gains nearly as much (measured)."""

Record = Callable[[Relaxed, Edge, schedule.Chunk, Optimum], None]
"""Sees the optimised rows of every edge, chunk by chunk."""


@dataclass(frozen=True, eq=False)
class Parameters:
    """The free parameters of one pass, one set a row, and the lines they make: what Relaxed.lower asks for `own`.

    Made when first asked for, when the form of the rows is known, from `start` or from where the op starts them.
    """

    relaxed: Relaxed
    start: Mapping[int, Tensor] = field(default_factory=dict)
    lines: dict[int, Lines] = field(default_factory=dict)
    windows: dict[int, Windowed] = field(default_factory=dict)

    def __call__(self, index: int, rows: Rows) -> Lines | None:
        """The lines of node `index`."""
        if index not in self.lines:
            shared = self.relaxed.lines[index]
            assert shared is not None
            self.lines[index] = self._own(index, shared, rows)
        return self.lines[index]

    @property
    def tensors(self) -> dict[int, Tensor]:
        """Node -> its parameters [spec, batch, *any], for the nodes that have some."""
        return {i: lines.parameters for i, lines in self.lines.items() if lines.parameters is not None}

    def select(self, rows: Tensor) -> Parameters:
        """Those of some rows."""
        some = {
            i: replace(lines, parameters=_leaf(p[rows])) for i, p in self.tensors.items() for lines in [self.lines[i]]
        }
        return replace(self, lines=self.lines | some)

    def _own(self, index: int, shared: Lines, rows: Rows) -> Lines:
        if index in self.start:
            return replace(shared, parameters=_leaf(self.start[index].clone()))
        start = shared.op.free(*shared.inputs) if shared.open else None
        if start is None:
            return shared
        if isinstance(rows, Windowed):
            self.windows[index] = replace(rows, values=rows.values[:0])
            return replace(shared, parameters=_leaf(rows.look(start[0])))
        return replace(shared, parameters=_leaf(start.expand(rows.shape[0], *start.shape[1:]).clone()))


@dataclass(frozen=True, eq=False)
class Averages:
    """Running averages of the gradients, and of their squares, of some parameters."""

    first: Tensor
    second: Tensor

    def step(self, parameters: Tensor, gradient: Tensor, iteration: int) -> None:
        """Moves the parameters uphill, within [0, 1]."""
        self.ascend(parameters, gradient, iteration, STEP * DECAY ** (iteration - 1))
        parameters.clamp_(0, 1)

    def ascend(self, parameters: Tensor, gradient: Tensor, iteration: int, length: float) -> None:
        """Moves the parameters uphill, by about `length` each.   Source: Kingma and Ba 2015 (Adam)."""
        self.first.lerp_(gradient, 1 - MOMENTUM)
        self.second.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
        corrected = (1 - SPREAD**iteration) ** 0.5 / (1 - MOMENTUM**iteration)
        scale = self.second.sqrt().add_(torch.finfo(gradient.dtype).tiny)
        parameters.addcdiv_(self.first, scale, value=length * corrected)


def alpha_crown(graph: Graph, region: Region, effort: Effort = INTERMEDIATE, record: Record | None = None) -> Relaxed:
    """CROWN whose bounds of every node are made tighter by their own optimised parameters, node after node.

    Only coordinates that are still open after CROWN are optimised. Because every row has its own parameters and the
    bounds before it are fixed, nothing is gained by optimising nodes jointly.   Raises: InvalidBounds.
    Time: about 3 `effort.iterations` CROWN passes over the open rows; memory: about `effort.memory` MiB, plus CROWN's.
    Source: Xu et al. 2021 (Fast and Complete), whose objective is the output's; here it is each bound itself.
    """

    def tighten(relaxed: Relaxed, edge: Edge, value: Tensor) -> None:
        by_rows(relaxed, edge, value, effort.memory)
        if effort.iterations > 1 and _free_before(relaxed, edge.source) and not effort.over():
            _optimise_edge(relaxed, edge, effort, record)

    return relax(graph, region, tighten)


def optimised_lower(
    relaxed: Relaxed,
    matrix: Float[Tensor, "spec batch outputs"],
    effort: Effort = FINAL,
    enough: Float[Tensor, "spec batch"] | None = None,
    start: Mapping[int, Tensor] | None = None,
) -> Optimum:
    """The best lower bounds of C y that optimised parameters give, never below those of `relaxed` itself.

    enough: rows above it are not optimised further. start: parameters of an earlier call for the same rows.
    """
    last = len(relaxed.graph.nodes) - 1
    rows = matrix.reshape(*matrix.shape[:2], *relaxed.graph.output_shape)
    per_row = int(matrix.shape[1] * schedule.widest(relaxed.graph, last) * _copies(relaxed, last))
    found = []
    for part in schedule.slices(matrix.shape[0], per_row, matrix.dtype, effort.memory):
        wanted = None if enough is None else _below(enough[part])
        begin = {i: p[part] for i, p in start.items()} if start else {}
        found.append(optimise(relaxed, last, rows[part], effort, wanted, begin))
    lower = torch.maximum(torch.cat([f.lower for f in found]), relaxed.output_lower(matrix, effort.memory))
    return Optimum(lower, {i: torch.cat([f.parameters[i] for f in found]) for i in found[0].parameters})


def optimise(
    relaxed: Relaxed,
    node: int,
    rows: Rows,
    effort: Effort,
    wanted: Callable[[Tensor], Tensor] | None = None,
    start: Mapping[int, Tensor] | None = None,
) -> Optimum:
    """The best lower bounds of A x_node that the effort finds.

    wanted: best bounds so far [spec, batch] -> the rows [spec] of bool that are still to be improved.
    """
    parameters = Parameters(relaxed, start or {})
    with torch.enable_grad():
        lower = relaxed.lower(node, rows, parameters)
    best, active = lower.detach(), torch.arange(lower.shape[0], device=lower.device)
    kept, windows = {i: p.detach().clone() for i, p in parameters.tensors.items()}, parameters.windows
    averages = {i: Averages(torch.zeros_like(p), torch.zeros_like(p)) for i, p in kept.items()}
    for iteration in range(1, effort.iterations if kept else 1):
        if effort.over():
            break
        free = parameters.tensors
        with torch.enable_grad():
            total = lower.sum()
        gradients = torch.autograd.grad(total, list(free.values()))
        with torch.no_grad():
            for (i, p), gradient in zip(free.items(), gradients, strict=True):
                averages[i].step(p, gradient, iteration)
            if wanted is not None and iteration in CHECKS:
                some = torch.nonzero(wanted(best)[active])[:, 0]
                if 4 * len(some) <= 3 * len(active):
                    active, rows, parameters = active[some], _select(rows, some), parameters.select(some)
                    averages = {i: Averages(a.first[some], a.second[some]) for i, a in averages.items()}
                    if len(active) == 0:
                        break
        with torch.enable_grad():
            lower = relaxed.lower(node, rows, parameters)
        best = _keep(best, kept, active, lower.detach(), parameters.tensors)
    return Optimum(best, kept, windows)


def _keep(
    best: Tensor, kept: dict[int, Tensor], active: Tensor, lower: Tensor, parameters: Mapping[int, Tensor]
) -> Tensor:
    """The better bounds; their parameters are written into `kept`."""
    better = lower > best[active]
    for i, p in parameters.items():
        mask = better.reshape(*better.shape, *(1,) * (p.dim() - 2))
        kept[i][active] = torch.where(mask, p.detach(), kept[i][active])
    return best.index_copy(0, active, torch.fmax(best[active], lower))


def _optimise_edge(relaxed: Relaxed, edge: Edge, effort: Effort, record: Record | None) -> None:
    """Both bounds of every coordinate of the source that its reader still gains from."""
    source, bounds = edge.source, relaxed.bounds
    shape = relaxed.graph.nodes[source].shape
    mask = relaxed.improvable(edge)
    plan = schedule.Plan.of(relaxed.graph, source, mask, torch.ones_like(bounds[source].lower))
    for rows in plan.chunks(effort.memory, both=True, copies=_copies(relaxed, source)):

        def wanted(best: Tensor, rows: schedule.Chunk = rows) -> Tensor:
            bounds[source] = rows.tighten(bounds[source], best)
            return rows.among(relaxed.improvable(edge))

        found = optimise(relaxed.select(rows.entries), source, rows.coefficients(shape), effort, wanted)
        bounds[source] = rows.tighten(bounds[source], found.lower)
        if record is not None:
            record(relaxed, edge, rows, found)


def _free_before(relaxed: Relaxed, node: int) -> int:
    """How many ops up to `node` have free parameters that matter."""
    lines = [line for line in relaxed.lines[1 : node + 1] if line is not None]
    return sum(line.open and line.op.free(*line.inputs) is not None for line in lines)


def _copies(relaxed: Relaxed, node: int) -> float:
    """The memory of an optimising pass in units of a plain one: parameters, averages, gradients, what is stored."""
    return 1.0 + _free_before(relaxed, node)


def _below(enough: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda best: (best <= enough).any(1)


def _select(rows: Rows, some: Tensor) -> Rows:
    if isinstance(rows, Windowed):
        return replace(rows, cells=rows.cells[some], values=rows.values[some])
    return rows[some]


def _leaf(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()
