"""Trees of parts under Jacobian claims: what is proved of every part holds there, and of all parts for all pairs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from check_kit import rationals
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian_kit import (
    NORMS,
    OUTWARD,
    claiming,
    drawn,
    exact,
    exceeds,
    number_of,
    over,
    packed,
    points,
    random_chunks,
    splittable,
)
from lipschitz_kit import box, unit_rows
from tree_kit import within

from provenn.verifier.certificate.lipschitz import Leaves, Prover, Statement
from provenn.verifier.certificate.parts import ANYTHING
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.check.jacobian import entries, norm, parts, row_bounds
from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.rows import Ball
from provenn.verifier.check.trees import Tree

Array = np.ndarray
KINDS = ["relu", "leaky", "clip", "tanh", "sigmoid", "residual", "pool"]
TINY, SLACK = Fraction(1, 2**40), Fraction(1, 10**30)  # SLACK: beyond the errors of tanh and sigmoid over TINY
idle: Callable[[], object] = lambda: None  # noqa: E731


def change(rows: Array, first: Array, second: Array) -> list[Fraction]:
    return [sum((c * v for c, v in zip(row, second - first, strict=True)), Fraction(0)) for row in rows]


nets = st.tuples(st.integers(0, 10**6), st.integers(1, 3), st.lists(st.sampled_from(KINDS), max_size=3))


@settings(max_examples=8, deadline=None)
@given(nets, st.integers(0, 25), st.sampled_from([None, 1, 2]), st.sampled_from([0.02, 0.5, 2.0]), st.booleans())
def test_what_is_proved_of_a_part_holds_at_its_points(net, splits, ball, radius, flat) -> None:  # type: ignore[no-untyped-def]
    """Difference quotients of points whose neighbours lie in the same part, in some norms and every entry; exactly."""
    seed, _, kinds = net
    generator, (network, scalars) = np.random.default_rng(seed), drawn(*net)
    centre = np.round(generator.uniform(-1, 1, network.steps[0].length), 3)
    reach = np.where((np.arange(len(centre)) == 0) & flat & (len(centre) > 1), 0.0, radius)
    region = None if ball is None else Ball(centre, radius, ball)
    bounds = over(network, centre - reach, centre + reach, region)
    (chunk,) = random_chunks(bounds, generator, splits, "pool" not in kinds)
    rows = rationals(generator.integers(-2, 3, (2, network.steps[network.output].length)))
    with np.errstate(all="ignore"):
        nodes = Tree(bounds, splittable(network), ANYTHING, (0,)).grown(chunk)
        nodes = nodes.of(np.flatnonzero(chunk["step"] == -1))
        units, seen = Units(network, bounds), 0
        known = parts(bounds, nodes)
        proved: dict[int, Any] = {}
        for x in points(network, bounds, generator, 6):
            values = exact(network, scalars, x)
            for i in np.flatnonzero([within(nodes, k, values) for k in range(len(known))]):
                bound = known[i]
                assert bound is not None, "something lies in a part that is said to be empty"
                for step, (lower, upper) in bound.boxes.items():
                    assert (rationals(lower) - SLACK <= values[step]).all()
                    assert (values[step] <= rationals(upper) + SLACK).all()
                if i not in proved:
                    made = units.adjoint.over(units.slopes_over(bound))
                    found = [row_bounds(made, tuple(row), "crown", idle) for row in rows]
                    proved[i] = [entries(each, np.arange(len(x))) for each in found], found
                seen += neighbours(proved[i], (network, scalars), rows, (x, values), nodes, i)
    assert seen or ball


def neighbours(proved: Any, read: Any, rows: Array, at: tuple[Point, list[Array]], nodes: Any, part: int) -> int:
    """Compares with the points at +-TINY in every direction that lie in the same part: how many."""
    (boxes, found), (x, values), seen = proved, at, 0
    some = [(inward, OUTWARD[(part + k) % 4]) for k, inward in enumerate(NORMS)]
    numbers = {norms: norm(found, (), *norms) for norms in some}
    network, scalars = read
    for j, sign in product(range(len(x)), (-1, 1)):
        y = [v + sign * TINY * (i == j) for i, v in enumerate(x)]
        others = exact(network, scalars, y)
        if within(nodes, part, others):
            moved = change(rows, values[network.output], others[network.output])
            for row, each in enumerate(boxes):
                assert Fraction(float(each.lower[j])) - SLACK <= moved[row] / (sign * TINY)
                assert moved[row] / (sign * TINY) <= Fraction(float(each.upper[j])) + SLACK
            assert not any(exceeds(moved, [TINY], number * (1 + 1e-15), norms) for norms, number in numbers.items())
            seen += 1
    return seen


@settings(max_examples=8, deadline=None)
@given(nets, st.integers(0, 12), st.integers(1, 3), st.sampled_from(["crown", "recurjac", "interval"]))
def test_the_largest_number_of_all_leaves_holds_for_all_pairs(net, splits, pieces, method) -> None:  # type: ignore[no-untyped-def]
    """Through the certificate, for a norm at random; a number below that of some leaf is refused."""
    seed, _, kinds = net
    generator, (network, scalars) = np.random.default_rng(seed), drawn(*net)
    inward, outward = str(generator.choice(NORMS)), str(generator.choice(OUTWARD))
    scale = tuple(np.round(generator.uniform(0.3, 3, network.steps[0].length), 3).tolist())
    centre, radius = generator.uniform(-1, 1, len(scale)), generator.choice([0.02, 0.5, 2.0])
    count = network.steps[network.output].length
    region = box(centre - radius, centre + radius)
    prover = Prover(network, Statement(tuple(map(tuple, unit_rows(count))), inward, outward, scale, region))
    assert prover.bounds is not None
    chunks = random_chunks(prover.bounds, generator, splits, "pool" not in kinds, pieces)
    leaves = Leaves(method, splittable(network), packed(chunks))
    number = number_of(prover, leaves, range(count))
    files = claiming(prover, [(range(count), number)], leaves, number)
    assert check(files, network).uppers == (number,) * (count if outward == "each" else 1)
    below = number * (1 - 1e-5) - 1e-30
    with pytest.raises(CertificateRejected, match=r"is not proved|number is < 0"):
        check(claiming(prover, [(range(count), below)], leaves, number), network)
    for _ in range(6):
        x, y = points(network, prover.bounds, generator, 2)
        part = Fraction(1, 2 ** int(generator.integers(0, 30)))
        y = [a + part * (b - a) for a, b in zip(x, y, strict=True)]
        first, second = (exact(network, scalars, each)[network.output] for each in (x, y))
        moved = [Fraction(s) * (b - a) for s, a, b in zip(scale, x, y, strict=True)]
        assert not exceeds(list(second - first), moved, number, (inward, outward))
