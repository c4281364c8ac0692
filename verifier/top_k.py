"""The k largest outputs, in order or as a set, do not change: the exact clauses of what would be a change.

Labels t_1, .., t_k of outputs y_1, .., y_n. In order they stay as long as y_t1 > y_t2 > .. > y_tk > every other output;
as a set as long as each of them is above every other output. A tie is a change: which of two equal outputs a program
calls larger is its own affair. So what is unsafe is a union of closed half-spaces,

    in order   y_t(i+1) >= y_ti  for i < k,  and  y_j >= y_tk  for every other j:   n - 1 clauses (k - 1, where k = n)
    as a set   y_j >= y_t  for every t of the labels and every other j:             k (n - k) clauses

or, where only one other list s_1, .., s_k is feared, the one polyhedron in which it takes their place,

    in order   y_s1 >= y_s2 >= .. >= y_sk  and  y_sk >= every other output
    as a set   y_s >= y_j  for every s of the list and every other j.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.spec import Case, Clause, InputSet, Specification
from provenn.verifier.spec_json import CELLS, from_cases

Pair = tuple[int, int]
"""(i, j): y_i >= y_j."""


def top_k(
    inputs: InputSet, labels: Sequence[int], outputs: int, *, ordered: bool = True, target: Sequence[int] | None = None
) -> Specification:
    """No input of the set has other top labels than these, or (where given) the top labels `target`.

    Raises: InvalidSpecification as `changes` does, ResourceLimit.
    """
    return from_cases([Case(inputs, changes(labels, outputs, ordered=ordered, target=target))])


def changes(
    labels: Sequence[int], outputs: int, *, ordered: bool = True, target: Sequence[int] | None = None
) -> tuple[Clause, ...]:
    """The clauses of every change of the top labels, largest first, or of the one change to `target`.

    Raises: InvalidSpecification if labels repeat, are not among the outputs, or can never change; ResourceLimit.
    """
    require_labels("labels", labels, outputs)
    if target is None:
        groups = [[pair] for pair in _broken(labels, outputs, ordered)]
    else:
        require_labels("target", target, outputs)
        if len(target) != len(labels):
            raise InvalidSpecification(f'"target" has {len(target)} labels, but the top {len(labels)} are asked about')
        if (tuple(target) == tuple(labels)) if ordered else (set(target) == set(labels)):
            raise InvalidSpecification('"target" is what the labels are already')
        groups = [list(_reached(target, outputs, ordered))]
    if not groups:
        raise InvalidSpecification(f"all of {outputs} outputs are among the top {len(labels)}: nothing can change")
    if sum(map(len, groups)) * outputs > CELLS:
        raise ResourceLimit("the size of the clauses of the top labels", f"{CELLS} numbers")
    return tuple(_clause(pairs, outputs) for pairs in groups)


def require_labels(name: str, labels: Sequence[int], outputs: int) -> None:
    """Raises: InvalidSpecification if there are none, one is none of the outputs, or one is there twice."""
    if not labels:
        raise InvalidSpecification(f'"{name}" is empty: it has the largest outputs, largest first')
    for label in labels:
        if not 0 <= label < outputs:
            raise InvalidSpecification(f'"{name}" has {label}, but the classes of the network are 0 to {outputs - 1}')
    if len(set(labels)) < len(labels):
        raise InvalidSpecification(f'"{name}" has a label twice: {list(labels)}')


def _broken(labels: Sequence[int], outputs: int, ordered: bool) -> Iterator[Pair]:
    """The inequalities each of which is a change."""
    chosen = set(labels)
    others = [j for j in range(outputs) if j not in chosen]
    if ordered:
        yield from ((lower, upper) for upper, lower in pairwise(labels))
        yield from ((j, labels[-1]) for j in others)
    else:
        yield from ((j, label) for label in labels for j in others)


def _reached(target: Sequence[int], outputs: int, ordered: bool) -> Iterator[Pair]:
    """The inequalities that all together make the top labels the target."""
    chosen = set(target)
    others = [j for j in range(outputs) if j not in chosen]
    if ordered:
        yield from pairwise(target)
        yield from ((target[-1], j) for j in others)
    else:
        yield from ((label, j) for label in target for j in others)


def _clause(pairs: Sequence[Pair], outputs: int) -> Clause:
    """All of y_i - y_j >= 0."""
    zero, one = Fraction(0), Fraction(1)
    rows = []
    for i, j in pairs:
        row = [zero] * outputs
        row[i], row[j] = one, -one
        rows.append(tuple(row))
    return Clause(tuple(rows), (zero,) * len(rows))
