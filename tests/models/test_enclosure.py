"""Broken lines with errors: the bounds hold, exactly; enclosures are read by the kernel, and contain the network."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_kit import net, node

from provenn.models.broken_lines import CURVES, broken_line
from provenn.models.enclosure import enclosed
from provenn.models.executor import OnnxExecutor
from provenn.verifier.check import read_network
from provenn.verifier.errors import Unbounded

numbers = st.fractions(Fraction(-7), Fraction(7), max_denominator=2**20)
ROUNDING = Fraction(1, 2**50)
"""Of math.sin and math.cos, which stand in for the real ones here."""


def exact(curve: str, z: Fraction) -> Fraction:
    if curve == "Square":
        return z * z
    if curve == "Reciprocal":
        return 1 / z
    return Fraction((math.sin if curve == "Sin" else math.cos)(float(z)))


@pytest.mark.parametrize("curve", CURVES)
@settings(max_examples=15, deadline=None)
@given(numbers, numbers, st.integers(1, 12), st.fractions(0, 1, max_denominator=2**20))
def test_the_errors_hold_everywhere(curve: str, first: Fraction, second: Fraction, pieces: int, at: Fraction) -> None:
    """Tolerance zero for squares and 1/z; float arguments, so that sin and cos of them are known up to rounding."""
    low, high = sorted((first, second))
    high = high if high - low >= Fraction(1, 100) else low + Fraction(1, 100)
    if curve == "Reciprocal" and low <= Fraction(1, 50):
        low, high = low + 8, high + 8
    line = broken_line(CURVES[curve], low, high, pieces)
    assert line.ends[0] <= low < high <= line.ends[1]
    room = ROUNDING if curve in ("Sin", "Cos") else 0
    for z in (Fraction(float(low + (high - low) * at)), *(Fraction(float(t)) for t in line.knots), *line.ends):
        if line.ends[0] <= z <= line.ends[1]:
            assert line.lower - room <= exact(curve, z) - line.at(z) <= line.upper + room


def test_more_pieces_are_tighter() -> None:
    """By the square of their number: the chord's error is h^2 / 8."""
    widths = [(line.upper - line.lower) for n in (4, 8, 16)
              for line in [broken_line(CURVES["Square"], Fraction(-1), Fraction(1), n)]]  # fmt: skip
    assert widths[0] == pytest.approx(float(4 * widths[1]), rel=1e-2)
    assert widths[1] == pytest.approx(float(4 * widths[2]), rel=1e-2)
    assert widths[0] == pytest.approx(Fraction(1, 16), rel=1e-2)  # h^2 / 4


def test_a_pole_is_refused() -> None:
    with pytest.raises(Unbounded, match="pole"):
        broken_line(CURVES["Reciprocal"], Fraction(-1), Fraction(1), 4)


PIECES = [
    node("Gather", "x i", "a", axis=1),
    node("Gather", "x j", "b", axis=1),
    node("Sin", "a", "s"),
    node("Cos", "x", "c"),
    node("Mul", "a b", "p"),
    node("Pow", "b two", "q"),
    node("Add", "b three", "t"),
    node("Div", "one t", "r"),
    node("Concat", "s c p q r a", "y", axis=1),
]
EVERY = net(PIECES, 2, 7, {"i": np.array([0]), "j": np.array([1]), "two": 2.0, "three": [[3.0]], "one": [[1.0]]})


def test_an_enclosure_contains_the_network() -> None:
    """Every function's own output differs from its line by an error of the box, and by nothing else."""
    ends = [Fraction(-2), Fraction(-2)], [Fraction(2), Fraction(2)]
    found = enclosed(EVERY, *ends, 16)
    assert enclosed(EVERY, *ends, 16).model == found.model
    f, g = OnnxExecutor(EVERY), OnnxExecutor(found.model)
    errors = len(found.lower) - 2
    assert errors == 6
    assert len(found.arguments) == 7  # of the product both squares
    x = np.random.default_rng(0).uniform(-2, 2, (200, 2)).astype(np.float32)
    y = g.run(np.concatenate([x, np.zeros((200, errors), np.float32)], 1))
    gaps = f.run(x) - y[:, :7]
    low, high = (np.array(side[2:], dtype=np.float64) for side in (found.lower, found.upper))
    assert (gaps[:, :6] >= low - 1e-5).all()
    assert (gaps[:, :6] <= high + 1e-5).all()
    assert (gaps[:, 6] == 0).all()
    assert np.abs(gaps[:, :6]).max() > 1e-3
    spans = np.array(found.arguments, dtype=np.float64)
    assert (spans[:, 0] < y[:, 7:].min(0)).all()
    assert (spans[:, 1] > y[:, 7:].max(0)).all()
    assert read_network(found.model).steps[0].length == 8
