"""Max pooling: which cell each line goes to, and what happens where windows overlap or leave the input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from table import BOXES, NONLINEAR, Case, box, few

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.max_pool import MaxPool

POOLS = [case for case in NONLINEAR if isinstance(case.op, MaxPool)]
PAIRS = MaxPool((2,), (1,), (0, 0), (1,), False)


def interval(lower: list[float], upper: list[float]) -> Interval:
    return Interval(torch.tensor([[lower]], dtype=torch.float64), torch.tensor([[upper]], dtype=torch.float64))


def test_a_cell_above_all_others_is_the_maximum_exactly() -> None:
    """Cell 1 wins both windows for certain: the rows that both send back add up, and nothing constant remains."""
    x = interval([0.0, 2.0, -1.0], [1.0, 3.0, 2.0])
    rows = torch.tensor([[[[1.0, 10.0]]], [[[-1.0, -10.0]]], [[[1.0, -10.0]]]]).double()
    (pulled,), constant = PAIRS.backward(rows, [x])
    assert constant is not None and not constant.any()
    assert pulled[:, 0, 0].tolist() == [[0, 11, 0], [0, -11, 0], [0, -9, 0]]
    (mask,) = PAIRS.improvable(x)
    assert not mask.any()


def test_an_undecided_window_takes_the_chord_of_its_two_best() -> None:
    """max(x_0, x_1) with x_0 in [0, 4], x_1 in [1, 2]: at least x_1, at most 2 + (4 - 2) / (4 - 0) x_0."""
    x = interval([0.0, 1.0], [4.0, 2.0])
    rows = torch.tensor([[[[1.0]]], [[[-1.0]]]]).double()
    (pulled,), constant = PAIRS.backward(rows, [x])
    assert constant is not None
    assert pulled[:, 0, 0].tolist() == [[0, 1], [-0.5, 0]]
    assert constant[:, 0].tolist() == [0, -2]


def test_only_cells_that_can_win_are_improvable() -> None:
    x = interval([0.0, 1.0, -5.0], [4.0, 2.0, 0.5])
    (mask,) = MaxPool((3,), (1,), (0, 0), (1,), False).improvable(x)
    assert mask[0, 0].tolist() == [True, True, False]
    known = interval([0.0, 1.0, -5.0], [4.0, 1.0, 0.5])
    (mask,) = MaxPool((3,), (1,), (0, 0), (1,), False).improvable(known)
    assert mask[0, 0].tolist() == [True, False, False]


def test_padding_is_never_selected() -> None:
    """Every cell is far below any number that padding could stand for, up to the smallest there is."""
    smallest = torch.finfo(torch.float64).min
    pool = MaxPool((3,), (2,), (1, 1), (1,), False)
    x = interval([smallest, -1e300, -2e300], [smallest, -1e300, -2e300])
    assert pool.interval(x).lower[0, 0].tolist() == [-1e300, -1e300]
    (pulled,), _ = pool.backward(torch.ones((1, 1, 1, 2)).double(), [x])
    assert pulled[0, 0, 0].tolist() == [0, 2, 0]
    alone = MaxPool((3,), (3,), (2, 0), (1,), False)
    (pulled,), _ = alone.backward(torch.ones((1, 1, 1, 1)).double(), [interval([smallest], [smallest])])
    assert pulled.flatten().tolist() == [1]


@pytest.mark.parametrize("case", POOLS, ids=lambda case: case.name)
@few
@given(kind=st.sampled_from(BOXES), seed=st.integers(0, 2**20))
def test_upper_line_never_exceeds_the_constant(case: Case, kind: str, seed: int) -> None:
    """Over the box the upper line's maximum is at most the largest upper bound of the window."""
    x = box(kind, case.shapes[0], torch.Generator().manual_seed(seed))
    top = case.op.interval(x).upper
    rows = -torch.eye(top[0].numel(), dtype=torch.float64).reshape(-1, 1, *top.shape[1:]).expand(-1, 2, *top.shape[1:])
    (pulled,), constant = case.op.backward(rows, [x])
    assert constant is not None
    worst = (pulled.clamp(min=0) * x.lower + pulled.clamp(max=0) * x.upper).flatten(2).sum(2) + constant
    scale = torch.maximum(x.lower.abs(), x.upper.abs()).flatten(1).amax(1)
    assert (worst >= -top.flatten(1).T - 1e-14 * scale).all()


def test_a_window_outside_the_input_is_refused() -> None:
    x = torch.zeros((1, 1, 3))
    with pytest.raises(InvalidModel, match="lies in the padding entirely"):
        MaxPool((2,), (1,), (2, 0), (1,), False).forward(x)
    with pytest.raises(InvalidModel, match="lies in the padding entirely"):
        MaxPool((2,), (1,), (1, 1), (4,), False).forward(x)
    with pytest.raises(InvalidModel, match="spans 4 cells"):
        MaxPool((4,), (1,), (0, 0), (1,), False).forward(x)
