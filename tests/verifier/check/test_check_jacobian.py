"""Lipschitz claims by bounds of Jacobians: lines of an unknown gain, the adjoint network, what is proved."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from check_kit import Random, forward, model
from lipschitz_kit import activated, by_jacobians, equilibrium, vectors
from onnx import helper

from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.functions import gain
from provenn.verifier.check.jacobian import Adjoint, norm, row_bounds
from provenn.verifier.check.lipschitz import Units, staged
from provenn.verifier.check.network import Affine, Elementwise
from provenn.verifier.check.rows import Bounds, Box

Array = np.ndarray


def idle() -> None:
    """Goes on."""


NUMBERS = [0.0, 1.0, -1.0, 0.3, -0.7, 1e-3, -1e150, 1e150, 1e-160, -1e-160, 5e-324, 1 / 3, 1 + 2.0**-52]


def pairs(generator: np.random.Generator) -> Array:
    """Of many intervals the ends: special numbers, equal, neighbouring, of very different sizes."""
    some = [*product(NUMBERS, NUMBERS)]
    some += [(v, np.nextafter(v, np.inf)) for v in NUMBERS]
    sizes = 10.0 ** generator.uniform(-9, 9, size=(100, 2))
    return np.sort(np.concatenate([some, sizes * generator.normal(size=(100, 2))]), axis=1)


def test_lines_of_a_gain_hold_for_every_factor_and_slope() -> None:
    """In rationals, at the corners, beyond which nothing bilinear goes, and between them."""
    generator = np.random.default_rng(0)
    ends, factors = pairs(generator), pairs(generator)[generator.permutation(len(pairs(generator)))]
    (lower, upper), (a, b) = ends.T, factors.T
    enclosure, free = gain(a, b)(lower, upper), generator.normal(size=len(a)) * np.maximum(np.abs(a), np.abs(b))
    low, high = enclosure.range()
    lines = [(sign, *enclosure.line(sign)) for sign in (1, -1)]
    lines += [(sign, free, enclosure.intercept(free, sign)) for sign in (1, -1)]
    for i in range(len(a)):
        xs, ds = ([Fraction(v[i]) for v in pair] for pair in ((lower, upper), (a, b)))
        middle = Fraction(generator.uniform())
        for x, d in product([*xs, xs[0] + middle * (xs[1] - xs[0])], [*ds, sum(ds) / 2]):
            assert low[i] == -np.inf or Fraction(low[i]) <= d * x
            assert high[i] == np.inf or d * x <= Fraction(high[i])
            for sign, slope, intercept in lines:
                if np.isfinite(slope[i]) and np.isfinite(intercept[i]):
                    assert sign * (d * x - Fraction(slope[i]) * x - Fraction(intercept[i])) >= 0
    unknown = ~np.isfinite(np.array([intercept for _, _, intercept in lines])).all(axis=0)
    assert not unknown[np.abs(ends * factors).max(axis=1) < 1e290].any()


@pytest.mark.parametrize(("factors", "ends"), [((-1.0, 2.0), (-3.0, 1.0)), ((0.0, 1.0), (-0.1, 5.0))])
def test_lines_of_a_gain_are_the_hull(factors: tuple[float, float], ends: tuple[float, float]) -> None:
    (a, b), (lower, upper) = factors, ends
    function = gain(np.array([a]), np.array([b]))
    enclosure = function(np.array([lower]), np.array([upper]))
    (slope, intercept), (over, above) = enclosure.line(1), enclosure.line(-1)
    for x, low, high in ((lower, b * lower, a * lower), (upper, a * upper, b * upper)):
        assert slope * x + intercept == pytest.approx(low, abs=1e-12)
        assert over * x + above == pytest.approx(high, abs=1e-12)
    for near, far, first, last in ((0.5, 2.0, a, b), (-2.0, -0.5, b, a)):
        enclosure = function(np.array([near]), np.array([far]))
        assert enclosure.line(1)[0] == first
        assert enclosure.line(-1)[0] == last
        assert enclosure.line(1)[1] == pytest.approx(0, abs=1e-12)


def test_gains_of_what_is_unbounded_are_unbounded() -> None:
    a, b = np.array([0.0, -1.0, 0.0]), np.array([0.0, 1.0, 1.0])
    with np.errstate(all="ignore"):
        for ends in ((-np.inf, np.inf), (np.nan, np.nan), (0.0, np.inf)):
            enclosure = gain(a, b)(*(np.full(3, end) for end in ends))
            low, high = enclosure.range()
            nothing = 1 if np.isinf(ends[1]) else 0  # 0 times any number is 0
            assert not np.isfinite(low[nothing:]).any() or ends[0] == 0
            assert not np.isfinite(high[nothing:]).any()
            assert not np.isfinite(enclosure.line(-1)[1]).any()


KINDS = {"relu": ["relu", "relu"], "leaky": ["leaky", "relu"], "residual": ["residual", "relu"]}
KINDS |= {"pool": ["pool", "leaky"], "clip": ["clip", "residual"], "tanh": ["tanh", "sigmoid"]}


def crossing() -> bytes:
    """Concatenation, a value read thrice, twice by one node, a function of a function, |.|, an output that is one."""
    generator = np.random.default_rng(5)
    shapes = {"w": (4, 5), "v": (10, 3), "u": (4, 3)}
    constants = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("Tanh", ["r"], ["t"]),
        helper.make_node("Sub", ["z", "t"], ["s"]),
        helper.make_node("Concat", ["s", "z"], ["c"], axis=1),
        helper.make_node("Abs", ["c"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["p"]),
        helper.make_node("MatMul", ["x", "u"], ["q"]),
        helper.make_node("Add", ["q", "q"], ["qq"]),
        helper.make_node("Add", ["p", "qq"], ["o"]),
        helper.make_node("LeakyRelu", ["o"], ["y"], alpha=0.5),
    ]
    return model(nodes, [1, 4], constants)


def comparing() -> bytes:
    """Convolution, overlapping max-pooling, MaxMin, a convolution again."""
    generator = np.random.default_rng(6)
    shapes = {"k": (4, 1, 3, 3), "v": (18, 3)}
    constants: dict[str, Array] = {name: generator.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    constants |= {"flat": np.array([1, -1]), "pairs": np.array([1, 2, 9]), "two": np.array([1, 1, 9])}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z"], pads=[1, 1, 1, 1], strides=[1, 2]),
        helper.make_node("MaxPool", ["z"], ["m"], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]),
        helper.make_node("Split", ["m"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("Max", ["left", "right"], ["max"]),
        helper.make_node("Min", ["left", "right"], ["min"]),
        helper.make_node("Concat", ["max", "min"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "flat"], ["f"]),
        helper.make_node("Slice", ["f", "0", "18", "one"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    constants |= {"0": np.array([0]), "18": np.array([18]), "one": np.array([1])}
    return model(nodes, [1, 1, 5, 6], constants, opset=18)


FILES = {name: Random(3, [4, 6, 6, 3], kinds).file() for name, kinds in KINDS.items()}
FILES |= {"crossing": crossing(), "comparing": comparing()}


def quotients(network: Network, lower: Array, upper: Array, scale: Array, count: int = 150) -> Array:
    """The largest |y_i - y'_i| / max |s (x - x')| of pairs in a box, near and far: [outputs].

    Values are computed in float64, with errors below 1e-13.
    """
    generator, best = np.random.default_rng(1), np.zeros(network.steps[network.output].length)
    for k in range(count):
        x = generator.uniform(lower, upper)
        step = (upper - lower) * generator.choice([-1, 1], size=len(x)) * 10.0 ** -(k % 5)
        other = np.clip(x + step, lower, upper)
        change = np.abs(forward(network, x) - forward(network, other))
        best = np.maximum(best, (change - 1e-13) / np.abs(scale * (x - other)).max())
    return best


@pytest.mark.parametrize("radius", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_no_pair_of_the_region_violates_what_is_proved(name: str, radius: float) -> None:
    network, generator = read_network(FILES[name]), np.random.default_rng(2)
    centre = generator.uniform(-1, 1, network.steps[0].length)
    scale = generator.uniform(0.5, 2, len(centre)).tolist()
    lower, upper = centre - radius, centre + radius
    files, uppers = by_jacobians(network, lower, upper, scale=tuple(scale))
    assert np.array_equal(check(files, network).uppers, uppers)
    assert (quotients(network, lower, upper, np.array(scale)) <= uppers).all()


@pytest.mark.parametrize("name", FILES)
def test_the_adjoint_network_is_the_transposed_one(name: str) -> None:
    """With fixed slopes: c J of the network whose functions are multiplications by them, forward and backward."""
    network, generator = read_network(FILES[name]), np.random.default_rng(3)
    inner, _, _ = staged(network)
    factors = {i: generator.normal(size=s.length) for i, s in enumerate(inner.steps) if isinstance(s, Elementwise)}
    values = [np.eye(inner.steps[0].length)]
    for i, step in enumerate(inner.steps[1:], 1):
        read = np.concatenate([values[source] for source in step.sources])
        values.append(step.matrix @ read if isinstance(step, Affine) else factors[i][:, None] * read)
    made = Adjoint(inner).over({i: (d, d) for i, d in factors.items()})
    row = generator.integers(-3, 4, size=inner.steps[inner.output].length)
    bounds = row_bounds(made, vectors([row])[0], "crown", idle)
    low, high = bounds.box(made.output)
    expected = np.abs(row @ values[inner.output])
    assert (low <= expected + 1e-12).all()
    assert (expected - 1e-12 <= high).all()
    assert norm([bounds], (), "inf", "each") == pytest.approx(expected.sum(), rel=1e-9)
    assert norm([bounds], (Fraction(1, 3),) * len(low), "inf", "each") == pytest.approx(3 * expected.sum(), rel=1e-9)


def test_steps_that_would_only_copy_are_left_out() -> None:
    """A value that one function alone reads has the gain itself for its derivative."""
    inner, _, _ = staged(read_network(crossing()))
    known = {
        i: (np.zeros(s.length), np.ones(s.length)) for i, s in enumerate(inner.steps) if isinstance(s, Elementwise)
    }
    made = Adjoint(inner).over(known)
    kinds = {step.name: type(step) for step in made.steps}
    assert kinds["r"] is kinds["c"] is kinds["o"] is Elementwise
    assert kinds["z"] is kinds["t"] is kinds["x"] is Affine
    assert [name for name, i in made.bounded.items() if i] == ["a", "t", "r", "x"]
    for bad in (np.nan, np.inf, -1.0):
        with pytest.raises(CertificateRejected, match="unknown slopes"):
            Adjoint(inner).over(known | {max(known): (np.zeros(3), np.full(3, bad))})


def test_what_is_linear_is_exact() -> None:
    network = read_network(Random(4, [5, 3], []).file())
    weight = np.abs(Random(4, [5, 3], []).constants["y.w"].astype(np.float64))
    _, uppers = by_jacobians(network, np.zeros(5), np.ones(5))
    assert uppers == pytest.approx(weight.sum(axis=1), rel=1e-6)
    assert (uppers >= weight.sum(axis=1)).all()
    negated = model([helper.make_node("Sub", ["c", "x"], ["y"])], [1, 2], {"c": np.ones(2, np.float32)})
    assert by_jacobians(read_network(negated), [0, 0], [1, 1], scale=(2.0, 3.0))[1] == pytest.approx(
        [1 / 2, 1 / 3], rel=1e-6
    )


def test_one_unstable_unit_is_exact() -> None:
    """3 relu(x + y) + x: the derivative is (3 d + 1, 3 d), so 7 at d = 1; minus 2 x: |3 d - 2| + 3 d, so 4."""
    constants = {"w": np.ones((2, 1), np.float32), "v": np.full((1, 1), 3, np.float32)}
    constants |= {"p": np.array([[1, -2], [0, 0]], np.float32), "o": np.ones((1, 2), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["m"]),
        helper.make_node("MatMul", ["m", "o"], ["both"]),
        helper.make_node("MatMul", ["x", "p"], ["q"]),
        helper.make_node("Add", ["both", "q"], ["y"]),
    ]
    network = read_network(model(nodes, [1, 2], constants))
    _, uppers = by_jacobians(network, [-1, -1], [1, 1])
    assert uppers == pytest.approx([7, 4], rel=1e-6)
    assert (uppers >= [7, 4]).all()
    assert by_jacobians(network, [1, 1], [2, 2])[1] == pytest.approx([7, 4], rel=1e-6)
    assert by_jacobians(network, [-2, -2], [-1, -1])[1] == pytest.approx([1, 2], rel=1e-6)


def test_small_regions_converge_to_the_jacobian() -> None:
    network, x = read_network(FILES["tanh"]), np.array([0.3, -0.2, 0.5, 0.1])
    found = np.array([by_jacobians(network, x - r, x + r)[1] for r in (1e-2, 1e-4, 1e-6)])
    columns = [(forward(network, x + h) - forward(network, x - h)) / 2e-5 for h in 1e-5 * np.eye(4)]
    exact = np.abs(columns).sum(axis=0)
    errors = np.abs(found / exact - 1).max(axis=1)
    assert errors[0] < 0.1
    assert errors[1] < 1e-3
    assert errors[2] < 1e-5


def test_first_rows_may_be_sparse() -> None:
    """As `neuron_bounds` makes them: the same bounds as of dense rows, up to rounding."""
    network = read_network(FILES["comparing"])
    with np.errstate(all="ignore"):
        bounds = Bounds(network, Box(np.zeros(30), np.ones(30)))
        for index in range(1, len(network.steps)):
            rows = np.eye(network.steps[index].length)
            each = np.arange(len(rows))
            for sign in (1, -1):
                given = bounds.neuron_bounds(index, each, sign)
                assert np.allclose(given, bounds.lower_bounds(index, sign * rows), rtol=1e-12, atol=1e-12)


def test_functions_and_layers_without_bounds_are_refused() -> None:
    gelu = read_network(activated("Gelu", (2, 3, 1)), slopes=True)
    assert by_jacobians(gelu, [0, 0], [1, 1])[1][0] > 0
    nodes = [helper.make_node("Gelu", ["x"], ["g"]), helper.make_node("Relu", ["g"], ["y"])]
    with pytest.raises(CertificateRejected, match="slopes only"):
        by_jacobians(read_network(model(nodes, [1, 2], {}, opset=24), slopes=True), [0, 0], [1, 1])
    with pytest.raises(CertificateRejected, match="implicit layers"):
        by_jacobians(read_network(equilibrium([[0.5]], [[1.0, 1.0]], [[1.0]])), [0, 0], [1, 1])


def test_the_network_is_read_once_for_all_rows() -> None:
    network = read_network(FILES["residual"])
    units = Units(network, Bounds(network, Box(np.full(4, -0.5), np.full(4, 0.5))))
    assert units.adjoint is units.adjoint
    assert "increments" not in vars(units)
