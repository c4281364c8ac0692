"""Files of layers, "provenn-network/1": what ONNX cannot say, implicit layers, beside linear ones and activations.

A safetensors file whose metadata has one key, "provenn": {"format": .., "input": [extents], "layers": [..]} as JSON.
linear: y = W x + b; activation: y = phi(x); implicit: y = phi(W y + U x + b). The steps are "input", "layer0", ..; an
implicit layer K is two: "layerK.input", U x + b, and "layerK".
"""

import hashlib
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.check.functions import RELU, SIGMOID, TANH
from provenn.verifier.check.manifest import parsed, read_tensors
from provenn.verifier.check.network import Affine, Elementwise, Implicit, Network, Step
from provenn.verifier.check.rounding import Array, require
from provenn.verifier.check.tensors import budget, within_range

FORMAT = "provenn-network/1"
FUNCTIONS = {"relu": RELU, "tanh": TANH, "sigmoid": SIGMOID}
KEYS = {"linear": {"weight"}, "activation": {"function"}, "implicit": {"function", "weight", "input"}}


def is_layers(data: bytes) -> bool:
    """Whether it has the beginning of a safetensors file, which no ONNX file has."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def read_layers(data: bytes) -> Network:
    """The network.   Raises: CertificateRejected with claim "model" for anything that is not understood."""
    tensors, about = read_tensors("model", data)
    require(about.keys() == {"provenn"} and isinstance(about["provenn"], str), "model", f"it is no {FORMAT}")
    content = parsed("model", about["provenn"].encode(errors="replace"), str)
    known: Any = content.keys() == {"format", "input", "layers"} and content["format"] == FORMAT
    extents, layers = (content[key] if known else [] for key in ("input", "layers"))
    known = isinstance(extents, list) and isinstance(layers, list) and bool(extents and layers)
    require(known and all(type(n) is int and n > 0 for n in extents), "model", f"it is no {FORMAT}")
    budget(extents)
    file = _File(tensors)
    steps: list[Step] = [Step("input", prod(extents), ())]
    for k, layer in enumerate(layers):
        steps += file.layer(f"layer{k}", layer, len(steps) - 1, steps[-1].length)
    require(not file.tensors, "model", f"no layer uses its tensor {next(iter(file.tensors), '')!r}")
    doubts = ("how a runtime executes a file of layers is not known",)
    return Network(tuple(steps), len(steps) - 1, hashlib.sha256(data).hexdigest(), doubts)


class _File:
    """The tensors that no layer has used yet."""

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        self.tensors = tensors

    def layer(self, name: str, layer: Any, source: int, width: int) -> list[Step]:
        """The steps of one layer that reads step `source` of this width."""
        kind = layer.get("kind") if isinstance(layer, dict) else None
        needed = KEYS.get(kind, set()) | {"kind"} if isinstance(kind, str) else set()
        fits = needed and needed <= layer.keys() <= needed | ({"bias"} if "weight" in needed else set())
        require(fits and all(isinstance(v, str) for v in layer.values()), "model", f"{name} is not understood")
        function = FUNCTIONS.get(layer.get("function", "relu"))
        require(function, "model", f"{name}: its function is none of {', '.join(FUNCTIONS)}")
        if function is None or kind == "activation":
            return [Elementwise(name, width, (source,), function or RELU)]
        own = self.taken(name, layer["weight"], 2)
        weight = own if kind == "linear" else self.taken(name, layer["input"], 2)
        length = len(weight)
        bias = self.taken(name, layer["bias"], 1) if "bias" in layer else np.zeros(length)
        fits = length and weight.shape[1] == width and bias.shape == (length,)
        require(fits and own.shape == (length, width if kind == "linear" else length), "model", f"{name}: its shapes")
        affine = Affine(name, length, (source,), weight, bias, np.abs(bias))
        if kind == "linear":
            return [affine]
        affine = Affine(f"{name}.input", length, (source,), weight, bias, np.abs(bias))
        return [affine, Implicit(name, length, (source + 1,), function, own)]

    def taken(self, layer: str, name: str, rank: int) -> Array:
        """A tensor of floats, in float64."""
        array = self.tensors.pop(name, np.zeros(0, np.uint8))
        known = array.dtype.kind == "f" and array.ndim == rank and within_range(array)
        require(known, "model", f"{layer}: tensor {name!r} is absent or used twice, or its type, shape or numbers")
        return np.asarray(array, np.float64)
