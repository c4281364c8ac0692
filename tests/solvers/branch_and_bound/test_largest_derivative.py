"""Branch and bound over derivatives: exact where activation patterns can be enumerated, sound where they cannot."""

from __future__ import annotations

import json
import time
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linprog

from provenn.solvers.branch_and_bound.derivative import Goal, Search
from provenn.verifier.certificate.jacobian import loosened
from provenn.verifier.certificate.lipschitz import Leaves, Proved, Prover, Statement
from provenn.verifier.certificate.parts import Partition
from provenn.verifier.check import CertificateRejected, check, read_network

Numbers = NDArray[np.float64]

UNFEASIBLE = 1e-7
"""Patterns whose cells are thinner than this are left out of the enumeration: they would not be met by numbers."""


def layers(seed: int, widths: list[int]) -> list[tuple[Numbers, Numbers]]:
    generator = np.random.default_rng(seed)
    made = []
    for n, m in pairwise(widths):
        weight = generator.normal(size=(m, n)) / np.sqrt(n)
        made.append((weight.astype(np.float32).astype(np.float64), generator.normal(size=m).astype(np.float32) * 0.3))
    return made


def onnx_file(chain: list[tuple[Numbers, Numbers]], function: str = "Relu", **attributes: Any) -> bytes:
    nodes, constants, value = [], [], "x"
    for k, (weight, bias) in enumerate(chain):
        for name, array in ((f"w{k}", weight.T), (f"b{k}", bias)):
            constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        nodes += [helper.make_node("MatMul", [value, f"w{k}"], [f"m{k}"])]
        nodes += [helper.make_node("Add", [f"m{k}", f"b{k}"], [f"z{k}"])]
        value = f"z{k}"
        if k + 1 < len(chain):
            nodes.append(helper.make_node(function, [value], [f"a{k}"], **attributes))
            value = f"a{k}"
    sizes = (("x", chain[0][0].shape[1]), (value, chain[-1][0].shape[0]))
    first, last = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in sizes)
    graph = helper.make_graph(nodes, "g", [first], [last], constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def enumerated(chain: list[tuple[Numbers, Numbers]], lower: Numbers, upper: Numbers) -> list[Numbers]:
    """The Jacobians of all activation patterns with room in the box: [outputs, inputs] each."""
    found = []
    for pattern in product((0.0, 1.0), repeat=sum(len(bias) for _, bias in chain[:-1])):
        matrix, shift, start = np.eye(len(lower)), np.zeros(len(lower)), 0
        rows, limits = [], []
        for weight, bias in chain[:-1]:
            matrix, shift = weight @ matrix, weight @ shift + bias
            on = np.array(pattern[start : start + len(bias)])
            start += len(bias)
            rows.append((1 - 2 * on)[:, None] * matrix)
            limits.append((2 * on - 1) * shift)
            matrix, shift = on[:, None] * matrix, on * shift
        A, b = np.concatenate(rows), np.concatenate(limits)
        size = np.maximum(np.abs(A).sum(axis=1), UNFEASIBLE)[:, None]
        room = linprog(
            np.eye(1, len(lower) + 1, len(lower))[0] * -1,
            np.hstack([A, size]),
            b,
            bounds=[*zip(lower, upper, strict=True), (None, 1)],
        )
        if room.status == 0 and room.x[-1] > UNFEASIBLE:
            found.append(chain[-1][0] @ matrix)
    return found


def prover(data: bytes, lower: Numbers, upper: Numbers, inward: str = "inf") -> Prover:
    network = read_network(data)
    count = network.steps[network.output].length
    rows = tuple(tuple(float(i == j) for j in range(count)) for i in range(count))
    region = {"lower": [float(v).hex() for v in lower], "upper": [float(v).hex() for v in upper]}
    return Prover(network, Statement(rows, inward, "each", None, region))


def searched(own: Prover, goal: Goal, enough: float = 0.0, seconds: float = 60.0) -> Search:
    assert own.bounds is not None
    search, end = Search(Partition(own.bounds), own.units, goal), time.monotonic() + seconds
    search.run(enough, lambda: time.monotonic() > end)
    return search


def certified(own: Prover, searches: list[Search], data: bytes) -> list[float]:
    """From certificates of the trees, checked."""
    proved = []
    for row, search in enumerate(searches):
        leaves = Leaves("crown", search.partition.steps, tuple(search.partition.written()))
        proved.append(Proved((row,), loosened(search.upper), {}, None, jacobian=leaves))
    return list(check(own.bundle(proved, {}), data).uppers)


@pytest.mark.parametrize("inward", ["inf", "1", "2"])
@pytest.mark.parametrize("widths", [[2, 5, 2], [3, 4, 3, 2], [2, 3, 2, 3, 1]])
def test_constants_are_exact_where_patterns_can_be_enumerated(widths: list[int], inward: str) -> None:
    chain = layers(sum(widths), widths)
    lower, upper = np.full(widths[0], -1.0), np.full(widths[0], 1.0)
    order = {"inf": 1, "1": np.inf, "2": 2}[inward]
    jacobians = enumerated(chain, lower, upper)
    data = onnx_file(chain)
    own = prover(data, lower, upper, inward)
    searches = [searched(own, Goal(row, inward)) for row in own.stated.rows]
    for i, upper_bound in enumerate(certified(own, searches, data)):
        exact = max(float(np.linalg.norm(jacobian[i], order)) for jacobian in jacobians)
        assert searches[i].exact
        assert exact * (1 - 1e-9) <= upper_bound <= exact * (1 + 1e-6) + 1e-9


def test_entries_are_exact_and_their_extremes_lie_inside() -> None:
    chain = layers(5, [2, 4, 3, 1])
    lower, upper = np.full(2, -1.0), np.full(2, 1.0)
    jacobians, own = enumerated(chain, lower, upper), prover(onnx_file(chain), lower, upper)
    for column, sign in product(range(2), (1, -1)):
        search = searched(own, Goal(own.stated.rows[0], column=column, sign=sign), -np.inf)
        exact = max(sign * float(jacobian[0, column]) for jacobian in jacobians)
        assert search.exact
        assert search.upper == pytest.approx(exact, rel=1e-6, abs=1e-9)
        point = search.promising()
        assert point is not None
        assert ((lower <= point) & (point <= upper)).all()


@pytest.mark.parametrize(("function", "attributes"), [("Tanh", {}), ("LeakyRelu", {"alpha": 0.3}), ("Abs", {})])
def test_parts_help_and_no_point_violates_them(function: str, attributes: dict[str, Any]) -> None:
    chain = layers(9, [2, 4, 4, 3, 1])
    lower, upper = np.full(2, -1.0), np.full(2, 1.0)
    data = onnx_file(chain, function, **attributes)
    own = prover(data, lower, upper)
    whole = searched(own, Goal(own.stated.rows[0]), np.inf)
    search = searched(own, Goal(own.stated.rows[0]), 0.85 * whole.upper, 4.0)
    assert search.upper < whole.upper * 0.98
    found = certified(own, [search], data)[0]
    slopes = {"Tanh": lambda z: 1 - np.tanh(z) ** 2, "LeakyRelu": lambda z: np.where(z > 0, 1, 0.3), "Abs": np.sign}
    values = {"Tanh": np.tanh, "LeakyRelu": lambda z: np.maximum(z, 0.3 * z), "Abs": np.abs}
    for x in np.random.default_rng(1).uniform(lower, upper, size=(500, 2)):
        matrix, value = np.eye(2), x
        for weight, bias in chain[:-1]:
            z = weight @ value + bias
            matrix, value = slopes[function](z)[:, None] * (weight @ matrix), values[function](z)
        assert np.abs(chain[-1][0] @ matrix).sum() <= found * (1 + 1e-12)


def test_networks_with_pooling_are_refused() -> None:
    kernel = numpy_helper.from_array(np.ones((1, 1, 2, 2), np.float32), "k")
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z"]),
        helper.make_node("MaxPool", ["z"], ["m"], kernel_shape=[2, 2]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Flatten", ["r"], ["y"]),
    ]
    ends = (("x", [1, 1, 3, 3]), ("y", [1, 1]))
    first, last = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(nodes, "g", [first], [last], [kernel])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    own = prover(data, np.full(9, -1.0), np.full(9, 1.0))
    with pytest.raises(CertificateRejected, match="max-pooling is not bounded again"):
        searched(own, Goal(own.stated.rows[0]))


# Network, radius, and where it is known the exact constant, else None.
REFERENCES = [("tiny2_16-32-10", "8/255", 1.2188572910009559), ("tiny3_16-16-16-10", "8/255", 0.3223932182227637)]
REFERENCES += [("digits_mlp_64-50-50-10", "1e-2", 102.59954435062177)]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "radius", "exact"), REFERENCES)
def test_reference_networks(shared: Path, name: str, radius: str, exact: float) -> None:
    folder = shared / "lipschitz" / "local"
    if not folder.is_dir():
        pytest.skip(f"the reference networks are not at {folder}")
    entries = json.loads((folder / "local_lip.json").read_text())
    eps = next(e["eps"] for e in entries if (e["net"], e["eps_name"]) == (name, radius))
    data, x = (folder / f"{name}.onnx").read_bytes(), np.load(folder / f"{name}.x0.npy").astype(np.float64).ravel()
    own = prover(data, x - eps, x + eps)
    row = int(np.argmax([searched(own, Goal(row), np.inf).upper for row in own.stated.rows]))
    search = searched(own, Goal(own.stated.rows[row]))
    assert search.exact
    assert search.upper == pytest.approx(exact, rel=1e-9)
