"""Lipschitz claims: exact where the constant is known, never below what points show, right near the boundary."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from check_kit import Random, forward, model
from lipschitz_kit import Program, activated, bundle, equilibrium, layers_file, least, statement, unit_rows, vectors
from onnx import helper

from provenn.verifier.check import CertificateRejected, check, read_network
from provenn.verifier.check.lipschitz import Units, metric
from provenn.verifier.check.network import Affine, Implicit
from provenn.verifier.check.psd import proved_positive
from provenn.verifier.check.quadratic import Increments
from provenn.verifier.check.rows import Bounds, Box

Array = np.ndarray


def linear(matrix: Any) -> bytes:
    w = np.asarray(matrix, np.float32)
    return model([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], [1, w.shape[1]], {"w": w})


def maxmin(width: int) -> bytes:
    """(max, min) of consecutive pairs, one after the other."""
    nodes = [
        helper.make_node("Reshape", ["x", "pairs"], ["p"]),
        helper.make_node("Split", ["p"], ["a", "b"], axis=2, num_outputs=2),
        helper.make_node("Max", ["a", "b"], ["high"]),
        helper.make_node("Min", ["a", "b"], ["low"]),
        helper.make_node("Concat", ["high", "low"], ["c"], axis=2),
        helper.make_node("Reshape", ["c", "flat"], ["y"]),
    ]
    constants = {"pairs": np.array([1, width // 2, 2]), "flat": np.array([1, width])}
    return model(nodes, [1, width], constants, opset=18)


def ranks(width: int, group: int, **attributes: int) -> bytes:
    nodes = [
        helper.make_node("Reshape", ["x", "groups"], ["g"]),
        helper.make_node("TopK", ["g", "k"], ["v", ""], axis=2, **attributes),
        helper.make_node("Reshape", ["v", "flat"], ["y"]),
    ]
    constants = {"groups": np.array([1, width // group, group]), "k": np.array([group]), "flat": np.array([1, width])}
    return model(nodes, [1, width], constants)


def householder() -> bytes:
    """x - 2 v relu(v' x), |v| = 1."""
    v = np.full((4, 1), 0.5, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("MatMul", ["r", "u"], ["back"]),
        helper.make_node("Sub", ["x", "back"], ["y"]),
    ]
    return model(nodes, [1, 4], {"v": v, "u": 2 * v.T})


PERMUTED = np.eye(4)[[2, 0, 3, 1]] * np.array([1, -1, 1, -1])
KNOWN: dict[str, tuple[bytes, float]] = {
    "diagonal": (linear(np.diag([0.5, -3.0, 2.0])), 3.0),
    "orthogonal": (linear(PERMUTED), 1.0),
    "thin": (linear([[3.0], [4.0]]), 5.0),
    "maxmin": (maxmin(4), 1.0),
    "groupsort": (ranks(8, 4), 1.0),
    "rising": (ranks(5, 5, largest=0), 1.0),
    "householder": (householder(), 1.0),
    "abs": (model([helper.make_node("Abs", ["x"], ["y"])], [1, 3], {}), 1.0),
    "steep": (model([helper.make_node("LeakyRelu", ["x"], ["y"], alpha=-2.5)], [1, 3], {}), 2.5),
    "pool": (model([helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3], strides=[3])], [1, 1, 6], {}), 1.0),
    "sigmoid": (model([helper.make_node("Sigmoid", ["x"], ["y"])], [1, 2], {}), 0.25),
    "equilibrium": (equilibrium([[0.5]], [[3.0]], [[1.0]]), 6.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_constants_are_proved_slightly_above_and_refused_slightly_below(name: str) -> None:
    data, exact = KNOWN[name]
    network = read_network(data)
    units, rows = Units(network), unit_rows(network.steps[network.output].length)
    program = Program(units, rows)
    t, _ = program.solve()
    multipliers = program.multipliers(t)
    above, below = exact * (1 + 1e-5), exact * (1 - 1e-13)
    files = bundle(network, statement(rows, [above.hex()]), [claim(rows, above, multipliers)])
    report = check(files, network)
    assert report.uppers == (above,)
    assert (report.margin, report.margins, report.assurance) == (0.0, (), "checked")
    for factor in (1.0, 1.0 + 1e-3, 0.9):
        changed = {step: factor * values for step, values in multipliers.items()}
        assert not units.quadratic(vectors(rows), changed).proves(metric(Fraction(below), (), network.steps[0].length))
        files = bundle(network, statement(rows, [below.hex()]), [claim(rows, below, changed)])
        with pytest.raises(CertificateRejected, match="is not proved"):
            check(files, network)


def claim(rows: Any, upper: float, multipliers: Any, **more: Any) -> dict[str, Any]:
    return {"rows": list(range(len(rows))), "upper": upper, "multipliers": multipliers, **more}


def test_sorting_needs_multipliers_near_one_only() -> None:
    """Each comparator keeps the norm with t = 1, where M is singular."""
    for data in (maxmin(8), ranks(10, 5)):
        units = Units(read_network(data))
        growing = enumerate(reversed(units.lengths.items()))
        ones = {name: np.full(length, 1 + 1e-10 * 4.0**k) for k, (name, length) in growing}
        assert least(units, unit_rows(units.network.steps[0].length), ones, 1.0) <= 1 + 1e-6


@pytest.mark.parametrize("name", ["relu", "leaky", "clip", "tanh", "sigmoid", "residual", "pool"])
def test_what_is_proved_is_never_below_exact_slopes(name: str) -> None:
    """Zero tolerance: outputs at rational points, squared distances compared exactly."""
    for seed in range(3):
        random = Random(seed, [3, 5, 4, 2], [name, "relu"])
        network, generator = read_network(random.file()), np.random.default_rng(seed)
        units, rows = Units(network), unit_rows(2)
        program = Program(units, rows)
        t, rho = program.solve()
        noise = np.exp(generator.normal(size=(3, len(t))) * np.array([[0.01], [0.1], [0.5]]))
        proved = [least(units, rows, program.multipliers(t), np.sqrt(rho))]
        for some in noise * t:
            if np.isfinite(program.rho(some)):
                proved.append(least(units, rows, program.multipliers(some), np.sqrt(program.rho(some))))
        upper = Fraction(min(proved))
        for scale in (1.0, 0.1, 1e-3):
            for _ in range(4):
                x = [Fraction(float(v)) for v in generator.normal(size=3)]
                y = [a + Fraction(float(v)) for a, v in zip(x, scale * generator.normal(size=3), strict=True)]
                moved = sum((a - b) ** 2 for a, b in zip(random.exact(x), random.exact(y), strict=True))
                given = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
                assert moved <= upper**2 * given * (1 + Fraction(name in ("tanh", "sigmoid")) / 10**20)


@pytest.mark.parametrize("name", ["relu", "leaky", "abs", "maxmin"])
def test_what_is_proved_is_never_below_jacobians(name: str) -> None:
    generator = np.random.default_rng(5)
    W = [generator.normal(size=shape).astype(np.float32) for shape in ((6, 4), (6, 6), (3, 6))]
    if name == "maxmin":
        half = [helper.make_node("Slice", ["z", i, j, "one"], [n]) for n, i, j in (("a", "o", "t"), ("b", "t", "s"))]
        pair = [helper.make_node(op, ["a", "b"], [op]) for op in ("Max", "Min")]
        middle = [*half, *pair, helper.make_node("Concat", ["Max", "Min"], ["h"], axis=1)]
    else:
        op, more = {"relu": ("Relu", {}), "leaky": ("LeakyRelu", {"alpha": 0.3}), "abs": ("Abs", {})}[name]
        middle = [helper.make_node(op, ["z"], ["h"], **more)]
    nodes = [helper.make_node("Gemm", ["x", "w0"], ["z"], transB=1), *middle]
    nodes += [helper.make_node("Gemm", ["h", "w1"], ["z1"], transB=1), helper.make_node("Relu", ["z1"], ["h1"])]
    nodes += [helper.make_node("Gemm", ["h1", "w2"], ["y"], transB=1)]
    constants = {f"w{i}": w for i, w in enumerate(W)} | {"o": np.array([0]), "t": np.array([3]), "s": np.array([6])}
    network = read_network(model(nodes, [1, 4], constants | {"one": np.array([1])}))
    units, program = Units(network), Program(Units(network), unit_rows(3))
    t, rho = program.solve()
    upper = least(units, unit_rows(3), program.multipliers(t), np.sqrt(rho))
    assert upper < np.prod([np.linalg.norm(w, 2) for w in W])
    for x in generator.normal(size=(300, 4)):
        step = 1e-6
        columns = [(forward(network, x + step * e) - forward(network, x - step * e)) / (2 * step) for e in np.eye(4)]
        assert np.linalg.norm(columns, 2) <= upper * (1 + 1e-7)  # differences err by 1e-9 or so, kinks do no harm


def increments(units: Units, dx: Array, w: dict[int, Array]) -> tuple[dict[int, Array], dict[int, Array]]:
    """Every step's increment, and the arguments' of nonlinear steps, when units have the increments w."""
    values, arguments = {0: dx}, dict[int, Array]()
    for n, step in enumerate(units.network.steps[1:], 1):
        inputs = np.concatenate([values[source] for source in step.sources])
        if isinstance(step, Affine):
            values[n] = step.matrix @ inputs
            continue
        a, b = units.increments.slopes[n]
        values[n] = a * inputs
        values[n][a < b] = w.get(n, np.zeros(0))
        arguments[n] = inputs + step.matrix @ values[n] if isinstance(step, Implicit) else inputs
    return values, arguments


FORMS: dict[str, bytes] = {
    **{kind: Random(3, [3, 6, 5, 2], [kind, "relu"]).file() for kind in ("leaky", "tanh", "residual", "pool", "clip")},
    "groupsort": ranks(6, 3),
    "maxmin": maxmin(6),
    "gelu": activated("Gelu", (3, 4, 2)),
    "equilibrium": equilibrium([[0.5, -0.2], [0.1, -0.3]], [[3.0, 1.0], [0.5, 0.2]], [[1.0, -1.0]], "sigmoid"),
}


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_the_matrix_is_that_of_the_form(name: str, local: bool) -> None:
    """At random dx and w, by propagation; and no number of it is above the magnitudes that carry its error."""
    network, generator = read_network(FORMS[name], slopes=True), np.random.default_rng(0)
    if local and name in ("gelu", "equilibrium"):
        pytest.skip("it has no bounds over a region")
    low = generator.uniform(-1, 0.5, network.steps[0].length)
    bounds = Bounds(network, Box(low, low + 0.5)) if local else None
    units = Units(network, bounds)
    layers, place = units.increments.layers, units.increments.place
    rows = generator.integers(-3, 4, size=(2, network.steps[network.output].length))
    t = {step: generator.uniform(0.1, 2, length) for step, length in units.lengths.items()}
    quadratic, D = units.quadratic(vectors(rows), t), generator.uniform(0.1, 2, len(low))
    M = np.tril(quadratic.base) + np.tril(quadratic.base, -1).T
    M[range(len(low)), range(len(low))] += D
    for z in generator.normal(size=(20, len(M))):
        w = {n: z[place[n]] for n in layers}
        values, arguments = increments(units, z[place[0]], w)
        form = D @ z[place[0]] ** 2 - ((rows @ values[units.network.output]) ** 2).sum()
        for n, layer in layers.items():
            v = arguments[n][layer.units]
            form -= 2 * (quadratic.multipliers[n] * (w[n] - layer.a * v) * (layer.b * v - w[n])).sum()
        assert abs(z @ M @ z - form) <= 1e-12 * (np.abs(z) @ np.abs(M) @ np.abs(z))
    for column in range(len(M)):
        z = np.full(len(M), 1e-200)
        z[column] = 1.0
        assert (np.abs(M[:, column]) <= quadratic._magnitude(D, z) * (1 + 1e-12)).all()


@pytest.mark.parametrize("seed", range(4))
def test_near_the_boundary_nothing_is_proved_that_is_not_so_exactly(seed: int) -> None:
    """M in exact arithmetic, by its own formula for chains of ReLUs."""
    random = Random(seed, [2, 3, 3, 2], ["relu", "relu"])
    units, rows = Units(read_network(random.file())), unit_rows(2)
    program = Program(units, rows)
    t, rho = program.solve()
    W = [np.array([[Fraction(float(v)) for v in row] for row in random.constants[f"{n}.w"]]) for n in ("z0", "z1", "y")]
    multipliers = program.multipliers(t)
    T = [[Fraction(float(v)) for v in values] for values in multipliers.values()]
    quadratic, decided = units.quadratic(vectors(rows), multipliers), set()
    for exponent in np.linspace(-16, -10, 25):
        for sign in (-1, 1):
            upper = Fraction(np.sqrt(rho) * (1 + sign * 10.0**exponent))
            proved = quadratic.proves(metric(upper, (), 2))
            decided.add(proved)
            assert not proved or positive(chain(W, T, upper))
    assert decided == {True, False}


def chain(weights: list[Array], multipliers: list[list[Fraction]], upper: Fraction) -> Array:
    W, T = weights, multipliers
    ends = np.cumsum([0, W[0].shape[1], *(len(t) for t in T)])
    M = np.full((ends[-1], ends[-1]), Fraction(0))
    M[range(ends[1]), range(ends[1])] = upper**2
    for k, t in enumerate(T):
        own, before = slice(ends[k + 1], ends[k + 2]), slice(ends[k], ends[k + 1])
        M[range(ends[k + 1], ends[k + 2]), range(ends[k + 1], ends[k + 2])] += np.array([2 * v for v in t])
        M[own, before] -= np.array(t)[:, None] * W[k]
        M[before, own] -= (np.array(t)[:, None] * W[k]).T
    M[own, own] -= W[-1].T @ W[-1]
    return M


def positive(matrix: Array) -> bool:
    """Whether a symmetric matrix of rationals is positive definite, by elimination."""
    M = matrix.copy()
    for k in range(len(M)):
        if M[k, k] <= 0:
            return False
        M[k + 1 :, k + 1 :] -= np.outer(M[k + 1 :, k], M[k, k + 1 :]) / M[k, k]
    return True


def test_positive_matrices_are_not_mistaken() -> None:
    """Integer matrices of low rank plus or minus a little: exact elimination decides."""
    generator, decided = np.random.default_rng(1), {True: 0, False: 0}
    for _ in range(60):
        n = int(generator.integers(2, 9))
        factor = generator.integers(-3, 4, size=(n, n - 1))
        matrix = (factor @ factor.T).astype(np.float64) * 2.0 ** generator.integers(-40, 40)
        for shift in 10.0 ** generator.uniform(-17, -9, size=4) * generator.choice([-1, 1], size=4):
            moved = matrix + np.diag(np.full(n, shift * np.abs(matrix).max()))
            proved = bool((np.diag(moved) > 0).all()) and proved_positive(moved.copy(), lambda z: 0 * z)
            exact = positive(np.array([[Fraction(v) for v in row] for row in moved.tolist()]))
            assert exact or not proved
            decided[proved] += 1
    assert min(decided.values()) > 20


def test_singular_matrices_are_not_positive_whatever_cholesky_says() -> None:
    """Nor matrices that are positive by less than what rounding may hide in the worst case, 2 (n + 4) u and more."""
    generator, through = np.random.default_rng(2), 0
    for _ in range(20):
        factor = generator.integers(-9, 10, size=(100, 99))
        matrix = (factor @ factor.T).astype(np.float64)
        lifted = np.diag(np.full(100, matrix.max()))
        decided = [proved_positive(matrix + lifted * share, lambda z: 0 * z) for share in (0.0, 1e-14, 1e-9)]
        assert decided == [False, False, True]
        try:
            through += bool(np.isfinite(np.linalg.cholesky(matrix)).all())
        except np.linalg.LinAlgError:
            continue
    assert through > 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_matrices_that_are_not_finite_are_not_positive(value: float) -> None:
    for place in ((0, 0), (2, 1), (2, 2)):
        matrix = np.eye(3)
        matrix[place] = value
        assert not proved_positive(matrix, lambda z: 0 * z)
    assert not proved_positive(np.eye(3), lambda z: z * value)


def test_the_error_of_the_matrix_counts() -> None:
    assert proved_positive(np.eye(4), lambda z: 0.2 * z)
    assert not proved_positive(np.eye(4), lambda z: 0.3 * np.full(4, z.sum()))
    assert not proved_positive(np.eye(4), lambda z: 1.0 * z)


@pytest.mark.parametrize("op", ["Elu", "Softplus", "Gelu", "Mish", "HardSwish", "Swish", "Softsign", "Erf", "Sin"])
def test_functions_of_which_slopes_are_known(op: str) -> None:
    data = activated(op, (3, 4, 2))
    with pytest.raises(CertificateRejected, match=f"operator  {op} is not read by the checker .but in Lipschitz"):
        read_network(data)
    network = read_network(data, slopes=True)
    units = Units(network)
    program = Program(units, unit_rows(2))
    t, rho = program.solve()
    upper = least(units, unit_rows(2), program.multipliers(t), np.sqrt(rho))
    files = bundle(network, statement(unit_rows(2), [upper.hex()]), [claim([0, 1], upper, program.multipliers(t))])
    assert check(files, data).uppers == (upper,)
    with pytest.raises(CertificateRejected, match="slopes only"):
        Bounds(network, Box(np.zeros(3), np.ones(3))).box(network.output)


def test_an_equilibrium_that_is_not_well_posed_is_never_proved() -> None:
    """z = relu(1.5 z + x) has no unique solution, whatever the multiplier and the number."""
    units = Units(read_network(equilibrium([[1.5]], [[1.0]], [[1.0]])))
    for t in 10.0 ** np.arange(-6, 7, 2.0):
        assert not units.quadratic(vectors([[1]]), {"layer0": np.array([t])}).proves(np.array([1e12]))


def test_equilibria_are_proved_behind_and_before_other_layers() -> None:
    """Jacobians of the fixed point, by implicit differentiation, lie below what is proved."""
    generator = np.random.default_rng(3)
    A, U, C, P = (generator.normal(size=s).astype(np.float32) for s in ((4, 4), (4, 3), (2, 4), (3, 3)))
    W = (-0.2 * np.eye(4) - 0.3 * A.T @ A).astype(np.float32)
    layers = [{"kind": "linear", "weight": "P"}, {"kind": "activation", "function": "tanh"}]
    layers += [{"kind": "implicit", "function": "relu", "weight": "W", "input": "U"}, {"kind": "linear", "weight": "C"}]
    content = {"format": "provenn-network/1", "input": [3], "layers": layers}
    network = read_network(layers_file(content, {"W": W, "U": U, "C": C, "P": P}))
    assert [step.name for step in network.steps] == ["input", "layer0", "layer1", "layer2.input", "layer2", "layer3"]
    units = Units(network)
    program = Program(units, unit_rows(2))
    t, rho = program.solve()
    upper = least(units, unit_rows(2), program.multipliers(t), np.sqrt(rho))
    for _ in range(50):
        on, slope = np.diag(generator.integers(0, 2, 4).astype(float)), np.diag(generator.uniform(0, 1, 3))
        J = C @ np.linalg.solve(np.eye(4) - on @ W, on @ U) @ slope @ P
        assert np.linalg.norm(J, 2) <= upper
    files = bundle(network, statement(unit_rows(2), [upper.hex()]), [claim([0, 1], upper, program.multipliers(t))])
    assert check(files, network).uppers == (upper,)
    with pytest.raises(CertificateRejected, match=r"no bounds over a region|no interval rule"):
        bundle_region = statement(unit_rows(2), [upper.hex()], region={"lower": [-1] * 3, "upper": [1] * 3})
        check(bundle(network, bundle_region, [claim([0, 1], upper, program.multipliers(t))]), network)


def test_too_many_units_and_unknown_slopes_are_refused() -> None:
    network = read_network(Random(0, [2, 3, 2], ["relu"]).file())
    for bad in (np.nan, np.inf):
        with pytest.raises(CertificateRejected, match="slopes of a neuron"):
            Increments(network, {2: (np.zeros(3), np.full(3, bad))})
    wide = model([helper.make_node("Relu", ["x"], ["y"])], [1, 12001], {})
    units = Units(read_network(wide))
    with pytest.raises(CertificateRejected, match="12002 units: at most 12000"):
        units.quadratic(vectors([[1] + 12000 * [0]]), {"y": np.ones(12001)})
