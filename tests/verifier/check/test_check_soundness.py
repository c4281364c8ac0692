"""No proved bound is above an exact value: rational arithmetic, tolerance zero."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from check_kit import Random, forward, model, rationals, sigmoid, tanh
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from provenn.verifier.check import Network, read_network
from provenn.verifier.check.functions import RELU, SIGMOID, TANH, Function, piecewise_linear
from provenn.verifier.check.network import Affine
from provenn.verifier.check.rows import Ball, Bounds, Box

KINDS = ["relu", "leaky", "clip", "tanh", "sigmoid", "residual", "pool"]
SLACK = Fraction(1, 10**40)
"""How well the oracle itself knows tanh and sigmoid."""


def settled(bounds: Bounds, crown: bool) -> Bounds:
    """Claims every interval, by rows where `crown`."""
    for index in bounds.network.bounded.values():
        box = bounds.box(index)
        if crown:
            every = np.arange(len(box.lower))
            lower = np.fmax(box.lower, bounds.neuron_bounds(index, every, 1))
            box = Box(lower, np.fmin(box.upper, -bounds.neuron_bounds(index, every, -1)))
        bounds.accept(index, box)
    return bounds


def points(lower: np.ndarray, upper: np.ndarray, count: int, seed: int) -> list[list[Fraction]]:
    """Exact points of the box: corners, and floats between."""
    generator = np.random.default_rng(seed)
    found = [np.where(generator.random(lower.size) < 0.5, lower, upper) for _ in range(count)]
    found += [np.clip(lower + generator.random(lower.size) * (upper - lower), lower, upper) for _ in range(count)]
    return [[Fraction(float(v)) for v in x] for x in found]


nets = st.tuples(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from(KINDS)), min_size=1, max_size=3),
    st.sampled_from([1e-20, 0.01, 1.0, 30.0, 1e6]),
)
boxes = st.tuples(st.sampled_from([0.0, 1e-30, 1e-3, 0.3, 5.0, 1e8]), st.sampled_from([0.0, 1e-20, 1.0, 1e5]))


@settings(max_examples=80, deadline=None)
@given(nets, boxes, st.booleans())
def test_bounds_are_below_exact_values_of_random_networks(net, box, constant) -> None:  # type: ignore[no-untyped-def]
    seed, inputs, layers, scale = net
    widths, kinds = [inputs, *(w for w, _ in layers), 2], [k for _, k in layers]
    random = Random(seed, widths, kinds, scale)
    network = read_network(random.file())
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=inputs) * box[1]
    lower, upper = centre - box[0], centre + box[0]
    with np.errstate(all="ignore"):
        bounds = settled(Bounds(network, Box(lower, upper)), crown=not constant)
        rows = np.vstack([np.eye(2), -np.eye(2), generator.normal(size=(2, 2))])
        proved = bounds.lower_bounds(network.output, rows, constant)
    for x in points(lower, upper, 4, seed):
        y = random.exact(x)
        for row, bound in zip(rows, proved, strict=True):
            value = sum((Fraction(float(c)) * v for c, v in zip(row, y, strict=True)), Fraction(0))
            assert not np.isfinite(bound) or Fraction(float(bound)) <= value + SLACK * (1 + abs(value))


def exact_row(bounds: Bounds, row: np.ndarray) -> Fraction:
    """The bound that the same lines give in exact arithmetic."""
    network = bounds.network
    coefficients = {network.output: rationals(row)}
    total = Fraction(0)
    for i in range(network.output, 0, -1):
        if i not in coefficients:
            continue
        step, a = network.steps[i], coefficients.pop(i)
        if isinstance(step, Affine):
            dense = step.matrix if isinstance(step.matrix, np.ndarray) else step.matrix.toarray()
            total += a @ rationals(step.bias)
            pulled = a @ rationals(dense)
        else:
            line = bounds._linear(i, False)
            positive, negative = np.maximum(a, 0), np.minimum(a, 0)
            total += positive @ rationals(line.below) + negative @ rationals(line.above)
            assert line.slopes is not None
            pulled = positive * rationals(line.slopes[0]) + negative * rationals(line.slopes[1])
        ends = np.cumsum([network.steps[s].length for s in step.sources])[:-1]
        for source, part in zip(step.sources, np.split(pulled, ends), strict=True):
            coefficients[source] = coefficients[source] + part if source in coefficients else part
    first = coefficients[0]
    box = bounds.boxes[0]
    return total + np.maximum(first, 0) @ rationals(box.lower) + np.minimum(first, 0) @ rationals(box.upper)


@pytest.mark.parametrize("kinds", [["relu", "relu"], ["residual", "leaky"], ["clip", "residual"]])
@pytest.mark.parametrize("seed", range(4))
def test_rounding_error_bound_covers_the_exact_sum_and_is_small(kinds: list[str], seed: int) -> None:
    random = Random(seed, [4, 9, 7, 3], kinds)
    network = read_network(random.file())
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=4)
    bounds = settled(Bounds(network, Box(centre - 0.3, centre + 0.3)), crown=True)
    every = {step.name: generator.random(step.length) for step in network.steps if getattr(step, "function", 0) is RELU}
    for slopes in ({}, every):
        bounds.choose(slopes)
        rows = generator.normal(size=(5, 3))
        for row, proved in zip(rows, bounds.lower_bounds(network.output, rows), strict=True):
            exact = exact_row(bounds, row)
            assert Fraction(float(proved)) < exact
            assert exact - Fraction(float(proved)) < Fraction(1, 10**10)


@pytest.mark.parametrize("norm", [1, 2])
def test_a_ball_is_respected_and_helps(norm: int) -> None:
    random = Random(5, [6, 8, 2], ["relu"])
    network = read_network(random.file())
    centre, radius = np.full(6, 0.1), 0.5
    box = Box(centre - radius, centre + radius)
    plain, ball = Bounds(network, box), Bounds(network, box, Ball(centre, radius, norm))
    rows = np.vstack([np.eye(2), -np.eye(2)])
    loose = settled(plain, True).lower_bounds(network.output, rows)
    tight = settled(ball, True).lower_bounds(network.output, rows)
    assert (tight > loose).all()
    generator = np.random.default_rng(0)
    for _ in range(50):
        away = generator.normal(size=6)
        x = centre + 0.999 * radius * generator.random() ** 0.2 * away / np.linalg.norm(away, norm)
        y = random.exact([Fraction(float(v)) for v in x])
        for row, bound in zip(rows, tight, strict=True):
            assert Fraction(float(bound)) <= sum(Fraction(int(c)) * v for c, v in zip(row, y, strict=True))


def test_a_linear_map_over_a_ball_is_bounded_by_the_dual_norm() -> None:
    network = read_network(Random(1, [2, 2], []).file())
    step = network.steps[1]
    assert isinstance(step, Affine)
    for norm, dual in ((1, np.inf), (2, 2)):
        bounds = Bounds(network, Box(np.full(2, -1.0), np.full(2, 1.0)), Ball(np.zeros(2), 1.0, norm))
        proved = bounds.lower_bounds(1, np.eye(2))
        expected = step.bias - np.linalg.norm(step.matrix, dual, axis=1)
        assert (proved <= expected).all()
        assert np.allclose(proved, expected, atol=1e-12)


FUNCTIONS: dict[str, tuple[Function, object]] = {
    "relu": (RELU, lambda v: max(v, Fraction(0))),
    "leaky": (
        piecewise_linear((0.0,), (0.1, 1.0), lambda z: np.where(z > 0, z, 0.1 * z)),
        lambda v: v if v > 0 else v * Fraction(0.1),
    ),
    "clip": (
        piecewise_linear((-0.3, 0.7), (0.0, 1.0, 0.0), lambda z: np.clip(z, -0.3, 0.7)),
        lambda v: min(max(v, Fraction(-0.3)), Fraction(0.7)),
    ),
    "tanh": (TANH, tanh),
    "sigmoid": (SIGMOID, sigmoid),
}


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(list(FUNCTIONS)),
    st.floats(-100, 100),
    st.one_of(st.just(0.0), st.floats(1e-300, 1e-10), st.floats(1e-6, 50)),
    st.lists(st.floats(0, 1), min_size=3, max_size=6),
    st.floats(-5, 5),
)
def test_lines_enclose_the_function(name, lower, width, fractions, slope) -> None:  # type: ignore[no-untyped-def]
    function, exact = FUNCTIONS[name]
    low, high = np.array([lower]), np.array([lower + width])
    enclosure = function(low, high)
    below, above = enclosure.line(1), enclosure.line(-1)
    free = np.array([slope])
    lines = [
        (1, below),
        (-1, above),
        (1, (free, enclosure.intercept(free, 1))),
        (-1, (free, enclosure.intercept(free, -1))),
    ]
    reach = [Fraction(float(v[0])) for v in enclosure.range()]
    for f in [0.0, 1.0, *fractions]:
        z = Fraction(float(np.clip(lower + f * width, low[0], high[0])))
        value = exact(z)  # type: ignore[operator]
        assert reach[0] - SLACK <= value <= reach[1] + SLACK
        for sign, (a, k) in lines:
            line = Fraction(float(a[0])) * z + Fraction(float(k[0]))
            assert sign * (value - line) >= -SLACK


def test_relu_lines_are_the_known_ones() -> None:
    lower, upper = np.array([-2.0, -1.0, 1.0, -3.0]), np.array([1.0, 2.0, 3.0, -1.0])
    enclosure = RELU(lower, upper)
    slope, intercept = enclosure.line(1)
    assert slope.tolist() == [0, 1, 1, 0]
    assert np.allclose(intercept, 0, atol=1e-14)
    slope, intercept = enclosure.line(-1)
    assert np.allclose(slope, [1 / 3, 2 / 3, 1, 0])
    assert np.allclose(intercept, [2 / 3, 2 / 3, 0, 0], atol=1e-14)


def test_overflow_and_nan_prove_nothing() -> None:
    network: Network = read_network(Random(0, [2, 3, 1], ["relu"], 1e30).file())
    with np.errstate(all="ignore"):
        bounds = settled(Bounds(network, Box(np.full(2, -1e300), np.full(2, 1e300))), True)
        proved = bounds.lower_bounds(network.output, np.eye(1))
    assert not (proved > -1e300).any()


def batch_normalized(seed: int) -> tuple[bytes, list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    numbers = [generator.normal(size=5).astype(np.float32) for _ in range(3)]
    numbers.append(generator.exponential(size=5).astype(np.float32) ** 4)
    node = helper.make_node("BatchNormalization", ["x", *"abcd"], ["y"], epsilon=1e-5)
    return model([node], [1, 5], dict(zip("abcd", numbers, strict=True))), numbers


@pytest.mark.parametrize("seed", range(5))
def test_batch_normalization_is_within_the_stated_error(seed: int) -> None:
    data, (scale, bias, mean, variance) = batch_normalized(seed)
    step = read_network(data).steps[1]
    assert isinstance(step, Affine)
    for i in range(5):
        with localcontext() as context:
            context.prec = 60
            inner = Fraction(float(variance[i])) + Fraction(float(np.float32(1e-5)))
            root = Fraction((Decimal(inner.numerator) / Decimal(inner.denominator)).sqrt())
        s = Fraction(float(scale[i])) / root
        t = Fraction(float(bias[i])) - s * Fraction(float(mean[i]))
        allowed = 8 * Fraction(1, 2**53)
        assert abs(Fraction(float(step.matrix[i, i])) - s) <= allowed * abs(Fraction(float(step.matrix[i, i])))
        assert abs(Fraction(float(step.bias[i])) - t) <= allowed * Fraction(float(step.bias_size[i]))
        assert step.bias_size[i] >= abs(step.bias[i])


def convolutional(seed: int) -> bytes:
    """Conv, BatchNormalization, a residual branch with padding, pooling of both kinds, a linear layer."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return (generator.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "n"], ["e"]),
        helper.make_node("MaxPool", ["e"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["p"], ["q"]),
        helper.make_node("AveragePool", ["q"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Concat", ["a", "a"], ["k"], axis=1),
        helper.make_node("Flatten", ["k"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]
    constants = {"w": normal(3, 2, 3, 3), "b": normal(3), "w2": normal(3, 3, 3, 3), "w3": normal(6, 2), "b3": normal(2)}
    constants |= {"s": normal(3), "t": normal(3), "m": normal(3), "v": np.abs(normal(3)) + np.float32(0.1)}
    return model(nodes, [1, 2, 5, 5], constants)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_of_a_convolutional_network_hold_at_samples(seed: int, constant: bool) -> None:
    network = read_network(convolutional(seed))
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=50)
    bounds = settled(Bounds(network, Box(centre - 0.05, centre + 0.05)), crown=not constant)
    rows = np.vstack([np.eye(2), -np.eye(2)])
    proved = bounds.lower_bounds(network.output, rows, constant)
    values = [forward(network, centre + 0.05 * generator.choice([-1, 1], 50)) for _ in range(100)]
    smallest = np.min([rows @ v for v in values], axis=0)
    assert (proved <= smallest + 1e-12).all()
    assert (smallest - proved < 3).all()
