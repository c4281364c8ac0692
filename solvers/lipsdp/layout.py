"""Where a network's convolutions are: the grids of its units and the smallest torus, for verifier.check.torus.

The graph says which extents occur and how coarse each is, against the input's; which units lie on which of them the
kernel's own reading decides: the first of them on which all arguments are convolutions of units before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm, prod

import numpy as np

from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.rounding import CertificateRejected
from provenn.verifier.check.torus import Grid, kernel
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph

METHOD = "lipsdp-channel"

Space = tuple[tuple[int, ...], tuple[int, ...]]
"""Extents, and by how much coarser than the input each axis is."""


@dataclass(frozen=True)
class Layout:
    """Grids of the kernel's convolutional steps (step 0: the input), and the torus."""

    grids: Mapping[int, Grid]
    torus: tuple[int, ...]

    @property
    def last(self) -> int:
        """The step whose units the rest reads."""
        return max(self.grids)

    def maps(self, units: Units) -> dict[str, list[int]]:
        """As a claim has them."""
        named = {name: each[0] for name, each in units.steps.items() if each[0] in self.grids}
        grids = {name: self.grids[i] for name, i in {units.network.steps[0].name: 0, **named}.items()}
        return {name: [grid.channels, *grid.extents, *grid.steps] for name, grid in grids.items()}


def layout(graph: Graph, units: Units) -> Layout:
    """The network's convolutional beginning.

    Raises: BackendError where it has none, or where more than its last units is read by the rest.
    """
    spaces, blocks = _spaces(graph), units.increments.layers
    found = {0: spaces[0]}
    for each in units.steps.values():
        space = next((s for s in spaces if _fit(units, found, each, s)), None)
        if space is None:
            break
        found |= dict.fromkeys(each, space)
    if len(found) == 1:
        raise BackendError(METHOD, "the network does not begin with convolutions whose units are alike at all places")
    grids, wide = _grids(units, found)
    torus = [1] * len(wide)
    for i, grid in grids.items():
        for k in blocks[i].blocks if i else ():
            _, shifts = kernel(blocks[i].blocks[k], grid, grids[k], wide)
            for axis, n in enumerate(wide):
                signed = (shifts[:, axis] + n // 2) % n - n // 2
                ends = (int(signed.min(initial=0)), int(signed.max(initial=0)))
                cells = (int(grid.cells(axis).max()), int(grids[k].cells(axis).max()))
                torus[axis] = max(torus[axis], *cells, cells[1] - ends[0], cells[0] + ends[1])
    rest = {k for i, layer in blocks.items() if i not in grids for k in layer.blocks} | units.increments.output.keys()
    if not rest - (blocks.keys() - grids.keys()) <= {max(grids)}:
        names = ", ".join(units.network.steps[k].name for k in sorted(rest & grids.keys()))
        raise BackendError(METHOD, f"what follows the convolutions reads several of their layers: {names}")
    return Layout(grids, tuple(torus))


def _spaces(graph: Graph) -> list[Space]:
    """Those of the graph's values with channels, by first occurrence."""
    rank, strides, found = len(graph.input_shape), list[tuple[int, ...]](), list[Space]()
    if rank < 2:
        raise BackendError(METHOD, "the network's input has no channels")
    for node in graph.nodes:
        own = getattr(node.op, "stride", (1,) * (rank - 1))
        before = strides[node.inputs[0]] if node.inputs else own
        strides.append(tuple(a * b for a, b in zip(before, own, strict=False)))
        space = (tuple(node.shape[1:]), strides[-1])
        if len(node.shape) == rank and len(strides[-1]) == rank - 1 and space not in found:
            found.append(space)
    return [space for space in found if prod(space[0]) > 1] or found


def _grids(units: Units, spaces: Mapping[int, Space]) -> tuple[dict[int, Grid], tuple[int, ...]]:
    """With cells of the least size that all share; and a torus on which no convolution wraps around."""
    axes = range(len(spaces[0][0]))
    coarse = [lcm(*(space[1][axis] for space in spaces.values())) for axis in axes]
    grids = {}
    for i, (extents, fine) in spaces.items():
        channels = units.network.steps[i].length // prod(extents)
        grids[i] = Grid(channels, extents, tuple(coarse[axis] // fine[axis] for axis in axes))
    cells = (max(int(grid.cells(axis).max()) for grid in grids.values()) for axis in axes)
    return grids, tuple(2 * n for n in cells)


def _fit(units: Units, found: Mapping[int, Space], steps: list[int], space: Space) -> bool:
    """Whether the units of these steps lie on this space."""
    inner, length = units.increments.layers, units.network.steps[steps[0]].length
    if length % prod(space[0]) or any(i not in inner or units.network.steps[i].length != length for i in steps):
        return False
    grids, torus = _grids(units, {**found, **dict.fromkeys(steps, space)})
    pairs = [(i, k) for i in steps for k in inner[i].blocks]
    if any(k not in grids or k == i or len(inner[i].units) != length for i, k in pairs):
        return False
    try:
        for i, k in pairs:
            kernel(inner[i].blocks[k], grids[i], grids[k], torus)
    except CertificateRejected:
        return False
    return True


def rows_of(grid: Grid, values: np.ndarray) -> np.ndarray:
    """By row the least of its units' values; of rows without units the largest of all."""
    least = np.full(grid.rows, values.max())
    np.minimum.at(least, grid.places()[0], values)
    return least
