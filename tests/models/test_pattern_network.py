"""Restricted networks and patterns: the same on what follows, V elsewhere; exact cut-offs; files that are refused."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from provenn.models import onnx_reader
from provenn.models.activation_pattern import Cutoffs, Mined, Pattern, PatternLayer, conflicts, read_pattern, relaxed
from provenn.models.executor import OnnxExecutor
from provenn.models.pattern_network import below, constraints_of, exposed, relus, restricted
from provenn.models.specification.activation_pattern import stated
from provenn.models.specification.documents import no_files
from provenn.verifier.errors import InvalidModel, InvalidSpecification
from provenn.verifier.numbers import exact, written

WIDTHS = (3, 5, 4, 3)
ABOUT = {"format": "provenn-specification/1", "kind": "activation-pattern"}


def perceptron(seed: int) -> bytes:
    """3 - 5 - 4 - 3, ReLUs r0 and r1."""
    generator = np.random.default_rng(seed)
    nodes, stored, last = [], [], "x"
    for k, (n, m) in enumerate(pairwise(WIDTHS)):
        stored.append(numpy_helper.from_array(generator.normal(size=(m, n)).astype(np.float32), f"w{k}"))
        stored.append(numpy_helper.from_array(0.3 * generator.normal(size=m).astype(np.float32), f"b{k}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        last = f"r{k}" if k < 2 else f"z{k}"
        nodes += [helper.make_node("Relu", [f"z{k}"], [last])] if k < 2 else []
    return _file(nodes, stored, (3,), (last, 3))


def convolution() -> bytes:
    """1 x 4 x 4 -> 2 x 4 x 4, ReLU r0 -> 2."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(2, 1, 3, 3)).astype(np.float32)
    weight = generator.normal(size=(32, 2)).astype(np.float32)
    stored = [numpy_helper.from_array(kernel, "k"), numpy_helper.from_array(weight, "w")]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z0"], ["r0"]),
        helper.make_node("Flatten", ["r0"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    return _file(nodes, stored, (1, 4, 4), ("y", 2))


def _file(nodes: list, stored: list, shape: tuple[int, ...], output: tuple[str, int]) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    y = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["N", output[1]])
    graph = helper.make_graph(nodes, "net", [x], [y], stored)
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def pattern(model: bytes, layers: list[tuple[str, int, list[int], list[int]]], label: int = 0) -> Pattern:
    each = [PatternLayer(relu=name, neurons=n, active=on, inactive=off) for name, n, on, off in layers]
    return Pattern.model_validate({"model": hashlib.sha256(model).hexdigest(), "class": label, "layers": each})


states = st.lists(st.sampled_from([-1, 0, 1]), min_size=9, max_size=9)


def drawn(model: bytes, signs: list[int]) -> Pattern:
    on = [[i for i, s in enumerate(some) if s > 0] for some in (signs[:5], signs[5:])]
    off = [[i for i, s in enumerate(some) if s < 0] for some in (signs[:5], signs[5:])]
    return pattern(model, [("r0", 5, on[0], off[0]), ("r1", 4, on[1], off[1])])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), states.filter(any), st.integers(0, 2**32 - 1))
def test_the_restricted_network_is_the_network_where_the_pattern_holds(seed: int, signs: list[int], at: int) -> None:
    model = perceptron(seed)
    found = drawn(model, signs)
    made = onnx_reader.read(restricted(model, constraints_of(model, [found.layers]), Fraction(0)))
    layers = onnx_reader.read(exposed(model, relus(model)))
    x = torch.from_numpy(np.random.default_rng(at).normal(size=(64, 3)))
    y, z = made.forward(x).numpy(), layers.forward(x).numpy()
    wrong = np.maximum(-z[:, :5][:, found.layers[0].active], 0).sum(1)
    wrong += np.maximum(-z[:, 5:][:, found.layers[1].active], 0).sum(1)
    wrong += np.maximum(z[:, :5][:, found.layers[0].inactive], 0).sum(1)
    wrong += np.maximum(z[:, 5:][:, found.layers[1].inactive], 0).sum(1)
    follows = wrong == 0
    assert np.array_equal(y[:, -1] == 0, follows)
    plain = onnx_reader.read(model).forward(x).numpy()
    assert np.allclose(y[follows, :-1], plain[follows], rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 20), states.filter(any), st.sampled_from([Fraction(0), Fraction(1, 8), Fraction(3)]), st.booleans()
)
def test_what_is_broken_is_summed(seed: int, signs: list[int], margin: Fraction, both: bool) -> None:
    """V, of the first layer alone, with a margin and with neurons that should be active and inactive."""
    model = perceptron(seed)
    on = [i for i, s in enumerate(signs[:5]) if s > 0]
    off = [i for i, s in enumerate(signs[:5]) if s < 0] + (on[:1] if both else [])
    if not on + off:
        return
    constraints = constraints_of(model, [[PatternLayer(relu="r0", neurons=5, active=on, inactive=[])]])
    if off:
        other = PatternLayer(relu="r0", neurons=5, active=[], inactive=off)
        constraints = constraints_of(model, [[PatternLayer(relu="r0", neurons=5, active=on, inactive=[])], [other]])
    made = onnx_reader.read(restricted(model, constraints, margin))
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(64, 3)))
    z = onnx_reader.read(exposed(model, relus(model)[:1])).forward(x).numpy()
    wanted = np.maximum(float(margin) - z[:, on], 0).sum(1) + np.maximum(z[:, off], 0).sum(1)
    assert np.allclose(made.forward(x).numpy()[:, -1], wanted, rtol=1e-12, atol=1e-12)
    alone = onnx_reader.read(restricted(model, constraints, margin, logits=False)).forward(x).numpy()
    assert np.allclose(alone[:, 0], wanted, rtol=1e-12, atol=1e-12)


def test_executions_in_float32_see_exactly_where_the_pattern_holds() -> None:
    """V is 0, not about 0: every term is relu(z) - z or relu(z) of one and the same float z."""
    model, x = perceptron(3), np.random.default_rng(3).normal(size=(256, 3)).astype(np.float32)
    z = OnnxExecutor(exposed(model, relus(model))).run(x)
    for k in range(0, 256, 16):
        signs = np.where(z[k] > 0, 1, -1).tolist()
        made = restricted(model, constraints_of(model, [drawn(model, signs).layers]), Fraction(0))
        follows = ((z > 0) == (z[k] > 0)).all(1)
        found = OnnxExecutor(made).run(x)
        assert np.array_equal(found[:, -1] == 0, follows)
        assert np.allclose(found[follows, :-1], OnnxExecutor(model).run(x)[follows], rtol=1e-6)


def test_names_that_are_numbers_are_left_alone() -> None:
    """A ReLU whose output is called 13 or 2, as exporters call them, does not meet the names of new nodes."""
    model = onnx.load_from_string(perceptron(0))
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [{"r0": "13", "r1": "2"}.get(name, name) for name in names]
    data = model.SerializeToString()
    found = pattern(data, [("13", 5, [0], [1, 2]), ("2", 4, [3], [])])
    made = onnx_reader.read(restricted(data, constraints_of(data, [found.layers]), Fraction(1, 2)))
    assert made.output_shape == (4,)


def test_layers_of_a_convolution_are_read_flat() -> None:
    model = convolution()
    (layer,) = relus(model)
    assert (layer.name, layer.shape, layer.neurons) == ("r0", (1, 2, 4, 4), 32)
    x = np.random.default_rng(1).normal(size=(1, 1, 4, 4)).astype(np.float32)
    z = OnnxExecutor(exposed(model, [layer])).run(x)[0]
    own = pattern(model, [("r0", 32, np.flatnonzero(z > 0).tolist(), np.flatnonzero(z <= 0).tolist())])
    assert own.followed([z[None]]).all()
    y = OnnxExecutor(restricted(model, constraints_of(model, [own.layers]), Fraction(0))).run(x)[0]
    assert y[-1] == 0
    assert np.allclose(y[:-1], OnnxExecutor(model).run(x)[0], rtol=1e-5)
    assert OnnxExecutor(restricted(model, constraints_of(model, [own.layers]), Fraction(1))).run(x)[0, -1] > 0


@given(st.integers(1, 300), st.fractions(Fraction(51, 100), 1, max_denominator=100))
def test_cut_offs_are_whole_numbers(samples: int, delta: Fraction) -> None:
    cut = Cutoffs.of(delta, samples)
    for count in (cut.active - 1, cut.active, cut.inactive, cut.inactive + 1):
        assert (count >= cut.active) == (Fraction(count) >= delta * samples)
        assert (count <= cut.inactive) == (Fraction(count) <= (1 - delta) * samples)
    assert cut == Cutoffs(ceil(delta * samples), floor((1 - delta) * samples))
    assert cut.inactive < cut.active


def test_mined_from_counts_and_relaxed_again() -> None:
    z = np.array([[1.0, -1, 1], [1, -1, -1], [1, 1, 0], [1, -1, 5]], np.float32)
    mined = Mined("0" * 64, ["r"], "dataset")
    mined.add([z[:2]], np.array([2, 2]))
    mined.add([z[2:]], np.array([2, 1]))
    whole = mined.pattern(2, Fraction(1))
    (layer,) = whole.layers
    assert (layer.active, layer.inactive, layer.counts, whole.samples) == ([0], [], [3, 1, 1], 3)
    (layer,) = relaxed(whole, Fraction(2, 3)).layers
    assert (layer.active, layer.inactive) == ([0], [1, 2])
    assert read_pattern(whole.as_bytes()) == whole
    with pytest.raises(InvalidSpecification, match="no sample has class 7"):
        mined.pattern(7, Fraction(1))
    with pytest.raises(InvalidSpecification, match="above 1/2"):
        mined.pattern(2, Fraction(1, 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"delta": "0.5"}, "above 1/2"),
        ({"model": "abc"}, "model"),
        ({"extra": 1}, "extra"),
        ({"layers": []}, "layers"),
        ({"layers": [{"relu": "r0", "neurons": 5, "active": [1], "inactive": [1]}]}, "listed twice"),
        ({"layers": [{"relu": "r0", "neurons": 5, "active": [5], "inactive": []}]}, "neuron 5"),
        ({"layers": [{"relu": "r0", "neurons": 5, "active": [], "inactive": [], "counts": [1]}]}, "counts"),
    ],
)
def test_a_broken_pattern_is_refused(change: dict[str, object], said: str) -> None:
    good = json.loads(pattern(perceptron(0), [("r0", 5, [0], [1])]).as_bytes())
    with pytest.raises(InvalidSpecification, match=said):
        read_pattern(json.dumps(good | change).encode())


def test_a_document_is_refused_where_it_does_not_fit() -> None:
    model = perceptron(0)
    own = pattern(model, [("r0", 5, [0], [1])]).model_dump(by_alias=True)
    box = {"lower": "-1", "upper": "1"}
    refusals = [
        ({"pattern": own}, "input"),
        ({"pattern": own, "lower": "0", "upper": ["1", "1"]}, "2 numbers"),
        ({"pattern": own, "input": ["0"] * 3, "epsilon": "1", **box}, "give either"),
        ({"pattern": own | {"model": "0" * 64}, **box}, "mine it again"),
        ({"pattern": own | {"class": 3}, **box}, "class 3"),
        ({"pattern": own, "target": 0, **box}, "target"),
        ({"pattern": own | {"layers": [{"relu": "q", "neurons": 5, "active": [0], "inactive": []}]}, **box}, "'q'"),
        ({"pattern": own | {"layers": [{"relu": "r1", "neurons": 5, "active": [0], "inactive": []}]}, **box}, "4 neu"),
        ({"pattern": "other.json", **box}, "other.json"),
    ]
    for document, said in refusals:
        with pytest.raises(InvalidSpecification, match=said):
            stated({**ABOUT, **document}, model, no_files)
    empty = {"pattern": own | {"layers": [{"relu": "r0", "neurons": 5, "active": [], "inactive": []}]}, **box}
    with pytest.raises(InvalidSpecification, match="constrains no neuron"):
        stated({**ABOUT, **empty}, model, no_files)


def test_a_network_without_relus_has_no_patterns() -> None:
    node = helper.make_node("Tanh", ["x"], ["y"])
    with pytest.raises(InvalidModel, match="no ReLU"):
        relus(_file([node], [], (3,), ("y", 3)))


def test_two_patterns_conflict_where_one_is_active_and_one_is_not() -> None:
    model = perceptron(0)
    first, second = (pattern(model, [("r0", 5, on, off)]) for on, off in (([0, 1], [2]), ([2, 0], [1])))
    assert conflicts(first, second) == [("r0", 1), ("r0", 2)]
    assert conflicts(first, first) == []


def test_a_margin_is_rounded_down_and_said() -> None:
    """Inputs whose active neurons are at or above the margin are all within what is proved."""
    model = perceptron(0)
    (first, *_) = relus(model)
    layers = [PatternLayer(relu=first.name, neurons=first.neurons, active=[0], inactive=[])]
    margin = 1 + Fraction(1, 2**24) + Fraction(1, 2**30)
    made = onnx.load_from_string(restricted(model, constraints_of(model, [layers]), margin))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    (apart,) = [value for name, value in stored.items() if "margin" in name]
    assert apart.dtype == np.float32
    assert Fraction(float(apart.max())) == 1


def test_a_batch_that_becomes_places_is_no_batch() -> None:
    """[N, 8] as [-1, 2]: at batch 1 four places of two neurons, not two neurons."""
    stored = [numpy_helper.from_array(np.array(s), n) for n, s in (("pairs", [-1, 2]), ("all", [-1, 8]))]
    nodes = [
        helper.make_node("Reshape", ["x", "pairs"], ["z0"]),
        helper.make_node("Relu", ["z0"], ["r0"]),
        helper.make_node("Reshape", ["r0", "all"], ["y"]),
    ]
    with pytest.raises(InvalidModel, match="no batch of 1"):
        relus(_file(nodes, stored, (8,), ("y", 8)))


def test_the_only_relu_may_be_the_inputs_own() -> None:
    model = _file([helper.make_node("Relu", ["x"], ["y"])], [], (3,), ("y", 3))
    x = np.array([[1, -2, 3]], np.float32)
    assert np.array_equal(OnnxExecutor(exposed(model, relus(model))).run(x), x)
    found = pattern(model, [("y", 3, [0], [1])])
    made = OnnxExecutor(restricted(model, constraints_of(model, [found.layers]), Fraction(0)))
    assert made.run(np.vstack([x, -x])).tolist() == [[1, 0, 3, 0], [0, 0, 0, 3]]


def test_outputs_may_be_a_table() -> None:
    stored = [numpy_helper.from_array(np.array([4, 2]), "table")]
    nodes = [helper.make_node("Relu", ["x"], ["r0"]), helper.make_node("Reshape", ["r0", "table"], ["y"])]
    model = onnx.load_from_string(_file(nodes, stored, (8,), ("y", 2)))
    for value, shape in ((model.graph.input[0], (1, 8)), (model.graph.output[0], (4, 2))):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))
    data = model.SerializeToString()
    found = pattern(data, [("r0", 8, [0], [1])])
    made = OnnxExecutor(restricted(data, constraints_of(data, [found.layers]), Fraction(0)))
    assert made.run(np.arange(8, dtype=np.float32)[None]).tolist() == [[0, 0, 2, 3, 4, 5, 6, 7, 1]]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_margin_above_all_floats_is_the_largest_of_them(kind: type[np.floating]) -> None:
    for margin in (Fraction(10) ** 350, Fraction(float(np.finfo(kind).max)), 2 * Fraction(float(np.finfo(kind).max))):
        assert below(margin, np.dtype(kind)) == np.finfo(kind).max


def test_words_say_that_a_margin_is_rounded() -> None:
    """A counterexample has z >= what the margin is rounded to, which may be less than the margin."""
    model = perceptron(0)
    own, other = (pattern(model, [("r0", 5, [0], [1])], label).model_dump(by_alias=True) for label in (0, 1))
    box = {"lower": "-1", "upper": "1"}
    for margin, said in (("1e-60", " (rounded down to float32)"), ("0.05", " (rounded down to float32)"), ("0.5", "")):
        asked = {**ABOUT, "pattern": own, "margin": margin, **box}
        assert f"at least {written(exact(margin))}{said}, gets" in stated(asked, model, no_files).words
        assert stated({**asked, "excludes": other}, model, no_files).words.endswith(f"{written(exact(margin))}{said}.")


def test_patterns_that_contradict_each_other_have_to_fit_all_the_same() -> None:
    model = perceptron(0)
    first = pattern(model, [("r0", 5, [0], [])])
    layers = [("r0", 5, [], [0]), ("r9", 7, [1], [])]
    asked = {**ABOUT, "pattern": first, "excludes": pattern(model, layers, 1), "lower": "-1", "upper": "1"}
    with pytest.raises(InvalidSpecification, match="no ReLU 'r9'"):
        stated(asked, model, no_files)
