"""The independent executor of networks with implicit layers: numpy alone, float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.models.implicit_file import Activation, Implicit, parse
from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Shape

RESIDUAL = 1e-10
"""Largest |v - W phi(v) - u| of a solution, relative to 1 + |v|."""

STEPS = 100
HALVINGS = 30
LADDER = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)

Numbers = NDArray[np.float64]


class ImplicitExecutor:
    """Runs a "provenn-network/1" file (gzip or not), one input at a time.

    An implicit layer is solved for its argument v, v = W phi(v) + u, not for its value as in the verifier.
    Raises: InvalidModel, ResourceLimit if the file is refused, or a layer does not converge on an input of zeros.
    """

    def __init__(self, data: bytes) -> None:
        self.name = f"numpy {np.__version__}"
        self._network = parse(data)
        self.input_shape: Shape = self._network.shape
        self.output_shape: Shape = (self._network.outputs,)
        self._run_one(np.zeros(self.input_shape))

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs [batch, *output_shape] for inputs [batch, *input_shape], computed in float64, both float32.

        Raises: InvalidModel if the inputs have another shape, or a layer does not converge.
        """
        if inputs.shape[1:] != self.input_shape:
            raise InvalidModel(f"inputs of shape {inputs.shape} given to a network for [batch, *{self.input_shape}]")
        outputs = np.empty((len(inputs), *self.output_shape), dtype=np.float32)
        for place, x in zip(outputs, inputs, strict=True):
            with np.errstate(over="ignore"):
                place[...] = self._run_one(x.astype(np.float64))
        return outputs

    def _run_one(self, x: Numbers) -> Numbers:
        x = x.ravel()
        for index, layer in enumerate(self._network.layers):
            if isinstance(layer, Activation):
                x = function(layer.function, x)[0]
            else:
                weight = layer.input if isinstance(layer, Implicit) else layer.weight
                x = weight.astype(np.float64) @ x
                x = x if layer.bias is None else x + layer.bias
            if isinstance(layer, Implicit):
                found = solution(layer.function, layer.weight.astype(np.float64), x)
                if found is None:
                    raise InvalidModel("the implicit layer did not converge; it may have no solution", f"layer{index}")
                x = found
        return x


def function(name: str, v: Numbers, width: float = 0.0) -> tuple[Numbers, Numbers]:
    """(phi(v), its slope); for relu with a width w > 0 those of softplus, w log(1 + exp(v / w))."""
    if name == "tanh":
        value = np.tanh(v)
        return value, 1 - value**2
    if name == "sigmoid":
        value = np.exp(-np.logaddexp(0, -v))
        return value, value * (1 - value)
    if width == 0:
        return np.maximum(v, 0), (v > 0).astype(np.float64)
    share = np.exp(-np.logaddexp(0, -v / width))
    return width * np.logaddexp(0, v / width), share


def solution(name: str, weight: Numbers, u: Numbers) -> Numbers | None:
    """phi(v) for the solution of v = W phi(v) + u, None where none is found.

    Newton's method with steps that shorten the residual; where it stalls, at a kink of relu, along the solutions for
    softplus of falling widths, which are smooth and have slopes in (0, 1).
    """
    v: Numbers = u
    scale = 1 + float(np.max(np.abs(u)))
    for width in (0.0, *(LADDER if name == "relu" else ())):
        if width:
            v, _ = _newton(name, weight, u, v, width * scale)
        last, found = _newton(name, weight, u, v, 0.0)
        if found:
            return function(name, last)[0]
    return None


def _newton(name: str, weight: Numbers, u: Numbers, v: Numbers, width: float) -> tuple[Numbers, bool]:
    """(the last point, whether it solves the equation)."""
    eye: NDArray[Any] = np.eye(len(u))
    for _ in range(STEPS):
        value, slope = function(name, v, width)
        gap = v - weight @ value - u
        if np.max(np.abs(gap)) <= RESIDUAL * (1 + np.max(np.abs(v))):
            return v, True
        try:
            step = np.linalg.solve(eye - weight * slope, gap)
        except np.linalg.LinAlgError:
            return v, False
        for halving in range(HALVINGS):
            tried = v - step / 2**halving
            left = np.linalg.norm(tried - weight @ function(name, tried, width)[0] - u)
            if left <= (1 - 1e-4 / 2**halving) * np.linalg.norm(gap):
                break
        else:
            return v, False
        v = tried
    return v, False
