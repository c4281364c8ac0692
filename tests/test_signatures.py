"""The shapes that signatures state are checked while the tests run: of fields, arguments and results."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from provenn.verifier.interval import Interval
from provenn.verifier.ops.relu import Relu
from provenn.verifier.region import box_minimum

CENTRE = torch.zeros(2, 3)


def test_fields_of_other_shapes_are_noticed() -> None:
    assert Interval(CENTRE, CENTRE + 1).unstable.shape == (2, 3)
    with pytest.raises(TypeCheckError, match="upper"):
        Interval(CENTRE, torch.ones(2, 4))
    with pytest.raises(TypeCheckError, match="lower"):
        Interval(CENTRE.long(), CENTRE + 1)


def test_arguments_of_other_shapes_are_noticed() -> None:
    box = Interval(CENTRE - 1, CENTRE + 1)
    rows = torch.ones(5, 2, 3)
    assert Relu().backward(rows, [box])[0][0].shape == rows.shape
    with pytest.raises(TypeCheckError, match="coefficients"):
        Relu().backward(rows[0, 0], [box])
    assert box_minimum(rows, CENTRE, CENTRE + 1).shape == (5, 2)
    with pytest.raises(TypeCheckError, match="rows"):
        box_minimum(rows[0], CENTRE, CENTRE + 1)
