"""Valid uploads of every format, small enough that a change of one byte matters."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import safetensors.numpy
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from provenn.models import implicit_file

INPUTS, OUTPUTS = 4, 3
SPECIFICATION, DATASET = "specification", "dataset"


@dataclass(frozen=True)
class Upload:
    """format: what it is a variant of, `specification` for a property, `dataset` for data; architecture: of weights."""

    format: str
    data: bytes
    architecture: bytes | None = None


def described(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    """A network in ONNX's text form, with its constants."""
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 17]>\n' + text)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


DENSE = described(
    "g (float[N, 4] x) => (float[N, 3] y) {"
    " a = Gemm <transB = 1> (x, w, b) r = Relu(a) c = MatMul(r, v) d = Tanh(c) y = Sub(d, e) }",
    w=_numbers(8, 4),
    b=_numbers(8),
    v=_numbers(8, 3),
    e=_numbers(3),
)
NETWORK = DENSE.SerializeToString()


def _arrays(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


DATA = _arrays(x=_numbers(5, INPUTS), y=np.arange(5) % OUTPUTS)
NAMED = _arrays(images=_numbers(3, 2, 2), labels=np.arange(3)[:, None], names=np.array(["a/1.png", "b/é.png", "c"]))
CONVOLVED = described(
    "g (float[N, 1, 6, 6] x) => (float[N, 4] y) {"
    " a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)"
    " n = BatchNormalization <epsilon = 0.001> (a, s, b, b, s) r = LeakyRelu <alpha = 0.1> (n)"
    " p = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (r) f = Reshape(p, shape) t = Transpose <perm = [0, 1]> (f)"
    " z = Gemm <transB = 1> (t, v) y = Softmax <axis = 1> (z) }",
    w=_numbers(2, 1, 3, 3),
    b=_numbers(2),
    s=np.float32([1.5, 0.5]),
    shape=np.int64([-1, 8]),
    v=_numbers(4, 8),
)
SELECTED = described(
    "g (float[N, 8] x) => (float[N, 6] y) {"
    " a = Slice(x, from, to, axes, steps) g = Gather <axis = 1> (x, rows) u, v = Split <axis = 1> (x, parts)"
    " h = Concat <axis = 1> (a, g, u) p = Pad(h, pads) e = Expand(one, wide) m = Mul(p, e)"
    " q = ReduceSum <keepdims = 1> (m, axes) s = Sigmoid(m) k = Constant <value_ints = [0, 6]> ()"
    " d = Add(s, q) t = Slice(d, zero, six, axes) y = Clip(t, low, high) }",
    **{name: np.int64(value) for name, value in {
        "from": [0], "to": [7], "axes": [1], "steps": [3], "rows": [1, 2], "parts": [4, 4], "pads": [0, 1, 0, 1],
        "wide": [1, 11], "zero": [0], "six": [6]}.items()},
    one=np.float32([[1.0]]), low=np.float32(-1.0), high=np.float32(1.0),
)  # fmt: skip


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def bundled() -> dict[str, bytes]:
    """DENSE with one of its weights in a file beside it."""
    model = onnx.load_from_string(NETWORK)
    tensor = model.graph.initializer[0]
    files = {"net/w.bin": tensor.raw_data}
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": "0", "length": str(len(files["net/w.bin"]))}.items():
        tensor.external_data.add(key=key, value=value)
    return {"net/net.onnx": model.SerializeToString(), **files}


class _Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(18, OUTPUTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x.reshape(-1, 1, 3, 3))).flatten(1)
        return torch.nn.functional.softmax(self.second(y[:, :18]), dim=1)


def exported() -> bytes:
    """A .pt2; takes some seconds."""
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about itself
        example, dims = (torch.zeros(2, 9),), ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(_Module().eval(), example, dynamic_shapes=dims), made)
    return made.getvalue()


LAYERS = {
    "input": [1, 5, 5],
    "layers": [
        {"type": "Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1},
        {"type": "BatchNorm2d", "num_features": 2},
        {"type": "ReLU"},
        {"type": "AvgPool2d", "kernel_size": 2},
        {"type": "Flatten"},
        {"type": "Linear", "in_features": 8, "out_features": 3},
    ],
}


def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 3)).eval().state_dict()


def _pickled(state: Mapping[str, torch.Tensor]) -> bytes:
    made = io.BytesIO()
    torch.save(OrderedDict(state), made)
    return made.getvalue()


VNNLIB = (
    "".join(f"(declare-const X_{i} Real)\n" for i in range(INPUTS))
    + "".join(f"(declare-const Y_{i} Real)\n" for i in range(OUTPUTS))
    + "".join(f"(assert (>= X_{i} -0.5))\n(assert (<= X_{i} 1e-1))\n" for i in range(INPUTS))
    + "(assert (or (and (<= Y_0 Y_1) (>= Y_2 0.25)) (and (>= Y_1 (+ Y_2 1.5)))))\n"
)
ROBUST = {
    "format": "provenn-specification/1",
    "kind": "robustness",
    "input": [0.1, "1/3", "0x1p-3", 0.4],
    "label": 1,
    "outputs": OUTPUTS,
    "target": None,
    "epsilon": "1/255",
    "norm": "inf",
    "clip": [0, 1],
}
CASES = {
    "format": "provenn-specification/1",
    "kind": "cases",
    "cases": [
        {
            "lower": [0, 0, 0, 0],
            "upper": [1, 1, 1, 1],
            "constraints": {"P": [[1, -1, 0, 0]], "q": [0.5]},
            "unsafe": [{"C": [[1, -1, 0], [0, 1, -1]], "d": [0, 1]}],
        }
    ],
}


def _implicit() -> bytes:
    """One implicit layer between linear ones."""
    a, b = np.random.default_rng(0).standard_normal((2, 4, 4))
    weight = 0.9 * np.eye(4) - a.T @ a + b - b.T
    layers = (
        implicit_file.Linear(_numbers(5, 6)),
        implicit_file.Activation("tanh"),
        implicit_file.Implicit("relu", weight, _numbers(4, 5), _numbers(4)),
        implicit_file.Linear(_numbers(OUTPUTS, 4), _numbers(OUTPUTS)),
    )
    return implicit_file.write(implicit_file.ImplicitNetwork((2, 3), layers))


def seeds(slow: bool) -> list[Upload]:
    """One upload a format at least; `slow` ones take seconds to make."""
    state, layers = _weights(), json.dumps(LAYERS).encode()
    arrays = {name: value.numpy() for name, value in state.items()}
    bundle = bundled()
    made = [
        *(Upload("onnx", model.SerializeToString()) for model in (DENSE, CONVOLVED, SELECTED)),
        Upload("gzip", gzip.compress(NETWORK, mtime=0)),
        Upload("xz", lzma.compress(NETWORK)),
        Upload("zip bundle", zipped(bundle)),
        Upload("tar bundle", tarred(bundle)),
        Upload("tar.gz bundle", gzip.compress(tarred(bundle), mtime=0)),
        Upload("provenn-network/1", _implicit()),
        Upload("safetensors", safetensors.numpy.save(arrays), layers),
        Upload("state dict", _pickled(state), layers),
        Upload(SPECIFICATION, VNNLIB.encode()),
        *(Upload(SPECIFICATION, json.dumps(asked).encode()) for asked in (ROBUST, CASES)),
        *(Upload(DATASET, data) for data in (DATA, NAMED)),
    ]
    return made + ([Upload("pt2", exported())] if slow else [])
