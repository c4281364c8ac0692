"""Files of torch.export, as torch writes them and as an attacker would change them."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from provenn.models.admission import admit
from provenn.models.limits import Limits
from provenn.models.onnx_reader import read
from provenn.models.pt2 import to_onnx

PROGRAM = "archive/models/model.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
SAMPLE = "archive/data/sample_inputs/model.pt"
Edit = Callable[[Any], None]


class Applied(nn.Module):
    """A function of (self, x) as a module: weight [3, 5] laid out by columns, buffer [3], and parts of its own."""

    def __init__(self, function: Callable[..., torch.Tensor], *parts: nn.Module) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.function, self.parts = function, nn.ModuleList(parts)
        self.weight = nn.Parameter(torch.randn(5, 3, generator=generator).T)
        self.register_buffer("shift", torch.randn(3, generator=generator), persistent=False)
        self.plain = torch.randn(3, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def saved(module: nn.Module, shape: tuple[int, ...], dynamic: bool = True, decomposed: bool = False) -> bytes:
    """What torch.export.save writes of the module, with a symbolic batch or a batch of 1."""
    like = next((p for p in module.parameters()), torch.zeros(0))
    example = torch.zeros((2 if dynamic else 1, *shape), dtype=like.dtype)
    dims = ({0: torch.export.Dim("batch")},) if dynamic else None
    return saved_of(module, (example,), dims, decomposed)


def saved_of(
    module: nn.Module, examples: tuple[torch.Tensor, ...], dims: object = None, decomposed: bool = False
) -> bytes:
    """What torch.export.save writes of the module, traced with these inputs."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about itself
        program = torch.export.export(module, examples, dynamic_shapes=dims)
        torch.export.save(program.run_decompositions() if decomposed else program, buffer)
    return buffer.getvalue()


def changed(data: bytes, edits: Mapping[str, Edit] | None = None, files: Mapping[str, bytes] | None = None) -> bytes:
    """The archive with JSON members edited in place, and files put in or replaced."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            if name in (edits or {}):
                value = json.loads(content)
                edits[name](value)
                content = json.dumps(value).encode()
            archive.writestr(name, (files or {}).get(name, content))
        for name, content in (files or {}).items():
            if name not in source.namelist():
                archive.writestr(name, content)
    return target.getvalue()


def assert_same(data: bytes, module: nn.Module, shape: tuple[int, ...], batches: tuple[int, ...] = (1, 3)) -> None:
    """Our reading of the file is admitted, read into a graph, and equals the module at random points."""
    model = to_onnx(data, Limits())
    assert_equal(model, module, shape, batches)


def assert_equal(model: bytes, module: nn.Module, shape: tuple[int, ...], batches: tuple[int, ...] = (1, 3)) -> None:
    """The ONNX file is admitted, read into a graph, and equals the module at random points."""
    admit(model)
    read(model)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    module = module.eval()
    double = session.get_inputs()[0].type == "tensor(double)"
    for batch in batches:
        x = torch.randn((batch, *shape), generator=torch.Generator().manual_seed(batch), dtype=torch.float32)
        x = x.double() if double else x
        (ours,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            theirs = module(x.clone()).numpy()
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)
