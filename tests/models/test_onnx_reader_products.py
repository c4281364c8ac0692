"""Attention, normalization and other products of computed values, from torch's exporter to bounds.

Every module maps [batch, 3, 4]. All are exported together, as one network with an output each, which is then taken
apart: the fixed cost of an export is paid once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_kit import Array, model, require_agreement, require_exact_agreement
from torch import Tensor, nn
from torch.nn import functional

from provenn.models.onnx_reader import read
from provenn.models.torch_export import OPSET, export
from provenn.verifier.bounds.backward import crown, crown_ibp
from provenn.verifier.bounds.forward import forward_lower
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.bounds.slopes import Effort, alpha_crown, optimised_lower
from provenn.verifier.errors import InvalidBounds, InvalidModel, ResourceLimit, UnsupportedOp
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.softmax import Softmax
from provenn.verifier.region import Region

pytestmark = pytest.mark.xdist_group("torch export")
"""What the tests share is made once."""

SHAPE = (3, 4)
RADII = (0.0, 1e-3, 0.1, 1.0)
SAMPLES = 2000
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-12}
"""By how much a bound may miss a sample, relative to the largest number that was added up for it."""

LARGE = 30
"""Nodes from which on the bounds of all nodes are not optimised, only those of the output: for time."""


class Part(nn.Module):
    """A function of (self, x) with parameters."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Together(nn.Module):
    """One output a module."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(part(x) for part in self.parts)


class Vit(nn.Module):
    """Patches of an image as tokens, a class token, positions, an encoder layer, a head on the class token."""

    def __init__(self, width: int = 4, patch: tuple[int, int] = (3, 2), tokens: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.start = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, tokens + 1, width) / 2)
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x.unsqueeze(1)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.start.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.layer(tokens))[:, 0])


def attention(heads: int) -> nn.Module:
    return Part(lambda s, x: s.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(4, heads, batch_first=True))


def dot_product_attention(**settings: Any) -> nn.Module:
    def compute(s: Any, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (2, 2)).transpose(1, 2) for part in (s.a, s.b, s.c))
        return functional.scaled_dot_product_attention(q, k, v, **settings).transpose(1, 2).flatten(2)

    return Part(compute, a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4))


def encoder(activation: str, norm_first: bool) -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 6, 0.0, activation, batch_first=True, norm_first=norm_first)


def two(function: Callable[[Tensor, Tensor], Tensor], first: int = 4, second: int = 4) -> nn.Module:
    """The function of two linear maps of the last axis."""
    return Part(lambda s, x: function(s.a(x), s.b(x)), a=nn.Linear(4, first), b=nn.Linear(4, second))


def linear(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return Part(lambda s, x: function(s.a(x)), a=nn.Linear(4, 4))


def image(part: nn.Module, shape: tuple[int, ...] = (3, 2, 2)) -> nn.Module:
    return Part(lambda s, x: s.a(x.unflatten(-1, (2, 2)).reshape(-1, *shape)), a=part)


def gate(s: Any, x: Tensor) -> Tensor:
    y = functional.relu(s.a(x.unsqueeze(1)))
    return y * torch.sigmoid(s.b(y.mean((2, 3))))[:, :, None, None]


def strayed(part: nn.Module) -> nn.Module:
    """With parameters that are not the ones a normalization starts with."""
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(torch.randn_like(parameter) + 0.5)
    return part


MODULES: dict[str, Callable[[], nn.Module]] = {
    "attention 1 head": lambda: attention(1),
    "attention 2 heads": lambda: attention(2),
    "sdpa": lambda: dot_product_attention(),
    "sdpa causal": lambda: dot_product_attention(is_causal=True),
    "sdpa bool mask": lambda: dot_product_attention(attn_mask=torch.ones(3, 3, dtype=torch.bool).tril()),
    "sdpa float mask": lambda: dot_product_attention(attn_mask=torch.full((3, 3), -1e9).triu(1)),
    "encoder relu": lambda: encoder("relu", False),
    "encoder relu norm first": lambda: encoder("relu", True),
    "encoder gelu": lambda: encoder("gelu", False),
    "vit, gelu norm first": Vit,
    "layer norm": lambda: strayed(nn.LayerNorm(4)),
    "layer norm two axes": lambda: strayed(nn.LayerNorm(SHAPE)),
    "layer norm plain": lambda: nn.LayerNorm(4, elementwise_affine=False),
    "rms norm": lambda: strayed(nn.RMSNorm(4, eps=1e-5)),
    "rms norm plain": lambda: nn.RMSNorm(4, elementwise_affine=False),
    "instance norm 1d": lambda: strayed(nn.InstanceNorm1d(3, affine=True)),
    "instance norm 2d": lambda: image(strayed(nn.InstanceNorm2d(3, affine=True))),
    "instance norm plain": lambda: image(nn.InstanceNorm2d(3)),
    "group norm": lambda: image(strayed(nn.GroupNorm(2, 4)), (4, 1, 3)),
    "group norm plain": lambda: image(nn.GroupNorm(3, 3, affine=False)),
    "normalize": lambda: linear(lambda a: functional.normalize(a, dim=-1)),
    "normalize axis": lambda: linear(lambda a: functional.normalize(a, dim=1)),
    "product": lambda: two(lambda a, b: a * b.sum(-1, keepdim=True)),
    "outer product": lambda: two(lambda a, b: a.unsqueeze(-1) * b.unsqueeze(-2), 2, 3),
    "quotient": lambda: two(lambda a, b: a / (functional.softplus(b) + 1)),
    "bmm": lambda: two(lambda a, b: torch.bmm(a, b.transpose(1, 2)), 2, 2),
    "einsum": lambda: two(lambda a, b: torch.einsum("bij,bkj->bki", a, b), 2, 2),
    "einsum heads": lambda: two(
        lambda a, b: torch.einsum("bihd,bjhd->bhij", a.unflatten(-1, (2, 2)), b.unflatten(-1, (2, 2)))
    ),
    "log sum exp": lambda: linear(lambda a: a.logsumexp(-1)),
    "log sum exp axis": lambda: linear(lambda a: a.logsumexp(1, keepdim=True)),
    "log softmax": lambda: linear(lambda a: functional.log_softmax(a, -1)),
    "softmax": lambda: linear(lambda a: functional.softmax(a, -1)),
    "softmax axis": lambda: linear(lambda a: functional.softmax(a, 1)),
    "squeeze and excitation": lambda: Part(gate, a=nn.Conv2d(1, 2, 3, padding=1), b=nn.Linear(2, 2)),
    "swiglu": lambda: two(lambda a, b: functional.silu(a) * b),
    "bilinear": lambda: Part(
        lambda s, x: torch.einsum("bi,ij,bj->b", x.flatten(1), s.a.weight, x.flatten(1)), a=nn.Linear(12, 12)
    ),
    "bilinear module": lambda: Part(lambda s, x: s.a(x, x), a=nn.Bilinear(4, 4, 2)),
    "variance": lambda: linear(lambda a: a.var(1)),
    "variance of all": lambda: linear(lambda a: a.var((1, 2), correction=0)),
}

ABOVE_ZERO = {"normalize", "normalize axis"}
"""Modules whose own bounds are of the order of 1e12 once a norm can be 0: torch divides by max(norm, 1e-12)."""


UNBOUNDED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "over zero": (lambda: two(lambda a, b: a / b), "Reciprocal"),
    "one over zero": (lambda: linear(lambda a: 1 / a), "Reciprocal"),
    "over its norm": (lambda: linear(lambda a: a / a.norm(dim=-1, keepdim=True)), "Pow"),
    "logarithm": (lambda: linear(torch.log), "Log"),
}
"""Modules without a value somewhere, and the op that says so."""

REFUSED: dict[str, tuple[Callable[[], nn.Module], type[InvalidModel], str]] = {
    "computed exponent": (lambda: two(torch.pow), UnsupportedOp, "node 'node_pow.*operator Pow .* both computed"),
    "infinite mask": (
        lambda: dot_product_attention(attn_mask=torch.full((3, 3), -torch.inf).triu(1)),
        InvalidModel,
        "initializer '.*' contains nan or inf",
    ),
}

INEXACT = {"encoder gelu", "vit, gelu norm first"}
"""onnxruntime has no Erf of doubles, and the reference evaluator normalizes layers in float32."""

ALL = MODULES | {name: row[0] for name, row in (UNBOUNDED | REFUSED).items()}


def made(name: str) -> nn.Module:
    torch.manual_seed(len(name))
    return ALL[name]().eval()


@pytest.fixture(scope="module")
def exported() -> dict[str, bytes]:
    """The ONNX bytes of every module."""
    whole = onnx.load_from_string(export(Together([made(name) for name in ALL]), SHAPE))
    parts = onnx.utils.Extractor(whole)
    names = zip(ALL, whole.graph.output, strict=True)
    return {name: parts.extract_model(["x"], [output.name]).SerializeToString() for name, output in names}


@pytest.mark.parametrize("name", MODULES)
def test_exported_modules_are_read(name: str, exported: dict[str, bytes]) -> None:
    """The graph is the module, and what onnxruntime computes."""
    require_agreement(exported[name])
    if name not in INEXACT:
        require_exact_agreement(exported[name])
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    expected = made(name).double()(x).detach().reshape(5, -1)
    # Constants such as 1 / sqrt(2) are float32 in the file.
    assert (read(exported[name]).forward(x).flatten(1) - expected).abs().max() <= 1e-6 * (1 + expected.abs().max())


def boxes(graph: Graph, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Region, Tensor]:
    """A box of every radius around one random point, and samples of them in float64: [samples, radii, *input]."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, *graph.input_shape, dtype=torch.float64, generator=generator)
    radius = torch.tensor(RADII, dtype=torch.float64).reshape(-1, *(1,) * len(graph.input_shape))
    places = torch.rand(SAMPLES, len(RADII), *graph.input_shape, dtype=torch.float64, generator=generator)
    corners = SAMPLES // 4
    places[:corners] = places[:corners].round()
    lower, upper = (centre - radius).to(dtype), (centre + radius).to(dtype)
    low, high = lower.double(), upper.double()
    return Region(Interval(lower, upper)), torch.minimum(low + places * (high - low), high)


def lowers(graph: Graph, region: Region, matrix: Tensor) -> dict[str, Tensor]:
    """Lower bounds [spec, batch] of the rows by every method."""
    backward, effort = crown(graph, region), Effort(2)
    found = {
        "interval": output_lower(graph, propagate(graph, region.box), matrix),
        "crown": backward.output_lower(matrix),
        "crown-ibp": crown_ibp(graph, region).output_lower(matrix),
        "forward": forward_lower(graph, region, matrix),
        "alpha": optimised_lower(backward, matrix, effort).lower,
    }
    if len(graph.nodes) < LARGE:
        found["alpha everywhere"] = optimised_lower(alpha_crown(graph, region, Effort(2)), matrix, Effort(2)).lower
    return found


@pytest.mark.parametrize(("name", "dtype"), [(name, list(ROUNDING)[i % 2]) for i, name in enumerate(MODULES)], ids=str)
def test_bounds_of_exported_modules_hold(name: str, dtype: torch.dtype, exported: dict[str, bytes]) -> None:
    """No sample lies below a bound, optimised bounds not below CROWN's, nor linear ones below interval's."""
    graph, rounding = read(exported[name]).to("cpu", dtype), ROUNDING[dtype]
    region, points = boxes(graph, len(name), dtype)
    outputs = graph.to("cpu", torch.float64).forward(points.flatten(0, 1)).reshape(SAMPLES, len(RADII), -1)
    matrix = torch.randn(3, 1, outputs.shape[-1], dtype=dtype).expand(-1, len(RADII), -1)
    lowest = torch.einsum("nbo,sbo->nsb", outputs, matrix.double()).amin(0)
    size = torch.einsum("bo,sbo->sb", outputs.abs().amax(0), matrix.double().abs())
    found = lowers(graph, region, matrix)
    for method, lower in found.items():
        assert lower.isfinite().all(), method
        assert (lower <= lowest + rounding * (1 + size)).all(), method
        # A box of no width leaves roundings.
        assert (lowest - lower)[:, 0].max() <= 100 * rounding * (1 + size[:, 0].max()), method
    assert (found["alpha"] >= found["crown"]).all()
    slack = rounding * (1 + size + found["interval"].abs())
    for method, lower in found.items():
        assert (lower >= found["interval"] - slack).all(), method
    if name not in ABOVE_ZERO:
        assert (lowest - found["interval"] < 1e3 * (1 + size)).all()


def test_linear_bounds_of_attention_are_far_tighter_than_intervals(exported: dict[str, bytes]) -> None:
    """At radius 0.001 the error of a linear bound is of second order: below a tenth of an interval's."""
    for name in ("attention 2 heads", "sdpa causal", "sdpa float mask", "vit, gelu norm first"):
        graph = read(exported[name])
        region, points = boxes(graph, 0)
        outputs = graph.forward(points[:, 1]).flatten(1)
        matrix = torch.eye(outputs.shape[1], dtype=torch.float64).unsqueeze(1)
        small = region.select(slice(1, 2))
        gaps = [
            (outputs.amin(0) - lower[:, 0]).mean()
            for lower in (
                output_lower(graph, propagate(graph, small.box), matrix),
                crown(graph, small).output_lower(matrix),
            )
        ]
        assert gaps[1] < gaps[0] / 10, name


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_masked_cells_do_not_loosen_the_others(dtype: torch.dtype, exported: dict[str, bytes]) -> None:
    """Masks of -3.4e38 (torch's) and of -1e9: the first token sees itself alone, its softmax is (1, 0, 0)."""
    for name in ("sdpa causal", "sdpa float mask"):
        graph = read(exported[name]).to("cpu", dtype)
        x = torch.randn(1, *SHAPE, dtype=dtype)
        box = Interval(x - 1, x + 1)
        (softmax,) = (i for i, node in enumerate(graph.nodes) if type(node.op) is Softmax)
        first = torch.tensor([1.0, 0.0, 0.0], dtype=dtype).expand(1, 2, 3)
        for bounds in (propagate(graph, box), crown(graph, Region(box)).bounds):
            for end in (bounds[softmax].lower, bounds[softmax].upper):
                assert (end[:, :, 0] - first).abs().max() <= ROUNDING[dtype]
                assert (end[:, :, 1, 2].abs() <= ROUNDING[dtype]).all()


@pytest.mark.parametrize("causal", [False, True])
def test_the_exporter_writes_attention_as_plain_nodes(causal: bool, exported: dict[str, bytes]) -> None:
    """Up to opset 22 there is no other way; the operator of opset 23 is refused by its name."""
    nodes = onnx.load_from_string(exported["sdpa causal" if causal else "sdpa"]).graph.node
    assert OPSET < 23
    assert {"MatMul", "Softmax"} <= {n.op_type for n in nodes}
    assert "Attention" not in {n.op_type for n in nodes}
    attention = helper.make_node("Attention", ["x", "x", "x"], ["y"], name="heart", is_causal=int(causal))
    with pytest.raises(UnsupportedOp, match="node 'heart': operator Attention is not supported") as caught:
        read(model([attention], (1, 2, 3, 4), opset=23).SerializeToString())
    assert (caught.value.node, caught.value.op_type) == ("heart", "Attention")


EINSUMS: dict[str, tuple[tuple[int, ...], str]] = {
    "bi,bi->b": ((1, 3), "x h"),
    "bi,bi->bi": ((1, 3), "x x"),
    "bi, bi": ((1, 3), "x x"),
    "bi,bj": ((1, 3), "x h"),
    "bi,bj->b": ((1, 3), "x h"),
    "bij,bij->bj": ((1, 3, 4), "x h"),
    "bij,bkj->bki": ((1, 3, 4), "x h"),
    "bij,bji->b": ((1, 3, 3), "x h"),
    "bii,bij->bij": ((1, 3, 3), "x h"),
    "bhid,bhjd->bhij": ((1, 2, 3, 4), "x h"),
    "bihd,bjhd->bhij": ((1, 3, 2, 4), "x h"),
    "...ij,...kj->...ik": ((1, 2, 3, 4), "x h"),
    "bij,bik->bij": ((1, 3, 4), "x m"),
    "bij,bij->b": ((1, 3, 4), "m x"),
    "bij,bij,bij->bi": ((1, 3, 4), "x m h"),
    "bi,ij,bj->b": ((1, 3), "x w h"),
    "ij,bi,bj->b": ((1, 3), "w x h"),
    "bi,k,bi,l->bk": ((1, 3), "x v h v"),
    "bi,bj,bk->bkij": ((1, 3), "x h x"),
    "bi,bi,bi->b": ((1, 3), "x h x"),
}
"""Equations over x, h = sin(x), m = sum of h along its last axis (kept), and constants w, v."""


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsums_of_computed_values_are_read(equation: str) -> None:
    shape, names = EINSUMS[equation]
    factors = names.split()
    numbers: dict[str, Array] = {
        "w": np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32),
        "v": np.arange(1, 6, dtype=np.float32),
        "last": np.array([-1]),
    }
    nodes = [helper.make_node("Einsum", factors, ["y"], equation=equation)]
    if "m" in factors:
        nodes.insert(0, helper.make_node("ReduceSum", ["h", "last"], ["m"], keepdims=1))
    if {"h", "m"} & set(factors):
        nodes.insert(0, helper.make_node("Sin", ["x"], ["h"]))
    read_names = {name for node in nodes for name in node.input}
    made = model(nodes, shape, {name: array for name, array in numbers.items() if name in read_names})
    require_agreement(made.SerializeToString())
    require_exact_agreement(made.SerializeToString())


def test_an_einsum_of_a_value_with_itself_is_its_square() -> None:
    """No bound below 0, which a product of two values that are bounded apart would have."""
    made = model([helper.make_node("Einsum", ["x", "x"], ["y"], equation="bi,bi->b")], (1, 3))
    graph = read(made.SerializeToString())
    ball = torch.ones(1, 3, dtype=torch.float64)
    assert propagate(graph, Interval(-ball, ball))[-1].lower.item() == 0


def test_an_einsum_too_large_is_refused() -> None:
    made = model([helper.make_node("Einsum", ["x"] * 4, ["y"], equation="bi,bj,bk,bl->bijkl")], (1, 300))
    with pytest.raises(ResourceLimit, match="its result"):
        read(made.SerializeToString())


@pytest.mark.parametrize("name", UNBOUNDED)
def test_what_has_no_value_in_the_box_is_refused(name: str, exported: dict[str, bytes]) -> None:
    """The network is read; bounding it says which op, and what its input can be."""
    graph, x = read(exported[name]), torch.zeros(1, *SHAPE, dtype=torch.float64)
    region = Region(Interval(x - 10, x + 10))
    message = rf"{UNBOUNDED[name][1]}: its input can be anything in \[-?\d.*use a smaller region"
    with pytest.raises(InvalidBounds, match=message):
        propagate(graph, region.box)
    with pytest.raises(InvalidBounds, match=message):
        crown(graph, region)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_and_where(name: str, exported: dict[str, bytes]) -> None:
    _, error, message = REFUSED[name]
    with pytest.raises(error, match=message) as caught:
        read(exported[name])
    assert type(caught.value) is error
