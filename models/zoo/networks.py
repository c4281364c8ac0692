"""The architectures of the zoo: small, of the three shapes that matter (dense, convolutional, residual)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp() -> nn.Sequential:
    """64-100-100-10."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def cnn() -> nn.Sequential:
    """Two convolutions (the second with stride 2) and two dense layers."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Residual(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input plus its branch."""
        total: Tensor = x + self.branch(x)
        return total


def resnet() -> nn.Sequential:
    """A strided convolution, batch normalisation, one residual block, average pooling and a dense layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def interval(module: nn.Module, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """IBP through a module of this file, differentiably, for training.   Raises: TypeError for other modules."""
    match module:
        case nn.Sequential():
            for part in module:
                lower, upper = interval(part, lower, upper)
            return lower, upper
        case Residual():
            low, high = interval(module.branch, lower, upper)
            return lower + low, upper + high
        case nn.ReLU() | nn.Flatten() | nn.AvgPool2d():
            return module(lower), module(upper)
        case nn.Linear() | nn.Conv2d() | nn.BatchNorm2d():
            return _affine(module, (lower + upper) / 2, (upper - lower) / 2)
    raise TypeError(f"no interval rule for {type(module).__name__}")


def _affine(module: nn.Linear | nn.Conv2d | nn.BatchNorm2d, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    middle = module(centre)
    match module:
        case nn.Linear():
            spread = nn.functional.linear(radius, module.weight.abs())
        case nn.Conv2d():
            spread = nn.functional.conv2d(radius, module.weight.abs(), None, module.stride, module.padding)
        case nn.BatchNorm2d():
            assert module.running_var is not None
            deviation = centre.var((0, 2, 3), correction=0) if module.training else module.running_var
            scale = module.weight.abs() / torch.sqrt(deviation + module.eps)
            spread = radius * scale[:, None, None]
    return middle - spread, middle + spread
