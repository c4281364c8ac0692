"""A module is exported as it computes in inference mode, left as it was, and refused with the exporter's cause."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from provenn.models import torch_export
from provenn.models.torch_export import OPSET, export
from provenn.models.zoo.networks import cnn, mlp, resnet
from provenn.verifier.errors import InvalidModel

pytestmark = pytest.mark.xdist_group("torch export")
"""What the tests share is made once."""


@pytest.fixture(scope="module", params=[mlp, cnn, resnet], ids=["mlp", "cnn", "resnet"])
def exported(request: pytest.FixtureRequest) -> tuple[nn.Module, bytes]:
    torch.manual_seed(3)
    module = request.param().train()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
            part.eval()
    return module, export(module, (1, 8, 8))


@pytest.mark.parametrize("batch", [1, 5])
def test_the_file_equals_the_module_at_any_batch(exported: tuple[nn.Module, bytes], batch: int) -> None:
    module, data = exported
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = torch.rand((batch, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    (ours,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(ours, module(x).numpy(), rtol=1e-5, atol=1e-5)


def test_only_the_batch_axis_is_symbolic(exported: tuple[nn.Module, bytes]) -> None:
    model = onnx.load_from_string(exported[1])
    for value, rest in ((model.graph.input[0], [1, 8, 8]), (model.graph.output[0], [10])):
        first, *others = value.type.tensor_type.shape.dim
        assert first.dim_param
        assert [d.dim_value for d in others] == rest
    assert model.opset_import[0].version == OPSET
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_every_training_flag_is_left_as_it_was(exported: tuple[nn.Module, bytes]) -> None:
    for part in exported[0].modules():
        assert part.training != isinstance(part, nn.BatchNorm2d)


def test_flags_are_put_back_when_the_exporter_refuses() -> None:
    module = nn.Sequential(nn.Dropout(), DataDependent())
    module[0].eval()
    with pytest.raises(InvalidModel):
        export(module, (3,))
    assert (module.training, module[0].training, module[1].training) == (True, False, True)


class DataDependent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such mode")


class Decomposing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.svd(x)[0]


@pytest.mark.parametrize(
    ("module", "shape", "cause"),
    [
        (DataDependent(), (3,), "Could not guard on data-dependent expression"),
        (Failing(), (3,), "ValueError: no such mode"),
        (Decomposing(), (4, 4), "svd"),
        (nn.Linear(3, 2), (5,), "a and b must have same reduction dim"),
    ],
    ids=["data-dependent", "failing", "svd", "wrong-shape"],
)
def test_a_refusal_names_its_cause_in_one_line(module: nn.Module, shape: tuple[int, ...], cause: str) -> None:
    with pytest.raises(InvalidModel, match=cause) as caught:
        export(module, shape)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(0,), (-3,), (2.0,)])
def test_a_shape_that_is_none(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidModel, match="must be of positive whole numbers"):
        export(nn.Linear(3, 2), shape)


def test_without_onnxscript_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_export, "find_spec", lambda name: None)
    with pytest.raises(InvalidModel, match=r'pip install "provenn\[export\]"'):
        export(nn.Linear(3, 2), (3,))


def test_a_warning_of_the_callers_module_is_not_swallowed() -> None:
    class Warns(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            warnings.warn("mind the gap", DeprecationWarning, stacklevel=1)
            return x + 1

    with pytest.warns(DeprecationWarning, match="mind the gap"):
        export(Warns(), (3,))


def test_nothing_is_printed() -> None:
    code = "import torch; from provenn.models.torch_export import export; export(torch.nn.Linear(3, 2), (3,))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
