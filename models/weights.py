"""Weights (safetensors, or a state dict of torch.save) and an architecture (JSON) to ONNX. Loads no torch.

Nothing is unpickled: the pickle in a torch.save archive is interpreted (plain_pickle.py). It may still hold much data;
the service reads it in a child with limits all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.models import sequential
from provenn.models.limits import Limits
from provenn.models.onnx_writer import BATCH, Writer
from provenn.models.pt2.fields import shown
from provenn.models.sequential_layers import Shapes
from provenn.models.state_dict import tensors
from provenn.verifier.errors import InvalidModel

COUNTER = "num_batches_tracked"
"""Of batch normalization: a whole number, which inference does not read."""


def to_onnx(weights: bytes, architecture: bytes, limits: Limits) -> bytes:
    """The ONNX file of a state dict and its layers, for inputs [batch, *input].

    Raises: InvalidModel naming the tensor, or the layer and the field, and what was expected; ResourceLimit.
    """
    described = sequential.read(architecture)
    found = tensors(weights, limits)
    expected = described.tensors()
    limits.require_nodes(len(expected))
    _require_match(found, expected)
    writer = Writer(limits)
    x = writer.input("input", (BATCH, *described.input), _type(found))
    values = {n: writer.constant(array, n) for n, array in found.items() if array.dtype.kind == "f"}
    return writer.model(sequential.written(writer, x, described.layers, values, ""))


def _require_match(found: Mapping[str, NDArray[Any]], expected: Shapes) -> None:
    """The tensors are those of the layers, by name, shape and kind."""
    if missing := sorted(expected.keys() - found.keys()):
        raise InvalidModel(
            f"the weights lack {shown(missing[0])} of shape {list(expected[missing[0]])}{_more(missing)}"
        )
    if unexpected := sorted(found.keys() - expected.keys()):
        raise InvalidModel(f"no layer of the architecture has the tensor {shown(unexpected[0])}{_more(unexpected)}")
    for name, shape in expected.items():
        array = found[name]
        if array.shape != shape:
            raise InvalidModel(f"tensor {shown(name)} has shape {list(array.shape)}; its layer expects {list(shape)}")
        if (array.dtype.kind == "f") == name.endswith(COUNTER):
            raise InvalidModel(f"tensor {shown(name)} is {array.dtype}; its layer expects another type")


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _type(found: Mapping[str, NDArray[Any]]) -> np.dtype[Any]:
    """The type that the network computes in."""
    types = {array.dtype for array in found.values() if array.dtype.kind == "f"}
    if len(types) > 1:
        raise InvalidModel("the weights mix float32 and float64; call module.float() before they are saved")
    return types.pop() if types else np.dtype(np.float32)
