"""What Lipschitz claims brought to the readers: comparators, slopes of functions, files of layers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from check_kit import Random, forward, model
from lipschitz_kit import activated, layers_file
from onnx import helper
from test_check_network import CASES, agree, i, one, r

from provenn.verifier.check import CertificateRejected, read_network
from provenn.verifier.check import functions as known
from provenn.verifier.check.functions import RELU, SIGMOID, TANH, Function, piecewise_linear
from provenn.verifier.check.lipschitz import staged
from provenn.verifier.check.network import Affine, Elementwise, Implicit, MaxPool
from provenn.verifier.check.network_ops import OPERATORS, SLOPES_ONLY
from provenn.verifier.check.rows import Bounds, Box

Array = np.ndarray


def two(op: str, shape: Sequence[int | str], left: int, right: int) -> bytes:
    """Op of two sums x + c, of their own shapes."""
    nodes = [helper.make_node("Gather", ["x", f"g{n}"], [f"v{n}"], axis=1) for n in (0, 1)]
    nodes.append(helper.make_node(op, ["v0", "v1"], ["y"]))
    constants = {"g0": np.arange(left), "g1": np.arange(right)[::-1].copy()}
    return model(nodes, shape, constants)


def node(op: str, shape: Sequence[int], constants: dict[str, Array], inputs: str, outputs: str, **more: Any) -> bytes:
    opset = more.pop("opset", 17)
    return model([helper.make_node(op, inputs.split(","), outputs.split(","), **more)], shape, constants, opset)


READ: dict[str, tuple[bytes, Sequence[int]]] = {
    "max": (two("Max", [1, 5], 5, 5), [1, 5]),
    "min": (two("Min", [1, 5], 5, 5), [1, 5]),
    "max grows": (two("Max", [1, 5, 2], 5, 1), [1, 5, 2]),
    "min of itself": (model([helper.make_node("Min", ["x", "x"], ["y"])], [1, 3], {}), [1, 3]),
    "abs": (one("Abs", [1, 4]), [1, 4]),
    "topk": (node("TopK", [1, 7], {"k": i(7)}, "x,k", "y,z", axis=1), [1, 7]),
    "topk some": (node("TopK", [1, 4, 6], {"k": i(2)}, "x,k", "y,z"), [1, 4, 6]),
    "topk smallest": (node("TopK", [1, 5, 3], {"k": i(4)}, "x,k", "y,z", axis=1, largest=0), [1, 5, 3]),
    "topk one": (node("TopK", [1, 1, 3], {"k": i(1)}, "x,k", "y,z", axis=1), [1, 1, 3]),
    "slice": (one("Slice", [1, 6, 5], i(1, -4), i(5, 9), i(1, 2), i(2, 1)), [1, 6, 5]),
    "slice back": (one("Slice", [1, 6], i(-1), i(-(2**40)), i(1), i(-2)), [1, 6]),
    "slice plain": (one("Slice", [1, 6], i(0, 2), i(1, 4)), [1, 6]),
    "slice 9": (one("Slice", [1, 6], starts=[2], ends=[5], axes=[1], opset=9), [1, 6]),
    "split": (node("Split", [1, 6], {"s": i(4, 2)}, "x,s", "z,y", axis=1), [1, 6]),
    "split equal": (node("Split", [1, 6], {}, "x", "z,y,w", axis=-1), [1, 6]),
    "split uneven": (node("Split", [1, 7], {}, "x", "z,y,w", axis=1, num_outputs=3, opset=18), [1, 7]),
    "split 11": (node("Split", [1, 6], {}, "x", "y,z", axis=1, split=[1, 5], opset=11), [1, 6]),
}


@pytest.mark.parametrize("name", READ)
def test_every_new_operator_agrees_with_onnxruntime(name: str) -> None:
    agree(*READ[name])


def test_new_operators_are_tried() -> None:
    tried = {"max": "Max", "min": "Min", "abs": "Abs", "topk": "TopK", "slice": "Slice", "split": "Split"}
    assert OPERATORS.keys() >= set(tried.values())
    assert len(READ) > len(tried)
    assert CASES.keys().isdisjoint(READ)
    assert not OPERATORS.keys() & SLOPES_ONLY.keys()


BROKEN: dict[str, tuple[bytes, str]] = {
    "three values": (model([helper.make_node("Max", ["x", "x", "x"], ["y"])], [1, 3], {}), "two inputs"),
    "one value": (model([helper.make_node("Max", ["x"], ["y"])], [1, 3], {}), "two inputs"),
    "max of a constant": (one("Max", [1, 2], r(2)), "not computed from the network's input"),
    "unsorted": (node("TopK", [1, 3], {"k": i(3)}, "x,k", "y,", axis=1, sorted=0), "only sorted"),
    "too many": (node("TopK", [1, 3], {"k": i(4)}, "x,k", "y,", axis=1), "only sorted"),
    "none": (node("TopK", [1, 3], {"k": i(0)}, "x,k", "y,", axis=1), "only sorted"),
    "long axis": (node("TopK", [1, 1025], {"k": i(1)}, "x,k", "y,", axis=1), "1024"),
    "indices": (node("TopK", [1, 3], {"k": i(3)}, "x,k", ",y", axis=1), "not computed"),
    "split too short": (node("Split", [1, 6], {"s": i(4, 1)}, "x,s", "z,y", axis=1), "do not fit"),
    "split to nothing": (node("Split", [1, 6], {"s": i(6, 0)}, "x,s", "z,y", axis=1), "do not fit"),
    "slice axis twice": (one("Slice", [1, 6], i(1, 2), i(5, 6), i(1, -1)), "given twice"),
    "slice step": (one("Slice", [1, 6], i(1), i(5), i(1), i(0)), "zero"),
    # ONNX takes the first entry of this one, Python's slices none: a reader that did would miss what is averaged in.
    "slice from before the axis": (one("Slice", [1, 6], i(-100), i(-(2**31)), i(1), i(-1)), "nothing is left"),
    "slice to the end, backwards": (one("Slice", [1, 6], i(5), i(2**31 - 1), i(1), i(-1)), "nothing is left"),
    "absent in the set": (one("Mish", [1, 6], opset=17), "Mish is not read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_understood_is_refused(name: str) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(CertificateRejected, match=reason):
        read_network(data, slopes=True)


def units(data: bytes) -> list[str]:
    return [step.name for step in read_network(data).steps if isinstance(step, Elementwise)]


def test_max_and_min_of_the_same_values_share_their_unit() -> None:
    def network(*pairs: tuple[str, str]) -> bytes:
        cut = [helper.make_node("Slice", ["x", n, m, "one"], [n + m]) for n, m in (("0", "2"), ("2", "4"))]
        again = [helper.make_node("Gather", ["x", "first"], ["again"], axis=1)]
        ends = [helper.make_node(op, pair, [op]) for op, pair in zip(("Max", "Min"), pairs, strict=True)]
        nodes = [*cut, *again, *ends, helper.make_node("Concat", ["Max", "Min"], ["y"], axis=1)]
        constants = {n: i(int(n)) for n in ("0", "2", "4")} | {"one": i(1), "first": i(0, 1)}
        return model(nodes, [1, 4], constants)

    for second in (("02", "24"), ("24", "02"), ("again", "24")):
        data = network(("02", "24"), second)
        assert units(data) == ["Max.relu"]
        agree(data, [1, 4])
    assert units(network(("02", "24"), ("02", "again"))) == ["Max.relu", "Min.relu"]
    assert units(READ["topk"][0]) == [f"y.{s}.relu" for s in range(6)]


def test_the_same_entries_in_another_shape_are_other_values() -> None:
    nodes = [helper.make_node("Slice", ["x", "0", "2", "one"], ["v"])]
    nodes += [helper.make_node("Reshape", ["v", shape], [shape + "v"]) for shape in ("column", "row")]
    nodes += [helper.make_node("Slice", ["x", "2", "6", "one"], ["s"]), helper.make_node("Reshape", ["s", "w"], ["sw"])]
    nodes += [helper.make_node("Max", ["columnv", "sw"], ["Max"]), helper.make_node("Min", ["rowv", "sw"], ["Min"])]
    nodes += [helper.make_node("Add", ["Max", "Min"], ["y"])]
    shapes = {"column": i(1, 2, 1), "row": i(1, 1, 2), "w": i(1, 2, 2)}
    data = model(nodes, [1, 6], {**shapes, "0": i(0), "2": i(2), "6": i(6), "one": i(1)})
    agree(data, [1, 6])
    assert units(data) == ["Max.relu", "Min.relu"]


def test_float32_executions_of_comparators_are_not_claimed() -> None:
    for name in ("max", "min", "topk"):
        with pytest.raises(CertificateRejected, match="float32: node y"):
            Bounds(read_network(READ[name][0]), Box(np.zeros(30), np.ones(30)), None, "float32")


@pytest.mark.parametrize("name", ["max", "min", "max grows", "topk", "abs", "topk smallest"])
def test_bounds_hold_for_comparators(name: str) -> None:
    data, shape = READ[name]
    network, generator = read_network(data), np.random.default_rng(0)
    low = generator.uniform(-1, 0, int(np.prod(shape)))
    bounds = Bounds(network, Box(low, low + 0.8))
    box, rows = bounds.box(network.output), np.eye(network.steps[network.output].length)
    proved = bounds.lower_bounds(network.output, np.concatenate([rows, -rows]))
    for x in generator.uniform(low, low + 0.8, size=(200, len(low))):
        y = forward(network, x)
        assert (box.lower <= y).all()
        assert (y <= box.upper).all()
        assert (proved <= np.concatenate([y, -y])).all()


@pytest.mark.parametrize("seed", range(3))
def test_pools_as_stages_have_the_same_values(seed: int) -> None:
    more = {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 1, 0, 1]}
    for data in (Random(seed, [4, 7, 3], ["pool"]).file(), one("MaxPool", [1, 2, 6, 5], **more)):
        network = read_network(data)
        inner, place, numbers = staged(network)
        assert not any(isinstance(step, MaxPool) for step in inner.steps)
        assert place[network.output] == inner.output
        for pool in (n for n, step in enumerate(network.steps) if isinstance(step, MaxPool)):
            assert all(isinstance(inner.steps[n], Elementwise) for n in numbers[pool])
            assert numbers[pool]
        for x in np.random.default_rng(seed).normal(size=(20, network.steps[0].length)):
            assert np.allclose(forward(network, x), forward(inner, x), rtol=0, atol=1e-12)


def _logistic(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _erf(x: Array) -> Array:
    from math import erf

    return np.vectorize(erf)(x)


VALUES: dict[str, tuple[Callable[[Array], Array], dict[str, Any]]] = {
    "Abs": (np.abs, {}),
    "Atan": (np.arctan, {}),
    "Celu": (lambda x: np.where(x > 0, x, 2 * np.expm1(np.minimum(x, 0) / 2)), {"alpha": 2.0}),
    "Cos": (np.cos, {}),
    "Elu": (lambda x: np.where(x > 0, x, 1.5 * np.expm1(np.minimum(x, 0))), {"alpha": 1.5}),
    "Erf": (_erf, {}),
    "Gelu": (lambda x: x * (1 + _erf(x / np.sqrt(2))) / 2, {}),
    "HardSigmoid": (lambda x: np.clip(0.3 * x + 0.6, 0, 1), {"alpha": 0.3, "beta": 0.6}),
    "HardSwish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), {}),
    "LeakyRelu": (lambda x: np.where(x > 0, x, 0.25 * x), {"alpha": 0.25}),
    "Mish": (lambda x: x * np.tanh(np.log1p(np.exp(x))), {}),
    "Selu": (lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))), {}),
    "Sin": (np.sin, {}),
    "Softplus": (lambda x: np.log1p(np.exp(x)), {}),
    "Softsign": (lambda x: x / (1 + np.abs(x)), {}),
    "Swish": (lambda x: x * _logistic(1.5 * x), {"alpha": 1.5}),
    "Tanh": (np.tanh, {}),
}


def unit(op: str, **more: Any) -> Function:
    steps = read_network(activated(op, (2, 1, 1), **more), slopes=True).steps
    (step,) = (step for step in steps if isinstance(step, Elementwise))
    return step.function


@pytest.mark.parametrize("op", VALUES)
def test_no_secant_is_steeper_than_the_slopes_everywhere(op: str) -> None:
    value, more = VALUES[op]
    check_everywhere(unit(op, **more), value)


def test_clip_without_limits_is_no_identity() -> None:
    function, largest = unit("Clip"), np.finfo(np.float32).max.astype(np.float64)
    (a,), (b,) = function.slopes(np.array([-np.inf]), np.array([np.inf]))
    assert (a, b) == (0, 1)
    (a,), (b,) = function.slopes(np.array([-1e38]), np.array([1e38]))
    assert (a, b) == (1, 1)
    (low,), (high,) = function(np.array([-3.0]), np.array([2.0])).range()
    assert -3 - 1e-12 < low <= -3
    assert 2 <= high < 2 + 1e-12
    (low,), (high,) = function(np.array([0.0]), np.array([2 * largest])).range()
    assert (low, high) == (-np.inf, np.inf)


def check_everywhere(function: Function, value: Callable[[Array], Array]) -> None:
    x = np.concatenate([np.linspace(-20, 20, 40001), np.linspace(-3, 3, 60001)])
    secants = (value(x + 1e-5) - value(x - 1e-5)) / 2e-5
    (a,), (b,) = function.slopes(np.array([-np.inf]), np.array([np.inf]))
    assert a - 1e-9 <= secants.min() < a + 3e-3
    assert b - 1e-3 < secants.max() <= b + 1e-9


def test_both_forms_of_gelu_and_gated_sigmoids() -> None:
    tanh = lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))  # noqa: E731
    check_everywhere(unit("Gelu", approximate="tanh"), tanh)
    with pytest.raises(CertificateRejected, match="approximation"):
        unit("Gelu", approximate="fast")
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["s", "x"], ["y"])]
    data = model(nodes, [1, 3], {})
    step = read_network(data, slopes=True).steps[-1]
    assert isinstance(step, Elementwise)
    assert (step.sources, step.function) == ((0,), known.SWISH)
    with pytest.raises(CertificateRejected, match="product of two values"):
        read_network(data)
    for inputs in (["s", "s"], ["s", "t"]):
        gate = [nodes[0], helper.make_node("Tanh", ["x"], ["t"]), helper.make_node("Mul", inputs, ["y"])]
        with pytest.raises(CertificateRejected, match="product of two values"):
            read_network(model(gate, [1, 3], {}), slopes=True)


LOCAL: dict[str, tuple[Function, Callable[[Array], Array]]] = {
    "relu": (RELU, lambda x: np.maximum(x, 0)),
    "abs": (known.ABS, np.abs),
    "clip": (piecewise_linear((-0.5, 0.25), (0.0, 1.0, 0.0), np.abs), lambda x: np.clip(x, -0.5, 0.25)),
    "tanh": (TANH, np.tanh),
    "sigmoid": (SIGMOID, _logistic),
}


@pytest.mark.parametrize("name", LOCAL)
def test_slopes_over_intervals_enclose_secants_and_are_sharp(name: str) -> None:
    function, value = LOCAL[name]
    generator = np.random.default_rng(0)
    low = generator.normal(size=300) * np.repeat([0.1, 1.0, 4.0], 100)
    high = low + np.abs(generator.normal(size=300))
    a, b = function.slopes(low, high)
    points = np.linspace(low, high, 200)
    secants = (value(points[1:]) - value(points[:-1])) / (points[1:] - points[:-1])
    assert (a - 1e-9 <= secants.min(axis=0)).all()
    assert (secants.max(axis=0) <= b + 1e-9).all()
    smooth = name in ("tanh", "sigmoid")
    assert (secants.min(axis=0) - a)[smooth | (a == b)].max() < 1e-2
    assert (b - secants.max(axis=0))[smooth | (a == b)].max() < 1e-2


def test_exact_ends_of_intervals_are_stable_and_points_are_not_trusted() -> None:
    ends = np.array([0.0, -1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, np.inf])
    a, b = RELU.slopes(*ends)
    assert list(zip(a, b, strict=True)) == [(1, 1), (0, 0), (0, 1), (1, 1)]
    a, b = RELU.slopes(np.array([np.nan]), np.array([1.0]))
    assert not (a <= b).any()


W = np.array([[0.2, -0.1], [0.3, 0.1]], np.float32)
LINEAR: dict[str, Any] = {"kind": "linear", "weight": "w"}
IMPLICIT: dict[str, Any] = {"kind": "implicit", "function": "tanh", "weight": "w", "input": "u", "bias": "b"}
TENSORS = {"w": W, "u": np.ones((2, 3)), "b": np.ones(2, np.float32)}


def described(layers: Any, extents: Any = (3,), name: str = "provenn-network/1") -> dict[str, Any]:
    return {"format": name, "input": list(extents), "layers": layers}


def test_a_file_of_layers_is_read_with_its_values() -> None:
    activation = {"kind": "activation", "function": "relu"}
    layers = [{"kind": "linear", "weight": "w", "bias": "b"}, activation, {"kind": "linear", "weight": "u"}]
    weights = {"w": r(4, 6), "b": r(4), "u": r(2, 4).astype(np.float64)}
    data = layers_file(described(layers, (2, 3)), weights)
    network, x = read_network(gzip.compress(data)), np.linspace(-1, 1, 6)
    assert [step.name for step in network.steps] == ["input", "layer0", "layer1", "layer2"]
    expected = weights["u"] @ np.maximum(weights["w"].astype(float) @ x + weights["b"], 0)
    assert np.allclose(forward(network, x), expected, rtol=1e-14)
    assert network.sha256 == read_network(data).sha256
    with pytest.raises(CertificateRejected, match="a file of layers"):
        Bounds(network, Box(x, x), None, "float32")


def test_an_implicit_layer_is_two_steps_and_has_no_bounds() -> None:
    network = read_network(layers_file(described([IMPLICIT]), TENSORS))
    first, affine, implicit = network.steps
    assert (first.name, first.length) == ("input", 3)
    assert isinstance(affine, Affine)
    assert isinstance(implicit, Implicit)
    assert (affine.name, affine.sources, implicit.name, implicit.sources) == ("layer0.input", (0,), "layer0", (1,))
    assert (implicit.matrix == W).all()
    assert implicit.function is TANH
    with pytest.raises(CertificateRejected, match="no interval rule"):
        Bounds(network, Box(np.zeros(3), np.ones(3))).box(2)
    with pytest.raises(CertificateRejected, match="no linear rule"):
        Bounds(network, Box(np.zeros(3), np.ones(3))).lower_bounds(2, np.eye(2))


def span(name: str, start: int, end: int, shape: Sequence[int], kind: str = "F32") -> bytes:
    """The file of one linear layer with this entry for its tensor, over 16 bytes."""
    entry = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    return layers_file(described([LINEAR], (2,)), {"w": W}, **{name: entry})


GOOD = layers_file(described([LINEAR], (2,)), {"w": W})
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "truncated": (GOOD[:-1], "out of range"),
    "longer": (GOOD + b"\0", "leave holes"),
    "truncated header": (GOOD[:60], "model"),
    "huge header": ((2**62).to_bytes(8, "little") + GOOD[8:], "not an ONNX|model"),
    "huge shape": (span("w", 0, 16, [2**40, 2**40]), "out of range"),
    "huge offsets": (span("w", 0, 2**70, [2**68]), "out of range"),
    "negative": (span("w", 0, 16, [-2, -2]), "out of range"),
    "wrong size": (span("w", 0, 16, [2, 3]), "out of range"),
    "hole": (span("w", 4, 16, [3, 1]), "leave holes"),
    "overlap": (span("v", 0, 16, [2, 2]), "overlap"),
    "type": (span("w", 0, 16, [2, 2, 2], "F16"), "out of range"),
    "integers": (span("w", 0, 16, [2, 2], "I32"), "its type"),
    "rank": (span("w", 0, 16, [4]), "its type, shape"),
    "extra key": (layers_file(described([LINEAR], (2,)), {"w": W}, w={"dtype": "F32", "shape": [2, 2]}), "keys"),
    "no metadata": (layers_file({}, {"w": W}, __metadata__={"other": "{}"}), "no provenn-network/1"),
    "metadata of numbers": (layers_file({}, {"w": W}, __metadata__={"provenn": 1}), "no provenn-network/1"),
    "metadata not an object": (layers_file({}, {"w": W}, __metadata__=[1]), "metadata"),
    "not json": (layers_file({}, {"w": W}, __metadata__={"provenn": "{"}), "not JSON"),
    "other format": (layers_file(described([LINEAR], (2,), "provenn-network/2"), {"w": W}), "no provenn-network/1"),
    "more keys": (layers_file(described([LINEAR], (2,)) | {"output": [2]}, {"w": W}), "no provenn-network/1"),
    "no layers": (layers_file(described([], (2,)), {}), "no provenn-network/1"),
    "no extents": (layers_file(described([LINEAR], ()), {"w": W}), "no provenn-network/1"),
    "real extents": (layers_file(described([LINEAR], (2.0,)), {"w": W}), "no provenn-network/1"),
    "zero extent": (layers_file(described([LINEAR], (0,)), {"w": W}), "no provenn-network/1"),
    "huge input": (layers_file(described([LINEAR], (2**13, 2**13)), {"w": W}), "too large"),
    "other width": (layers_file(described([LINEAR], (3,)), {"w": W}), "its shapes"),
    "unused": (layers_file(described([LINEAR], (2,)), {"w": W, "v": W}), "no layer uses its tensor 'v'"),
    "used twice": (layers_file(described([LINEAR, LINEAR], (2,)), {"w": W}), "absent or used twice"),
    "absent": (layers_file(described([LINEAR], (2,)), {}), "absent or used twice"),
    "nan": (layers_file(described([LINEAR], (2,)), {"w": W * np.nan}), "not finite"),
    "tiny": (layers_file(described([LINEAR], (2,)), {"w": np.full((2, 2), 1e-200)}), "numbers"),
    "unknown kind": (layers_file(described([{**LINEAR, "kind": "conv"}], (2,)), {"w": W}), "not understood"),
    "kind of a list": (layers_file(described([{**LINEAR, "kind": ["linear"]}], (2,)), {"w": W}), "not understood"),
    "layer of text": (layers_file(described(["linear"], (2,)), {"w": W}), "not understood"),
    "unknown layer key": (layers_file(described([{**LINEAR, "scale": "w"}], (2,)), {"w": W}), "not understood"),
    "missing layer key": (layers_file(described([{"kind": "linear"}], (2,)), {"w": W}), "not understood"),
    "unknown function": (layers_file(described([{**IMPLICIT, "function": "gelu"}]), TENSORS), "none of relu"),
    "bias": (layers_file(described([IMPLICIT]), TENSORS | {"b": np.ones(3)}), "its shapes"),
    "inner": (layers_file(described([IMPLICIT]), TENSORS | {"w": np.ones((2, 3))}), "its shapes"),
    "no rows": (layers_file(described([LINEAR], (2,)), {"w": np.zeros((0, 2))}), "its shapes"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_broken_files_of_layers_are_refused(name: str) -> None:
    data, reason = BAD_FILES[name]
    with pytest.raises(CertificateRejected, match=reason) as refusal:
        read_network(data)
    assert refusal.value.claim == "model"


def test_every_truncation_of_a_file_of_layers_is_refused() -> None:
    assert read_network(GOOD).output == 1
    for end in range(0, len(GOOD), 7):
        with pytest.raises(CertificateRejected):
            read_network(GOOD[:end])
    twice = json.dumps({"format": 1})[:-1] + ', "format": 2}'
    with pytest.raises(CertificateRejected, match="given twice"):
        read_network(layers_file({}, {"w": W}, __metadata__={"provenn": twice}))
