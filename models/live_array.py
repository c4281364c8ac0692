"""Stored numbers that carry gradients: what the reader of networks computes with a torch tensor in an array's place."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from provenn.models.tensors import Array

FUNCTIONS: dict[np.ufunc, Callable[..., Tensor]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.negative: operator.neg,
    np.power: operator.pow,
    np.sqrt: torch.sqrt,
    np.absolute: torch.abs,
    np.minimum: torch.minimum,
    np.maximum: torch.maximum,
}
"""numpy's functions of numbers, by torch's of the same name."""

TESTS = (np.isfinite, np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)
"""Those whose results are truths: they carry no gradient."""


class LiveArray(np.lib.mixins.NDArrayOperatorsMixin):
    """A torch tensor that numpy's functions take for an array, as far as parameters of networks need them.

    Everything is computed by torch, in the tensor's precision and on its device, and can be differentiated. What there
    is no rule for is a TypeError: numbers never leave silently.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """One of FUNCTIONS, or of TESTS."""
        if method == "__call__" and not options and function in TESTS:
            return function(*(plain(x) for x in inputs))
        if method != "__call__" or options or function not in FUNCTIONS:
            raise TypeError(f"there is no gradient of numpy's {function.__name__} here")
        return LiveArray(FUNCTIONS[function](*(self._beside(x) for x in inputs)))

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        """One of the functions of arrays that are listed here."""
        rule = ARRAY_FUNCTIONS.get(function)
        if rule is None:
            raise TypeError(f"there is no gradient of numpy's {function.__name__} here")
        return rule(*args, **kwargs)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """Raises: TypeError: an array of these numbers would not carry gradients."""
        raise TypeError("an array cannot carry the gradients of a parameter")

    def __getitem__(self, index: Any) -> LiveArray:
        """The entries there; steps backwards through a list of places."""
        parts = index if isinstance(index, tuple) else (index,)
        return LiveArray(self.values[tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in parts)])

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return tuple(self.values.shape)

    @property
    def ndim(self) -> int:
        """As an array's."""
        return self.values.dim()

    @property
    def size(self) -> int:
        """As an array's."""
        return self.values.numel()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of the tensor's precision."""
        return np.dtype(str(self.values.dtype).removeprefix("torch."))

    @property
    def T(self) -> LiveArray:  # noqa: N802 -- numpy's name
        """The axes in reverse order."""
        return self.transpose()

    def transpose(self, *axes: Any) -> LiveArray:
        """As an array's."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return LiveArray(self.values.permute(*(order or reversed(range(self.ndim)))))

    def reshape(self, *shape: Any) -> LiveArray:
        """As an array's."""
        return LiveArray(self.values.reshape(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape))

    def ravel(self) -> LiveArray:
        """As an array's."""
        return self.reshape(-1)

    def _beside(self, x: Any) -> Any:
        """An operand as torch takes it, on this tensor's device and in its precision."""
        if isinstance(x, LiveArray):
            return x.values
        return torch.as_tensor(x, device=self.values.device, dtype=self.values.dtype)


def plain(value: Any) -> Any:
    """The numbers alone."""
    return value.values.detach().cpu().numpy() if isinstance(value, LiveArray) else value


def as_array(value: Any) -> Array:
    """As numpy's `asarray`, which leaves live numbers as they are."""
    return value if isinstance(value, LiveArray) else np.asarray(value)  # type: ignore[return-value]


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    like = next(v for v in values if isinstance(v, LiveArray))
    return [like._beside(v) for v in values]


def _einsum(equation: str, *operands: Any, optimize: bool = True) -> LiveArray:
    return LiveArray(torch.einsum(equation, *_tensors(operands)))


def _where(condition: Any, first: Any, second: Any) -> LiveArray:
    one, other = _tensors([first, second])
    return LiveArray(torch.where(torch.as_tensor(plain(condition), device=one.device), one, other))


def _concatenate(arrays: Sequence[Any], axis: int = 0) -> LiveArray:
    return LiveArray(torch.cat(_tensors(arrays), axis))


ARRAY_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.all: lambda a: np.all(plain(a)),
    np.any: lambda a: np.any(plain(a)),
    np.broadcast_to: lambda a, shape: LiveArray(a.values.expand(shape)),
    np.concatenate: _concatenate,
    np.einsum: _einsum,
    np.flip: lambda a, axis: LiveArray(a.values.flip(axis)),
    np.moveaxis: lambda a, source, target: LiveArray(a.values.movedim(source, target)),
    np.reshape: lambda a, shape: a.reshape(shape),
    np.tile: lambda a, repeats: LiveArray(a.values.tile(tuple(repeats))),
    np.transpose: lambda a, axes=None: a.transpose(*([axes] if axes is not None else [])),
    np.where: _where,
}
