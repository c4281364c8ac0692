"""The kinds of op. An op holds its parameters and its mathematics; values and bounds never live on it.

Shapes: a node's value is [batch, *node]; linear coefficients over it are [spec, batch, *node].

* `Affine`: affine in all inputs together. Declares `apply` and `magnitude`; its adjoint comes from `apply`.
* `Elementwise`: one input, the same scalar function everywhere. Declares `forward`, `interval` and `relax`.
* Anything else derives from `Op` and says itself how bounds pass forward and backward.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.interval import Interval

Shape = tuple[int, ...]

Linearization = Callable[[Tensor], tuple[tuple[Tensor, ...], Tensor | None]]
"""A -> ((B_1, ..), c) with  sum_i B_i x_i + c <= A op(x_1, ..)  over the boxes it was made for (see Op.backward)."""


@dataclass(frozen=True)
class Op(ABC):
    """One operation. Subclasses are frozen dataclasses whose Tensor fields are its parameters."""

    onnx: ClassVar[tuple[str, ...]]
    """The ONNX operators that are read into this op (documentation: `provenn ops`)."""

    affine: ClassVar[bool] = False
    """Whether the op is exactly affine, so that its linear bounds do not depend on the box."""

    separable: ClassVar[bool] = False
    """Whether every output coordinate reads at most one input coordinate, and none is read twice: boxes stay boxes."""

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

    def linearize(self, inputs: Sequence[Interval]) -> Linearization:
        """`backward` over fixed boxes, so that what depends on the boxes alone is computed once."""
        return lambda coefficients: self.backward(coefficients, inputs)

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """For every input where a tighter bound could tighten the linear bounds: [batch, *input] of bool, or None."""
        return tuple(x.lower < x.upper for x in inputs)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Op:
        """The same op with its parameters on `device`, rounded to `dtype`."""
        moved = {f.name: v.to(device, dtype) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Affine(Op):
    """apply(x_1, .., x_k) is affine in (x_1, .., x_k) jointly: the affinity identity is a test for every subclass."""

    affine = True
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

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Nowhere: an affine map is its own linear bound."""
        return (None,) * len(inputs)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A -> A J_i for every input i: the vector-Jacobian product. [rows, *output] -> [rows, *input_i]."""
        zeros = [coefficients.new_zeros((coefficients.shape[0], *shape)) for shape in shapes]
        pull = torch.func.vjp(self.apply, *zeros)[1]
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
        return tuple(p.reshape(spec, batch, *p.shape[1:]) for p in pulled), constant


@dataclass(frozen=True, eq=False)
class Relaxation:
    """lower_slope z + lower_intercept <= phi(z) <= upper_slope z + upper_intercept; all [batch, *node].

    lower_intercept None stands for zero.
    """

    lower_slope: Tensor
    lower_intercept: Tensor | None
    upper_slope: Tensor
    upper_intercept: Tensor

    def backward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c) with  B z + c <= A phi(z): positive coefficients take the lower line, negative ones the upper."""
        negative = coefficients.clamp(max=0)
        pulled = torch.addcmul(coefficients * self.lower_slope, negative, self.upper_slope - self.lower_slope)
        constant = torch.einsum("sbn,bn->sb", negative.flatten(2), self.upper_intercept.flatten(1))
        if self.lower_intercept is not None:
            positive = coefficients.clamp(min=0).flatten(2)
            constant = constant + torch.einsum("sbn,bn->sb", positive, self.lower_intercept.flatten(1))
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
        return self.linearize(inputs)(coefficients)

    def linearize(self, inputs: Sequence[Interval]) -> Linearization:
        """The two lines of `relax`, computed once."""
        relaxation = self.relax(inputs[0].lower, inputs[0].upper)

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            pulled, constant = relaxation.backward(coefficients)
            return (pulled,), constant

        return pull
