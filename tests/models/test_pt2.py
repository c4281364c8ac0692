"""What torch.export.save writes of a module computes the same through our reader; anything unknown is refused."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pt2_kit import PROGRAM, WEIGHTS, Applied, Edit, assert_same, changed, saved, saved_of
from torch import nn

from provenn.models.limits import Limits
from provenn.models.pt2 import is_pt2, to_onnx
from provenn.models.pt2.operators import OPERATORS
from provenn.models.zoo.networks import ARCHITECTURES
from provenn.verifier.errors import InvalidModel, ResourceLimit, UnsupportedOp

pytestmark = pytest.mark.xdist_group("torch export")
"""What the tests share is made once."""

SHAPE = (3, 4, 4)


def moved(module: nn.Module) -> nn.Module:
    """With statistics and slopes that are not their defaults."""
    torch.manual_seed(7)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
        if isinstance(part, nn.LayerNorm | nn.BatchNorm2d | nn.PReLU) and part.weight is not None:
            nn.init.uniform_(part.weight, 0.2, 1)
    return module.eval()


FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "view": lambda m, x: x.view(x.shape[0], -1),
    "view-rest": lambda m, x: x.view(-1, 48),
    "reshape": lambda m, x: x.reshape(x.size(0), 4, 12),
    "unflatten": lambda m, x: x.unflatten(1, (3, 1)),
    "permute": lambda m, x: x.permute(0, 2, 3, 1).contiguous().transpose(1, 2),
    "squeeze": lambda m, x: x[:, :1].squeeze(1).unsqueeze(1).squeeze((1,)),
    "getitem": lambda m, x: x[:, 0] + x[..., -1].mean(1, keepdim=True),
    "slice": lambda m, x: x[:, 1:, ::2],
    "chunk": lambda m, x: x.chunk(3, 1)[1] + x.split([1, 2], 1)[0] + x.split(2, 1)[1],
    "unbind": lambda m, x: x.unbind(1)[2],
    "cat": lambda m, x: torch.cat([x, x * 2], 1),
    "stack": lambda m, x: torch.stack([x, -x], -1).flatten(1),
    "expand": lambda m, x: x + m.shift.view(1, 3, 1, 1).expand(-1, -1, 4, 4),
    "expand-batch": lambda m, x: torch.cat([m.shift.expand(x.shape[0], 3), x[:, :, 0, 0]], 1),
    "expand-as": lambda m, x: x * m.plain.view(3, 1, 1).expand_as(x),
    "mean": lambda m, x: x.mean((2, 3)) + x.sum(1)[:, 0, :3],
    "max": lambda m, x: x.amax(1) + x.max(1).values - x.min(1, keepdim=True)[0][:, 0],
    "topk": lambda m, x: x.flatten(1).topk(5, -1).values + x.flatten(1).sort(descending=True)[0][:, :5],
    "numbers": lambda m, x: 1 - x * 2 / 3 + x.neg() - 4,
    "tensors": lambda m, x: (x - m.plain.view(3, 1, 1)) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1) / 2,
    "alpha": lambda m, x: torch.add(x, x.abs(), alpha=0.5),
    "pow": lambda m, x: x**2 + (x * x + 1).sqrt() + x.exp(),
    "unary": lambda m, x: torch.erf(x) + x.sin() + x.cos() + (x * x + 1).log() + (x * x + 1).reciprocal(),
    "extrema": lambda m, x: torch.maximum(x, -x) + torch.minimum(x, x * 2),
    "matmul": lambda m, x: x.flatten(1)[:, :3] @ m.weight,
    "matmul-left": lambda m, x: m.weight.T @ x.flatten(2)[:, :, :2],
    "linear-view": lambda m, x: F.linear(x.flatten(1)[:, :3], m.weight.T),
    "linear-deep": lambda m, x: F.linear(x[..., :3], m.weight.t(), None),
    "bmm": lambda m, x: torch.bmm(x[:, 0], x[:, 1]),
    "addmm": lambda m, x: torch.addmm(m.shift, x.flatten(1)[:, :3], m.weight[:, :3]),
    "pad": lambda m, x: F.pad(x, (1, 1, 2, 0), value=0.5),
    "crop": lambda m, x: F.pad(x, (-1, 1)),
    "clamp": lambda m, x: x.clamp(-1, 1).clamp(min=-0.5) + x.clamp(max=float("inf")),
    "functions": lambda m, x: F.relu6(x) + F.hardtanh(x) + F.softplus(x, 2.0) + F.hardswish(x) + F.mish(x),
    "gelu": lambda m, x: F.gelu(x) + F.gelu(x, approximate="tanh") + F.silu(x) + F.selu(x),
    "softmax": lambda m, x: F.softmax(x.flatten(1), 1) + F.log_softmax(x.flatten(1), -1),
    "pool": lambda m, x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True) + F.avg_pool2d(x, 2, ceil_mode=True)[..., :1, :1],
    "pool-once": lambda m, x: F.max_pool2d(x, 2, 1, dilation=2, return_indices=True)[0],
    "average": lambda m, x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average-ceil": lambda m, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(x, 2).flatten(1)[:, :3] + F.adaptive_avg_pool2d(x, 1).flatten(1),
    "lists": lambda m, x: F.max_pool1d(x[:, 0], 2).flatten(1)[:, :3] + F.avg_pool1d(x[:, 0], 2).flatten(1)[:, :3],
    "lists-more": lambda m, x: F.adaptive_avg_pool1d(x[:, 0, :2], 2) + F.avg_pool3d(x[:, None], (3, 2, 2))[:, 0, 0],
    "windows": lambda m, x: F.max_pool3d(x[:, None], (3, 2, 2))[:, 0, 0] + F.adaptive_avg_pool2d(x, 2)[:, 0],
    "amin": lambda m, x: x.amin((1, 2)) + x.clamp_max(0.5).clamp_min(-0.5)[:, 0, 0] + x.to("cpu")[:, 0, 0],
    "in-place": lambda m, x: F.relu_(x * 1).add_(1).mul_(2),
    "copies": lambda m, x: x.clone().detach().to(torch.float32).contiguous(),
    "double": lambda m, x: x.double().relu().float(),
}

MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3, 2, 1), nn.BatchNorm1d(4), nn.LeakyReLU(0.2)), (3, 9)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, dilation=2, groups=3, bias=False), nn.PReLU(6)), (3, 8, 8)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.ELU(0.7), nn.AdaptiveAvgPool3d(1)), (1, 3, 4, 5)),
    "same": (lambda: nn.Sequential(nn.Conv2d(1, 2, (4, 3), padding="same"), nn.Sigmoid()), (1, 6, 6)),
    "norm": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.LayerNorm(5), nn.Tanh()), (6,)),
    "norm-2": (lambda: nn.Sequential(nn.LayerNorm([4, 6], elementwise_affine=False), nn.Flatten()), (4, 6)),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(), nn.Dropout(inplace=True), nn.Identity()), (4,)),
    "tied": (lambda: _tied(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))), (4,)),
    "double": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(), (4,)),
}


def _tied(module: nn.Sequential) -> nn.Sequential:
    module[2].weight = module[0].weight
    return module


class Joined(Applied):
    """Several functions of one input, their outputs in a row."""

    def __init__(self, functions: list[Callable[..., torch.Tensor]]) -> None:
        super().__init__(lambda m, x: torch.cat([f(m, x).flatten(1) for f in functions], 1))


GROUPS = [list(FUNCTIONS)[i : i + 6] for i in range(0, len(FUNCTIONS), 6)]


@pytest.mark.parametrize("names", GROUPS, ids=" ".join)
def test_functions_are_read(names: list[str]) -> None:
    module = Joined([FUNCTIONS[name] for name in names]).eval()
    assert_same(saved(module, SHAPE), module, SHAPE)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_read(name: str) -> None:
    build, shape = MODULES[name]
    torch.manual_seed(3)
    module = moved(build())
    assert_same(saved(module, shape), module, shape)


@pytest.mark.parametrize("name", ["cnn", "resnet", "maxmin", "groupsort5", "residual"])
@pytest.mark.parametrize("form", ["dynamic", "fixed", "decomposed"])
def test_the_networks_of_the_zoo_are_read(name: str, form: str) -> None:
    torch.manual_seed(3)
    module = moved(ARCHITECTURES[name]())
    data = saved(module, (1, 8, 8), dynamic=form != "fixed", decomposed=form == "decomposed")
    assert_same(data, module, (1, 8, 8), (1,) if form == "fixed" else (1, 3))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_named_padding_is_read(padding: str) -> None:
    for rank, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1):
        module = kind(1, 2, 4, padding=padding).eval()
        assert_same(saved(module, (1, *(5,) * rank)), module, (1, *(5,) * rank))


def test_a_network_without_a_batch_is_read() -> None:
    module = Applied(lambda m, x: torch.stack([x.sum(), x.mean(), x.unsqueeze(0).squeeze()[0]])).eval()
    x = torch.randn(4)
    session = onnxruntime.InferenceSession(to_onnx(saved_of(module, (x,)), Limits()))
    (ours,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(ours, module(x).detach().numpy(), rtol=1e-5)


OTHER_NAMES = {
    **{f"{name}.Tensor": f"{name}.Scalar" for name in ("add", "sub", "mul", "div")},
    "view.default": "_unsafe_view.default",
    "detach.default": "alias.default",
    "neg.default": "neg_.default",
}


@pytest.mark.parametrize(("target", "other"), OTHER_NAMES.items())
def test_names_that_other_versions_of_torch_give(target: str, other: str) -> None:
    module = Applied(lambda m, x: ((((x + 1) * 2 - 3) / 4).detach()).view(-1, 3).neg()).eval()

    def rename(program: dict) -> None:
        nodes = [n for n in program["graph_module"]["graph"]["nodes"] if n["target"] == f"torch.ops.aten.{target}"]
        assert nodes
        for found in nodes:
            found["target"] = f"torch.ops.aten.{other}"

    assert_same(changed(saved(module, (3,)), {PROGRAM: rename}), module, (3,))


def test_decomposed_layers_are_read() -> None:
    convolution = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten())
    dense = (nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4), nn.Hardtanh(), nn.LogSoftmax(1), nn.Softmax(1))
    module = moved(nn.Sequential(*convolution, *dense))
    assert_same(saved(module, SHAPE, decomposed=True), module, SHAPE)
    module = Applied(lambda m, x: 1.5 - F.pad(x, (1, 0)).clamp(0, 1).mean((2, 3)) * torch.tensor(2.0)).eval()
    assert_same(saved(module, SHAPE, decomposed=True), module, SHAPE)


def test_the_file_is_told_from_others() -> None:
    data = saved(nn.Linear(3, 2), (3,))
    buffer = io.BytesIO()
    torch.save(nn.Linear(3, 2).state_dict(), buffer)
    assert is_pt2(data)
    assert not is_pt2(buffer.getvalue())
    assert not is_pt2(b"PK\x03\x04 and then nothing")
    assert not is_pt2(b"")


def test_reading_loads_no_torch() -> None:
    names = ", ".join(f"provenn.models.{name}" for name in ("pt2", "pickles", "weights"))
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


class Training(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5, True)


class Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x + 1


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.count.add_(1)


class Stale(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, :2].relu_()
        return y + 1


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "dropout": (Training(), "dropout in training mode; call module.eval"),
    "batch norm": (nn.BatchNorm1d(3, track_running_stats=False), "mixes the inputs of a batch|in training mode"),
    "two outputs": (Two(), "has 2 outputs; choose one"),
    "a buffer": (Counting(), "changes the stored tensor 'b_count'"),
    "a stale view": (Stale(), "overwrites"),
    "the batch's mean": (Applied(lambda m, x: x.mean()), "along the batch"),
    "the batch's softmax": (Applied(lambda m, x: x.softmax(0)), "along the batch"),
    "the batch moved": (Applied(lambda m, x: x.T), "only axis 0, the batch, may have one"),
    "a view of a weight": (Applied(lambda m, x: x, nn.Linear(2, 2)), "a view of another tensor is not read"),
    "half": (Applied(lambda m, x: x + m.plain.half()), "conversion|type"),
    "no rule": (Applied(lambda m, x: x.cumsum(1)), "cumsum.default' is not supported"),
    "no gradient": (Applied(lambda m, x: torch.where(x > 0, x, -x)), "gt.Scalar' is not supported"),
    "a random number": (Applied(lambda m, x: x + torch.rand(3)), "rand.default' is not supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_with_its_cause(name: str) -> None:
    module, message = REFUSED[name]
    if name == "a view of a weight":
        module.parts[0].weight = nn.Parameter(torch.zeros(3, 2)[1:])
    with pytest.raises(InvalidModel, match=message):
        to_onnx(saved(module, (3,)), Limits())


def test_several_inputs_are_refused() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    with pytest.raises(InvalidModel, match="has 2 inputs"):
        to_onnx(saved_of(Sum(), (torch.zeros(1, 3), torch.zeros(1, 3))), Limits())


def test_a_graph_inside_the_graph_is_refused() -> None:
    class Without(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return x + 1

    with pytest.raises(UnsupportedOp, match="higher_order"):
        to_onnx(saved(Without(), (3,)), Limits())


def test_the_message_of_an_operator_without_rule_lists_those_with_one() -> None:
    with pytest.raises(UnsupportedOp) as caught:
        to_onnx(saved(Applied(lambda m, x: x.cumsum(1)), (3,)), Limits())
    assert set(caught.value.supported) == set(OPERATORS)
    assert "provenn export" in str(caught.value)


@pytest.fixture(scope="module")
def linear() -> bytes:
    return saved(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,))


def node(index: int) -> Callable[[dict], dict]:
    return lambda program: program["graph_module"]["graph"]["nodes"][index]


def put(place: str, value: object) -> Edit:
    """Sets what stands at a.b.0.c."""
    *keys, last = [int(k) if k.isdigit() else k for k in place.split("/")]

    def edit(tree: object) -> None:
        for key in keys:
            tree = tree[key]
        tree[last] = value

    return edit


G = "graph_module/graph"
FIELDS: dict[str, tuple[str, Edit, str]] = {
    "a new field": (PROGRAM, put("extra", 1), "has the field 'extra', which is not known there"),
    "a version": (PROGRAM, put("schema_version/major", 9), "schema_version 9"),
    "a target": (PROGRAM, put(f"{G}/nodes/0/target", "os.system"), "'os.system' is not supported"),
    "an argument": (PROGRAM, put(f"{G}/nodes/1/inputs/0/arg", {"as_int": 3}), "a tensor is expected"),
    "an argument's name": (PROGRAM, put(f"{G}/nodes/1/inputs/0/name", "other"), "the argument self is missing"),
    "a cycle": (PROGRAM, put(f"{G}/nodes/0/inputs/0/arg/as_tensor/name", "relu"), "computed by nothing before it"),
    "a shape": (PROGRAM, put(f"{G}/tensor_values/linear/sizes/1/as_int", 7), r"has shape \[batch, 2\].*the file says"),
    "a type": (PROGRAM, put(f"{G}/tensor_values/linear/dtype", 8), "the file says"),
    "a result": (PROGRAM, put(f"{G}/nodes/1/outputs/0/as_tensor/name", "linear"), "defined already"),
    "a huge number": (PROGRAM, put(f"{G}/tensor_values/linear/sizes/1/as_int", 2**64), "a whole number is expected"),
    "a layout": (PROGRAM, put(f"{G}/tensor_values/x/layout", 1), "only dense tensors"),
    "a weight's shape": (WEIGHTS, put("config/0.weight/tensor_meta/sizes/0/as_int", 3), "needs 36 bytes of its own"),
    "a weight's offset": (WEIGHTS, put("config/0.weight/tensor_meta/storage_offset/as_int", 1), "storage_offset 1"),
    "a weight's strides": (WEIGHTS, put("config/0.weight/tensor_meta/strides/0/as_int", 0), r"strides \[0, 1\]"),
    "a weight's file": (WEIGHTS, put("config/0.weight/path_name", "../../../etc/passwd"), "not in the archive"),
    "a weight's dtype": (WEIGHTS, put("config/0.weight/tensor_meta/dtype", 30), "dtype 30 of torch"),
    "no weight": (WEIGHTS, lambda v: v["config"].pop("0.weight"), "'0.weight' is not in"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_changed_field_is_refused_by_name(name: str, linear: bytes) -> None:
    member, edit, message = FIELDS[name]
    with pytest.raises(InvalidModel, match=message):
        to_onnx(changed(linear, {member: _renamed(edit, linear)}), Limits())


def _renamed(edit: Edit, data: bytes) -> Edit:
    """The edit, the network's input called x whatever torch calls it."""
    program = json.loads(zipfile.ZipFile(io.BytesIO(data)).read(PROGRAM))
    (name,) = [
        s["user_input"]["arg"]["as_tensor"]["name"]
        for s in program["graph_module"]["signature"]["input_specs"]
        if "user_input" in s
    ]

    def renamed(tree: dict) -> None:
        values = tree.get("graph_module", {}).get("graph", {}).get("tensor_values")
        if values is None:
            edit(tree)
            return
        values["x"] = values.pop(name)
        edit(tree)
        values[name] = values.pop("x")

    return renamed


def test_members_that_are_not_known_are_refused(linear: bytes) -> None:
    for name in ("archive/data/aotinductor/model.so", "archive/models/second.json", "elsewhere/x"):
        with pytest.raises(InvalidModel, match=r"not known there|second program|outside of"):
            to_onnx(changed(linear, files={name: b"{}"}), Limits())


def test_a_name_given_twice_is_refused(linear: bytes) -> None:
    program = (
        zipfile.ZipFile(io.BytesIO(linear))
        .read(PROGRAM)
        .replace(b'{"graph_module"', b'{"a": 1, "a": 2, "graph_module"')
    )
    with pytest.raises(InvalidModel, match="a name is given twice"):
        to_onnx(changed(linear, files={PROGRAM: program}), Limits())


def test_limits_are_kept(linear: bytes) -> None:
    for limits in (Limits(bytes=1000), Limits(nodes=1), Limits(elements=5), Limits(folded=5)):
        with pytest.raises(ResourceLimit):
            to_onnx(linear, limits)
