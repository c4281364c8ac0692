"""The architectures of the zoo: small, dense, convolutional and residual, with the activations that matter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from provenn.models.zoo.deq import MonotoneDEQ
from provenn.models.zoo.householder import Householder
from provenn.models.zoo.sorting import GroupSort, MaxMin


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


def tanh() -> nn.Sequential:
    """64-64-64-10."""
    return _dense(64, nn.Tanh(), nn.Tanh())


def maxmin() -> nn.Sequential:
    """64-64-64-10."""
    return _dense(64, MaxMin(), MaxMin())


def groupsort5() -> nn.Sequential:
    """64-60-60-10, in groups of five."""
    return _dense(60, GroupSort(5), GroupSort(5))


def householder() -> nn.Sequential:
    """64-64-64-10, in pairs."""
    return _dense(64, Householder(64), Householder(64))


def _dense(width: int, *activations: nn.Module) -> nn.Sequential:
    parts: list[nn.Module] = [nn.Flatten()]
    for inputs, activation in zip((64, *(width for _ in activations)), activations, strict=False):
        parts += [nn.Linear(inputs, width), activation]
    return nn.Sequential(*parts, nn.Linear(width, 10))


class DenseResidual(nn.Module):
    """x + G relu(W x + b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """The input plus its branch."""
        total: Tensor = x + self.branch(x)
        return total


def residual() -> nn.Sequential:
    """Two dense residual blocks of 64 units, and a dense layer."""
    return nn.Sequential(nn.Flatten(), DenseResidual(64), DenseResidual(64), nn.Linear(64, 10))


def deq() -> nn.Sequential:
    """64 inputs, a monotone equilibrium layer of 50 units, and a dense layer."""
    return nn.Sequential(nn.Flatten(), MonotoneDEQ(64, 50), nn.Linear(50, 10))


ARCHITECTURES: dict[str, Callable[[], nn.Sequential]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "tanh": tanh,
    "maxmin": maxmin,
    "groupsort5": groupsort5,
    "householder": householder,
    "residual": residual,
    "deq": deq,
}
"""Name -> network, not trained."""


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
