"""Resize and Upsample: every axis on its own, by picking cells or by weighing neighbouring ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import ceil, floor
from typing import Any

import numpy as np

from provenn.models.onnx_ops.contraction import along
from provenn.models.onnx_ops.plan import Node, Plan, Value
from provenn.models.onnx_ops.rearranging import rearranged
from provenn.models.tensors import Array

COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "tf_half_pixel_for_nn",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")


@dataclass(frozen=True)
class Stretch:
    """An axis of `old` cells brought to `new` cells; scale: of the file, or new / old where lengths are given."""

    old: int
    new: int
    scale: Fraction

    def place(self, cell: int, how: str, number: Any = Fraction) -> Any:
        """Where cell `cell` of the result lies in the input, in rationals or in another kind of number.

        Source: ONNX Resize-19, coordinate_transformation_mode.
        """
        x, half = number(cell), number(1) / number(2)
        scale = number(float(self.scale)) if number is not Fraction else self.scale
        if how == "align_corners":
            return x * number(self.old - 1) / number(self.new - 1) if self.new > 1 else number(0)
        if how == "asymmetric":
            return x / scale
        if how == "tf_half_pixel_for_nn":
            return (x + half) / scale
        if how == "pytorch_half_pixel" and self.new == 1:
            return number(0)
        shift = number(0)
        if how == "half_pixel_symmetric":
            # The result's cells cover new / scale of the input, in its middle.
            shift = number(self.old) / number(2) * (number(1) - number(self.new) / (scale * number(self.old)))
        return shift + (x + half) / scale - half


@dataclass(frozen=True)
class Manner:
    """What is computed at a place between cells; names are ONNX's attributes."""

    mode: str
    how: str
    rounding: str
    coefficient: float = -0.75
    exclude_outside: bool = False


def resize(plan: Plan, node: Node) -> Sequence[Value]:
    """Nearest, linear or cubic, without antialiasing."""
    x, first = node.input(0), node.opset < 11
    manner = Manner(
        node.attribute("mode", "nearest"),
        node.attribute("coordinate_transformation_mode", "asymmetric" if first else "half_pixel"),
        node.attribute("nearest_mode", "simple" if first else "round_prefer_floor"),
        node.attribute("cubic_coeff_a", -0.75),
        node.flag("exclude_outside"),
    )
    node.attribute("extrapolation_value")
    node.supported(not node.flag("antialias"), "antialias 1; export the network with antialias off")
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    node.supported(policy == "stretch", f"keep_aspect_ratio_policy '{policy}'; only 'stretch' is read")
    axes = node.attribute("axes")
    named = [node.axis(a, len(x.shape)) for a in (range(len(x.shape)) if axes is None else axes)]
    scales, sizes = _numbers(plan, node, 1 if first else 2), node.given(3)
    extents = [x.shape[a] for a in named]
    if scales:
        stretches = _scaled(node, extents, scales)
    else:
        node.require(sizes is not None, "it has neither scales nor sizes")
        lengths = node.integers(3, "the sizes")
        node.require(len(lengths) == len(extents) and min(lengths) > 0, f"sizes {list(lengths)} do not fit {extents}")
        stretches = [Stretch(n, m, Fraction(m, n)) for n, m in zip(extents, lengths, strict=True)]
    return [_resized(plan, node, x, dict(zip(named, stretches, strict=True)), manner)]


def upsample(plan: Plan, node: Node) -> Sequence[Value]:
    """Resize of older operator sets: nearest or linear, cell 0 in place."""
    x, mode = node.input(0), node.attribute("mode", "nearest")
    listed = node.attribute("scales")
    stretches = _scaled(node, x.shape, _numbers(plan, node, 1) if listed is None else listed)
    node.require(all(s.scale >= 1 for s in stretches), "it must not make an axis shorter")
    return [_resized(plan, node, x, dict(enumerate(stretches)), Manner(mode, "asymmetric", "simple"))]


def _numbers(plan: Plan, node: Node, position: int) -> list[float]:
    """The scales, float32 as runtimes read them; none where they are left out."""
    if node.given(position) is None:
        return []
    scales = plan.agreed(node, node.constant(position, "the scales"), lambda a: a.astype(np.float32))
    return [float(v) for v in scales.ravel()]


def _scaled(node: Node, extents: Sequence[int], scales: Sequence[float]) -> list[Stretch]:
    """Axes brought to floor(length * scale), as float32 multiplies them.   Source: ONNX Resize-19."""
    fits = len(scales) == len(extents) and all(0 < s < np.inf for s in scales)
    node.require(fits, f"scales {list(scales)} do not fit lengths {list(extents)}")
    new = [floor(np.float32(s) * np.float32(n)) for n, s in zip(extents, scales, strict=True)]
    node.require(min(new, default=1) > 0, f"nothing is left at scales {list(scales)}")
    return [Stretch(n, m, Fraction(s)) for n, m, s in zip(extents, new, scales, strict=True)]


def _resized(plan: Plan, node: Node, x: Value, stretches: dict[int, Stretch], manner: Manner) -> Value:
    known = ", ".join(COORDINATES)
    node.supported(manner.how in COORDINATES, f"coordinate_transformation_mode '{manner.how}'; known: {known}")
    node.supported(manner.rounding in ROUNDINGS, f"nearest_mode '{manner.rounding}'")
    node.supported(manner.mode in ("nearest", "linear", "cubic"), f"mode '{manner.mode}'")
    shape = tuple(stretches[a].new if a in stretches else n for a, n in enumerate(x.shape))
    plan.limits.require_elements(shape, f"node '{node.name}': its result")
    moved = {a: s for a, s in stretches.items() if s.scale != 1 or s.new != s.old}
    plan.require_indices(node, sum(s.new for s in moved.values()))
    # Runtimes return the input there, which is not what the specification of ONNX computes.
    node.supported(not moved or shape != x.shape, f"scales other than 1 that leave the shape {list(shape)} as it is")
    if manner.mode == "nearest":
        cells = [np.arange(n) for n in x.shape]
        cells = [_nearest(node, moved[a], manner) if a in moved else c for a, c in enumerate(cells)]
        return rearranged(plan, node, [x], shape, lambda a: a[np.ix_(*cells)] if cells else a)
    for axis, stretch in moved.items():
        x = along(plan, node, x, axis, (stretch.new, stretch.old), partial(_weights, stretch, manner))
    return x


def _nearest(node: Node, stretch: Stretch, manner: Manner) -> Array:
    """The cell that each cell of the result takes.

    Raises: UnsupportedOp where float32, in which runtimes compute the place, rounds to another cell than its exact
    value: the network that runs would not be the one that is verified.
    """
    exact = [_rounded(stretch.place(i, manner.how), stretch, manner.rounding) for i in range(stretch.new)]
    single = [stretch.place(i, manner.how, np.float32) for i in range(stretch.new)]
    rounded = [_rounded(Fraction(float(p)), stretch, manner.rounding) for p in single]
    node.supported(exact == rounded, f"a scale of {float(stretch.scale)}, which float32 rounds across a cell's border")
    return np.array(exact)


def _rounded(place: Fraction, stretch: Stretch, rounding: str) -> int:
    half = Fraction(1, 2)
    if rounding == "simple":
        rounding = "ceil" if stretch.scale < 1 else "floor"
    cell = {
        "floor": floor(place),
        "ceil": ceil(place),
        "round_prefer_floor": ceil(place - half),
        "round_prefer_ceil": floor(place + half),
    }[rounding]
    return min(max(cell, 0), stretch.old - 1)


def _weights(stretch: Stretch, manner: Manner) -> Array:
    """Weights of the cells of the input in each cell of the result: [new, old]; cells beyond an end are that end."""
    matrix = np.zeros((stretch.new, stretch.old))
    last = stretch.old - 1
    for row in range(stretch.new):
        place = stretch.place(row, manner.how)
        if manner.mode == "linear":
            place = min(max(place, Fraction(0)), Fraction(last))
        cell = floor(place)
        weights = _taps(place - cell, manner)
        if manner.exclude_outside and manner.mode == "cubic":
            weights = {step: w for step, w in weights.items() if 0 <= cell + step <= last}
            total = sum(weights.values())
            weights = {step: w / total for step, w in weights.items()}
        for step, weight in weights.items():
            matrix[row, min(max(cell + step, 0), last)] += float(weight)
    return matrix


def _taps(t: Fraction, manner: Manner) -> dict[int, Fraction]:
    """Weights of the cells around a place `t` behind cell 0.   Source: Keys 1981 for the cubic kernel."""
    if manner.mode == "linear":
        return {0: 1 - t, 1: t}
    a = Fraction(manner.coefficient)

    def near(d: Fraction) -> Fraction:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Fraction) -> Fraction:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return {-1: far(t + 1), 0: near(t), 1: near(1 - t), 2: far(2 - t)}
