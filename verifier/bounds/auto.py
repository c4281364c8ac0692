"""Which bound method to take: by what each would cost, estimated from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, prod

from torch import Tensor

from provenn.verifier.bounds import forward, schedule
from provenn.verifier.bounds.backward import Relaxed, crown, crown_ibp
from provenn.verifier.graph import Graph
from provenn.verifier.region import Region

CALL, MULTIPLY_ADD, ELEMENT = 8e-5, 1.5e-11, 1.2e-9
"""Seconds for one node of one pass, for one multiplication with addition, and for one element read and written by an
elementwise step: one core in float32, after benchmarks/auto.py, whose table shows how far that is right: within a
factor of 2 mostly, 9 where OPEN is far off, 4 where little is asked of so large a network that reading it is all.
"""

WINDOW_STEPS = 12
"""Elementwise steps that rows over a window of a node take, where dense ones take 3: their lines are looked up."""

OPEN = 0.7
"""Rows that CROWN bounds, for every neuron that a nonlinear op reads: its two sides are 2, a settled neuron has 0 or 1.
It depends on the weights and the region; this is the middle of the reference networks."""

AFFORDABLE = 10.0
"""Seconds in which CROWN, the tightest, is taken whatever the others cost."""

GAIN = 4.0
"""How many times faster than CROWN forward mode must be to be taken for its looser bounds."""

DEAR = 300.0
"""Seconds beyond which a method is not taken while there is a cheaper one."""

BYTES = 4
"""Of a number: float32."""

Number = int | float


@dataclass(frozen=True)
class Work:
    """Nodes passed through, multiplications with additions, and elements of elementwise steps."""

    calls: Number = 0
    multiply_adds: Number = 0
    elements: Number = 0

    def __add__(self, other: Work) -> Work:
        """One after the other."""
        return Work(self.calls + other.calls, self.multiply_adds + other.multiply_adds, self.elements + other.elements)

    @property
    def seconds(self) -> Number:
        """On the processor that the constants were measured on."""
        return CALL * self.calls + MULTIPLY_ADD * self.multiply_adds + ELEMENT * self.elements


def auto(graph: Graph, region: Region, rows: int, memory: float = schedule.MEMORY) -> Relaxed:
    """Linear bounds of every op by the method that `choose` names, for so many rows an entry of the batch.

    Raises: InvalidBounds.
    """
    method = choose(graph, region.batch, rows)
    if method == "crown":
        return crown(graph, region, memory)
    return crown_ibp(graph, region) if method == "crown-ibp" else forward.forward_backward(graph, region, memory)


def choose(graph: Graph, batch: int, rows: int, left: float = inf) -> str:
    """The tightest of "crown", "forward-backward" and "crown-ibp" that is affordable, from shapes alone.

    left: seconds beyond which nothing is, while there is a cheaper one.
    """
    seconds = {method: work.seconds for method, work in works(graph, batch, rows).items()}
    affordable, dear = min(AFFORDABLE, left), min(DEAR, left)
    if seconds["crown"] <= affordable:
        return "crown"
    fits = forward_fits(graph)
    if fits and GAIN * seconds["forward-backward"] <= seconds["crown"] and seconds["forward-backward"] <= dear:
        return "forward-backward"
    if seconds["crown"] <= dear:
        return "crown"
    return "forward-backward" if fits and seconds["forward-backward"] <= dear else "crown-ibp"


def works(graph: Graph, batch: int, rows: int, share: Number = OPEN) -> dict[str, Work]:
    """What each method does. share: rows that CROWN bounds, for every neuron that a nonlinear op reads."""
    interval = _interval(graph, batch)
    final = _backward(graph, len(graph.nodes) - 1, batch, rows)
    inner = Work()
    for node in _bounded(graph):
        inner += _backward(graph, node, batch, share * prod(graph.nodes[node].shape))
    return {
        "crown": interval + inner + final,
        "forward-backward": interval + _forward(graph, batch) + final,
        "crown-ibp": interval + final,
    }


def forward_fits(graph: Graph) -> bool:
    """Whether no node's form is left out for its size: else forward mode is little better than intervals."""
    widest = max(prod(node.shape) for node in graph.nodes)
    return (prod(graph.input_shape) + 1) * widest * BYTES <= forward.LARGEST * 2**20


def _bounded(graph: Graph) -> list[int]:
    """The nodes that ops with relaxations read, as far as interval bounds of them are not exact."""
    read = {i for node in graph.nodes if node.op is not None and not node.op.affine for i in node.inputs}
    exact = [True]
    for node in graph.nodes[1:]:
        exact.append(len(node.inputs) == 1 and node.inputs[0] == 0 and node.op is not None and node.op.affine)
    return sorted(i for i in read if not exact[i])


def _interval(graph: Graph, batch: int) -> Work:
    """Two forward passes."""
    work = Work()
    for index, node in enumerate(graph.nodes):
        work += Work(2, 2 * batch * _multiply_adds(graph, index), 4 * batch * prod(node.shape))
    return work


def _forward(graph: Graph, batch: int) -> Work:
    """Two columns for every coordinate of the input, through every node."""
    columns = 2 * batch * (prod(graph.input_shape) + 1)
    widest = max(prod(node.shape) for node in graph.nodes)
    work = Work()
    for index, node in enumerate(graph.nodes):
        work += Work(2, columns * _multiply_adds(graph, index), 3 * columns * prod(node.shape))
    return Work(work.calls * _chunks(columns / 2 * widest, batch), work.multiply_adds, work.elements)


def _backward(graph: Graph, node: int, batch: int, rows: Number) -> Work:
    """Rows of one node pulled back to the input, as windows where they stay small."""
    sizes = dict(schedule.reached(graph, node))
    work = Work()
    for index, size in sizes.items():
        share = size / prod(graph.nodes[index].shape)
        steps = 3 if share == 1 else WINDOW_STEPS
        work += Work(1, rows * batch * share * _multiply_adds(graph, index), steps * rows * batch * size)
    return Work(work.calls * _chunks(rows * batch * max(sizes.values()), rows), work.multiply_adds, work.elements)


def _chunks(elements: Number, most: Number) -> int:
    """How many passes the memory makes of one, at most `most`."""
    wanted = elements * schedule.LIVE * BYTES / (schedule.MEMORY * 2**20)
    return max(1, ceil(min(wanted, most)))


def _multiply_adds(graph: Graph, index: int) -> Number:
    """Of one value of a node: a parameter [rows, ..] meets every output cell with a row of its numbers."""
    node = graph.nodes[index]
    parameters = [] if node.op is None else [p for p in vars(node.op).values() if isinstance(p, Tensor) and p.dim() > 1]
    return prod(node.shape) * sum(p.numel() / p.shape[0] for p in parameters)
