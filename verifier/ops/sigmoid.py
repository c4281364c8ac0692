"""The logistic function."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.ops.s_shaped import SShaped


@dataclass(frozen=True)
class Sigmoid(SShaped):
    """1 / (1 + exp(-z)) = 1/2 + tanh(z / 2) / 2."""

    onnx = ("Sigmoid",)
    image = (0.0, 1.0)
    width = 2.0

    def forward(self, *inputs: Tensor) -> Tensor:
        """1 / (1 + exp(-z))."""
        return torch.sigmoid(inputs[0])

    def slope(self, z: Tensor) -> Tensor:
        """phi(z) phi(-z), written with exp(-|z|), which does not cancel."""
        tail = torch.exp(-z.abs())
        return tail / (1 + tail) ** 2
