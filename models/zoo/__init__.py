"""Six small digits classifiers, trained on first use and kept in a cache folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from provenn.verifier.errors import InvalidModel

EPOCHS = {"plain": 30, "robust": 100}
RADIUS = 0.1
NAMES = tuple(f"digits-{shape}{kind}" for shape in ("mlp", "cnn", "resnet") for kind in ("", "-robust"))
VERSION = "1"


def load(name: str) -> bytes:
    """ONNX bytes of a zoo network; the `-robust` ones are IBP-trained at radius 0.1.

    Trained on first use (seconds, fixed seeds), then read from $PROVENN_CACHE (default ~/.cache/provenn).
    Raises: InvalidModel for another name, or if scikit-learn or onnxscript is not installed.
    """
    if name not in NAMES:
        raise InvalidModel(f"no network '{name}' in the zoo; there are: {', '.join(NAMES)}")
    folder = Path(os.environ.get("PROVENN_CACHE") or Path.home() / ".cache" / "provenn")
    path = folder / f"{name}-{VERSION}.onnx"
    if path.exists():
        return path.read_bytes()
    data = _trained(name)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        whole = Path(scratch) / "network.onnx"
        whole.write_bytes(data)
        whole.replace(path)
    return data


def _trained(name: str) -> bytes:
    import torch

    from provenn.models.torch_export import export
    from provenn.models.zoo import networks
    from provenn.models.zoo.digits import load_digits
    from provenn.models.zoo.training import train

    _, shape, *robust = name.split("-")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = {"mlp": networks.mlp, "cnn": networks.cnn, "resnet": networks.resnet}[shape]()
    training, _ = load_digits()
    train(module, training, EPOCHS["robust" if robust else "plain"], RADIUS if robust else 0.0)
    return export(module, (1, 8, 8))
