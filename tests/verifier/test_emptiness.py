"""Sets that constraints make empty are seen only where that is proved."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.emptiness import proved_empty
from provenn.verifier.spec import Constraint, InputSet

ONE = Fraction(1)
SQUARE = (-ONE, -ONE), (ONE, ONE)


def square(*constraints: tuple[Fraction | int, Fraction | int, Fraction | int]) -> InputSet:
    made = tuple(Constraint((Fraction(a), Fraction(b)), Fraction(c)) for a, b, c in constraints)
    return InputSet(*SQUARE, None, made)


def test_one_constraint_is_decided_exactly() -> None:
    assert not proved_empty(square())
    assert not proved_empty(square((1, 1, -2)))
    assert proved_empty(square((1, 1, -2 - Fraction(1, 10**30))))


def test_several_constraints_need_the_linear_program() -> None:
    together = square((1, -1, Fraction(-3, 2)), (-1, -1, -1))
    assert proved_empty(together)
    assert not proved_empty(together, together=False)
    assert not proved_empty(square((1, -1, 0), (-1, 1, 0)))
    assert not proved_empty(square((1, -1, 0), (-1, 1, 0), (1, 1, -2)))


def test_rows_of_zeros_or_of_tiny_numbers_disturb_nothing() -> None:
    assert proved_empty(square((1, -1, Fraction(-3, 2)), (-1, -1, -1), (0, 0, 1)))
    tiny = Fraction(1, 10**310)
    assert not proved_empty(square((tiny, -tiny, 0), (-tiny, tiny, 0)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-5, 5)] * 2, st.integers(0, 10**6)), min_size=1, max_size=5),
    st.tuples(*[st.fractions(-1, 1, max_denominator=1000)] * 2),
)
def test_a_set_with_a_point_is_never_called_empty(
    rows: list[tuple[int, int, int]], point: tuple[Fraction, Fraction]
) -> None:
    bounds = [a * point[0] + b * point[1] + Fraction(room // 10**3, 10**9) for a, b, room in rows]
    assert not proved_empty(square(*[(a, b, bound) for (a, b, _), bound in zip(rows, bounds, strict=True)]))
