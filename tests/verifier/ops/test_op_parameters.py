"""Ops as values: moved between precisions and devices, and refused where their parameters mean nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from table import CASES, Case

from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.errors import InvalidModel
from provenn.verifier.graph import sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import ReduceSum, Scale
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.conv import Conv, ConvTranspose
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.pool import AveragePool
from provenn.verifier.ops.shape import Concat, Pad, Reshape, Select, Transpose
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region

every_op = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def bounds(case: Case, op: Op, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Everything an op answers, over boxes around fixed points."""
    centres = [x.to(device, dtype) for x in case.inputs(2, 5)]
    boxes = [Interval(x - 0.5, x + 0.25) for x in centres]
    image = op.forward(*centres)
    enclosure = op.interval(*boxes)
    rows = torch.linspace(-1, 1, 3 * image.numel(), device=device, dtype=dtype).reshape(3, *image.shape)
    pulled, constant = op.backward(rows, boxes)
    answers = [image, enclosure.lower, enclosure.upper, *pulled]
    return answers if constant is None else [*answers, constant]


@every_op
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_to_keeps_behaviour(case: Case, dtype: torch.dtype) -> None:
    expected = bounds(case, case.op, "cpu", torch.float64)
    answers = bounds(case, case.op.to("cpu", dtype), "cpu", dtype)
    assert all(a.dtype == dtype for a in answers)
    for answer, exact in zip(answers, expected, strict=True):
        tolerance = 1e-4 if dtype == torch.float32 else 0
        torch.testing.assert_close(answer.double(), exact, rtol=tolerance, atol=tolerance)


@every_op
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_keeps_behaviour(case: Case) -> None:
    expected = bounds(case, case.op, "cpu", torch.float64)
    answers = bounds(case, case.op.to("cuda", torch.float64), "cuda", torch.float64)
    for answer, exact in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer.cpu(), exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Clip(1.0, 0.0),
        lambda: Clip(float("nan"), 0.0),
        lambda: Clip(float("inf"), float("inf")),
        lambda: Pad((1, 1), float("inf")),
        lambda: Pad((1, 1), float("nan")),
        lambda: Select(-1, (0,)),
        lambda: Select(0, ()),
        lambda: Select(0, (0, -1)),
        lambda: Concat(-1),
        lambda: ReduceSum((-1,), True),
        lambda: Transpose((0, 0)),
        lambda: Transpose((1, 2)),
        lambda: LeakyRelu(float("nan")),
    ],
)
def test_parameters_without_meaning_are_refused(make: Callable[[], Op]) -> None:
    with pytest.raises(InvalidModel):
        make()


@pytest.mark.parametrize("indices", [(0, 5), (1, 3, 5), (5,)])
def test_select_beyond_the_axis_is_refused_not_shortened(indices: tuple[int, ...]) -> None:
    with pytest.raises((IndexError, RuntimeError)):
        Select(0, indices).forward(torch.zeros((1, 5, 2)))


def network(seed: int) -> list[Op]:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / 2

    return [
        Scale(torch.tensor(2.0).double(), numbers(2, 1, 1)),
        Conv(numbers(3, 2, 3, 3), numbers(3), (1, 1), (1, 0, 1, 1), (1, 1), 1),
        LeakyRelu(0.1),
        MaxPool((2, 2), (1, 1), (0, 0, 1, 1), (1, 1), False),
        ConvTranspose(numbers(3, 2, 2, 2), numbers(2), (2, 2), (0, 0, 1, 1), (0, 0), (1, 1), 1),
        Tanh(),
        AveragePool((2, 2), (2, 2), (0, 0, 0, 0), True, False),
        Clip(-0.4, 0.6),
        Reshape((40,)),
        Linear(numbers(7, 40), numbers(7)),
        Sigmoid(),
        Linear(numbers(4, 7), numbers(4)),
    ]


@pytest.mark.parametrize("radius", (1e-9, 0.02, 0.3))
@pytest.mark.parametrize("seed", range(3))
def test_a_network_of_many_ops_is_enclosed(seed: int, radius: float) -> None:
    """Interval and CROWN bounds of a deep mixture hold at samples; CROWN, intersected, is never the looser."""
    graph = sequential((2, 5, 5), network(seed))
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn((2, 2, 5, 5), generator=generator, dtype=torch.float64)
    box = Interval(centre - radius, centre + radius)
    enclosure = propagate(graph, box)[-1]
    eye = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 2, 4)
    relaxed = crown(graph, Region(box))
    lower, upper = relaxed.output_lower(eye).T, -relaxed.output_lower(-eye).T
    sign = torch.randint(0, 2, (3000, *centre.shape), generator=generator) * 2 - 1
    image = graph.forward((centre + radius * sign).flatten(0, 1)).reshape(3000, 2, 4)
    rounding = 1e-12
    assert (lower - rounding <= image).all() and (image <= upper + rounding).all()
    assert (lower >= enclosure.lower - rounding).all() and (upper <= enclosure.upper + rounding).all()
    if radius < 0.1:
        assert ((upper - lower) < 0.9 * (enclosure.upper - enclosure.lower)).all()
