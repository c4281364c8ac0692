"""The clauses of top labels: what they call unsafe is exactly a change, ties included."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.spec import Clause, InputSet
from provenn.verifier.spec_json import parse_json
from provenn.verifier.top_k import changes, top_k

OUTPUTS = 5
Values = Sequence[Fraction]

values = st.lists(st.integers(-2, 2).map(Fraction), min_size=OUTPUTS, max_size=OUTPUTS)
lists = st.permutations(range(OUTPUTS)).flatmap(lambda order: st.integers(1, OUTPUTS).map(lambda k: order[:k]))


def _chain(labels: Sequence[int], y: Values, strictly: bool) -> bool:
    """Whether the labels have the largest outputs, in order."""
    others = [y[j] for j in range(OUTPUTS) if j not in labels]
    chosen = [y[t] for t in labels]
    steps = list(zip(chosen, [*chosen[1:], max(others, default=chosen[-1] - 1)], strict=True))
    return all(a > b if strictly else a >= b for a, b in steps)


def _set(labels: Sequence[int], y: Values, strictly: bool) -> bool:
    """The same, in any order."""
    least, most = min(y[t] for t in labels), max((y[j] for j in range(OUTPUTS) if j not in labels), default=None)
    return most is None or (least > most if strictly else least >= most)


def _unsafe(clauses: Sequence[Clause], y: Values) -> bool:
    return any(clause.holds(y) for clause in clauses)


@given(lists, values)
def test_in_order_exactly_the_strict_chain_is_safe(labels: list[int], y: Values) -> None:
    clauses = changes(labels, OUTPUTS)
    assert len(clauses) == OUTPUTS - 1
    assert _unsafe(clauses, y) != _chain(labels, y, strictly=True)


@given(lists, values)
def test_as_a_set_exactly_the_strictly_larger_set_is_safe(labels: list[int], y: Values) -> None:
    if len(labels) == OUTPUTS:
        with pytest.raises(InvalidSpecification, match="nothing can change"):
            changes(labels, OUTPUTS, ordered=False)
        return
    clauses = changes(labels, OUTPUTS, ordered=False)
    assert len(clauses) == len(labels) * (OUTPUTS - len(labels))
    assert _unsafe(clauses, y) != _set(labels, y, strictly=True)


@given(lists, values, st.booleans())
def test_a_target_is_reached_exactly_where_it_may_be_called_the_largest(
    target: list[int], y: Values, ordered: bool
) -> None:
    labels = [j for j in range(OUTPUTS) if j not in target][: len(target)]
    labels += [t for t in reversed(target) if len(labels) < len(target)][: len(target) - len(labels)]
    if (labels == target if ordered else set(labels) == set(target)) or (not ordered and len(target) == OUTPUTS):
        with pytest.raises(InvalidSpecification):
            changes(labels, OUTPUTS, ordered=ordered, target=target)
        return
    (clause,) = changes(labels, OUTPUTS, ordered=ordered, target=target)
    assert clause.holds(y) == (_chain if ordered else _set)(target, y, strictly=False)


def test_the_first_of_all_is_robustness_of_one_label() -> None:
    as_set, in_order = (changes([2], OUTPUTS, ordered=ordered) for ordered in (False, True))
    assert as_set == in_order
    assert [row.matrix[0].index(1) for row in as_set] == [0, 1, 3, 4]


def test_the_text_says_the_same() -> None:
    box = InputSet((Fraction(0),) * 3, (Fraction(1, 255),) * 3)
    written = top_k(box, [1, 0], 4, target=[3, 2])
    again = parse_json(written.text)
    assert again.cases[0].clauses == written.cases[0].clauses == changes([1, 0], 4, target=[3, 2])
    assert again.cases[0].inputs.exact_upper == box.exact_upper


@pytest.mark.parametrize(
    ("labels", "target", "words"),
    [
        ([], None, "empty"),
        ([0, 5], None, "has 5"),
        ([-1], None, "has -1"),
        ([1, 1], None, "twice"),
        ([1, 2], [3], "target.* has 1 labels"),
        ([1, 2], [1, 2], "already"),
        ([1, 2], [2, 9], "target.* has 9"),
    ],
)
def test_what_makes_no_sense_is_refused(labels: list[int], target: list[int] | None, words: str) -> None:
    with pytest.raises(InvalidSpecification, match=words):
        changes(labels, OUTPUTS, target=target)


def test_too_many_clauses_are_refused_before_they_are_made() -> None:
    with pytest.raises(ResourceLimit):
        changes(range(500), 1000, ordered=False)
