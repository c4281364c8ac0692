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
from provenn.verifier.ops.form import Form, combined, common
from provenn.verifier.ops.increments import Increments, Scope, jointly
from provenn.verifier.ops.pull import Pull, pull, vector_jacobian
from provenn.verifier.ops.window import Window, Windowed

Shape = tuple[int, ...]

LARGEST_ROWS = 1 << 22
"""Coefficients of unit rows over an op's inputs, up to which its forms are found from its linear bounds."""

Linearization = Callable[[Tensor], tuple[tuple[Tensor, ...], Tensor | None]]
"""A -> ((B_1, ..), c) with  sum_i B_i x_i + c <= A op(x_1, ..)  over the boxes it was made for (see Op.backward)."""


WindowLinearization = Callable[[Windowed], tuple[tuple[Windowed, ...], Tensor | None]]
"""The same for rows that read a window only."""


@dataclass(frozen=True)
class Op(ABC):
    """One operation. Subclasses are frozen dataclasses whose Tensor fields are its parameters."""

    onnx: ClassVar[tuple[str, ...]]
    """The ONNX operators that are read into this op (documentation: `provenn ops`)."""

    affine: ClassVar[bool] = False
    """Whether the op is exactly affine, so that its linear bounds do not depend on the box."""

    separable: ClassVar[bool] = False
    """Whether every output coordinate reads at most one input coordinate, and none is read twice: boxes stay boxes.

    A Scale that repeats its node does read it twice: what follows may be bounded more loosely, never wrongly.
    """

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

    def free(self, *inputs: Interval) -> Tensor | None:
        """Where the free parameters of the linear bounds start: [1, batch, *any] in [0, 1]; None if there are none.

        linearize(inputs, free(inputs)) has, up to rounding, the lines of linearize(inputs).
        """
        return None

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """`backward` over fixed boxes, so that what depends on the boxes alone is computed once.

        parameters: [spec, batch, *any] as `free` shapes them, its first axis 1 (shared by all rows) or one entry a
        row; any numbers in [0, 1] give sound bounds, and the bounds are differentiable in them and in the boxes.
        """
        return lambda coefficients: self.backward(coefficients, inputs)

    def units(self, index: Tensor, sign: Tensor) -> tuple[Tensor, Tensor] | None:
        """`backward` of signed unit rows over a node of one axis, where that is only a look-up: None where it is not.

        index, sign: [spec, batch].
        """
        return None

    def reach(self, window: Window, shapes: Sequence[Shape]) -> tuple[Window, ...] | None:
        """The windows of the inputs, nodes of `shapes`, that a window of the output reads; None: there is no rule."""
        return None

    def linearize_window(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> WindowLinearization:
        """`linearize` for rows that read a window, where `reach` has a rule; parameters are the window's."""
        raise NotImplementedError(f"{type(self).__name__} has no rule for windows")

    def push(self, forms: Sequence[Form], boxes: Sequence[Interval]) -> Form | None:
        """The form of the output from those of the inputs, over boxes of the inputs; None where it would be too large.

        The general rule: the linear bounds of every cell of the output, from unit rows.
        """
        lower = boxes[0].lower
        shape = self.forward(*(box.lower for box in boxes)).shape[1:]
        cells, batch = shape.numel(), lower.shape[0]
        if cells * sum(box.lower.numel() for box in boxes) > LARGEST_ROWS:
            return None
        units = torch.eye(cells, dtype=lower.dtype, device=lower.device).reshape(cells, 1, *shape)
        units, pull = units.expand(cells, batch, *shape), self.linearize(boxes)
        (below, least), (above, most) = pull(units), pull(-units)
        highest = [-rows for rows in above], None if most is None else -most
        form = combined((below, least), highest, common(forms))
        assert form.radius is not None
        return Form(*(part.reshape(*part.shape[:2], *shape) for part in (form.middle, form.radius)))

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments | None:
        """How the difference of two executions passes (see increments.py); None: there is no rule."""
        return None

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """For every input where a tighter bound could tighten the linear bounds: [batch, *input] of bool, or None."""
        return tuple(x.lower < x.upper for x in inputs)

    @property
    def live(self) -> bool:
        """Whether gradients of a parameter are asked for."""
        return any(v.requires_grad for v in vars(self).values() if isinstance(v, Tensor))

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
        """The map with every parameter replaced by its absolute value and no offset: linear, monotone.

        The default is right for ops without parameters whose coefficients are non-negative (shape, sum, pooling).
        """
        return self.apply(*radii)

    def push(self, forms: Sequence[Form], boxes: Sequence[Interval]) -> Form | None:
        """With inputs m + e, |e| <= r:  f(m) -/+ |f|(r), as for an interval. Columns act like a batch."""
        forms = common(forms)
        size = forms[0].middle.shape[:2]
        middle = self.apply(*(form.middle.flatten(0, 1) for form in forms))
        middle = middle.reshape(*size, *middle.shape[1:])
        if self.has_offset and len(middle) > 1:
            # f(s c) - f(0) = s (f(c) - f(0)): at that scale of the coefficients the offset is below their rounding.
            middle[:-1] -= self.offset([tuple(form.middle.shape[2:]) for form in forms], middle)
        radii = [form.radius.flatten(0, 1) for form in forms if form.radius is not None]
        return Form(middle, self.magnitude(*radii).reshape(middle.shape) if radii else None)

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Linearly, without the offset: (f(s x) - f(0)) / s,  s large, so that a large offset leaves x its digits."""
        if not self.has_offset:
            return jointly(self.apply, inputs)
        shapes = [tuple(x.like.shape[1:]) for x in inputs]
        offset, s = self.offset(shapes, inputs[0].like), 2.0**40
        return jointly(lambda *parts: (self.apply(*(s * x for x in parts)) - offset) / s, inputs)

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
        return vector_jacobian(self.apply, zeros, coefficients, self.live)

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
    """lower_slope z + lower_intercept <= phi(z) <= upper_slope z + upper_intercept.

    Each [batch, *node], or [spec, batch, *node] where every row has its own; lower_intercept None stands for zero.
    """

    lower_slope: Tensor
    lower_intercept: Tensor | None
    upper_slope: Tensor
    upper_intercept: Tensor

    def backward(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c) with  B z + c <= A phi(z): positive coefficients take the lower line, negative ones the upper."""
        lines = (self.lower_slope, self.lower_intercept, self.upper_slope, self.upper_intercept)
        if torch.is_grad_enabled():
            return Pull.through(coefficients, *lines)
        return pull(coefficients, *lines)

    def push(self, form: Form) -> Form:
        """The form of phi(z) from that of z = m + e, |e| <= r:  s m - |s| r <= s z <= s m + |s| r for any slope s."""
        low, high = self.lower_slope, self.upper_slope
        intercept = torch.zeros_like(self.upper_intercept) if self.lower_intercept is None else self.lower_intercept
        middle, radius = form.middle * ((low + high) / 2), form.middle * ((high - low) / 2)
        if form.radius is not None:
            middle = torch.addcmul(middle, form.radius, (high.abs() - low.abs()) / 2)
            radius = torch.addcmul(radius, form.radius, (high.abs() + low.abs()) / 2)
        return Form.between(middle, radius, intercept, self.upper_intercept)

    def stacked(self) -> Tensor:
        """The lines as one tensor, its channels those of the node, four times: [batch, 4 channels, *size]."""
        intercept = torch.zeros_like(self.lower_slope) if self.lower_intercept is None else self.lower_intercept
        return torch.cat([self.lower_slope, intercept, self.upper_slope, self.upper_intercept], 1)


@dataclass(frozen=True)
class Elementwise(Op):
    """One scalar function applied to every coordinate of one input."""

    kink: ClassVar[float | None] = None
    """Where the function bends, if it is linear on either side: the best place to split an argument."""

    @abstractmethod
    def relax(
        self, lower: Float[Tensor, "batch *node"], upper: Float[Tensor, "batch *node"], parameters: Tensor | None = None
    ) -> Relaxation:
        """Two lines that enclose the function on [lower, upper]; parameters as for `linearize`."""

    @abstractmethod
    def derivative(self, box: Interval) -> Interval:
        """An enclosure of the (Clarke) derivative over the box: infinite ends where the function jumps."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The function, coordinate by coordinate."""

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """One unit a coordinate."""
        return scope.units(inputs[0], *scope.slopes())

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes, to be called with many parameters."""
        return lambda parameters: self.relax(lower, upper, parameters)

    def interval(self, *inputs: Interval) -> Interval:
        """Exact for a non-decreasing function, the common case."""
        return Interval(self.forward(inputs[0].lower), self.forward(inputs[0].upper))

    def backward(
        self, coefficients: Float[Tensor, "spec batch *node"], inputs: Sequence[Interval]
    ) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Through the two lines of `relax`."""
        return self.linearize(inputs)(coefficients)

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """The two lines of `relax`."""
        relaxer = self.relaxer(inputs[0].lower, inputs[0].upper)
        fixed = relaxer(None) if parameters is None else None

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            pulled, constant = (fixed or relaxer(parameters)).backward(coefficients)
            return (pulled,), constant

        return pull

    def push(self, forms: Sequence[Form], boxes: Sequence[Interval]) -> Form | None:
        """Through the two lines of `relax`."""
        return self.relax(boxes[0].lower, boxes[0].upper).push(forms[0])

    def reach(self, window: Window, shapes: Sequence[Shape]) -> tuple[Window, ...] | None:
        """The same window."""
        return (window,)

    def linearize_window(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> WindowLinearization:
        """The lines of every cell that a row reads; without parameters they are looked up, else every row's own."""
        lower, upper = inputs[0].lower, inputs[0].upper
        shared = self.relax(lower, upper).stacked() if parameters is None else None
        relaxers: list[Callable[[Tensor | None], Relaxation]] = []

        def pull(rows: Windowed) -> tuple[tuple[Windowed, ...], Tensor | None]:
            if shared is not None:
                lines = Relaxation(*rows.look(shared).chunk(4, 2))
            else:
                rows = rows.cleared(tuple(lower.shape[2:]))
                if not relaxers:
                    relaxers.append(self._own_relaxer(rows.around(lower), rows.around(upper)))
                lines = relaxers[0](parameters)
            pulled, constant = lines.backward(rows.values)
            return (replace(rows, values=pulled, inside=True),), constant

        return pull

    def _own_relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """A relaxer over boxes [spec, batch, *window], one a row, for parameters of that many rows."""
        spec, batch = lower.shape[:2]
        relaxer = self.relaxer(lower.flatten(0, 1), upper.flatten(0, 1))

        def lines(parameters: Tensor | None) -> Relaxation:
            assert parameters is not None
            flat = relaxer(parameters.flatten(0, 1).unsqueeze(0))
            shape = (spec, batch, *lower.shape[2:])
            below = flat.lower_intercept if flat.lower_intercept is None else flat.lower_intercept.reshape(shape)
            low, high = flat.lower_slope.reshape(shape), flat.upper_slope.reshape(shape)
            return Relaxation(low, below, high, flat.upper_intercept.reshape(shape))

        return lines
