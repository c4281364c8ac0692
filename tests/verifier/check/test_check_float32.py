"""Nothing proved of float32 executions is violated by one: random orders, fused products, merged steps, onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from check_kit import box_specification, model, resealed
from float_kit import Adverse, Arithmetic, Executor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from provenn.verifier.certificate.emit import emit
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.network import Affine
from provenn.verifier.check.rows import Ball, Bounds, Box

Array = np.ndarray
LEVELS = ort.GraphOptimizationLevel
OPTIMIZED = (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_EXTENDED, LEVELS.ORT_ENABLE_ALL)
LAYERS = ["conv", "grouped", "strided", "norm", "mul", "add", "sub", "div", "relu", "leaky", "clip"]
LAYERS += ["pool", "average", "residual", "both", "concat", "transpose"]


@dataclass
class Images:
    """A random network of these layers from [1, 2, 4, 4] to two outputs."""

    generator: np.random.Generator
    scale: float
    bias: float
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 4, 4)
    name: str = "x"

    def drawn(self, *shape: int, size: float = 1.0) -> str:
        """A constant."""
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(size * self.generator.normal(size=shape), np.float32)
        return name

    def node(self, operator: str, *inputs: str, **how: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **how))
        return name

    def conv(self, source: str, channels: int, kernel: int = 1, **how: Any) -> str:
        weight = self.drawn(channels, self.shape[0] // how.get("group", 1), kernel, kernel, size=self.scale)
        bias = [self.drawn(channels, size=self.bias)] if self.generator.random() < 0.7 else []
        return self.node("Conv", source, weight, *bias, **how)

    def add(self, layer: str) -> None:
        """One layer more."""
        x, (c, h, w) = self.name, self.shape
        if layer == "conv":
            self.name, self.shape = self.conv(x, 3, 3, pads=[1, 1, 1, 1]), (3, h, w)
        elif layer == "grouped":
            self.name, self.shape = self.conv(x, 2 * c, 1, group=c), (2 * c, h, w)
        elif layer == "strided" and min(h, w) > 2:
            self.name, self.shape = self.conv(x, 2, 2, strides=[2, 2]), (2, (h - 2) // 2 + 1, (w - 2) // 2 + 1)
        elif layer == "norm":
            scale, shift, mean = self.drawn(c), self.drawn(c, size=self.bias), self.drawn(c, size=self.bias)
            variance = self.drawn(c)
            self.constants[variance] = np.abs(self.constants[variance])
            self.name = self.node("BatchNormalization", x, scale, shift, mean, variance, epsilon=1e-3)
        elif layer in ("mul", "add", "sub", "div"):
            number = self.drawn(c, 1, 1, size=self.bias if layer in ("add", "sub") else 1.0)
            self.constants[number] = self.constants[number] + np.float32(layer == "div") * 3
            self.name = self.node(layer.capitalize(), x, number)
        elif layer in ("relu", "leaky"):
            self.name = self.node("Relu", x) if layer == "relu" else self.node("LeakyRelu", x, alpha=0.3)
        elif layer == "clip":
            self.constants |= {"low": np.float32(-self.bias - 0.5), "high": np.float32(2 * self.bias + 0.7)}
            self.name = self.node("Clip", x, "low", "high")
        elif layer in ("pool", "average"):
            operator = "MaxPool" if layer == "pool" else "AveragePool"
            self.name = self.node(operator, x, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 0, 0, 1])
        elif layer == "residual":
            self.name = self.node("Add" if self.generator.random() < 0.5 else "Sub", self.conv(x, c), x)
        elif layer == "both":
            self.name = self.node("Add", self.conv(x, c), self.conv(x, c))
        elif layer == "concat":
            self.name, self.shape = self.node("Concat", self.conv(x, 1), x, axis=1), (c + 1, h, w)
        elif layer == "transpose":
            self.name, self.shape = self.node("Transpose", x, perm=[0, 1, 3, 2]), (c, w, h)

    def file(self, layers: list[str], mean: bool) -> bytes:
        """The model."""
        for layer in layers:
            self.add(layer)
        flat = self.node("Flatten", self.node("GlobalAveragePool", self.name) if mean else self.name)
        length = self.shape[0] if mean else int(np.prod(self.shape))
        weight, bias = self.drawn(2, length, size=self.scale), self.drawn(2, size=self.bias)
        how = {"alpha": 0.7, "beta": -1.3} if self.generator.random() < 0.3 else {}
        self.nodes.append(helper.make_node("Gemm", [flat, weight, bias], ["y"], transB=1, **how))
        return model(self.nodes, [1, 2, 4, 4], self.constants)


def settled(network: Network, box: Box, crown: bool, ball: Ball | None = None) -> Bounds:
    """Bounds of float32 executions with every interval claimed, by rows where `crown`."""
    bounds = Bounds(network, box, ball, "float32")
    for index in network.bounded.values():
        found = bounds.box(index)
        if crown:
            every = np.arange(len(found.lower))
            lower = np.fmax(found.lower, bounds.neuron_bounds(index, every, 1))
            found = Box(lower, np.fmin(found.upper, -bounds.neuron_bounds(index, every, -1)))
        bounds.accept(index, found)
    return bounds


def inputs(box: Box, shape: tuple[int, ...], generator: np.random.Generator, count: int) -> list[Array]:
    """Points of the box, rounded to float32: corners and others."""
    lower, upper = box
    points = [np.where(generator.random(lower.size) < 0.5, lower, upper) for _ in range(count)]
    points += [lower + generator.random(lower.size) * (upper - lower) for _ in range(count)]
    return [x.astype(np.float32).reshape(1, *shape) for x in points]


def inside(bounds: Bounds, rows: Array, proved: Array, values: dict[str, Array]) -> None:
    """No executed value lies outside its interval, no row of the outputs below its bound; tolerance zero."""
    for index, step in enumerate(bounds.network.steps):
        if step.name in values:
            value, box = np.asarray(values[step.name], np.float64).ravel(), bounds.box(index)
            assert ((box.lower <= value) & (value <= box.upper)).all(), step.name
    y = [Fraction(float(v)) for v in np.asarray(values["y"]).ravel()]
    for row, bound in zip(rows, proved, strict=True):
        value = sum((Fraction(float(c)) * v for c, v in zip(row, y, strict=True)), Fraction(0))
        assert Fraction(float(bound)) <= value


def sessions(data: bytes) -> list[ort.InferenceSession]:
    """The model at every level of optimization."""
    found = []
    for level in OPTIMIZED:
        options = ort.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        options.intra_op_num_threads = 1
        found.append(ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]))
    return found


networks = st.tuples(
    st.integers(0, 10**6),
    st.lists(st.sampled_from(LAYERS), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([0.3, 1e-6, 10.0]),
    st.sampled_from([0.0, 0.5, 300.0, 2.0**25]),
)
regions = st.tuples(st.sampled_from([0.0, 1e-30, 1e-3, 0.5, 1e4]), st.sampled_from([0.0, 1e-20, 1.0, 1e4]))


@settings(max_examples=50, deadline=None)
@given(networks, regions, st.booleans())
def test_no_execution_leaves_what_is_proved(net, region, crown) -> None:  # type: ignore[no-untyped-def]
    seed, layers, mean, scale, bias = net
    generator = np.random.default_rng(seed)
    data = Images(generator, scale, bias).file(layers, mean)
    network = read_network(data)
    centre = generator.normal(size=32) * region[1]
    box = Box(centre - region[0], centre + region[0])
    rows = np.vstack([np.eye(2), -np.eye(2), [[1, -1]]])
    try:
        with np.errstate(all="ignore"):
            bounds = settled(network, box, crown)
            proved = bounds.lower_bounds(network.output, rows, constant=not crown)
    except CertificateRejected as refusal:
        assert "overflow" in refusal.reason
        assert max(scale, bias, *region) >= 10
        return
    assert np.isfinite(proved).all()
    points = inputs(box, (2, 4, 4), generator, 1)
    for session in sessions(data):
        for x in points:
            inside(bounds, rows, proved, {"y": session.run(None, {"x": x})[0]})
    for merge in (False, True):
        for x in points:
            fused, flush, style = bool(generator.integers(2)), bool(generator.integers(2)), int(generator.integers(4))
            for arithmetic in (Arithmetic(generator, fused, flush), Adverse(generator, fused, style=style)):
                inside(bounds, rows, proved, Executor(data, merge).run(x, arithmetic))


def test_the_bound_is_nearly_reached_where_all_roundings_conspire() -> None:
    """Otherwise the tests above would pass with any bound that is large enough."""
    weight, bias = np.ones((1, 60), np.float32), np.zeros(1, np.float32)
    data = model([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], [1, 60], {"w": weight, "b": bias})
    bounds = Bounds(read_network(data), Box(np.ones(60), np.ones(60)), None, "float32")
    above = bounds.box(1).upper[0] - 60
    values = [
        Executor(data).run(np.ones((1, 60), np.float32), Adverse(np.random.default_rng(s)))["y"] for s in range(9)
    ]
    assert 0.3 * above < max(float(y.item()) for y in values) - 60 <= above


def test_what_is_accumulated_onto_a_value_rounds_that_value_again_and_again() -> None:
    """r + sum of w x, begun with r: r passes every addition, far more than the one of an Add."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["q"]), helper.make_node("Add", ["q", "r"], ["s"])]
    nodes += [helper.make_node("Add", ["s", "s"], ["y"])]
    data = model(nodes, [1, 80], {"w": np.full((80, 1), 0.01, np.float32), "r": np.array([[1000]], np.float32)})
    bounds = Bounds(read_network(data), Box(np.ones(80), np.ones(80)), None, "float32")
    box, x = bounds.box(bounds.network.output), np.ones((1, 80), np.float32)
    every = [Executor(data, True).run(x, Adverse(np.random.default_rng(s)))["y"].item() for s in range(40)]
    apart = [Executor(data).run(x, Adverse(np.random.default_rng(s)))["y"].item() for s in range(40)]
    assert max(every) - 2001.6 > 3 * (max(apart) - 2001.6)
    assert max(every) <= box.upper[0]


def cancelling(bias: float) -> bytes:
    """relu(x + bias) - bias: the identity, for x >= -bias."""
    nodes = [("Add", ["x", "b"], "z"), ("Relu", ["z"], "a"), ("Sub", ["a", "b"], "y")]
    made = [helper.make_node(operator, given, [name]) for operator, given, name in nodes]
    return model(made, [1, 1], {"b": np.array([bias], np.float32)})


ABOVE_A_QUARTER = box_specification(["1/2"], [1], [([[-1]], ["-1/4"])])
"""y > 1/4 for x in [1/2, 1]."""


def test_what_real_arithmetic_certifies_and_float32_breaks_is_refused() -> None:
    data = cancelling(2.0**25)
    report = check(emit(read_network(data), ABOVE_A_QUARTER, "crown", {}), data)
    assert (report.semantics, report.assurance) == ("real", "checked")
    assert 0.2499 < report.margin <= 0.25
    assert [s.run(None, {"x": np.array([[0.75]], np.float32)})[0].item() for s in sessions(data)] == [0.0] * 4
    with pytest.raises(CertificateRejected, match=r"margin -23\.\d* is not above 0"):
        emit(read_network(data), ABOVE_A_QUARTER, "crown", {}, semantics="float32")


def test_a_real_certificate_does_not_become_a_float32_one() -> None:
    data = cancelling(2.0**25)
    files = emit(read_network(data), ABOVE_A_QUARTER, "crown", {})
    with pytest.raises(CertificateRejected, match=r"too tight|not above"):
        check(resealed(files, lambda c: c.update(semantics="float32")), data)
    with pytest.raises(CertificateRejected, match="semantics"):
        check(resealed(files, lambda c: c.update(semantics="float16")), data)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 30), st.sampled_from([1, 3, 17]), st.floats(0.05, 0.9))
def test_no_cancelling_network_is_certified_that_an_order_breaks(seed, power, width, part) -> None:  # type: ignore[no-untyped-def]
    """Sums over large pairs that cancel: whatever is accepted holds for every execution that we can think of."""
    generator = np.random.default_rng(seed)
    big = np.float32(2.0**power * generator.uniform(1, 2, width))
    weight = np.concatenate([big, -big, [1]]).astype(np.float32)[generator.permutation(2 * width + 1)]
    nodes = [
        helper.make_node("Mul", ["x", "s"], ["m"]),
        helper.make_node("Add", ["m", "o"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    n = 2 * width + 1
    shift, scale = np.where(np.abs(weight) == 1, 0, 1), np.where(np.abs(weight) == 1, 1, 0)
    constants = {"w": weight[:, None], "o": shift.astype(np.float32), "s": scale.astype(np.float32)[None]}
    data = model(nodes, [1, n], constants)
    specification = box_specification([0.5] * n, [1] * n, [([[-1]], [str(-Fraction(part) / 2)])])
    try:
        report = check(emit(read_network(data), specification, "crown", {}, semantics="float32"), data)
    except CertificateRejected as refusal:
        assert "not above 0" in refusal.reason
        return
    assert report.assurance == "deployed"
    for x in inputs(Box(np.full(n, 0.5), np.ones(n)), (n,), generator, 3):
        outputs = [session.run(None, {"x": x})[0].item() for session in sessions(data)]
        outputs += [Executor(data, True).run(x, Arithmetic(generator, f))["y"].item() for f in (False, True)]
        outputs += [Executor(data).run(x, Adverse(generator, style=k))["y"].item() for k in range(4)]
        assert min(outputs) - part / 2 > report.margin * (1 - 1e-12) > 0


def test_large_cancellation_is_refused_and_mild_one_is_accepted() -> None:
    for power, accepted in ((4, True), (12, True), (20, False), (24, False), (30, False)):
        data = cancelling(2.0**power)
        try:
            check(emit(read_network(data), ABOVE_A_QUARTER, "crown", {}, semantics="float32"), data)
            found = True
        except CertificateRejected:
            found = False
        assert found == accepted, power


def mlp(generator: np.random.Generator) -> bytes:
    """An honest network: 20-30-30-3."""
    nodes, constants, name = [], {}, "x"
    for layer, (rows, columns) in enumerate([(30, 20), (30, 30), (3, 30)]):
        constants[f"w{layer}"] = (generator.normal(size=(rows, columns)) / np.sqrt(columns)).astype(np.float32)
        constants[f"b{layer}"] = np.array([0.1] * rows if layer < 2 else [6, 0, 0], np.float32)
        out = f"z{layer}" if layer < 2 else "y"
        nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [out], transB=1))
        nodes += [helper.make_node("Relu", [out], [f"a{layer}"])] if layer < 2 else []
        name = f"a{layer}"
    return model(nodes, [1, 20], constants)


def cnn(generator: np.random.Generator) -> bytes:
    """An honest network: convolution, normalization, pooling, a block with a shortcut, the mean."""
    images = Images(generator, 0.3, 0.2)
    return images.file(["conv", "norm", "relu", "residual", "norm", "relu", "average", "conv", "relu"], True)


@pytest.mark.parametrize("kind", [mlp, cnn])
def test_honest_networks_are_certified_and_thousands_of_orders_keep_the_margin(kind: Any) -> None:
    generator = np.random.default_rng(5)
    data = kind(generator)
    network = read_network(data)
    n, shape = network.steps[0].length, (20,) if kind is mlp else (2, 4, 4)
    centre = generator.random(n).astype(np.float32).astype(np.float64)
    middle = sessions(data)[0].run(None, {"x": centre.astype(np.float32).reshape(1, *shape)})[0].ravel()
    row, least = np.eye(len(middle))[0], Fraction(float(middle[0])) - Fraction(1, 2)
    box = Box(centre - 0.01, centre + 0.01)
    specification = box_specification(box.lower, box.upper, [([[-int(c) for c in row]], [str(-least)])])
    margins = {}
    for semantics in ("real", "float32"):
        files = emit(network, specification, "crown", {}, semantics=semantics)  # type: ignore[arg-type]
        margins[semantics] = check(files, data).margin
    assert check(files, data).assurance == "deployed"
    assert 0 < margins["real"] - margins["float32"] < 1e-3
    smallest = np.inf
    for x in inputs(box, shape, generator, 100):
        outputs = [Executor(data, merge).run(x, Arithmetic(generator, fused)) for merge, fused in ORDERS]
        smallest = min(smallest, *(float(values["y"].ravel()[0]) for values in outputs))
    assert smallest - float(least) >= margins["float32"]


ORDERS = [(merge, fused) for merge in (False, True) for fused in (False, True)] * 3


def test_a_region_is_rounded_to_float32_with_its_points() -> None:
    """1/10 is no float32: the network runs on the nearest one, which lies above it."""
    data = model([helper.make_node("Mul", ["x", "c"], ["y"])], [1, 1], {"c": np.array([1], np.float32)})
    point = Box(np.array([0.1]), np.array([0.1]))
    box = Bounds(read_network(data), point, None, "float32").boxes[0]
    assert box.lower[0] == 0.1 < box.upper[0] == float(np.float32(0.1))
    ball = Bounds(read_network(data), point, Ball(np.array([0.1]), 0.0, 2), "float32").ball
    assert ball is not None
    assert ball.radius >= float(np.float32(0.1)) - 0.1


def one(operator: str, shape: list[int], *constants: Array, kind: int = TensorProto.FLOAT, **how: Any) -> Network:
    """One node."""
    named = {f"c{i}": array for i, array in enumerate(constants)}
    return read_network(model([helper.make_node(operator, ["x", *named], ["y"], **how)], shape, named, kind=kind))


ONES = np.ones(1, np.float32)
REFUSED = {
    "tanh": (one("Tanh", [1, 1]), r"node y \(Tanh\): how far a runtime's function is"),
    "sigmoid": (one("Sigmoid", [1, 1]), r"node y \(Sigmoid\)"),
    "double": (one("Add", [1, 1], np.ones(1), kind=TensorProto.DOUBLE), "its input is not float32"),
    "double constant": (one("Add", [1, 1], np.ones(1)), r"node y \(Add\): input 1 is float64"),
    "half constant": (one("Add", [1, 1], np.ones(1, np.float16)), r"node y \(Add\): input 1 is float16"),
    "alpha": (one("Gemm", [1, 1], ONES[:, None], alpha=1e-9), "alpha or beta"),
    "variance": (one("BatchNormalization", [1, 1], ONES, ONES, ONES, 0 * ONES, epsilon=1e-20), "variance"),
    "mean": (one("BatchNormalization", [1, 1], 0 * ONES, ONES, 1e20 * ONES, ONES), "above 2\\^40"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_executions_that_are_not_described_are_refused(name: str) -> None:
    network, reason = REFUSED[name]
    box = Box(np.zeros(1), np.ones(1))
    assert np.isfinite(Bounds(network, box).lower_bounds(network.output, np.eye(1))).all()
    with pytest.raises(CertificateRejected, match=reason):
        Bounds(network, box, None, "float32")


@pytest.mark.parametrize(("weight", "upper"), [(1e30, 1e10), (1e-30, 1e35), (1e19, 1.0), (1.0, 1e39)])
def test_what_may_overflow_is_refused(weight: float, upper: float) -> None:
    network = one("Mul", [1, 1], np.array([weight], np.float32))
    with np.errstate(all="ignore"), pytest.raises(CertificateRejected, match="overflow of y cannot be excluded"):
        Bounds(network, Box(np.zeros(1), np.array([upper])), None, "float32").box(network.output)


def test_copies_are_exact_and_merged_steps_count_the_roundings_of_all() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["q"]),
        helper.make_node("BatchNormalization", ["q", "s", "s", "s", "s"], ["n"]),
        helper.make_node("Transpose", ["n"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["t", "t"], ["y"]),
    ]
    w, s = np.ones((2, 2, 2, 2), np.float32), np.ones(2, np.float32)
    network = read_network(model(nodes, [1, 2, 3, 3], {"w": w, "s": s}))
    box = Box(np.zeros(18), np.ones(18))
    bounds = Bounds(network, box, None, "float32")
    relative = {}
    for index, step in enumerate(network.steps):
        penalty = bounds.penalty(index)
        if isinstance(step, Affine):
            assert penalty is not None
            size = step.magnitude @ np.concatenate([bounds.box(i).largest for i in step.sources]) + step.bias_size
            relative[step.name.split(" ")[0]] = float((penalty / size).max()) * 2**24
    assert relative.keys() == {"q", "n", "y"} or relative.keys() == {"q", "n", "t", "y"}
    merged = 8 + 3 + 8
    assert all(merged < relative[name] < 2 * merged + 4 for name in ("q", "n"))
    assert 2 * merged < relative["y"] < 2 * merged + 4
    assert all(Bounds(network, box).penalty(i) is None for i in range(len(network.steps)))
