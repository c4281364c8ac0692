"""Statements about entries of Jacobians: sound at exact points, exact zeros, several regions, corruptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from check_kit import Random, model, resealed
from hypothesis import given, settings
from hypothesis import strategies as st
from jacobian_kit import drawn, exact, packed, points, random_chunks, splittable
from lipschitz_kit import box
from onnx import TensorProto, helper

from provenn.verifier.certificate.entries import EntriesProver, Entry, EntryClaim, loosened
from provenn.verifier.certificate.lipschitz import Leaves
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.functions import gain
from provenn.verifier.check.jacobian import Adjoint, entries, row_bounds
from provenn.verifier.check.lipschitz import rows_everywhere
from provenn.verifier.check.network import Elementwise
from provenn.verifier.check.specification import read_jacobian
from provenn.verifier.check.trees import read_chunk

Array = np.ndarray
KINDS = ["relu", "leaky", "clip", "tanh", "sigmoid", "residual", "pool"]
SLACK = Fraction(1, 10**25)  # the errors of tanh and sigmoid, over steps of 2^-60
idle: Callable[[], object] = lambda: None  # noqa: E731

nets = st.tuples(st.integers(0, 10**6), st.integers(1, 3), st.lists(st.sampled_from(KINDS), max_size=3))


@settings(max_examples=8, deadline=None)
@given(nets, st.integers(0, 10), st.sampled_from(["1", "2", "inf"]), st.sampled_from([0.02, 0.5, 2.0]))
def test_no_two_points_of_a_region_violate_an_entry(net, splits, norm, radius) -> None:  # type: ignore[no-untyped-def]
    """Of a box, by a random tree, and of a ball within a range, as a whole; steps of any length, in rationals."""
    seed, _, kinds = net
    generator, (network, scalars) = np.random.default_rng(seed), drawn(*net)
    inputs, outputs = (network.steps[i].length for i in (0, network.output))
    centre = np.round(generator.uniform(-1, 1, inputs), 3)
    ball = {"input": [float(c).hex() for c in centre], "epsilon": str(radius), "norm": norm, "clip": ["-1.5", "1"]}
    regions = [box(centre - radius, centre + radius), ball]
    rows = generator.integers(-2, 3, (2, outputs)).tolist()
    prover = EntriesProver(network, rows, regions)
    chunks = packed(random_chunks(prover.regions[0].bounds, generator, splits, "pool" not in kinds))
    leaves = [Leaves("crown", splittable(network), chunks), Leaves("recurjac")]
    claims = [EntryClaim(c, r, tuple(range(r * inputs, (r + 1) * inputs)), leaves[c]) for c in (0, 1) for r in (0, 1)]
    stated = [Entry(r, j, *ends) for r in (0, 1) for j, ends in enumerate(over_regions(prover, r, leaves))]
    report = check(prover.bundle(stated, claims, {}), network)
    assert report.entries == tuple((e.row, e.column, e.lower, e.upper) for e in stated)
    for region in prover.regions:
        for x in points(network, region.bounds, generator, 5):
            y = exact(network, scalars, x)[network.output]
            for j in range(inputs):
                ends = [Fraction(float(side[j])) for side in region.bounds.boxes[0]]
                far = ends[int(generator.integers(2))] - x[j]
                t = far / 2 ** int(generator.integers(60))
                other = [v + t * (i == j) for i, v in enumerate(x)]
                if t and inside(other, prover.stated.regions[prover.regions.index(region)]):
                    moved = exact(network, scalars, other)[network.output] - y
                    for e in (e for e in stated if e.column == j):
                        quotient = sum(c * v for c, v in zip(rows[e.row], moved, strict=True)) / t
                        assert Fraction(e.lower) - SLACK <= quotient <= Fraction(e.upper) + SLACK


def inside(x: list[Fraction], case: Any) -> bool:
    """Whether a point is in a region, exactly."""
    held = all(a <= v <= b for a, v, b in zip(case.lower, x, case.upper, strict=True))
    centre, radius, norm = case.ball or (x, Fraction(0), 1)
    moved = [a - b for a, b in zip(x, centre, strict=True)]
    return held and (sum(map(abs, moved)) ** 2 if norm == 1 else sum(v * v for v in moved)) <= radius**2


def over_regions(prover: EntriesProver, row: int, leaves: list[Leaves]) -> list[tuple[float, float]]:
    """Of every input the ends that are proved in all regions, as a writer loosens them."""
    low, high = np.inf, -np.inf
    for region, how in zip(prover.regions, leaves, strict=True):
        claim = {"id": 0, "method": how.method, "steps": how.steps, "chunks": [["", ""]] * len(how.chunks)}
        exact_rows = [prover.stated.rows[row]]
        each = np.arange(region.bounds.network.steps[0].length)
        with np.errstate(all="ignore"):
            chunks = map(read_chunk, how.chunks)
            for (found,) in rows_everywhere(region.units, region.bounds, exact_rows, claim, lambda _, c=chunks: c):
                found_box = entries(found, each)
                low, high = np.minimum(low, found_box.lower), np.maximum(high, found_box.upper)
    return list(zip((-loosened(-np.asarray(low))).tolist(), loosened(np.asarray(high)).tolist(), strict=True))


def rising() -> Network:
    """A network whose every output rises with every input, but for input 0, which is not read: convolution, means,
    normalisation, a residual, a concatenation, every function that rises.
    """
    generator = np.random.default_rng(2)
    shapes = {"k": (2, 1, 2, 2), "w": (4, 4), "u": (8, 3), "b": (1, 4)}
    constants = {name: np.abs(generator.normal(size=s)).astype(np.float32) for name, s in shapes.items()}
    constants["b"] -= np.float32(1.5)
    constants["k"][:, :, 0, 0] = 0
    constants |= {"s": np.array([0.5, 2], np.float32), "o": np.array([0.1, -0.3], np.float32)}
    constants |= {"v": np.array([0.7, 3], np.float32), "lo": np.float32(-0.5), "hi": np.float32(2)}
    constants["unread"] = np.ones((1, 1, 3, 4), np.float32)
    constants["unread"][0, 0, 0, 0] = 0
    nodes = [
        helper.make_node("Mul", ["x", "unread"], ["x1"]),
        helper.make_node("Conv", ["x1", "k"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "o", "o", "v"], ["n"]),
        helper.make_node("LeakyRelu", ["n"], ["l"], alpha=0.1),
        helper.make_node("AveragePool", ["l"], ["p"], kernel_shape=[1, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Split", ["f"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Add", ["left", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["q"]),
        helper.make_node("Add", ["right", "q"], ["a"]),
        helper.make_node("Clip", ["a", "lo", "hi"], ["t"]),
        helper.make_node("Concat", ["t", "h"], ["both"], axis=1),
        helper.make_node("Tanh", ["both"], ["th"]),
        helper.make_node("MatMul", ["th", "u"], ["d"]),
        helper.make_node("Sigmoid", ["d"], ["y"]),
    ]
    return read_network(model(nodes, [1, 1, 3, 4], constants, opset=18))


def everywhere(network: Network, rows: Any, lower: float | None, upper: float | None, columns: Any = None) -> Any:
    """These ends for all entries over a box, claimed row by row."""
    inputs = network.steps[0].length
    prover = EntriesProver(network, rows, [box(np.full(inputs, -1.0), np.full(inputs, 1.0))])
    columns = range(inputs) if columns is None else columns
    stated = [Entry(r, j, lower, upper) for r, j in product(range(len(rows)), columns)]
    claims = [
        EntryClaim(0, r, tuple(k for k, e in enumerate(stated) if e.row == r), Leaves(method))
        for r, method in zip(range(len(rows)), ["crown", "interval", "recurjac"], strict=False)
    ]
    return check(prover.bundle(stated, claims, {}), network)


def test_what_rises_is_proved_to_rise() -> None:
    network, rows = rising(), np.eye(3, dtype=int).tolist()
    assert {e[2] for e in everywhere(network, rows, 0.0, None).entries} == {0.0}
    assert everywhere(network, [[-1, -1, -2]], None, 0.0)
    assert everywhere(network, rows, 0.0, 0.0, [0])
    for ends in ((2.0**-1074, None), (None, -(2.0**-1074))):
        with pytest.raises(CertificateRejected, match="are not proved"):
            everywhere(network, rows, *ends, columns=[0])
    with pytest.raises(CertificateRejected, match="are not proved"):
        everywhere(network, rows, None, 0.0, columns=[5])


def channels(name: str = "k", value: float = 1.0) -> Network:
    """Three channels that no step mixes, each the same but for one number of channel 1: y_i rises with x_i alone."""
    one = {name: np.ones(3, np.float32) for name in ("k", "s", "m", "w")}
    one[name][1] = value
    constants = {"k": one["k"].reshape(3, 1, 1), "s": one["s"], "m": one["m"].reshape(1, 3, 1), "w": np.diag(one["w"])}
    constants |= {"b": np.full(3, 0.25, np.float32), "v": np.full(3, 0.5, np.float32)}
    constants |= {"lo": np.float32(-0.5), "hi": np.float32(0.75)}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], group=3),
        helper.make_node("BatchNormalization", ["c", "s", "b", "b", "v"], ["n"]),
        helper.make_node("LeakyRelu", ["n"], ["l"], alpha=0.1),
        helper.make_node("Mul", ["l", "m"], ["p"]),
        helper.make_node("Clip", ["p", "lo", "hi"], ["t"]),
        helper.make_node("Sigmoid", ["t"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Tanh", ["f"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    return read_network(model(nodes, [1, 3, 1], constants))


@pytest.mark.parametrize("value", [-1e-3, -(2.0**-149), 0.0])
@pytest.mark.parametrize("name", ["k", "s", "m", "w"])
def test_a_slightly_negative_weight_is_no_rise(name: str, value: float) -> None:
    """The entry of its channel is below 0 somewhere; those of others are not."""
    network, rows = channels(name, value), np.eye(3, dtype=int).tolist()
    if not value:
        assert everywhere(network, [rows[1]], 0.0, 0.0)
        return
    with pytest.raises(CertificateRejected, match="entry 0, 1 are not proved"):
        everywhere(network, [rows[1]], 0.0, None)
    assert everywhere(network, [rows[0], rows[2]], 0.0, None)
    assert everywhere(network, rows, 0.0, None, columns=[0, 2])
    assert everywhere(network, rows, None, 0.0, columns=[1])


def test_bounds_of_what_is_constant_somewhere_and_rises_elsewhere_are_not_beyond_0() -> None:
    network = channels()
    assert everywhere(network, np.eye(3, dtype=int).tolist(), 0.0, None)
    for ends in ((2.0**-1074, None), (None, 0.0)):
        with pytest.raises(CertificateRejected, match="are not proved"):
            everywhere(network, [[0, 1, 0]], *ends, columns=[1])


def test_the_sign_of_a_product_is_not_lost_where_it_underflows() -> None:
    """Factors 2^-149 with signs; then a weight 2^300 makes it large again. Exactly, of all prefixes."""
    slopes = [2.0**-149, -(2.0**-149), 2.0**-149, 1.0]
    for count, sign in product(range(1, 9), (1, -1)):
        nodes = [helper.make_node("MatMul", ["x", "w"], ["l0"])]
        nodes += [helper.make_node("LeakyRelu", [f"l{k}"], [f"l{k + 1}"]) for k in range(count)]
        nodes += [helper.make_node("Identity", [f"l{count}"], ["y"])]
        network = read_network(model(nodes, [1, 1], {"w": np.array([[sign * 2.0**300]])}, kind=TensorProto.DOUBLE))
        places = [i for i, step in enumerate(network.steps) if isinstance(step, Elementwise)]
        chosen = [slopes[k % 3] for k in range(count)]
        exact_value = Fraction(2) ** 300 * sign * Fraction(2) ** -300
        for d in chosen:
            exact_value *= Fraction(d)
        for wide in (False, True):
            ends = {i: np.array([d]) for i, d in zip(places, chosen, strict=True)}
            given_slopes = {i: (d, np.maximum(d, 2.0**-140) if wide else d) for i, d in ends.items()}
            made = Adjoint(network).over(given_slopes)
            with np.errstate(all="ignore"):
                found = entries(row_bounds(made, (Fraction(2) ** -300,), "interval", idle), np.array([0]))
            assert Fraction(float(found.lower[0])) <= exact_value <= Fraction(float(found.upper[0]))


def test_ranges_of_a_gain_are_exact_about_signs() -> None:
    numbers = np.array([0.0, -0.0, 5e-324, -5e-324, 1e-200, -1e-200, 1.0, -1.0, 1e200])
    pairs = np.array([(a, b) for a, b in product(numbers, numbers) if a <= b])
    with np.errstate(all="ignore"):
        for a, b in pairs:
            low, high = gain(np.full(len(pairs), a), np.full(len(pairs), b))(*pairs.T).range()
            for (lower, upper), least, most in zip(pairs, low, high, strict=True):
                ends = [Fraction(d) * Fraction(x) for d in (a, b) for x in (lower, upper)]
                assert least == -np.inf or Fraction(float(least)) <= min(ends)
                assert most == np.inf or max(ends) <= Fraction(float(most))
                assert least >= 0 or min(ends) < 0
                assert most <= 0 or max(ends) > 0


@cache
def of_two_regions() -> tuple[Network, EntriesProver, list[Entry], dict[str, bytes]]:
    """The second region is half of the first: both have claims of rows 0 and 1, the second's proved by a tree too."""
    network = read_network(Random(3, [3, 6, 6, 2], ["relu", "leaky"]).file())
    prover = EntriesProver(network, [[1, 0], [1, -1]], [box([-1] * 3, [1] * 3), box([0] * 3, [1] * 3)])
    stated = []
    for row in (0, 1):
        low, high = prover.intervals(0, row, [0, 1, 2])
        stated += [Entry(row, j, *ends) for j, ends in enumerate(zip(low.tolist(), high.tolist(), strict=True))]
    chunks = packed(random_chunks(prover.regions[1].bounds, np.random.default_rng(0), 5))
    claims = [EntryClaim(0, 0, (0, 1)), EntryClaim(0, 0, (2,)), EntryClaim(0, 1, (3, 4, 5))]
    claims += [EntryClaim(1, 0, (0, 1, 2), Leaves("crown", splittable(network), chunks)), EntryClaim(1, 1, (5, 4, 3))]
    return network, prover, stated, prover.bundle(stated, claims, {})


def refused(files: dict[str, bytes], reason: str | None = None) -> None:
    with pytest.raises(CertificateRejected, match=reason) as refusal:
        check(files, of_two_regions()[0])
    assert refusal.value.reason


def mine(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [claim for claim in content["claims"] if claim["kind"] == "entries"]


def altered(place: int, **fields: Any) -> dict[str, bytes]:
    return resealed(of_two_regions()[3], lambda content: mine(content)[place].update(fields))


def test_every_entry_needs_a_claim_in_every_region() -> None:
    network, prover, stated, files = of_two_regions()
    assert len(check(files, network).entries) == 6

    def dropped(place: int) -> Callable[[dict[str, Any]], None]:
        def change(content: dict[str, Any]) -> None:
            gone = mine(content)[place]["id"]
            content["claims"] = [c for c in content["claims"] if c["id"] != gone]
            for number, claim in enumerate(content["claims"]):
                claim["id"] = number

        return change

    for place in range(5):
        refused(resealed(files, dropped(place)), r"an entry has no claim|it holds other files")
    refused(altered(0, entries=[0]), "an entry has no claim in case 0")
    refused(altered(4, entries=[3, 4, 4]), "an entry has no claim in case 1")
    refused(altered(4, case=0), "must use exactly")
    refused(altered(4, case=0, uses=mine(json.loads(files["manifest.json"]))[0]["uses"]), "no claim in case 1")
    only = [EntryClaim(1, row, (0, 1, 2) if row == 0 else (3, 4, 5)) for row in (0, 1)]
    refused(prover.bundle(stated, only, {}), "no claim in case 0")


def test_what_holds_in_one_region_is_refused_in_another() -> None:
    """Ends that are proved in the smaller region alone, claimed of both."""
    network, prover, _, _ = of_two_regions()
    ends = [prover.intervals(case, 0, [0, 1, 2]) for case in (0, 1)]
    assert (ends[1][0] > ends[0][0] + 1e-3).any()
    stated = [Entry(0, j, *map(float, pair)) for j, pair in enumerate(zip(*ends[1], strict=True))]
    both = [EntryClaim(case, 0, (0, 1, 2)) for case in (0, 1)]
    refused(prover.bundle(stated, both, {}), "are not proved")
    alone = EntriesProver(network, [[1, 0]], [box([0] * 3, [1] * 3)])
    assert check(alone.bundle(stated, [EntryClaim(0, 0, (0, 1, 2))], {}), network)


FIELDS: dict[str, list[Any]] = {
    "rows": [[], [1], [2], [-1], [0, 0], [0, 1], [False], [[0]], [{}], ["0"], [None], [10**40], 0],
    "entries": [[], [3], [6], [-1], [0, 3], [[0]], [True], ["0"], [{}], [10**40], 0, [None]],
    "case": [-1, 2, 10**40, True, "0"],
    "kind": ["tree", "margin", "interval", "lipschitz", "lipschitz-jacobian", "", 0],
    "method": ["", "alpha", 0],
    "uses": [[], [0], [0, 0], [[0]], ["0"]],
    "chunks": [[["a", "b"]], [[]], [["a"]], "a", [{}], [[0, 1]]],
    "steps": [[0], [["y"]], None],
}


@pytest.mark.parametrize("key", FIELDS)
def test_a_changed_field_is_refused(key: str) -> None:
    for value in FIELDS[key]:
        refused(altered(0, **{key: value}))
    refused(altered(0, upper="1"), "keys unknown")
    refused(resealed(of_two_regions()[3], lambda content: mine(content)[0].pop(key)), r"missing|not understood")


def test_tighter_ends_are_refused() -> None:
    _, prover, stated, _ = of_two_regions()
    claims = [EntryClaim(case, r, (0, 1, 2) if r == 0 else (3, 4, 5)) for case, r in product((0, 1), (0, 1))]
    for place, entry in enumerate(stated):
        for side in ("lower", "upper"):
            ends = {"lower": entry.lower, "upper": entry.upper}
            ends[side] += (1e-5 if side == "lower" else -1e-5) * abs(ends[side])
            other = [*stated[:place], Entry(entry.row, entry.column, **ends), *stated[place + 1 :]]
            refused(prover.bundle(other, claims, {}), f"entry {entry.row}, {entry.column} are not proved")


GIVEN = {"format": "provenn-specification/1", "kind": "jacobian", "outputs": [[1, 0]], "entries": [[0, 0, "0", None]]}
GIVEN |= {"regions": [{"lower": [0, 0, 0], "upper": [1, 1, 1]}]}
WRONG: dict[str, list[Any]] = {
    "format": ["provenn-specification/2", 1, None],
    "kind": ["lipschitz", None],
    "outputs": [[], [[1]], [[1, 0, 0]], [["x", 0]], None, [[f"1/{2**301}", 1]], [[2**301, 0]], [1]],
    "entries": [[], [[]], [[0, 0, 0]], [[0, 0, 0, 0, 0]], [[1, 0, 0, 0]], [[-1, 0, 0, 0]], [[0, 3, 0, 0]]],
    "regions": [[], None, [{}], [{"lower": [0, 0], "upper": [1, 1]}], [{"lower": [1, 1, 1], "upper": [0, 0, 0]}]],
}
WRONG["entries"] += [[["0", 0, 0, 0]], [[True, 0, 0, 0]], [[0, 0, "x", 0]], [[0, 0, [1], 0]], [[0, 0, True, 0]], [0]]
WRONG["regions"] += [[{"lower": [0, 0, 0]}], [{"lower": [0, 0, 0], "upper": [1, 1, 1], "more": 1}], [0]]


@pytest.mark.parametrize("key", WRONG)
def test_statements_that_are_not_understood_are_refused(key: str) -> None:
    assert read_jacobian(json.dumps(GIVEN).encode(), 3, 2).entries[0].lower == 0
    for value in WRONG[key]:
        with pytest.raises(CertificateRejected) as refusal:
            read_jacobian(json.dumps({**GIVEN, key: value}).encode(), 3, 2)
        assert refusal.value.reason
    for text in (b"", b"[]", b"{", json.dumps({**GIVEN, "more": 1}).encode(), b'{"entries": [[0, 0, NaN, null]]}'):
        with pytest.raises(CertificateRejected):
            read_jacobian(text, 3, 2)
