"""A file of either format, told by its content: ONNX, or a network with implicit layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from provenn.models import implicit_reader, onnx_reader
from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_executor import ImplicitExecutor
from provenn.models.implicit_file import is_implicit_file
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.verifier.errors import InvalidModel
from provenn.verifier.graph import Graph
from provenn.verifier.ops.base import Shape


class Executor(Protocol):
    """What runs a file, independently of the graph that is read from it."""

    name: str
    input_shape: Shape
    output_shape: Shape

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs [batch, *output_shape] for inputs [batch, *input_shape], both float32."""
        ...


def read_model(data: bytes, files: Mapping[str, bytes] | None = None) -> tuple[Graph, Executor]:
    """(the verifier's graph, the independent executor) of a file, gzip or not; `files` as for ONNX.

    Raises: InvalidModel, UnsupportedOp, ResourceLimit.
    """
    return read(data, files), executor(data, files)


def read(data: bytes, files: Mapping[str, bytes] | None = None) -> Graph:
    """The verifier's graph of a file.   Raises: InvalidModel, UnsupportedOp, ResourceLimit."""
    return implicit_reader.read(data) if _implicit(data, files) else onnx_reader.read(data, files)


def executor(data: bytes, files: Mapping[str, bytes] | None = None) -> Executor:
    """What runs a file: onnxruntime, or numpy.   Raises: InvalidModel, UnsupportedOp, ResourceLimit."""
    return ImplicitExecutor(data) if _implicit(data, files) else OnnxExecutor(data, files)


def _implicit(data: bytes, files: Mapping[str, bytes] | None) -> bool:
    implicit = is_implicit_file(decompressed(data, Limits()))
    if implicit and files:
        raise InvalidModel("a safetensors file holds all of its tensors; it is read without others beside it")
    return implicit
