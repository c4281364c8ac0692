"""Ops that move, select, repeat or add cells without computing on them. Axes are the node's: the batch is not one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Shape
from provenn.verifier.ops.conv import split_padding
from provenn.verifier.ops.monotone import Monotone, aligned, require_axes, summed_to
from provenn.verifier.ops.window import padded


@dataclass(frozen=True)
class Reshape(Monotone):
    """The same cells in the same order, in a node of another shape."""

    shape: tuple[int, ...]

    onnx = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
    separable = True

    def apply(self, *inputs: Tensor) -> Tensor:
        """X, reshaped."""
        return inputs[0].reshape(inputs[0].shape[0], *self.shape)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A, reshaped back."""
        return (coefficients.reshape(coefficients.shape[0], *shapes[0]),)


@dataclass(frozen=True)
class Transpose(Monotone):
    """Axis i of the result is axis perm[i] of the input."""

    perm: tuple[int, ...]

    onnx = ("Transpose", "DepthToSpace", "SpaceToDepth")
    separable = True

    def __post_init__(self) -> None:
        if sorted(self.perm) != list(range(len(self.perm))):
            raise InvalidModel(f"Transpose: {self.perm} is not a permutation of the node's axes, counted from 0")

    def apply(self, *inputs: Tensor) -> Tensor:
        """X, its axes permuted."""
        return inputs[0].permute(0, *(axis + 1 for axis in self.perm))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A, its axes permuted back."""
        return (coefficients.permute(0, *(self.perm.index(axis) + 1 for axis in range(len(self.perm)))),)


@dataclass(frozen=True)
class Select(Monotone):
    """The cells at `indices` of one axis, in that order, repetitions allowed."""

    axis: int
    indices: tuple[int, ...]

    onnx = ("Slice", "Gather", "Split")

    def __post_init__(self) -> None:
        require_axes((self.axis,), "Select")
        if not self.indices or min(self.indices) < 0:
            raise InvalidModel(f"Select: indices {self.indices} of axis {self.axis} must be some, counted from 0")

    def apply(self, *inputs: Tensor) -> Tensor:
        """x[.., indices, ..]."""
        run = self._run
        if run is None or run.stop > inputs[0].shape[self.axis + 1]:
            return inputs[0].index_select(self.axis + 1, self._index(inputs[0]))
        return inputs[0][(slice(None),) * (self.axis + 1) + (run,)]

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A, added into zeros at the selected places."""
        zeros = coefficients.new_zeros((coefficients.shape[0], *shapes[0]))
        if self._run is not None:
            zeros[(slice(None),) * (self.axis + 1) + (self._run,)] = coefficients
            return (zeros,)
        return (zeros.index_add(self.axis + 1, self._index(coefficients), coefficients),)

    @property
    def _run(self) -> slice | None:
        """The indices as a slice, where they are evenly spaced and increasing: a view, without a copy."""
        first, last = self.indices[0], self.indices[-1]
        step = self.indices[1] - first if len(self.indices) > 1 else 1
        even = step > 0 and self.indices == tuple(range(first, last + 1, step))
        return slice(first, last + 1, step) if even else None

    def _index(self, like: Tensor) -> Tensor:
        return torch.tensor(self.indices, device=like.device)


@dataclass(frozen=True)
class Pad(Monotone):
    """Cells of a constant value added around each axis, or cells cropped where `pads` is negative.

    pads: ONNX's, the beginnings of all node axes, then the ends.   Raises: InvalidModel if `value` is not finite
    (an infinite constant has no linear bound).
    """

    pads: tuple[int, ...]
    value: float

    onnx = ("Pad", "CenterCropPad")
    has_offset = True
    separable = True

    def __post_init__(self) -> None:
        if not -float("inf") < self.value < float("inf"):
            raise InvalidModel(f"Pad: value {self.value} has no linear bound; only finite values can be padded")

    def apply(self, *inputs: Tensor) -> Tensor:
        """X within a frame of the value."""
        return padded(inputs[0], *split_padding(self.pads), self.value)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """R within a frame of zeros."""
        return padded(radii[0], *split_padding(self.pads))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A without its frame, zeros where x was cropped."""
        begin, end = split_padding(tuple(-n for n in self.pads))
        return (padded(coefficients, begin, end),)


@dataclass(frozen=True)
class Concat(Monotone):
    """The inputs one after the other along one axis."""

    axis: int

    onnx = ("Concat",)

    def __post_init__(self) -> None:
        require_axes((self.axis,), "Concat")

    def apply(self, *inputs: Tensor) -> Tensor:
        """[x_1, .., x_k]."""
        return torch.cat(inputs, self.axis + 1)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A, split where the inputs meet."""
        return tuple(torch.split_with_sizes(coefficients, [shape[self.axis] for shape in shapes], self.axis + 1))


@dataclass(frozen=True)
class Expand(Monotone):
    """The node repeated along axes of length 1 until it has `shape` (numpy broadcasting)."""

    shape: tuple[int, ...]

    onnx = ("Expand",)

    def apply(self, *inputs: Tensor) -> Tensor:
        """X, repeated."""
        x = aligned(inputs[0], len(self.shape))
        wanted = (1,) * (x.dim() - 1 - len(self.shape)) + self.shape
        return x.expand(x.shape[0], *(new if old == 1 else old for old, new in zip(x.shape[1:], wanted, strict=True)))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A, summed over the repetitions."""
        return (summed_to(coefficients, shapes[0]),)
