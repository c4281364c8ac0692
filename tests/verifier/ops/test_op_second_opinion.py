"""What auto_LiRPA makes of every op of the table: bounds that hold, or a refusal."""

from __future__ import annotations

import pytest
import torch
from networks import box, samples
from op_case import Case
from table import CASES

from provenn.solvers.auto_lirpa import REFUSALS, AutoLirpaCrown, Slopes, lower_bounds
from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.shape import Reshape

INPUTS, ROWS = 4, 3
SCALES = (0.3, 3.0)


@pytest.fixture(scope="module", autouse=True)
def peer() -> None:
    if (status := AutoLirpaCrown.status()) != "available":
        pytest.skip(f"auto_LiRPA: {status}")


def around(case: Case, scale: float) -> Graph:
    """A small input, a linear map into each operand, the op, and a linear map of its output."""
    generator = torch.Generator().manual_seed(int(10 * scale))
    nodes, operands = [Node("input", None, (), (INPUTS,))], []
    for shape in case.shapes:
        size, lowest = torch.Size(shape).numel(), max(case.domain[0], -1.0)
        weight = scale * torch.randn(size, INPUTS, generator=generator, dtype=torch.float64)
        shift = scale * torch.randn(size, generator=generator, dtype=torch.float64)
        if lowest > -1:  # the largest radius below is 1, the centres are in [-1, 1]
            shift = lowest + 0.5 + 2 * weight.abs().sum(1)
        nodes.append(Node("linear", Linear(weight, shift), (0,), (size,)))
        nodes.append(Node("shaped", Reshape(shape), (len(nodes) - 1,), shape))
        operands.append(len(nodes) - 1)
    output = case.op.forward(*case.inputs(1, 0)).shape[1:]
    rows = torch.randn(ROWS, output.numel(), generator=generator, dtype=torch.float64)
    nodes.append(Node("op", case.op, tuple(operands), tuple(output)))
    nodes.append(Node("flat", Reshape((output.numel(),)), (len(nodes) - 1,), (output.numel(),)))
    nodes.append(Node("rows", Linear(rows, torch.zeros(ROWS).double()), (len(nodes) - 1,), (ROWS,)))
    return Graph(tuple(nodes))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bounds_hold_or_are_refused(case: Case) -> None:
    eye = torch.eye(ROWS, dtype=torch.float64)
    radius = torch.tensor([[0.05], [0.3], [1.0]], dtype=torch.float64)
    matrix = torch.cat([eye, -eye]).unsqueeze(1).expand(-1, len(radius), -1).contiguous()
    for scale in SCALES:
        graph = around(case, scale)
        generator = torch.Generator().manual_seed(2)
        centre = 2 * torch.rand(len(radius), INPUTS, generator=generator, dtype=torch.float64) - 1
        region = box(centre, radius)
        points = samples(region, 1000)
        outputs = graph.forward(points.flatten(0, 1)).reshape(len(points), len(radius), ROWS)
        smallest = torch.einsum("sbo,nbo->nsb", matrix, outputs).amin(0)
        try:
            lower = torch.stack(
                [lower_bounds(graph, region, matrix, slopes) for slopes in (None, Slopes(iterations=3))]
            )
        except REFUSALS as refusal:
            pytest.skip(f"refused: {type(refusal).__name__} {str(refusal)[:60]}")
        assert (lower <= smallest + 1e-6 * (1 + smallest.abs())).all()
