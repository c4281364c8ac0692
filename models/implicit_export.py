"""The caller's own torch module with equilibrium layers, in this process, as a "provenn-network/1" file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from provenn.models import implicit_file
from provenn.models.implicit_file import Activation, Array, Implicit, ImplicitNetwork, Layer
from provenn.models.zoo.deq import MonotoneDEQ
from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Shape

ACTIVATIONS: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}


def export(module: nn.Module, input_shape: Shape) -> bytes:
    """The file of a module for inputs [batch, *input_shape]: Linear, ReLU, Tanh, Sigmoid, MonotoneDEQ, in sequence.

    Flatten, Identity and Dropout leave no trace. W is computed in float64, then rounded to the module's dtype.
    Raises: InvalidModel for another module, or if a layer does not fit the one before it.
    """
    return implicit_file.write(ImplicitNetwork(input_shape, tuple(_layers(module))))


def _layers(module: nn.Module) -> list[Layer]:
    match module:
        case nn.Sequential():
            return [layer for part in module for layer in _layers(part)]
        case nn.Flatten() | nn.Identity() | nn.Dropout():
            return []
        case nn.Linear():
            return [implicit_file.Linear(_array(module.weight), None if module.bias is None else _array(module.bias))]
        case MonotoneDEQ():
            return [_implicit(module)]
        case nn.ReLU() | nn.Tanh() | nn.Sigmoid():
            return [Activation(ACTIVATIONS[type(module)])]
    raise InvalidModel(
        f"{type(module).__name__} has no layer in {implicit_file.FORMAT}; there are linear, activation "
        "(ReLU, Tanh, Sigmoid) and implicit (MonotoneDEQ) ones"
    )


def _implicit(module: MonotoneDEQ) -> Implicit:
    kind = module.skew.dtype
    with torch.no_grad():
        symmetric, skew = module.symmetric.double(), module.skew.double()
        eye = torch.eye(len(skew), dtype=torch.float64, device=skew.device)
        weight = (1 - module.margin) * eye - symmetric.T @ symmetric + skew - skew.T
    source = module.input
    return Implicit(module.function, _array(weight.to(kind)), _array(source.weight), _array(source.bias))


def _array(tensor: Tensor) -> Array:
    kind = np.float64 if tensor.dtype == torch.float64 else np.float32
    return np.array(tensor.detach().cpu().to(torch.float64).numpy(), dtype=kind)
