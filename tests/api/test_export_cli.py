"""`provenn export` turns a module of the user's into a file that computes the same, or says why it does not."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from cli_kit import Command
from safetensors.torch import load, save
from torch import nn

from provenn.models import pt2, weights
from provenn.models.limits import Limits

pytestmark = pytest.mark.xdist_group("torch export")
"""What the tests share is made once."""

MODULE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))

class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand(()).item()

class Failing(nn.Module):
    def __init__(self):
        raise OSError("no data set here")

class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
    def forward(self, x):
        self.calls += 1
        return x * self.calls

instance = build()
number = 3
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # and what the command adds is taken away again
    sys.modules.pop("exported_networks", None)
    (tmp_path / "exported_networks.py").write_text(MODULE)
    return tmp_path


def module() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()


TARGET = ("export", "exported_networks:build", "--input-shape", "1,4,4")


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_onnx_with_weights(place: Path, run: Command, kind: str) -> None:
    ours = module()
    if kind == "pt":
        torch.save(ours.state_dict(), "weights.pt")
    else:
        Path("weights.safetensors").write_bytes(save(ours.state_dict()))
    done = run(*TARGET, "--weights", f"weights.{kind}", "--out", "net.onnx", "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    data = (place / "net.onnx").read_bytes()
    assert answer["sha256"] == hashlib.sha256(data).hexdigest()
    assert answer["largest_difference"] < 1e-5
    assert answer["input_shape"] == [1, 4, 4]
    x = torch.randn(3, 1, 4, 4)
    session = onnxruntime.InferenceSession(data)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, ours(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert sorted(p.name for p in place.iterdir() if p.is_file()) == sorted(
        ["exported_networks.py", "net.onnx", f"weights.{kind}"]
    )


def test_the_other_formats(place: Path, run: Command) -> None:
    assert run(*TARGET, "--format", "pt2").code == 0
    pt2.to_onnx((place / "model.pt2").read_bytes(), Limits())
    assert run("export", "exported_networks:instance", "--input-shape", "1,4,4", "--format", "safetensors").code == 0
    data = (place / "model.safetensors").read_bytes()
    assert load(data).keys() == module().state_dict().keys()
    layers = [
        {"type": "Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 3},
        {"type": "ReLU"},
        {"type": "Flatten"},
        {"type": "Linear", "in_features": 8, "out_features": 3},
    ]
    weights.to_onnx(data, json.dumps({"input": [1, 4, 4], "layers": layers}).encode(), Limits())


def test_a_pickled_module_is_opened_only_when_it_is_trusted(place: Path, run: Command) -> None:
    torch.save(module(), "module.pt")
    refused = run(*TARGET, "--weights", "module.pt")
    assert refused.code == 2
    assert "is no file of tensors alone" in refused.err
    assert "--trust-pickle" in refused.err
    assert not (place / "model.onnx").exists()
    done = run("export", "--trust-pickle", "module.pt", "--input-shape", "1,4,4")
    assert done.code == 0, done.err
    assert "warning: --trust-pickle runs the code in module.pt" in done.err
    assert (place / "model.onnx").exists()


class Canary:
    """Its pickle makes a file when it is opened."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("canary"),))


def test_weights_are_never_unpickled(place: Path, run: Command) -> None:
    buffer = io.BytesIO()
    torch.save({"0.weight": Canary()}, buffer)
    Path("evil.pt").write_bytes(buffer.getvalue())
    done = run(*TARGET, "--weights", "evil.pt")
    assert (done.code, "no file of tensors alone" in done.err) == (2, True)
    assert not (place / "canary").exists()


SHAPE = ("--input-shape", "3")
MISTAKES = {
    "no module": (SHAPE, "give MODULE:CALLABLE, or --trust-pickle FILE"),
    "both": (("a:b", *SHAPE, "--trust-pickle", "x.pt"), "give MODULE:CALLABLE, or --trust-pickle FILE"),
    "a pickle and weights": (
        (*SHAPE, "--trust-pickle", "x.pt", "--weights", "y.pt"),
        "a pickled module holds its weights",
    ),
    "no colon": (("exported_networks", *SHAPE), "is not of the form package.module:function"),
    "no such module": (("nowhere_at_all:build", *SHAPE), "importing nowhere_at_all raises ModuleNotFoundError"),
    "no such function": (("exported_networks:bild", *SHAPE), "exported_networks has no bild"),
    "no function": (("exported_networks:number", *SHAPE), "is of type int, not a function"),
    "no torch module": (("builtins:dict", *SHAPE), "is of type dict, not a torch.nn.Module"),
    "raises": (("exported_networks:Failing", *SHAPE), "exported_networks:Failing() raises OSError: no data set here"),
    "a shape": (("exported_networks:build", "--input-shape", "1,a"), "'1,a' is no shape"),
    "a wrong shape": (("exported_networks:build", "--input-shape", "2,4,4"), "torch's exporter refuses this module"),
    "branches": (("exported_networks:Branching", *SHAPE), "Could not guard on data-dependent expression"),
    "another function": (("exported_networks:Counting", *SHAPE), "onnxruntime and the module differ by"),
    "no file": (("exported_networks:build", *SHAPE, "--weights", "none.pt"), "none.pt: cannot be read"),
    "other weights": (
        ("exported_networks:build", *SHAPE, "--weights", "other.safetensors"),
        'the weights do not fit the module: Missing key(s) in state_dict: "0.weight"',
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_and_nothing_is_written(place: Path, run: Command, name: str) -> None:
    Path("other.safetensors").write_bytes(save({"a": torch.zeros(2)}))
    arguments, message = MISTAKES[name]
    done = run("export", *arguments)
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (place / "model.onnx").exists()


def test_a_file_that_cannot_be_written(place: Path, run: Command) -> None:
    done = run(*TARGET, "--out", "missing/model.onnx")
    assert done.code == 1
    assert "cannot write to missing/model.onnx" in done.err
