"""Norms of Jacobians: above exact matrices' ones, as tight as their formulas, and which claims prove which."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from check_kit import Random, forward, model, rationals
from jacobian_kit import LEAF_ONLY, NORMS, OUTWARD, claiming, exceeds, norm_of, number_of, packed
from lipschitz_kit import Program, bundle, least, statement, unit_rows
from onnx import helper

from provenn.verifier.certificate.lipschitz import Leaves, Prover, Statement
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.jacobian import norm, row_bounds
from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.rows import Bounds

Array = np.ndarray
NETWORK = read_network(Random(4, [2, 6, 6, 2], ["relu", "relu"]).file())
SCALES: dict[str, Callable[[int], tuple[Fraction, ...]]] = {
    "none": lambda n: (),
    "thirds": lambda n: tuple(Fraction(1 + i, 3) for i in range(n)),
    "far apart": lambda n: tuple(Fraction(2) ** (250 * (-1) ** i + i) / 7 for i in range(n)),
    "decimals": lambda n: tuple(Fraction(f"0.{i + 1}") for i in range(n)),
}
idle: Callable[[], object] = lambda: None  # noqa: E731


def linear(weight: Array) -> Network:
    """y = W' x."""
    return read_network(model([helper.make_node("MatMul", ["x", "w"], ["y"])], [1, len(weight)], {"w": weight}))


def everywhere(network: Network, rows: Array) -> list[Bounds]:
    units = Units(network)
    made = units.adjoint.over(units.slopes)
    return [row_bounds(made, tuple(row), "crown", idle) for row in rows]


def weights(name: str, inputs: int, outputs: int) -> Array:
    generator = np.random.default_rng(inputs + outputs)
    weight = generator.normal(size=(inputs, outputs))
    weight[generator.random((inputs, outputs)) < 0.3] = 0.0
    sizes = 10.0 ** generator.uniform(-30, 30, (inputs, outputs))
    return (weight * sizes if name == "sizes" else np.abs(weight) if name == "positive" else weight).astype(np.float32)


def formula(matrix: Array, inward: str, outward: str) -> float:
    """What `norm` says of a known matrix, in float64: the norm itself or, from l2, what it stands for."""
    each = {"1": 1, "2": 2, "inf": np.inf, "each": np.inf}[outward]
    if inward == "inf":
        return float(np.linalg.norm(np.abs(matrix).sum(axis=1), each))
    if inward == "1":
        return float(np.linalg.norm(matrix, each, axis=0).max())
    total = float(np.linalg.norm(np.linalg.norm(matrix, axis=1), each))
    mean = float(np.sqrt(np.abs(matrix).sum(axis=1).max() * np.abs(matrix).sum(axis=0).max()))
    return min(total, mean) if outward == "2" else total


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["plain", "sizes", "positive"])
def test_norms_of_matrices(name: str, scale: str) -> None:
    """Exactly above |C J v| / |s v| at the vectors where it is largest (l1: unit, l-infinity: of signs) and others."""
    generator = np.random.default_rng(0)
    for inputs, outputs, count in ((1, 1, 1), (3, 2, 1), (3, 4, 3), (5, 3, 2)):
        weight, s = weights(name, inputs, outputs), SCALES[scale](inputs)
        rows = rationals(generator.integers(-3, 4, (count, outputs)))
        exact_rows, ones = rows @ rationals(weight).T, s or (Fraction(1),) * inputs
        scaled = np.array([[c / t for c, t in zip(row, ones, strict=True)] for row in exact_rows], dtype=object)
        with np.errstate(all="ignore"):
            found = everywhere(linear(weight), rows)
            numbers = {norms: norm(found, s, *norms) for norms in product(NORMS, OUTWARD)}
        vectors = [*rationals(np.eye(inputs)), *scaled, *rationals(np.sign(generator.normal(size=(4, inputs))))]
        vectors += [*rationals(generator.normal(size=(4, inputs)))]
        vectors += [np.array([(c > 0) - (c < 0) for c in row], dtype=object) for row in scaled]
        for norms, number in numbers.items():
            for v in vectors:
                (large, p), (small, q) = norm_of(list(scaled @ v), norms[1]), norm_of(list(v), norms[0])
                assert large ** (2 // p) <= Fraction(number) ** 2 * small ** (2 // q)
            expected = formula(scaled.astype(np.float64), *norms)
            assert number == pytest.approx(expected, rel=1e-9, abs=1e-100)


def test_what_is_not_known_is_infinite() -> None:
    """Products beyond the largest float: no norm is proved, and none is no number."""
    weight = np.full((2, 2), 2.0**300)
    nodes = [helper.make_node("MatMul", [v, "w"], [y]) for v, y in pairwise(["x", "a", "b", "c", "y"])]
    network = read_network(model(nodes, [1, 2], {"w": weight}, kind=11))
    for rows in (rationals(np.eye(2)), rationals([[1, -1]]), rationals([[2.0**300, 1]])):
        with np.errstate(all="ignore"):
            found = everywhere(network, rows)
            assert {norm(found, s, *norms) for norms in product(NORMS, OUTWARD) for s in ((), SCALES["thirds"](2))} == {
                np.inf
            }


def over_a_box(outward: str, inward: str) -> Prover:
    region = {"lower": ["-1"] * 2, "upper": ["1"] * 2}
    return Prover(NETWORK, Statement(((1.0, 0.0), (0.0, 1.0)), inward, outward, None, region))


@pytest.mark.parametrize("inward", NORMS)
@pytest.mark.parametrize("outward", OUTWARD)
def test_which_claims_prove_a_norm(inward: str, outward: str) -> None:
    """All rows together, or in norms that are sums each row by itself; nothing of fewer rows."""
    prover, leaves = over_a_box(outward, inward), Leaves("interval", (), packed([LEAF_ONLY]))
    both, first, second = (number_of(prover, leaves, rows) for rows in ((0, 1), (0,), (1,)))
    total = {"1": first + second, "2": float(np.hypot(first, second))}.get(outward, max(first, second))
    claims = {"both": ((0, 1), both), "first": ((0,), first), "second": ((1,), second)}
    for given, limit, holds in (
        (["both"], both, True),
        (["both"], both * (1 - 1e-6), False),
        (["first", "second"], total * (1 + 1e-12), True),
        (["first", "second"], total * (1 - 1e-6), False),
        (["first"], 1e9, False),
        (["second", "second"], 1e9, False),
        (["both", "first"], both, True),
        (["first", "both"], both * (1 - 1e-6), False),
    ):
        files = claiming(prover, [claims[name] for name in given], leaves, limit)
        if holds:
            assert set(check(files, NETWORK).uppers) == {limit}
        else:
            with pytest.raises(CertificateRejected, match=r"above what is stated|has no claim|nor each has a claim"):
                check(files, NETWORK)


def test_multipliers_prove_the_l1_norm_of_inputs_too() -> None:
    """An l2 claim, as |.|_1 >= |.|_2, with the scale; with no metric."""
    units, rows, scale = Units(NETWORK), unit_rows(2), (Fraction(1, 2), Fraction(3))
    program = Program(units, rows, np.array([0.25, 9.0]))
    t, rho = program.solve()
    upper = least(units, rows, program.multipliers(t), float(np.sqrt(rho)), scale)
    claim = {"rows": [0, 1], "upper": upper, "multipliers": program.multipliers(t)}
    given = {"scale": ["1/2", "3"], "inward": "1"}
    for outward in ("2", "inf"):
        files = bundle(NETWORK, statement(rows, [upper.hex()], outward=outward, **given), [claim])
        assert check(files, NETWORK).uppers == (upper,)
    for other, reason in (
        ({"outward": "1"}, "nor each has a claim"),
        ({"outward": "2", "scale": ["1/2", "2"]}, "is not proved"),
        ({"outward": "2", "inward": "inf"}, "a metric is for"),
    ):
        with pytest.raises(CertificateRejected, match=reason):
            check(bundle(NETWORK, statement(rows, [upper.hex()], **{**given, **other}), [claim]), NETWORK)
    measured = {**claim, "metric": np.array([0.25, 9.0]) * upper**2 * 0.4}
    with pytest.raises(CertificateRejected, match="a metric is for"):
        check(bundle(NETWORK, statement(rows, [upper.hex()], outward="2", **given), [measured]), NETWORK)
    x, generator = np.zeros(2), np.random.default_rng(0)
    values = [generator.normal(size=2) for _ in range(20)]
    assert not any(
        exceeds(
            list(rationals(forward(NETWORK, x + v) - forward(NETWORK, x))),
            [s * Fraction(c) for s, c in zip(scale, v, strict=True)],
            upper,
            ("1", "2"),
        )
        for v in values
    )
