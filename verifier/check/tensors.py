"""Tensors of an ONNX file as the kernel reads them: constants, and entries of steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
import scipy.sparse
from numpy.typing import NDArray

from provenn.verifier.check.network import Affine, Index
from provenn.verifier.check.rounding import Array, require

ELEMENT_LIMIT, NONZERO_LIMIT = 2**24, 2**26  # entries of any one tensor, of any one matrix
Constant = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Entries:
    """A tensor whose entry at p is entry index[p] of step `step`: moving entries about costs no step."""

    step: int
    index: Index


Tensor = Constant | Entries


def budget(shape: Sequence[int], limit: int = ELEMENT_LIMIT) -> None:
    """Raises: CertificateRejected if a tensor of this shape would be too large."""
    require(prod(max(int(n), 1) for n in shape) <= limit, "model", f"a tensor of shape {list(shape)} is too large")


def decode(tensor: onnx.TensorProto) -> Constant:
    """The numbers of a tensor stored within the file itself.

    Raises: CertificateRejected for external data, other types, or floats that are not finite or (float64 only) outside
    2^-300 .. 2^300, where products neither overflow nor underflow; ValueError, TypeError for wrong lengths.
    """
    inside = tensor.data_location == onnx.TensorProto.DEFAULT and not tensor.external_data
    require(inside and tensor.data_type in (1, 6, 7, 9, 10, 11), "model", f"tensor {tensor.name}: its data is not read")
    budget(tensor.dims)
    values = onnx.numpy_helper.to_array(tensor)
    fits = values.dtype.kind != "f" or within_range(values)
    require(fits, "model", f"tensor {tensor.name}: a number is not finite, or too large or small")
    return values


def within_range(values: Constant) -> bool:
    """Whether all that are not 0 lie within 2^-300 .. 2^300 in magnitude."""
    sizes = np.abs(values[values != 0].astype(np.float64))
    return bool(((sizes >= 2.0**-300) & (sizes <= 2.0**300)).all())


@dataclass
class Node:
    """One node: its operator, the tensors it reads (None: left out), and its attributes, removed as they are read."""

    name: str
    operator: str
    inputs: list[Tensor | None]
    outputs: int
    attributes: dict[str, Any]
    doubts: list[str] = field(default_factory=list)

    def single(self, condition: object, reason: str) -> None:
        """Notes that float32 executions of this node are not covered (single.py) unless the condition holds."""
        self.doubts += [] if condition else [f"node {self.name} ({self.operator}): {reason}"]

    def require(self, condition: object, reason: str) -> None:
        """Raises: CertificateRejected naming this node unless the condition holds."""
        require(condition, "model", f"node {self.name} ({self.operator}): {reason}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value."""
        return self.attributes.pop(name, default)

    def variable(self, position: int = 0) -> Entries:
        """The tensor at `position`, which must depend on the network's input."""
        tensor = self.inputs[position]
        self.require(isinstance(tensor, Entries), f"input {position} is not computed from the network's input")
        return tensor  # type: ignore[return-value]

    def constant(self, position: int, kinds: str = "fib") -> Constant:
        """The constant at `position`, of floats "f", integers "i" or truth values "b"."""
        tensor = self.inputs[position]
        known = isinstance(tensor, np.ndarray) and tensor.dtype.kind in kinds
        self.require(known, f"input {position} is not a constant of the right type")
        return tensor  # type: ignore[return-value]

    def real(self, position: int) -> Array:
        """The constant of floats at `position` in float64, exactly."""
        value = self.constant(position, "f")
        self.single(value.dtype == np.float32, f"input {position} is {value.dtype}")
        return value.astype(np.float64)

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """The shape of the tensor at `position`, at batch 1."""
        tensor = self.inputs[position]
        return tensor.index.shape if isinstance(tensor, Entries) else self.constant(position).shape

    def listed(self, name: str, position: int) -> list[int] | None:
        """Integers that are an attribute in older operator sets and an input in newer ones; None if left out."""
        given = self.attribute(name)
        return [int(n) for n in self.constant(position, "i").ravel()] if self.inputs[position] is not None else given


def whole(step: int, shape: Sequence[int]) -> list[Tensor]:
    """The step as one tensor."""
    return [Entries(step, np.arange(prod(shape)).reshape(shape))]


def combination(positions: Index, numbers: Array, length: int) -> scipy.sparse.csr_array:
    """The matrix [n, length] of numbers [n, k] at positions [n, k], none twice in a row; -1 stands for nowhere."""
    present = positions >= 0
    ends = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return scipy.sparse.csr_array((numbers[present], positions[present], ends), (len(positions), length))


def sums(name: str, sources: tuple[int, ...], positions: Index, numbers: Array, width: int, singles: int = 3) -> Affine:
    """The step of sums of numbers [n, k] at positions [n, k] of the sources, `width` entries in a row."""
    matrix, zero = combination(positions, numbers, width), np.zeros(len(positions))
    return Affine(name, len(zero), sources, matrix, zero, zero, singles)
