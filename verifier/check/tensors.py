"""Numbers out of an ONNX file: tensors, attributes and nodes, exactly or not at all."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from provenn.verifier.check.network import Index
from provenn.verifier.check.rejected import CertificateRejected, require
from provenn.verifier.check.rounding import Array

FILE_LIMIT, ELEMENT_LIMIT = 2**30, 2**24  # bytes of a file after decompression; entries of any one tensor
Constant = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Entries:
    """A tensor whose entry at p is entry index[p] of step `step`: moving entries about costs no step."""

    step: int
    index: Index


Tensor = Constant | Entries


def decompressed(data: bytes, what: str) -> bytes:
    """Itself, or the content of a gzip file.   Raises: CertificateRejected if it is broken or too large."""
    if data[:2] != b"\x1f\x8b":
        return data
    stream = zlib.decompressobj(wbits=31)
    try:
        content = stream.decompress(data, FILE_LIMIT)
    except zlib.error as error:
        raise CertificateRejected(what, f"the gzip data is broken: {error}") from error
    require(stream.eof and not stream.unused_data, what, "the gzip data is truncated, too large, or followed by more")
    return content


def budget(shape: Sequence[int], limit: int = ELEMENT_LIMIT) -> None:
    """Raises: CertificateRejected if a tensor of this shape would be too large."""
    require(prod(max(int(n), 1) for n in shape) <= limit, "model", f"a tensor of shape {list(shape)} is too large")


def decode(tensor: onnx.TensorProto) -> Constant:
    """The numbers of a tensor stored within the file itself.

    Raises: CertificateRejected for external data, other types, wrong lengths, or floats that are not finite or
    (float64 only) outside 2^-300 .. 2^300, where products neither overflow nor underflow.
    """
    inside = tensor.data_location == onnx.TensorProto.DEFAULT and not tensor.external_data
    require(inside and tensor.data_type in (1, 6, 7, 9, 10, 11), "model", f"tensor {tensor.name}: its data is not read")
    budget(tensor.dims)
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise CertificateRejected("model", f"tensor {tensor.name}: {error}") from error
    sizes = np.abs(values[values != 0].astype(np.float64)) if values.dtype.kind == "f" else np.ones(1)
    fits = ((sizes >= 2.0**-300) & (sizes <= 2.0**300)).all()
    require(fits, "model", f"tensor {tensor.name}: a number is not finite, or too large or small")
    return values


@dataclass
class Node:
    """One node: its operator, the tensors it reads (None: left out), and its attributes, removed as they are read."""

    name: str
    operator: str
    inputs: list[Tensor | None]
    outputs: int
    attributes: dict[str, Any]

    def require(self, condition: object, reason: str) -> None:
        """Raises: CertificateRejected naming this node unless the condition holds."""
        require(condition, "model", f"node {self.name} ({self.operator}): {reason}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value."""
        return self.attributes.pop(name, default)

    def has(self, position: int) -> bool:
        """Whether there is an input at `position`."""
        return position < len(self.inputs) and self.inputs[position] is not None

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
        return self.constant(position, "f").astype(np.float64)

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """The shape of the tensor at `position`, at batch 1."""
        tensor = self.inputs[position]
        return tensor.index.shape if isinstance(tensor, Entries) else self.constant(position).shape

    def listed(self, name: str, position: int) -> list[int] | None:
        """Integers that are an attribute in older operator sets and an input in newer ones; None if left out."""
        given = self.attribute(name)
        return [int(n) for n in self.constant(position, "i").ravel()] if self.has(position) else given
