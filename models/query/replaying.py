"""What the user's own files compute: onnxruntime, each model by itself, in its own element types."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from provenn.models.query.binding import Implementation, Port
from provenn.models.runtime import ERRORS, options
from provenn.verifier.errors import InvalidModel
from provenn.verifier.query.meaning import Layout

NUMPY: Mapping[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32,
}


@dataclass(frozen=True, eq=False)
class Execution:
    """The values of all declared tensors at one point: flat arrays in their own types, by their first element."""

    arrays: Mapping[int, NDArray[Any]]

    @cached_property
    def _starts(self) -> list[int]:
        return sorted(self.arrays)

    def value(self, element: int) -> Fraction:
        """An element's value, exactly.   Raises: ArithmeticError if it is not finite."""
        start = self._starts[bisect_right(self._starts, element) - 1]
        found = self.arrays[start][element - start].item()
        if not isfinite(found):
            raise ArithmeticError(f"element {element} is {found}")
        return Fraction(found)

    def values(self, elements: range) -> list[Any]:
        """The numbers of a declared tensor, which may run through several ports."""
        parts = [self.arrays[start] for start in self._starts if start in elements]
        return list(np.concatenate(parts))


class Replay:
    """Runs the models of a query at points of its free inputs."""

    def __init__(self, implementations: Sequence[Implementation], where: Layout) -> None:
        self._columns = where.column
        self._parts: list[tuple[onnxruntime.InferenceSession, Implementation]] = []
        sessions: dict[int, onnxruntime.InferenceSession] = {}
        for place, implementation in enumerate(implementations):
            shared = sessions.get(implementation.twin) if implementation.twin is not None else None
            if shared is None or implementation.hidden:
                shared = _session(implementation)
            sessions[place] = shared
            self._parts.append((shared, implementation))

    def run(self, point: NDArray[np.float32]) -> Execution:
        """The execution at a point [free]; inputs of whole numbers are truncated.

        Raises: InvalidModel if onnxruntime fails, or an output has another shape than is declared.
        """
        arrays: dict[int, NDArray[Any]] = {}
        for session, implementation in self._parts:
            feed = {}
            for port in implementation.inputs:
                columns = [self._columns[i] for i in port.elements]
                feed[port.name] = point[columns].astype(NUMPY[port.kind]).reshape(port.shape)
                arrays[port.elements.start] = feed[port.name].ravel()
            wanted = implementation.computed
            try:
                results = session.run([port.name for port in wanted], feed)
            except ERRORS as error:
                raise InvalidModel(f"onnxruntime fails on the model: {error}") from error
            for port, result in zip(wanted, results, strict=True):
                arrays[port.elements.start] = _as_declared(port, np.asarray(result))
        return Execution(arrays)


def _as_declared(port: Port, result: NDArray[Any]) -> NDArray[Any]:
    """The result, flat.   Raises: InvalidModel if it has another shape or type than its port."""
    if result.shape != port.shape or result.dtype != NUMPY[port.kind]:
        raise InvalidModel(f"'{port.name}' is declared with shape {list(port.shape)}, computed {list(result.shape)}")
    return result.ravel()


def _session(implementation: Implementation) -> onnxruntime.InferenceSession:
    """The model in onnxruntime, its hidden ports among the outputs."""
    model = implementation.model
    new = [port for port in implementation.hidden if port.name not in {value.name for value in model.graph.output}]
    if new:
        copy = ModelProto()
        copy.CopyFrom(model)
        copy.graph.output.extend(helper.make_tensor_value_info(p.name, p.kind, p.shape) for p in new)
        model = copy
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options(), providers=["CPUExecutionProvider"])
    except ERRORS as error:
        raise InvalidModel(f"onnxruntime refuses the model: {error}") from error
