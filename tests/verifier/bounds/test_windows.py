"""Rows held as windows give the bounds that rows over whole nodes give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import box, convolutional
from torch import Tensor

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.slopes import Effort, alpha_crown
from provenn.verifier.graph import Graph, Node
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Add, Scale
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.conv import Conv, ConvTranspose
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.window import Window, Windowed
from provenn.verifier.region import Region

GEOMETRY = st.tuples(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from([1, 2]),
)


def region_of(graph: Graph, seed: int) -> Region:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn((2, *graph.input_shape), generator=generator, dtype=torch.float64)
    return box(centre, 0.3 * torch.rand(centre.shape, generator=generator, dtype=torch.float64))


def agreed(op: Op, boxes: Interval, shape: tuple[int, ...], index: Tensor, start: Window | None = None) -> Windowed:
    """Unit rows of the op's output at `index` [rows, 1], pulled as windows: the same as whole rows."""
    sign, chosen = torch.ones(index.shape, dtype=torch.float64), torch.ones(index.shape, dtype=torch.bool)
    narrow = schedule.Chunk(None, index, sign, chosen, True, start).coefficients(shape)
    whole = schedule.Chunk(None, index, sign, chosen, windows=False).coefficients(shape)
    assert isinstance(narrow, Windowed)
    assert isinstance(whole, Tensor)
    torch.testing.assert_close(narrow.dense(shape), whole)
    (pulled,), constant = op.linearize_window([boxes])(narrow)
    (expected,), offset = op.linearize([boxes])(whole)
    torch.testing.assert_close(pulled.dense(tuple(boxes.lower.shape[1:])), expected)
    torch.testing.assert_close(constant, offset)
    return pulled


@settings(max_examples=30, deadline=None)
@given(GEOMETRY, st.integers(0, 1000))
def test_a_convolution_of_windows_is_that_of_whole_rows(geometry: tuple[int, ...], seed: int) -> None:
    kernel, stride, begin, end, dilation, groups = geometry
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((4, 2, kernel, kernel), generator=generator, dtype=torch.float64)
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    op = Conv(weight, bias, (stride, stride), (begin, begin, end, end), (dilation, dilation), groups)
    x = torch.zeros((1, 2 * groups, 7, 7), dtype=torch.float64)
    shape = tuple(op.forward(x).shape[1:])
    boxes = box(x, 1.0).box
    index = torch.randint(torch.Size(shape).numel(), (5, 1), generator=generator)
    pulled = agreed(op, boxes, shape, index)
    again = op.linearize_window([boxes])(pulled) if groups == 2 and stride == 1 else None
    assert again is None or again[0][0].values.isfinite().all()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_bounds_do_not_depend_on_windows(seed: int, skip: bool) -> None:
    graph = convolutional(seed, skip)
    region = region_of(graph, seed)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        # Both sides of every neuron, so that none keeps its interval bound on the side that does not matter.
        patch.setattr(schedule, "SMALL_ELEMENTS", 1 << 40)
        found = [crown(graph, region).bounds, alpha_crown(graph, region, Effort(3)).bounds]
        assert schedule.row_elements(graph, 3)[1], "the second convolution's rows are windows"
        patch.setattr(schedule, "windowed", lambda graph, index, window: False)
        dense = [crown(graph, region).bounds, alpha_crown(graph, region, Effort(3)).bounds]
    for some, others in zip(found, dense, strict=True):
        for bound, other in zip(some, others, strict=True):
            torch.testing.assert_close(bound.lower, other.lower, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(bound.upper, other.upper, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(GEOMETRY, st.integers(0, 2), st.integers(0, 1000))
def test_a_transposed_convolution_of_windows_is_that_of_whole_rows(
    geometry: tuple[int, ...], added: int, seed: int
) -> None:
    kernel, stride, begin, end, dilation, groups = geometry
    added = min(added, stride - 1)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((4, 2, kernel, kernel), generator=generator, dtype=torch.float64)
    bias = torch.randn(2 * groups, generator=generator, dtype=torch.float64)
    crop = (begin, 0, end, 0)
    op = ConvTranspose(weight, bias, (stride, stride), crop, (added, added), (dilation, dilation), groups)
    x = torch.zeros((1, 4, 6, 6), dtype=torch.float64)
    boxes, shape = box(x, 1.0).box, tuple(op.forward(x).shape[1:])
    nodes = (Node("input", None, (), (4, 6, 6)), Node("op", op, (0,), shape))
    for start in schedule.phases(Graph(nodes), 1) or [Window.cell(shape[1:])] * (stride == 1):
        rows = torch.arange(torch.Size(shape).numel()).reshape(shape)
        mine = rows[:, -start.offset[0] :: start.stride[0], -start.offset[1] :: start.stride[1]].flatten()
        index = mine[torch.randint(len(mine), (4, 1), generator=generator)]
        agreed(op, boxes, shape, index, start)
    assert op.reach(Window((3, 3), (stride + 1,) * 2, (0, 0), (1, 1)), [(4, 6, 6)]) is None or stride == 1


@pytest.mark.parametrize("strides", [(2, 2), (2, 1), (3, 2), (2, 3)])
def test_bounds_behind_transposed_convolutions_do_not_depend_on_phases(strides: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    nodes = [Node("input", None, (), (3, 4, 4))]
    for k, stride in enumerate(strides):
        weight = torch.randn((3, 3, 3, 3), generator=generator, dtype=torch.float64) / 3
        op = ConvTranspose(weight, torch.zeros(3).double(), (stride,) * 2, (1,) * 4, (stride - 1,) * 2, (1, 1), 1)
        shape = tuple(op.forward(torch.zeros((1, *nodes[-1].shape), dtype=torch.float64)).shape[1:])
        nodes.append(Node(f"conv{k}", op, (len(nodes) - 1,), shape))
        nodes.append(Node(f"relu{k}", Relu(), (len(nodes) - 1,), shape))
    graph = Graph(tuple(nodes))
    region = region_of(graph, 1)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "SMALL_ELEMENTS", 1 << 40)
        assert schedule.phases(graph, 3), "the last rows are windows of one phase"
        found = crown(graph, region).bounds
        patch.setattr(schedule, "phases", lambda graph, node: [])
        dense = crown(graph, region).bounds
    for bound, other in zip(found, dense, strict=True):
        torch.testing.assert_close(bound.lower, other.lower, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(bound.upper, other.upper, rtol=1e-9, atol=1e-9)


def test_windows_of_one_node_are_added_where_they_overlap() -> None:
    cells = torch.tensor([[0], [3]])
    small = Window((2, 2), (2, 2), (0, 0), (1, 1))
    large = Window((2, 2), (2, 2), (1, 1), (3, 3))
    generator = torch.Generator().manual_seed(0)
    first = Windowed(small, cells, torch.randn((2, 1, 3, 1, 1), generator=generator), inside=True)
    second = Windowed(large, cells, torch.randn((2, 1, 3, 3, 3), generator=generator), inside=False)
    expected = first.dense((3, 4, 4)) + second.dense((3, 4, 4))
    for added in (first.plus(second), second.plus(first)):
        assert added is not None
        torch.testing.assert_close(added.dense((3, 4, 4)), expected)
    assert Window((2, 2), (1, 1), (0, 0), (1, 1)).union(large) is None
    assert second.cleared((4, 4)).values[0, 0, :, 0].eq(0).all()


def test_a_scaling_that_enlarges_its_node_has_no_windows() -> None:
    window = Window.cell((4,))
    narrow, wide = Scale(torch.ones(1, 1), torch.zeros(3, 1)), Scale(torch.ones(3, 1), torch.zeros(1))
    assert narrow.reach(window, [(1, 4)]) is None
    assert wide.reach(window, [(1, 4)]) is None
    assert wide.reach(window, [(3, 4)]) == (window,)
    assert Scale(torch.ones(4), torch.zeros(1)).reach(window, [(3, 4)]) is None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2)]), st.sampled_from([5, 6]))
def test_two_ways_between_two_nodes_may_differ_in_stride(seed: int, strides: tuple[int, int], cells: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size, shape = 14, (2, cells, cells)
    nodes = [Node("input", None, (), (1, size, size))]
    for way, stride in enumerate(strides):
        kernel = size - stride * (cells - 1)
        weight = torch.randn((2, 1, kernel, kernel), generator=generator, dtype=torch.float64) / kernel
        op = Conv(weight, torch.zeros(2, dtype=torch.float64), (stride,) * 2, (0,) * 4, (1, 1), 1)
        nodes.append(Node(f"way{way}", op, (0,), shape))
    nodes += [Node("sum", Add(), (1, 2), shape), Node("relu", Relu(), (3,), shape)]
    graph = Graph(tuple(nodes))
    region = region_of(graph, seed)
    bounds = crown(graph, region).bounds[3]
    # The sum is affine: its exact bounds are those of its matrix over the box.
    columns = torch.eye(size**2, dtype=torch.float64).reshape(-1, 1, size, size)
    matrix = (graph.nodes[1].op.forward(columns) + graph.nodes[2].op.forward(columns)).flatten(1)
    centre, radius = (region.box.lower + region.box.upper) / 2, (region.box.upper - region.box.lower) / 2
    middle, reach = centre.flatten(1) @ matrix, radius.flatten(1) @ matrix.abs()
    exact = (middle - reach).reshape(bounds.lower.shape), (middle + reach).reshape(bounds.upper.shape)
    assert (bounds.lower <= exact[0] + 1e-12).all()
    assert (bounds.upper >= exact[1] - 1e-12).all()
    unstable = (exact[0] < 0) & (exact[1] > 0)
    torch.testing.assert_close(bounds.lower[unstable], exact[0][unstable])
    torch.testing.assert_close(bounds.upper[unstable], exact[1][unstable])


def test_windows_that_lie_outside_their_node_are_empty() -> None:
    window = Window((1,), (9,), (4,), (2,))
    assert (window.views(torch.ones((1, 1, 3))) == 0).all()
    assert (Window((1,), (1,), (-5,), (2,)).views(torch.ones((1, 1, 3))) == 0).all()


def test_a_large_convolution_keeps_no_matrix() -> None:
    weight = torch.ones((64, 64, 3, 3))
    op = Conv(weight, torch.zeros(64), (1, 1), (1, 1, 1, 1), (1, 1), 1)
    op.adjoint(torch.ones((2, 64, 3, 3)), [(64, 3, 3)])
    assert sum(matrix.numel() for matrix in op._matrices.values()) <= weight.numel()
