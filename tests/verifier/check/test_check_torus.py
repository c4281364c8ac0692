"""Convolutions frequency by frequency: the torus is the network's, a wrong one is refused, no number is too small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from check_kit import Random, model
from lipschitz_kit import Program, activated, bundle, equilibrium, statement, unit_rows, vectors
from onnx import helper

from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check import bordered as module
from provenn.verifier.check.bordered import Bordered, borders, ending
from provenn.verifier.check.lipschitz import Units, metric, prove
from provenn.verifier.check.network import Affine
from provenn.verifier.check.specification import read_lipschitz
from provenn.verifier.check.torus import Grid, Torus, kernel, read_grids

Array = np.ndarray
STRIDED = {"strides": [2, 2], "pads": [1, 1, 1, 1]}


def convolutional(seed: int = 0, function: str = "Relu", size: int = 6, **attributes: Any) -> bytes:
    """Conv 2 -> 4 of stride 2 and pads 1, function, conv 4 -> 2 in two groups, function, a matrix to 3."""
    generator = np.random.default_rng(seed)
    half = (size + 1) // 2
    constants = {
        "k": generator.normal(size=(4, 2, 3, 3)),
        "l": generator.normal(size=(2, 2, 3, 3)),
        "w": generator.normal(size=(2 * half**2, 3)) / half,
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z"], **STRIDED),
        helper.make_node(function, ["z"], ["a"], **attributes),
        helper.make_node("Conv", ["a", "l"], ["v"], pads=[1, 1, 1, 1], group=2),
        helper.make_node(function, ["v"], ["h"], **attributes),
        helper.make_node("Flatten", ["h"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    return model(nodes, [1, 2, size, size], {name: array.astype(np.float32) for name, array in constants.items()}, 20)


def maps(size: int = 6, cells: int = 4) -> dict[str, Any]:
    half = (size + 1) // 2
    grids = {"x": [2, size, size, 2, 2], "a": [4, half, half, 1, 1], "h": [2, half, half, 1, 1]}
    return {"id": 0, "maps": grids, "torus": [cells, cells]}


def dense_form(torus: Torus, metric_rows: Array, cut: Array) -> Array:
    """M+ on the torus as one matrix, from its kernels and borders, by loops over shifts."""
    cells = prod(torus.torus)
    size = max(place.stop for place in torus.place.values())
    whole = np.zeros((size, cells, size, cells))
    diagonal = np.concatenate([metric_rows, *(border.square for border in torus.borders.values())])
    diagonal[torus.place[torus.last]] -= cut
    for i in range(size):
        whole[i, range(cells), i, range(cells)] = diagonal[i]
    at = np.array(np.unravel_index(np.arange(cells), torus.torus)).T
    for key, border in torus.borders.items():
        for k, numbers in border.blocks.items():
            for t, shift in enumerate(torus.shifts[max(key, ~key), k]):
                to = np.ravel_multi_index(tuple(((at + shift) % torus.torus).T), torus.torus)
                for q in range(cells):
                    part = border.cross[:, None] * numbers[:, :, t]
                    whole[torus.place[key], q, torus.place[k], to[q]] += part
                    whole[torus.place[k], to[q], torus.place[key], q] += part.T
    return whole.reshape(size * cells, size * cells)


def chosen(units: Units, claim: Mapping[str, Any], seed: int = 0) -> tuple[dict[str, Array], Array]:
    """Some multipliers and cut: those of later steps smaller."""
    generator = np.random.default_rng(seed)
    grids, _ = read_grids(claim, {"x": [0]} | units.steps)
    found, level = dict[str, Array](), 200.0
    for name, (i, *_) in reversed(units.steps.items()):
        level *= 40
        count = grids[i].rows if i in grids else units.lengths[name]
        found[name] = level * generator.uniform(1, 1.5, size=count)
    return found, np.full(grids[max(grids)].rows, 200.0)


def least(torus: Torus, inputs: int, cut: Array) -> float:
    """A number that is proved, within 2 %."""
    low, high = 1.0, 2.0**20
    assert torus.proves(metric(Fraction(high), (), inputs), cut)
    while high / low > 1.02:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if torus.proves(metric(Fraction(middle), (), inputs), cut) else (middle, high)
    return high


def compared(network: Network) -> tuple[Torus, Array, Mapping[str, Array], Units]:
    units = Units(network)
    multipliers, cut = chosen(units, maps())
    rows = unit_rows(network.steps[network.output].length)
    return units.torus(vectors(rows), multipliers, maps()), cut, multipliers, units


@pytest.mark.parametrize("function", ["Relu", "Gelu", "LeakyRelu"])
def test_the_frequencies_are_those_of_the_torus_and_it_contains_the_network(function: str) -> None:
    network = read_network(convolutional(function=function), slopes=True)
    torus, cut, multipliers, units = compared(network)
    upper = least(torus, 72, cut)
    rows = np.full(torus.grids[0].rows, upper**2)
    whole = dense_form(torus, rows, cut)
    spectrum = np.linalg.eigvalsh(whole)
    forms = []
    added = np.zeros(len(whole) // prod(torus.torus))
    added[torus.place[0]], added[torus.place[torus.last]] = rows, -cut
    for f in np.ndindex(torus.torus):
        lower = torus._form(f, added)
        forms.append(np.linalg.eigvalsh(lower))
    assert np.allclose(np.sort(np.concatenate(forms)), np.sort(np.repeat(spectrum, 2)), atol=1e-9 * spectrum[-1])
    assert spectrum[0] > 0
    # The network's own program, multipliers repeated, is the torus' on its box (slopes >= 0 where some were left out).
    repeated = dict[str, Array]()
    for name, (i, *_) in units.steps.items():
        repeated[name] = multipliers[name][torus.grids[i].places()[0]]
    if function != "LeakyRelu":
        assert units.quadratic(vectors(unit_rows(3)), repeated).proves(metric(Fraction(upper), (), 72))


@pytest.mark.parametrize("function", ["Relu", "Gelu", "LeakyRelu", "Abs"])
def test_no_number_is_below_what_slopes_give(function: str) -> None:
    network = read_network(convolutional(1, function), slopes=True)
    torus, cut, _, units = compared(network)
    upper = least(torus, 72, cut)
    steps = [step.matrix for step in network.steps if isinstance(step, Affine)]
    *convolutions, last = (m.toarray() if scipy.sparse.issparse(m) else m for m in steps)
    generator = np.random.default_rng(0)
    for _ in range(30):
        jacobian = np.eye(72)
        for matrix, layer in zip(convolutions, units.increments.layers.values(), strict=True):
            slopes = generator.choice([0, 1], size=len(layer.a)) * (layer.b - layer.a) + layer.a
            jacobian = slopes[:, None] * (matrix @ jacobian)
        assert np.linalg.norm(last @ jacobian, 2) <= upper


def test_a_torus_that_is_too_small_and_wrong_grids_are_refused() -> None:
    units = Units(read_network(convolutional()))
    for change, reason in (
        ({"torus": [3, 4]}, "or the torus is too small"),
        ({"torus": [2, 2]}, "does not have such a grid, or the torus is too small"),
        ({"torus": [4]}, "are not understood"),
        ({"torus": [4, True]}, "are not understood"),
        ({"torus": [4, 0]}, "are not understood"),
        ({"maps": maps()["maps"] | {"h": [2, 3, 3, 2, 2]}}, "no convolution|multipliers"),
        ({"maps": maps()["maps"] | {"h": [6, 3, 1, 1, 1]}}, "no convolution|multipliers"),
        ({"maps": maps()["maps"] | {"a": [4, 3, 4, 1, 1]}}, "does not have such a grid"),
        ({"maps": maps()["maps"] | {"b": [4, 3, 3, 1, 1]}}, "are not understood"),
        ({"maps": {k: v for k, v in maps()["maps"].items() if k != "x"}}, "there must be one of the inputs"),
        ({"maps": {"x": maps()["maps"]["x"]}}, "multipliers|there must be one of the inputs"),
        ({"maps": {k: v for k, v in maps()["maps"].items() if k != "a"}}, "multipliers|without a map"),
    ):
        claim = maps() | change
        known = all(len(part) == 1 + 2 * len(claim["torus"]) for part in claim["maps"].values())
        valid = known and claim["maps"].keys() <= {"x", "a", "h"} and 0 not in claim["torus"]
        grids = {name: prod([part[0], *part[3:]]) for name, part in claim["maps"].items()} if valid else {}
        sizes = {name: grids.get(name, length) for name, length in units.lengths.items()}
        multipliers = {name: np.ones(size) for name, size in sizes.items()}
        with pytest.raises(CertificateRejected, match=reason):
            units.torus(vectors(unit_rows(3)), multipliers, claim)


def test_a_claim_whose_cut_is_not_in_the_payload_is_refused() -> None:
    torus, cut, multipliers, units = compared(read_network(convolutional()))
    upper = least(torus, 72, cut).hex()
    stated = read_lipschitz(json.dumps(statement(unit_rows(3), [upper])).encode(), 72, 3)
    claim = {"kind": "lipschitz-torus", "rows": [0, 1, 2], "upper": upper, "metric": "", "cut": "cut"} | maps()
    tensors = {"cut": cut, **multipliers}
    claim["multipliers"] = {name: name for name in multipliers}
    prove(units, None, stated, [claim], tensors, lambda claim: (), lambda: None)
    for wrong in ("", "other"):
        with pytest.raises(CertificateRejected, match="is not proved"):
            prove(units, None, stated, [{**claim, "cut": wrong}], tensors, lambda claim: (), lambda: None)


def entries_of(matrix: Any) -> tuple[Any, Grid, Grid]:
    return matrix.tolil(), Grid(2, (3, 3), (1, 1)), Grid(4, (3, 3), (1, 1))


def test_a_matrix_with_one_other_number_is_no_convolution() -> None:
    layer = Units(read_network(convolutional())).increments.layers[4]
    block, to, source = entries_of(layer.blocks[2])
    right = kernel(block, to, source, (4, 4))
    assert right[0].shape == (2, 4, 9) and sorted(map(tuple, (right[1] + 1) % 4)) == list(np.ndindex(3, 3))
    generator = np.random.default_rng(0)
    for _ in range(20):
        edited = block.copy()
        row, column = generator.integers(18), generator.integers(36)
        edited[row, column] = 0.0 if edited[row, column] and generator.integers(2) else edited[row, column] + 2.0**-40
        with pytest.raises(CertificateRejected, match="no convolution"):
            kernel(edited, to, source, (4, 4))
    for shifted in (block.tocsr()[np.roll(np.arange(18), 1)], block.tocsr()[:, np.roll(np.arange(36), 1)]):
        with pytest.raises(CertificateRejected, match="no convolution"):
            kernel(shifted, to, source, (4, 4))
    with pytest.raises(CertificateRejected, match="no convolution"):
        kernel(block, to, source, (3, 3))
    with pytest.raises(CertificateRejected, match="no convolution"):
        kernel(generator.normal(size=(18, 36)), to, source, (4, 4))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pads", [0, 1, 2])
@pytest.mark.parametrize("size", [5, 6])
def test_every_geometry_is_read(stride: int, pads: int, size: int) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 3, 3, 2)).astype(np.float32)
    attributes = {"strides": [stride, 1], "pads": [pads, 1, pads, 0]}
    nodes = [helper.make_node("Conv", ["x", "k"], ["z"], **attributes), helper.make_node("Relu", ["z"], ["y"])]
    network = read_network(model(nodes, [1, 3, size, 4], {"k": weight}))
    rows = (size + 2 * pads - 3) // stride + 1
    to, source = Grid(2, (rows, 4), (1, 1)), Grid(3, (size, 4), (stride, 1))
    found, _ = kernel(network.steps[1].matrix, to, source, (16, 9))
    assert np.count_nonzero(found) == sum(
        weight.size // 3 * (any(0 <= o * stride + k - pads < size for o in range(rows))) for k in range(3)
    )
    assert np.isin(found[found != 0], weight).all()


def test_pools_and_normalisations_are_convolutions() -> None:
    generator = np.random.default_rng(0)
    numbers = generator.uniform(0.5, 2, size=(4, 4)).astype(np.float32)
    constants = {"k": generator.normal(size=(4, 4, 3, 3)).astype(np.float32)}
    constants |= dict(zip(("s", "b", "m", "v"), numbers, strict=True))
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "k"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["z", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["q"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["q", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    units = Units(read_network(model(nodes, [1, 4, 8, 8], constants)))
    claim = {"id": 0, "torus": [4, 4]}
    claim["maps"] = {"x": [4, 8, 8, 4, 4], "a": [4, 4, 4, 2, 2], "q": [4, 2, 2, 1, 1], "y": [4, 2, 2, 1, 1]}
    multipliers = {"a": np.ones(16), "q": np.ones(12), "y": np.ones(4)}
    torus = units.torus(vectors(unit_rows(16)), multipliers, claim)
    assert set(torus.shifts) >= {(units.steps["a"][0], 0), (units.steps["y"][0], units.steps["q"][2])}


def test_without_crop_no_two_convolutions_are_one() -> None:
    weight = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["z", "k"], ["v"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    units = Units(read_network(model(nodes, [1, 2, 5, 5], {"k": weight})))
    claim = {"id": 0, "torus": [9, 9], "maps": {"x": [2, 5, 5, 1, 1], "y": [2, 5, 5, 1, 1]}}
    with pytest.raises(CertificateRejected, match="no convolution"):
        units.torus(vectors(unit_rows(50)), {"y": np.ones(2)}, claim)


CASES = {
    "deep": Random(1, [6, 8, 8, 3], ["relu", "tanh"]).file(),
    "gelu": activated("Gelu", (5, 6, 3)),
    "implicit": equilibrium(-0.3 * np.eye(4), np.random.default_rng(0).normal(size=(4, 3)), np.ones((2, 4))),
}


@pytest.mark.parametrize("name", CASES)
def test_without_its_first_block_the_matrix_proves_the_same_numbers(name: str) -> None:
    network = read_network(CASES[name], slopes=True)
    units = Units(network)
    rows = unit_rows(network.steps[network.output].length)
    program = Program(units, rows)
    t, rho = program.solve()
    layers, multipliers = units.increments.layers, program.multipliers(t)
    found = {j: multipliers[n][layers[j].units] for n, each in units.steps.items() for j in each}
    parts = borders(layers, found) | ending(units.increments, np.array(rows, float))
    eliminated, whole = Bordered(units.increments, parts), units.quadratic(vectors(rows), multipliers)
    for share, expected in ((-1e-2, False), (-1e-6, False), (1e-6, True), (1e-2, True)):
        D = metric(Fraction(rho**0.5 * (1 + share)), (), network.steps[0].length)
        assert eliminated.proves(D) == whole.proves(D) == expected
    assert not eliminated.proves(np.zeros(network.steps[0].length))


def test_slopes_of_one_sign_cost_tightness_only() -> None:
    network = read_network(activated("LeakyRelu", (5, 6, 3), alpha=0.2))
    units, rows = Units(network), unit_rows(3)
    program = Program(units, rows)
    t, rho = program.solve()
    found = {2: program.multipliers(t)["a"]}
    parts = borders(units.increments.layers, found) | ending(units.increments, np.array(rows, float))
    eliminated = Bordered(units.increments, parts)
    proved = [s for s in (0.9, 0.99, 1.01, 1.5, 2.0, 4.0) if eliminated.proves(metric(Fraction(rho**0.5 * s), (), 5))]
    assert proved and min(proved) > 1


def test_an_input_wider_than_the_limit_is_proved() -> None:
    generator = np.random.default_rng(0)
    constants = {"w": generator.normal(size=(12_500, 6)) / 100, "v": generator.normal(size=(6, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    network = read_network(model(nodes, [1, 12_500], {k: v.astype(np.float32) for k, v in constants.items()}))
    norms = [np.linalg.norm(network.steps[i].matrix, 2) for i in (1, 3)]
    multipliers = {"a": np.full(6, norms[1] ** 2)}
    for share, holds in ((0.5, False), (1 + 1e-9, True)):
        upper = float(norms[0] * norms[1] * share)
        claim = {"rows": [0, 1, 2], "upper": upper, "multipliers": multipliers}
        files = bundle(network, statement(unit_rows(3), [upper.hex()]), [claim])
        if holds:
            assert check(files, network).uppers == (upper,)
        else:
            with pytest.raises(CertificateRejected, match="is not proved"):
                check(files, network)


def test_too_many_units_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    units = Units(read_network(CASES["deep"]))
    found = {j: np.ones(len(units.increments.layers[j].units)) for each in units.steps.values() for j in each}
    monkeypatch.setattr(module, "COORDINATES", 15)
    with pytest.raises(CertificateRejected, match="16 units: at most 15"):
        Bordered(units.increments, borders(units.increments.layers, found))
