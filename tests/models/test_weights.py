"""Weights and an architecture compute what torch's module computes, and whatever does not fit is named."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pt2_kit import assert_equal
from safetensors.torch import save
from torch import nn

from provenn.models import sequential
from provenn.models.admission import admit
from provenn.models.limits import Limits
from provenn.models.state_dict import tensors
from provenn.models.weights import to_onnx
from provenn.models.zoo import IMPLICIT, NAMES
from provenn.models.zoo.networks import ARCHITECTURES
from provenn.verifier.errors import InvalidModel, ResourceLimit

FIXED = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


def layer(type: str, **fields: object) -> dict[str, object]:
    return {"type": type, **fields}


def described(shape: list[int], *layers: dict[str, object]) -> bytes:
    return json.dumps({"input": shape, "layers": layers}).encode()


def archived(module: nn.Module, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer, **options)
    return buffer.getvalue()


def randomized(module: nn.Module) -> nn.Module:
    torch.manual_seed(11)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.6, 0.6)
    return module.eval()


CASES: dict[str, tuple[list[int], list[dict[str, object]], list[nn.Module]]] = {
    "dense": (
        [6],
        [
            layer("Linear", in_features=6, out_features=5, bias=False),
            layer("BatchNorm1d", num_features=5),
            layer("LayerNorm", normalized_shape=5),
            layer("Tanh"),
            layer("Dropout", p=0.3),
            layer("Linear", in_features=5, out_features=4),
            layer("Softmax", dim=1),
        ],
        [
            nn.Linear(6, 5, bias=False),
            nn.BatchNorm1d(5),
            nn.LayerNorm(5),
            nn.Tanh(),
            nn.Dropout(0.3),
            nn.Linear(5, 4),
            nn.Softmax(1),
        ],
    ),
    "images": (
        [2, 8, 8],
        [
            layer("Conv2d", in_channels=2, out_channels=4, kernel_size=3, padding="same", groups=2),
            layer("BatchNorm2d", num_features=4, affine=False),
            layer("PReLU", num_parameters=4),
            layer("MaxPool2d", kernel_size=[3, 2], stride=2, padding=1, ceil_mode=True),
            layer("Conv2d", in_channels=4, out_channels=6, kernel_size=[1, 2], stride=[2, 1], bias=False),
            layer("AvgPool2d", kernel_size=2, stride=1, count_include_pad=False),
            layer("AdaptiveAvgPool2d", output_size=[1, None]),
            layer("Flatten"),
            layer("Unflatten", dim=1, unflattened_size=[3, 6]),
            layer("Identity"),
        ],
        [
            nn.Conv2d(2, 4, 3, padding="same", groups=2),
            nn.BatchNorm2d(4, affine=False),
            nn.PReLU(4),
            nn.MaxPool2d((3, 2), 2, 1, ceil_mode=True),
            nn.Conv2d(4, 6, (1, 2), (2, 1), bias=False),
            nn.AvgPool2d(2, 1, count_include_pad=False),
            nn.AdaptiveAvgPool2d((1, None)),
            nn.Flatten(),
            nn.Unflatten(1, (3, 6)),
            nn.Identity(),
        ],
    ),
    "signals": (
        [1, 12],
        [
            layer("Conv1d", in_channels=1, out_channels=3, kernel_size=3, dilation=2),
            layer("LeakyReLU", negative_slope=0.3),
            layer("MaxPool1d", kernel_size=2),
            layer("AvgPool1d", kernel_size=2),
            layer("AdaptiveAvgPool1d", output_size=1),
            layer("Flatten"),
            layer("LogSoftmax", dim=-1),
        ],
        [
            nn.Conv1d(1, 3, 3, dilation=2),
            nn.LeakyReLU(0.3),
            nn.MaxPool1d(2),
            nn.AvgPool1d(2),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.LogSoftmax(-1),
        ],
    ),
    "volumes": (
        [1, 4, 4, 4],
        [
            layer("Conv3d", in_channels=1, out_channels=2, kernel_size=2),
            layer("BatchNorm3d", num_features=2),
            layer("MaxPool3d", kernel_size=2, stride=1),
            layer("AvgPool3d", kernel_size=2),
            layer("AdaptiveAvgPool3d", output_size=1),
        ],
        [nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.MaxPool3d(2, 1), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(1)],
    ),
    "functions": (
        [5],
        [
            layer("ELU", alpha=0.5),
            layer("SiLU"),
            layer("GELU"),
            layer("GELU", approximate="tanh"),
            layer("Sigmoid"),
            layer("Softplus", beta=2, threshold=30),
            layer("Hardtanh", min_val=-2, max_val=0.9),
            layer("ReLU6"),
            layer("Mish"),
            layer("Hardswish"),
            layer("SELU"),
            layer("ReLU", inplace=True),
        ],
        [
            nn.ELU(0.5),
            nn.SiLU(),
            nn.GELU(),
            nn.GELU("tanh"),
            nn.Sigmoid(),
            nn.Softplus(2, 30),
            nn.Hardtanh(-2, 0.9),
            nn.ReLU6(),
            nn.Mish(),
            nn.Hardswish(),
            nn.SELU(),
            nn.ReLU(),
        ],
    ),
    "nested": (
        [4],
        [
            layer("Sequential", layers=[layer("Linear", in_features=4, out_features=4), layer("ReLU")]),
            layer("Linear", in_features=4, out_features=2),
        ],
        [nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_layer_computes_what_torch_does(name: str) -> None:
    shape, layers, modules = CASES[name]
    module = randomized(nn.Sequential(*modules))
    for weights in (save(module.state_dict()), archived(module)):
        assert_equal(to_onnx(weights, described(shape, *layers), Limits()), module, tuple(shape))


def test_every_type_of_layer_is_met() -> None:
    met = {row["type"] for _, layers, _ in CASES.values() for row in layers}
    ours = {"MaxMin", "GroupSort", "Householder", "Residual"}  # of the zoo, below
    found = sequential.types()
    assert found - met == ours | {"Dropout1d", "Dropout2d"}


@pytest.mark.parametrize("name", [n for n in NAMES if n != IMPLICIT])
def test_the_architectures_of_the_zoo_are_their_modules(name: str) -> None:
    module = randomized(ARCHITECTURES[name.split("-")[1]]())
    architecture = json.dumps({"zoo": name}).encode()
    expected = sequential.read(architecture).tensors()
    assert expected == {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    assert_equal(to_onnx(save(module.state_dict()), architecture, Limits()), module, (1, 8, 8))


@pytest.mark.parametrize("options", [{"pickle_protocol": p} for p in (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("kind", ["ordered", "plain", "parameters"])
def test_state_dicts_are_read_as_torch_saves_them(options: dict[str, int], kind: str) -> None:
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Linear(3, 2).double())
    module[0].weight = nn.Parameter(torch.randn(2, 2, 3).permute(2, 1, 0))
    state = {
        "ordered": module.state_dict(),
        "plain": dict(module.state_dict()),
        "parameters": dict(module.named_parameters()),
    }
    buffer = io.BytesIO()
    torch.save(state[kind], buffer, **options)
    found = tensors(buffer.getvalue(), Limits())
    assert found.keys() == state[kind].keys()
    for name, tensor in state[kind].items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())


TWO = described([3], layer("Linear", in_features=3, out_features=2), layer("BatchNorm1d", num_features=2))


def state(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The state dict of TWO with tensors put in or (None) left out; a dot in a name is written __."""
    found = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
    renamed = {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: t for name, t in {**found, **renamed}.items() if t is not None}


MISFITS: dict[str, tuple[Callable[[], dict[str, torch.Tensor]], str]] = {
    "missing": (lambda: state(**{"0__weight": None}), r"lack '0.weight' of shape \[2, 3\]"),
    "several missing": (lambda: state(**{"0__weight": None, "0__bias": None}), r"lack '0.bias' .*and 1 more"),
    "unexpected": (lambda: state(extra=torch.zeros(1)), "no layer of the architecture has the tensor 'extra'"),
    "shape": (
        lambda: state(**{"0__weight": torch.zeros(3, 2)}),
        r"'0.weight' has shape \[3, 2\]; its layer expects \[2, 3\]",
    ),
    "whole": (lambda: state(**{"0__bias": torch.zeros(2, dtype=torch.int64)}), "'0.bias' is int64"),
    "counter": (lambda: state(**{"1__num_batches_tracked": torch.tensor(0.5)}), "num_batches_tracked' is float32"),
    "half": (lambda: state(**{"0__bias": torch.zeros(2).half()}), r"'0.bias' is 'float16'; call module.float\(\)"),
    "mixed": (lambda: state(**{"0__bias": torch.zeros(2).double()}), "mix float32 and float64"),
    "nan": (
        lambda: state(**{"0__bias": torch.tensor([0.0, float("nan")])}),
        "'0.bias' holds a number that is not finite",
    ),
}


def test_a_header_of_any_length_is_one_of_safetensors() -> None:
    """The first byte of the file is that of the header's length, which may be that of a pickle."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    first = set()
    for length in range(256):
        data = save(module.state_dict(), metadata={"note": "x" * length})
        first.add(data[0])
        to_onnx(data, TWO, Limits())
    assert 0x80 in first


@pytest.mark.parametrize("name", MISFITS)
def test_weights_that_do_not_fit_are_refused_by_name(name: str) -> None:
    found, message = MISFITS[name][0](), MISFITS[name][1]
    buffer = io.BytesIO()
    torch.save(found, buffer)
    for data in (save(found), buffer.getvalue()):
        with pytest.raises(InvalidModel, match=message):
            to_onnx(data, TWO, Limits())


DENSE = layer("Linear", in_features=3, out_features=2)
MISTAKES = {
    "not JSON": (b"{", "cannot be read as JSON"),
    "a number": (b"7", "at 'the whole': input should be a valid dictionary.*; there is 7"),
    "nothing": (b"null", "at 'the whole': input should be a valid dictionary"),
    "no layers": (b'{"input": [3]}', "at 'layers': field required"),
    "an empty list": (described([3]), "at least 1 item"),
    "an unknown type": (described([3], layer("LSTM")), "'layers.0': input tag 'LSTM'"),
    "an unknown field": (described([3], DENSE, layer("ReLU", slope=1)), "'layers.1.ReLU.slope': extra inputs"),
    "a missing field": (
        described([3], layer("Linear", in_features=3)),
        "'layers.0.Linear.out_features': field required",
    ),
    "a text": (
        described([3], layer("Linear", in_features="3", out_features=2)),
        "in_features': input should be a valid integer; there is '3'",
    ),
    "a negative number": (
        described([3], layer("Linear", in_features=-3, out_features=2)),
        "greater than or equal to 1; there is -3",
    ),
    "training": (
        described([3], layer("BatchNorm1d", num_features=3, track_running_stats=False)),
        "track_running_stats",
    ),
    "a shape of zeros": (b'{"input": [0], "layers": [{"type": "ReLU"}]}', "'input.0'"),
    "an unknown network": (b'{"zoo": "resnet50"}', "no architecture 'resnet50' in the zoo; there are: digits-mlp"),
    "an implicit network": (b'{"zoo": "digits-deq"}', "no architecture 'digits-deq'"),
    "a zoo and layers": (b'{"zoo": "digits-mlp", "layers": []}', "'layers', which is not known there"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_architecture_is_named(name: str) -> None:
    text, message = MISTAKES[name]
    with pytest.raises(InvalidModel, match=message):
        to_onnx(save({}), text, Limits())


def test_layers_that_do_not_fit_each_other_are_named() -> None:
    weights = save({"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(2)})
    with pytest.raises(InvalidModel, match=r"node 'layers.0': inputs \[batch, 4\] do not fit weight \[2, 3\]"):
        to_onnx(weights, described([4], DENSE), Limits())
    with pytest.raises(InvalidModel, match=r"node 'layers.1': inputs \[batch, 2\] of MaxPool2d"):
        to_onnx(weights, described([3], DENSE, layer("MaxPool2d", kernel_size=2)), Limits())


def test_depth_and_size_are_limited() -> None:
    deep = b'{"input": [1], "layers": ' + b'[{"type": "Sequential", "layers": ' * 40 + b"[]" + b"}]" * 40 + b"}"
    with pytest.raises(ResourceLimit, match="depth"):
        to_onnx(save({}), deep, Limits())
    with pytest.raises(ResourceLimit, match="architecture of"):
        to_onnx(save({}), b" " * 2**21, Limits())
    with pytest.raises(ResourceLimit):
        to_onnx(save({}), described([2**30, 2**30], layer("ReLU")), Limits())


def header(description: object, body: bytes = b"") -> bytes:
    text = json.dumps(description).encode()
    return len(text).to_bytes(8, "little") + text + body


FLAT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EVIL_SAFETENSORS = {
    "a huge header": (1 << 60).to_bytes(8, "little") + b"{}",
    "a header beyond the file": (1000).to_bytes(8, "little") + b"{}",
    "overlap": header({"a": FLAT, "b": {**FLAT, "data_offsets": [4, 12]}}, bytes(12)),
    "a hole": header({"a": FLAT, "b": {**FLAT, "data_offsets": [16, 24]}}, bytes(24)),
    "a shape beyond the data": header({"a": {**FLAT, "shape": [2**40, 2**20]}}, bytes(8)),
    "a product that overflows": header({"a": {**FLAT, "shape": [2**32, 2**32]}}, bytes(8)),
    "many axes": header({"a": {**FLAT, "shape": [2] + [1] * 100}}, bytes(8)),
    "bytes that are left": header({"a": FLAT}, bytes(9)),
    "a type": header({"a": {**FLAT, "dtype": "F8_E4M3", "data_offsets": [0, 2]}}, bytes(2)),
    "nothing": b"",
}


@pytest.mark.parametrize("name", EVIL_SAFETENSORS)
def test_evil_safetensors_are_refused(name: str) -> None:
    with pytest.raises((InvalidModel, ResourceLimit)):
        to_onnx(EVIL_SAFETENSORS[name], TWO, Limits())


@FIXED
@given(data=st.data())
def test_changed_weights_are_read_or_refused(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from([SAFE, ARCHIVE]))
    content = bytearray(source)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            del content[place : place + data.draw(st.integers(1, 40))]
    try:
        to_onnx(bytes(content), TWO, Limits())
    except (InvalidModel, ResourceLimit):
        return


def test_the_example_of_the_manual_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    architecture, program = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("json", "python"))
    (tmp_path / "architecture.json").write_text(architecture)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
    admit((tmp_path / "model.onnx").read_bytes())


torch.manual_seed(2)
SAFE = save(state())
ARCHIVE = archived(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
