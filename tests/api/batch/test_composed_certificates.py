"""Proofs about a preprocessed network are in the user's units; about a difference, how far two networks are apart."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from service_kit import mlp

from provenn.api.certification import ItemResult, Options, certify, load_model
from provenn.models.difference import difference
from provenn.models.executor import OnnxExecutor
from provenn.models.preprocessing import Preprocessing, preprocessed
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.spec import Case, Clause, InputSet, Specification
from provenn.verifier.spec_json import from_cases, robustness

HOW = Preprocessing(255, (0.5, 0.25, 0.0, 0.125), (0.5, 0.25, 1.0, 2.0))
DATA = mlp([4, 8, 3])
PIXELS = np.array([200.0, 31, 128, 7])


def normalised(x: np.ndarray) -> np.ndarray:
    return (x / HOW.divide - np.array(HOW.mean)) / np.array(HOW.std)


def files(item: ItemResult) -> Mapping[str, bytes]:
    assert item.certificate is not None
    return item.certificate


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_a_radius_is_in_the_units_of_what_goes_in(norm: str) -> None:
    """A box of radius eps around x becomes one of radius eps / (divide std) around what the network itself reads."""
    whole = preprocessed(DATA, HOW)
    label = int(OnnxExecutor(whole).run(PIXELS[None].astype(np.float32)).argmax())
    asked = robustness(PIXELS, label=label, epsilon=2, outputs=3, norm=norm, clip=(0, 255))
    (item,) = certify(load_model(whole), [asked], Options("crown"))
    assert (item.verdict, item.assurance) == ("verified", "checked")
    report = check(files(item), whole, asked.text)
    assert report.margin == item.margin
    with pytest.raises(CertificateRejected):
        check(files(item), DATA, asked.text)
    if norm == "inf":
        (inner,) = certify(load_model(DATA), [_moved(label)], Options("crown"))
        assert inner.margin == pytest.approx(item.margin, rel=1e-5)


def _moved(label: int) -> Specification:
    """The same box in the units of the network within."""
    lower, upper = (normalised(np.clip(PIXELS + d, 0, 255)) for d in (-2, 2))
    rows = [[Fraction(int(k == j) - int(k == label)) for k in range(3)] for j in range(3) if j != label]
    box = InputSet(tuple(map(Fraction, lower.tolist())), tuple(map(Fraction, upper.tolist())))
    return from_cases([Case(box, tuple(Clause((tuple(row),), (Fraction(0),)) for row in rows))])


def test_a_counterexample_is_in_the_units_of_what_goes_in() -> None:
    whole = preprocessed(DATA, HOW)
    label = int(OnnxExecutor(whole).run(PIXELS[None].astype(np.float32)).argmax())
    asked = robustness(PIXELS, label=label, epsilon=255, outputs=3, clip=(0, 255))
    (item,) = certify(load_model(whole), [asked], Options())
    assert (item.verdict, item.assurance) == ("falsified", "replayed")
    assert item.counterexample is not None
    x = np.array(item.counterexample.input)
    assert (x >= 0).all()
    assert (x <= 255).all()
    inside = OnnxExecutor(DATA).run(normalised(x)[None].astype(np.float32))
    np.testing.assert_allclose(inside[0], item.counterexample.output, atol=1e-5)


def test_float32_executions_of_preprocessing_are_certified() -> None:
    whole = preprocessed(DATA, HOW)
    label = int(OnnxExecutor(whole).run(PIXELS[None].astype(np.float32)).argmax())
    asked = robustness(PIXELS, label=label, epsilon=1, outputs=3)
    (item,) = certify(load_model(whole), [asked], Options("crown", semantics="float32"))
    assert (item.verdict, item.assurance) == ("verified", "deployed")


# Differences


def within(delta: str, centre: np.ndarray, radius: float, outputs: int) -> Specification:
    """|f_i(x) - g_i(x)| < delta for every output i and every x that close to the centre."""
    lower, upper = (tuple(map(Fraction, (centre.ravel() + d).tolist())) for d in (-radius, radius))
    bound = (Fraction(delta),)
    rows = [tuple(Fraction(s * int(k == i)) for k in range(outputs)) for i in range(outputs) for s in (1, -1)]
    return from_cases([Case(InputSet(lower, upper), tuple(Clause((row,), bound) for row in rows))])


def pruned(data: bytes, share: float) -> bytes:
    """The network without that share of every weight matrix, the smallest entries."""
    model = onnx.ModelProto.FromString(data)
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor).copy()
        if weight.ndim > 1:
            weight[np.abs(weight) < np.quantile(np.abs(weight), share)] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return model.SerializeToString()


def test_two_networks_are_proved_close_and_the_certificate_says_it() -> None:
    data = difference(DATA, pruned(DATA, 0.2))
    x = np.array([0.25, 0.5, -0.25, 0.125])
    apart = float(np.abs(OnnxExecutor(data).run(x[None].astype(np.float32))).max())
    assert apart > 0
    delta = str(Fraction(round(apart * 2 * 1000) + 50, 1000))
    asked = within(delta, x, 0.01, 3)
    (item,) = certify(load_model(data), [asked], Options())
    assert (item.verdict, item.assurance) == ("verified", "checked")
    assert check(files(item), data, asked.text).margin == item.margin


def test_a_pruned_network_of_the_zoo_is_not_within_a_tiny_delta() -> None:
    original = load("digits-mlp")
    cut = pruned(original, 0.5)
    data = difference(original, cut)
    model, x = load_model(data), load_digits()[1].images[0].astype(np.float64)
    outputs = int(np.prod(model.graph.output_shape))
    (item,) = certify(model, [within("1/1000000", x, 0.01, outputs)], Options())
    assert (item.verdict, item.assurance) == ("falsified", "replayed")
    assert item.counterexample is not None
    found = np.array(item.counterexample.input, np.float32).reshape(1, *model.graph.input_shape)
    assert np.abs(found.ravel() - x.ravel()).max() <= 0.01 + 1e-6
    apart = OnnxExecutor(original).run(found) - OnnxExecutor(cut).run(found)
    assert np.abs(apart).max() > 1e-6
