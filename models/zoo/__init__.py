"""Small digits classifiers, trained on first use and kept in a cache folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from provenn.verifier.errors import InvalidModel

if TYPE_CHECKING:
    from torch import nn

EPOCHS = {"plain": 30, "robust": 100, "implicit": 40}
RADIUS = 0.1
SHAPE = (1, 8, 8)
ACTIVATIONS = ("tanh", "maxmin", "groupsort5", "householder", "residual")
IMPLICIT = "digits-deq"
"""One network with an implicit layer, which ONNX cannot hold: it is a safetensors file (implicit_file.py)."""

NAMES = (
    *(f"digits-{shape}{kind}" for shape in ("mlp", "cnn", "resnet") for kind in ("", "-robust")),
    *(f"digits-{activation}" for activation in ACTIVATIONS),
    IMPLICIT,
)
VERSION = "1"


def load(name: str) -> bytes:
    """The file of a zoo network: ONNX, but for `digits-deq`; the `-robust` ones are IBP-trained at radius 0.1.

    Trained on first use (seconds, fixed seeds), then read from $PROVENN_CACHE (default ~/.cache/provenn).
    Raises: InvalidModel for another name, or if scikit-learn or onnxscript is not installed.
    """
    if name not in NAMES:
        raise InvalidModel(f"no network '{name}' in the zoo; there are: {', '.join(NAMES)}")
    folder = Path(os.environ.get("PROVENN_CACHE") or Path.home() / ".cache" / "provenn")
    path = folder / f"{name}-{VERSION}.{'safetensors' if name == IMPLICIT else 'onnx'}"
    if path.exists():
        return path.read_bytes()
    data = _trained(name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        whole = Path(scratch) / "network"
        whole.write_bytes(data)
        whole.replace(path)
    return data


def _trained(name: str) -> bytes:
    return exported(trained(name))


def trained(name: str) -> nn.Sequential:
    """The module of a zoo network, trained now.   Raises: InvalidModel if scikit-learn is not installed."""
    import torch

    from provenn.models.zoo import networks
    from provenn.models.zoo.digits import load_digits
    from provenn.models.zoo.training import train

    _, shape, *robust = name.split("-")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = networks.ARCHITECTURES[shape]()
    training, _ = load_digits()
    kind = "robust" if robust else "implicit" if name == IMPLICIT else "plain"
    train(module, training, EPOCHS[kind], RADIUS if robust else 0.0)
    return module


def exported(module: nn.Sequential) -> bytes:
    """The file of a zoo network.   Raises: InvalidModel if onnxscript is needed and not installed."""
    from provenn.models import implicit_export
    from provenn.models.torch_export import export
    from provenn.models.zoo.deq import MonotoneDEQ
    from provenn.models.zoo.householder import fixed

    implicit = any(isinstance(part, MonotoneDEQ) for part in module)
    return implicit_export.export(module, SHAPE) if implicit else export(fixed(module), SHAPE)
