"""The architectures of the zoo as lists of layers, for weights that are sent by themselves. Loads no torch."""

from __future__ import annotations

from typing import Any

from provenn.models import zoo
from provenn.verifier.errors import InvalidModel

Description = dict[str, Any]


def _dense(inputs: int, outputs: int, bias: bool = True) -> Description:
    return {"type": "Linear", "in_features": inputs, "out_features": outputs, "bias": bias}


def _conv(inputs: int, outputs: int, stride: int = 1) -> Description:
    sizes = {"in_channels": inputs, "out_channels": outputs, "kernel_size": 3, "stride": stride, "padding": 1}
    return {"type": "Conv2d", **sizes}


def _chain(width: int, activation: Description) -> list[Description]:
    return [_plain("Flatten"), _dense(64, width), activation, _dense(width, width), activation, _dense(width, 10)]


def _plain(name: str) -> Description:
    return {"type": name}


RELU = _plain("ReLU")
BRANCH = [_conv(16, 16), RELU, _conv(16, 16)]
DENSE_BRANCH = [_dense(64, 64), RELU, _dense(64, 64, bias=False)]

LAYERS: dict[str, list[Description]] = {
    "mlp": _chain(100, RELU),
    "cnn": [_conv(1, 8), RELU, _conv(8, 16, 2), RELU, _plain("Flatten"), _dense(256, 64), RELU, _dense(64, 10)],
    "resnet": [
        _conv(1, 16, 2),
        {"type": "BatchNorm2d", "num_features": 16},
        RELU,
        {"type": "Residual", "branch": BRANCH},
        RELU,
        {"type": "AvgPool2d", "kernel_size": 2},
        _plain("Flatten"),
        _dense(64, 10),
    ],
    "tanh": _chain(64, _plain("Tanh")),
    "maxmin": _chain(64, _plain("MaxMin")),
    "groupsort5": _chain(60, {"type": "GroupSort", "size": 5}),
    "householder": _chain(64, {"type": "Householder", "width": 64}),
    "residual": [_plain("Flatten"), *({"type": "Residual", "branch": DENSE_BRANCH} for _ in "ab"), _dense(64, 10)],
}
"""By the names of networks.ARCHITECTURES."""


def description(name: object) -> Description:
    """{"input": .., "layers": ..} of a zoo network.   Raises: InvalidModel for a name that has none."""
    names = [n for n in zoo.NAMES if n != zoo.IMPLICIT]
    if not isinstance(name, str) or name not in names:
        raise InvalidModel(f"no architecture {name!a:.80} in the zoo; there are: {', '.join(names)}")
    return {"input": list(zoo.SHAPE), "layers": LAYERS[name.split("-")[1]]}
