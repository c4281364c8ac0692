"""beta-CROWN: bounds over the part of a region where some values lie on one side of a threshold.

For values z with s (z - t) >= 0 and any multipliers beta >= 0,  min f >= min f - beta s (z - t):  the product enters
the backward pass where the value is, and the intervals before the nonlinear ops are cut at t.
Source: Wang et al. 2021 (beta-CROWN), for splits at any threshold of any op's arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.bounds.backward import Lines, Relaxed, Rows
from provenn.verifier.bounds.slopes import DECAY, Averages
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.window import Windowed

LEVELS = 255
"""Free parameters are whole multiples of 1 / LEVELS: what a proof stores is what was bounded."""

BETA_STEP = 0.2
"""First step of the multipliers, in units of the largest coefficient that a row has over the node that is split."""


@dataclass(frozen=True, eq=False)
class Arguments:
    """The nodes whose values can be split, those that ops which are not affine read, counted through.

    first: where a node's coordinates begin among all of them.
    """

    nodes: tuple[int, ...]
    first: Mapping[int, int]
    total: int

    @classmethod
    def of(cls, graph: Graph) -> Arguments:
        """Of a graph; the input itself is left out."""
        readers = [node for node in graph.nodes if node.op is not None and not node.op.affine]
        nodes = sorted({i for node in readers for i in node.inputs} - {0})
        first, total = {}, 0
        for i in nodes:
            first[i] = total
            total += torch.Size(graph.nodes[i].shape).numel()
        return cls(tuple(nodes), first, total)

    def located(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The node and the coordinate of values counted through."""
        starts = torch.tensor([self.first[i] for i in self.nodes], device=index.device)
        which = torch.searchsorted(starts, index, right=True) - 1
        return torch.tensor(self.nodes, device=index.device)[which], index - starts[which]


@dataclass(frozen=True, eq=False)
class Cuts:
    """What is known of parts of a region: sign (value - threshold) >= 0.

    index [batch, splits]: values counted through, -1 for none; sign (1 or -1), threshold [batch, splits].
    """

    index: Tensor
    sign: Tensor
    threshold: Tensor

    def at(self, first: int, size: int) -> tuple[Tensor, Tensor] | None:
        """Which cuts are among `size` values from `first` on, [batch, splits], and where; None if none is."""
        inside = (self.index >= first) & (self.index < first + size)
        return (inside, (self.index - first).clamp(0, size - 1)) if bool(inside.any()) else None


@dataclass(frozen=True, eq=False)
class Cut(Relaxed):
    """A relaxation over parts of one region; rows meet the multipliers of the cuts on their way.

    betas [1, batch, splits] >= 0; seen: where given, takes the rows that arrive at every node.
    """

    arguments: Arguments = field(default_factory=lambda: Arguments((), {}, 0))
    cuts: Cuts | None = None
    betas: Tensor | None = None
    seen: dict[int, Tensor] | None = None

    def _cut(self, index: int, rows: Rows) -> tuple[Rows, Tensor | None]:
        constant = None
        if self.cuts is not None and self.betas is not None and index in self.arguments.first:
            size = torch.Size(self.graph.nodes[index].shape).numel()
            found = self.cuts.at(self.arguments.first[index], size)
            if found is not None:
                dense = rows.dense(self.graph.nodes[index].shape) if isinstance(rows, Windowed) else rows
                pushed = self.betas * (self.cuts.sign * found[0])
                shape = (*dense.shape[:1], *pushed.shape[1:])
                flat = dense.flatten(2).scatter_add(2, found[1].expand(shape), -pushed.expand(shape))
                rows, constant = flat.reshape(dense.shape), (pushed * self.cuts.threshold).sum(2)
        if self.seen is not None and isinstance(rows, Tensor):
            self.seen[index] = rows.detach()
        return rows, constant

    def _lowest(self, rows: Rows | None, constant: Tensor | None, centred: bool) -> Tensor:
        if self.seen is not None and isinstance(rows, Tensor):
            self.seen[0] = rows.detach()
        return super()._lowest(rows, constant, centred)


def cut(root: Relaxed, arguments: Arguments, cuts: Cuts) -> Cut:
    """The relaxation of a root (of one region) over parts of it: the intervals of split values cut at thresholds."""
    batch = cuts.index.shape[0]
    bounds = [_clipped(i, b, arguments, cuts) for i, b in enumerate(root.bounds)]
    lines: list[Lines | None] = []
    for node in root.graph.nodes:
        lines.append(None if node.op is None else Lines(node.op, [bounds[i] for i in node.inputs]))
    same = torch.zeros(batch, dtype=torch.long, device=cuts.index.device)
    front = None if root.front is None else replace(root.front, value=root.front.value[same])
    return Cut(root.graph, root.region.select(same), bounds, lines, front, arguments, cuts)


def _clipped(index: int, bounds: Interval, arguments: Arguments, cuts: Cuts) -> Interval:
    """A node's interval in every part: [batch, *node]."""
    batch = cuts.index.shape[0]
    lower, upper = (x.expand(batch, *x.shape[1:]) for x in (bounds.lower, bounds.upper))
    found = cuts.at(arguments.first[index], lower[0].numel()) if index in arguments.first else None
    if found is None:
        return Interval(lower, upper)
    inside, where = found
    least = cuts.threshold.masked_fill(~inside | (cuts.sign < 0), -torch.inf)
    most = cuts.threshold.masked_fill(~inside | (cuts.sign > 0), torch.inf)
    low = lower.flatten(1).scatter_reduce(1, where, least, "amax").reshape(lower.shape)
    high = upper.flatten(1).scatter_reduce(1, where, most, "amin").reshape(upper.shape)
    # A threshold beyond the interval leaves a part without inputs: any bounds are true there.
    return Interval(torch.minimum(low, upper), torch.maximum(high, torch.minimum(low, upper)))


@dataclass(frozen=True, eq=False)
class Found:
    """The best bounds [batch] of one row a part, what gave them, and the rows that arrived at every node then.

    slopes: node -> free parameters [1, batch, *any], multiples of 1 / LEVELS; betas [1, batch, splits].
    """

    lower: Tensor
    slopes: dict[int, Tensor]
    betas: Tensor
    seen: dict[int, Tensor]


class _Own:
    """The free parameters of one pass, one set a part: what Relaxed.lower asks for `own`."""

    def __init__(self, relaxed: Relaxed, start: Mapping[int, Tensor]) -> None:
        self.relaxed, self.start = relaxed, start
        self.lines: dict[int, Lines] = {}

    def __call__(self, index: int, rows: Rows) -> Lines | None:
        """The lines of node `index`."""
        if index not in self.lines:
            shared = self.relaxed.lines[index]
            assert shared is not None
            begin = self.start.get(index)
            if begin is None and shared.open and not isinstance(rows, Windowed):
                begin = shared.op.free(*shared.inputs)
            if begin is None:
                return None
            self.lines[index] = replace(shared, parameters=rounded(begin).requires_grad_())
        return self.lines[index]

    @property
    def tensors(self) -> dict[int, Tensor]:
        """Node -> its parameters."""
        return {i: lines.parameters for i, lines in self.lines.items() if lines.parameters is not None}


def rounded(parameters: Tensor) -> Tensor:
    """The nearest multiples of 1 / LEVELS."""
    return (parameters.detach() * LEVELS).round() / LEVELS


def beta_crown(
    relaxed: Cut,
    rows: Float[Tensor, "one batch outputs"],
    start: tuple[Mapping[int, Tensor], Tensor],
    iterations: int,
    done: Callable[[Tensor], bool] = lambda lower: False,
) -> Found:
    """The best lower bound of a row in every part that some iterations of Adam find.

    start: free parameters and betas to begin with; done: bounds so far [batch] -> whether they are enough.
    Time: about 3 passes an iteration; memory: a pass, twice, with what gradients need.
    """
    graph = relaxed.graph
    last, shaped = len(graph.nodes) - 1, rows.reshape(*rows.shape[:2], *graph.output_shape)
    betas = start[1].clone().requires_grad_()
    own = _Own(relaxed, start[0])
    climb: _Climb | None = None
    best: Found | None = None
    for iteration in range(1, iterations + 1):
        now = replace(relaxed, betas=betas, seen={})
        with torch.enable_grad():
            lower = now.lower(last, shaped, own)
            total = lower.sum()
        free = own.tensors
        best = _better(best, Found(lower.detach()[0], free, betas, now.seen or {}))
        if iteration == iterations or done(best.lower) or not (free or betas.shape[2]):
            break
        climb = climb or _Climb(free, betas, _largest(relaxed, best.seen))
        leaves = [*free.values(), betas]
        climb.step(torch.autograd.grad(total, leaves, allow_unused=True), iteration)
    assert best is not None
    return best


class _Climb:
    """Adam's state, the parameters before they are rounded, and the multipliers in units of `scale`."""

    def __init__(self, free: Mapping[int, Tensor], betas: Tensor, scale: Tensor) -> None:
        self.free, self.betas, self.scale = free, betas, scale
        self.units = betas.detach() / scale
        self.exact = {i: p.detach().clone() for i, p in free.items()}
        self.averages = {i: Averages(torch.zeros_like(p), torch.zeros_like(p)) for i, p in free.items()}
        self.beta = Averages(torch.zeros_like(betas), torch.zeros_like(betas))

    def step(self, gradients: Sequence[Tensor | None], iteration: int) -> None:
        """One step uphill; the parameters in use are what it leads to, rounded."""
        with torch.no_grad():
            for (i, p), gradient in zip(self.free.items(), gradients, strict=False):
                if gradient is not None:
                    self.averages[i].step(self.exact[i], gradient, iteration)
                    p.copy_(rounded(self.exact[i]))
            if gradients[-1] is not None and self.betas.shape[2]:
                self.beta.ascend(self.units, gradients[-1], iteration, BETA_STEP * DECAY ** (iteration - 1))
                self.betas.copy_(self.units.clamp_(min=0) * self.scale)


def _largest(relaxed: Cut, seen: Mapping[int, Tensor]) -> Tensor:
    """For every cut the largest coefficient that the part's row has over the node it is at: [1, batch, splits]."""
    assert relaxed.cuts is not None
    scale = torch.ones_like(relaxed.cuts.threshold)
    for i, first in relaxed.arguments.first.items():
        found = relaxed.cuts.at(first, torch.Size(relaxed.graph.nodes[i].shape).numel())
        if found is not None and i in seen:
            scale = torch.where(found[0], seen[i][0].abs().flatten(1).amax(1, keepdim=True), scale)
    return scale.clamp(min=torch.finfo(scale.dtype).tiny).unsqueeze(0)


def _better(best: Found | None, new: Found) -> Found:
    """The better of two for every part; copies, since parameters change in place."""
    if best is None:
        copies = {i: p.detach().clone() for i, p in new.slopes.items()}
        return Found(new.lower, copies, new.betas.detach().clone(), dict(new.seen))
    mask = new.lower > best.lower

    def chosen(old: Tensor, other: Tensor) -> Tensor:
        return torch.where(mask.reshape(1, -1, *(1,) * (other.dim() - 2)), other.detach(), old)

    return Found(
        torch.where(mask, new.lower, best.lower),
        {i: chosen(p, new.slopes[i]) for i, p in best.slopes.items()},
        chosen(best.betas, new.betas),
        {i: chosen(rows, new.seen[i]) for i, rows in best.seen.items()},
    )
