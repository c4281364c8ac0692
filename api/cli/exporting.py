"""`provenn export`: the user's own module, in this process, to a file that is checked against it before it is kept."""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from rich.console import RenderableType
from torch import nn
from typer import BadParameter

from provenn.api.cli import artifacts, listings, outcome
from provenn.api.files import InvalidFile, read_file
from provenn.models import pt2, reading, state_dict, torch_export
from provenn.models.limits import Limits
from provenn.verifier.errors import InvalidModel, ProvennError

SAMPLES = 16
TOLERANCE = 1e-4
"""How far onnxruntime and the module may be apart, relative to 1 + the largest output."""

UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, OSError)
"""What torch.load raises about a file that is no state dict."""


@dataclass(frozen=True)
class Source:
    """Where the module comes from: `target` MODULE:CALLABLE with its weights, or a pickled module."""

    target: str | None
    weights: Path | None
    pickled: Path | None


def shape(text: str) -> tuple[int, ...]:
    """The shape that 1,28,28 means.   Raises: BadParameter."""
    try:
        found = tuple(int(n) for n in text.replace("x", ",").split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise BadParameter(f"'{text}' is no shape; give positive whole numbers as 1,28,28", param_hint="--input-shape")
    return found


def run(source: Source, input_shape: tuple[int, ...], format: str, out: Path) -> dict[str, Any]:
    """Exports, compares and writes; what was written.

    Raises: InvalidModel or BadParameter if there is no such module, its weights do not fit, torch cannot export it, or
    the file computes something else; InvalidFile; CannotWrite.
    """
    module = _module(source).eval()
    data, network = FORMATS[format](module, input_shape)
    found: dict[str, Any] = {"file": str(out), "format": format, "bytes": len(data), "input_shape": list(input_shape)}
    if network is not None:
        found["largest_difference"] = _compared(module, network, input_shape)
    found["file"] = artifacts.write(out, data)
    return {**found, "sha256": hashlib.sha256(data).hexdigest()}


def as_view(found: dict[str, Any]) -> RenderableType:
    """What was written."""
    return listings.facts({name.replace("_", " "): str(value) for name, value in found.items()})


def _module(source: Source) -> nn.Module:
    """The module, with its weights."""
    if source.pickled is not None:
        return _unpickled(source.pickled)
    assert source.target is not None
    module = _built(source.target)
    if source.weights is not None:
        tensors = _weights(source.weights)
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
            raise InvalidFile(source.weights, f"the weights do not fit the module: {reasons or error}") from error
    return module


def _built(target: str) -> nn.Module:
    """What MODULE:CALLABLE returns.   Raises: BadParameter if there is none, or it is no torch module."""
    path, _, name = target.partition(":")
    if not path or not name:
        raise BadParameter(f"'{target}' is not of the form package.module:function", param_hint="MODULE:CALLABLE")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with _theirs(f"importing {path}"):
        found: Any = importlib.import_module(path)
    for part in name.split("."):
        if not hasattr(found, part):
            raise BadParameter(f"{path} has no {name}", param_hint="MODULE:CALLABLE")
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise BadParameter(
                f"{target} is of type {type(found).__name__}, not a function", param_hint="MODULE:CALLABLE"
            )
        with _theirs(f"{target}()"):
            found = found()
    return _require_module(found, target)


def _require_module(found: object, what: str) -> nn.Module:
    if not isinstance(found, nn.Module):
        raise BadParameter(
            f"{what} is of type {type(found).__name__}, not a torch.nn.Module", param_hint="MODULE:CALLABLE"
        )
    return found


class _theirs:  # noqa: N801 - read as a statement: with _theirs("importing x")
    """Where the user's own code runs, which may raise anything.   Raises: InvalidModel that names it."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, ProvennError):
            raise InvalidModel(f"{self._what} raises {type(error).__name__}: {error}") from error


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dict.   Raises: InvalidFile."""
    data = read_file(path)
    try:
        if data[8:9] == b"{":
            return safetensors.torch.load(data)
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (*UNREADABLE, safetensors.SafetensorError) as error:
        advice = "save module.state_dict(); or if it is a whole module, and you trust who made it: --trust-pickle FILE"
        raise InvalidFile(path, f"is no file of tensors alone ({type(error).__name__}); {advice}") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InvalidFile(path, "holds more than tensors by name; save module.state_dict() alone")
    return found


def _unpickled(path: Path) -> nn.Module:
    """The module of a pickle, whose code this runs."""
    data = read_file(path)
    outcome.warn([f"--trust-pickle runs the code in {path}: do this only if you trust whoever made that file"])
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with _theirs(f"unpickling {path}"):
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
    return _require_module(found, str(path))


def _onnx(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[bytes, bytes | None]:
    """(the file, the network it is as ONNX)."""
    data = torch_export.export(module, input_shape)
    return data, data


def _pt2(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[bytes, bytes | None]:
    """Likewise."""
    like = next((p for p in module.parameters()), torch.zeros(0))
    example = torch.zeros((2, *input_shape), dtype=like.dtype)
    with _theirs("torch.export"):
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue(), pt2.to_onnx(buffer.getvalue(), Limits())


def _safetensors(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[bytes, bytes | None]:
    """(the weights, no network: that takes an architecture)."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
    data = safetensors.torch.save(tensors)
    state_dict.tensors(data, Limits())
    return data, None


FORMATS: dict[str, Callable[[nn.Module, tuple[int, ...]], tuple[bytes, bytes | None]]] = {
    "onnx": _onnx,
    "pt2": _pt2,
    "safetensors": _safetensors,
}


def _compared(module: nn.Module, data: bytes, input_shape: tuple[int, ...]) -> float:
    """The largest difference at random inputs between onnxruntime and the module.

    Raises: InvalidModel if the file is not admitted, or they are too far apart.
    """
    executor = reading.executor(data)
    reading.read(data)
    random = np.random.default_rng(0)
    inputs = random.standard_normal((SAMPLES, *input_shape)).astype(np.float32)
    like = next((p for p in module.parameters()), torch.zeros(0))
    ours = executor.run(inputs.reshape(SAMPLES, *executor.input_shape))
    with torch.no_grad(), _theirs("the module"):
        theirs = np.stack([module(torch.from_numpy(x[None]).to(like.dtype)).numpy()[0] for x in inputs])
    if theirs.size != ours.size:
        raise InvalidModel(f"onnxruntime computes outputs {list(ours.shape[1:])}, the module {list(theirs.shape[1:])}")
    difference = float(np.abs(ours.reshape(theirs.shape) - theirs).max())
    if not difference <= TOLERANCE * (1 + float(np.abs(theirs).max())):
        raise InvalidModel(
            f"onnxruntime and the module differ by {difference:.3g} at random inputs; nothing was written. "
            "Does the module compute something random, or depend on more than its input?"
        )
    return difference
