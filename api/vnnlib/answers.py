"""An assignment as the standard prints it, or as files.   Source: the VNN-LIB standard 2.0, section 5.3.1."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from provenn.models.query.replaying import Execution
from provenn.verifier.query.query import Query, Tensor

NUMPY = {"float32": np.float32, "float64": np.float64, "int64": np.int64, "int32": np.int32}
"""Declared element types as numpy has them; `real` numbers are float64 in a file."""


def printed(query: Query, execution: Execution) -> str:
    """Every declared tensor: its name, type and shape on one line, then a value a line, in C order."""
    return "".join(f"{line}\n" for tensor in query.tensors for line in _lines(tensor, execution))


def write(query: Query, execution: Execution, folder: Path) -> None:
    """One file a declared tensor, `<name>.pb`: a serialised TensorProto.   Raises: OSError."""
    from onnx import numpy_helper

    for tensor in query.tensors:
        values = np.array(execution.values(tensor.elements), NUMPY.get(tensor.dtype, np.float64))
        proto = numpy_helper.from_array(values.reshape(_shape(tensor)), tensor.name)
        (folder / f"{tensor.name}.pb").write_bytes(proto.SerializeToString())


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.count,) if tensor.shape is None else tensor.shape


def _lines(tensor: Tensor, execution: Execution) -> Iterator[str]:
    yield f"{tensor.name} {tensor.dtype} [{','.join(map(str, _shape(tensor)))}]"
    for value in execution.values(tensor.elements):
        yield number(value, tensor.dtype)


def number(value: Any, dtype: str) -> str:
    """The value in decimals, without an exponent: exactly, or where the type is a float's as few as tell it apart."""
    if dtype.startswith("int"):
        return str(int(value))
    if dtype == "real":
        exact = format(Decimal(float(value)), "f")
        return exact if "." in exact else f"{exact}.0"
    return np.format_float_positional(value, unique=True, trim="0")
