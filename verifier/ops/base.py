"""The kinds of op. An op holds its parameters and its mathematics; values and bounds never live on it.

Shapes: a node's value is [batch, *node]; linear coefficients over it are [spec, batch, *node].

* `Affine`: affine in all inputs together. Declares `apply` and `magnitude`; its adjoint comes from `apply`.
* `Elementwise`: one input, the same scalar function everywhere. Declares `forward`, `interval` and `relax`.
* Anything else derives from `Op` and says itself how bounds pass forward and backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from provenn.verifier.interval import Interval
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Op(ABC):
    """One operation. Subclasses are frozen dataclasses whose Tensor fields are its parameters."""

    onnx: ClassVar[tuple[str, ...]]
    """The ONNX operators that are read into this op (documentation: `provenn ops`)."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The value, from inputs [batch, *node] to an output [batch, *node]."""

    @abstractmethod
    def interval(self, *inputs: Interval) -> Interval:
        """An enclosure of `forward` over a box of inputs."""

    @abstractmethod
    def backward(
        self, coefficients: Float[Tensor, "spec batch *node"], inputs: Sequence[Interval]
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """(B_1.., c) with  sum_i B_i x_i + c <= A op(x_1..)  for every x in the boxes `inputs`.

        coefficients A: [spec, batch, *output]; B_i: [spec, batch, *input_i]; c: [spec, batch], or None for zero.
        """

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """The same op with its parameters on `device`, rounded to `dtype`."""
        moved = {f.name: v.to(device, dtype) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Affine(Op):
    """apply(x_1, .., x_k) is affine in (x_1, .., x_k) jointly: the affinity identity is a test for every subclass."""

    has_offset: ClassVar[bool] = False
    """Whether apply(0) can differ from 0."""

    @abstractmethod
    def apply(self, *inputs: Tensor) -> Tensor:
        """The affine map on [batch, *input_i]."""

    def magnitude(self, *radii: Tensor) -> Tensor:
        """The map with every parameter replaced by its absolute value and no offset, on non-negative radii.

        The default is right for ops without parameters whose coefficients are non-negative (shape, sum, pooling).
        """
        return self.apply(*radii)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The affine map itself."""
        return self.apply(*inputs)

    def interval(self, *inputs: Interval) -> Interval:
        """Centre and radius: f(c) -/+ |f|(r). Exact for real arithmetic."""
        centre = self.apply(*((x.lower + x.upper) / 2 for x in inputs))
        radius = self.magnitude(*((x.upper - x.lower) / 2 for x in inputs))
        return Interval(centre - radius, centre + radius)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A -> A J_i for every input i: the vector-Jacobian product. [rows, *output] -> [rows, *input_i]."""
        zeros = [coefficients.new_zeros((coefficients.shape[0], *shape)) for shape in shapes]
        _, pull = torch.func.vjp(self.apply, *zeros)
        return tuple(pull(coefficients))

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor:
        """apply(0): [1, *output]."""
        return self.apply(*(like.new_zeros((1, *shape)) for shape in shapes))

    def backward(
        self, coefficients: Float[Tensor, "spec batch *node"], inputs: Sequence[Interval]
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """A f(x) = sum_i (A J_i) x_i + A f(0), exactly."""
        spec, batch = coefficients.shape[:2]
        shapes = [tuple(x.lower.shape[1:]) for x in inputs]
        pulled = self.adjoint(coefficients.flatten(0, 1), shapes)
        constant = None
        if self.has_offset:
            offset = self.offset(shapes, coefficients).flatten()
            constant = coefficients.flatten(2) @ offset
        return tuple(p.unflatten(0, (spec, batch)) for p in pulled), constant


@dataclass(frozen=True, eq=False)
class Relaxation:
    """lower_slope z + lower_intercept <= phi(z) <= upper_slope z + upper_intercept; all [batch, *node]."""

    lower_slope: Tensor
    lower_intercept: Tensor
    upper_slope: Tensor
    upper_intercept: Tensor

    def backward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c) with  B z + c <= A phi(z): positive coefficients take the lower line, negative ones the upper."""
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        pulled = positive * self.lower_slope + negative * self.upper_slope
        constant = (positive * self.lower_intercept + negative * self.upper_intercept).flatten(2).sum(-1)
        return pulled, constant


@dataclass(frozen=True)
class Elementwise(Op):
    """One scalar function applied to every coordinate of one input."""

    @abstractmethod
    def relax(self, lower: Float[Tensor, "batch *node"], upper: Float[Tensor, "batch *node"]) -> Relaxation:
        """Two lines that enclose the function on [lower, upper]."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The function, coordinate by coordinate."""

    def interval(self, *inputs: Interval) -> Interval:
        """Exact for a non-decreasing function, the common case."""
        return Interval(self.forward(inputs[0].lower), self.forward(inputs[0].upper))

    def backward(
        self, coefficients: Float[Tensor, "spec batch *node"], inputs: Sequence[Interval]
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Through the two lines of `relax`."""
        pulled, constant = self.relax(inputs[0].lower, inputs[0].upper).backward(coefficients)
        return (pulled,), constant
