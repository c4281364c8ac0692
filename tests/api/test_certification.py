"""The one path of every request: what is called verified was proved by the kernel, or says that it was not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provenn.api.certification import LoadedModel, Options, certify, load_model
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.solvers.base import Verdict
from provenn.verifier.certificate.emit import emit
from provenn.verifier.check import CertificateRejected, check, read_network
from provenn.verifier.errors import BackendError, InvalidModel, InvalidSpecification, UnsupportedOp
from provenn.verifier.spec import Case, Clause, InputSet, Specification
from provenn.verifier.spec_json import from_cases, robustness


def network(nodes: list[onnx.NodeProto], inputs: int, outputs: int, **constants: np.ndarray) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def classifier(seed: int = 0) -> bytes:
    """4-12-3, random."""
    generator = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "d"], ["y"]),
    ]
    sizes = {"a": (4, 12), "b": (12,), "c": (12, 3), "d": (3,)}
    return network(nodes, 4, 3, **{name: generator.normal(size=size) for name, size in sizes.items()})


def swallowing() -> bytes:
    """relu(x + 2^25) - 2^25: the identity in real arithmetic, 0 in float32."""
    nodes = [
        helper.make_node("Add", ["x", "big"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("Sub", ["r", "big"], ["y"]),
    ]
    return network(nodes, 1, 1, big=np.array([2.0**25]))


def above(limit: str, low: str, high: str) -> Case:
    """y <= limit is unsafe for x in [low, high]."""
    clause = Clause(((Fraction(-1),),), (-Fraction(limit),))
    return Case(InputSet((Fraction(low),), (Fraction(high),)), (clause,))


def label_of(model: LoadedModel, x: np.ndarray) -> int:
    return int(model.executor.run(x[None].astype(np.float32))[0].argmax())


def test_verified_means_that_the_kernel_has_proved_it_and_the_certificate_is_of_this_question() -> None:
    data, x = classifier(), np.array([0.3, -0.2, 0.5, 0.1], np.float32)
    model = load_model(data)
    asked = robustness(x, label=label_of(model, x), epsilon=0.001, outputs=3)
    (item,) = certify(model, [asked], Options())
    assert (item.verdict, item.assurance, item.reason) == ("verified", "checked", None)
    assert item.certificate is not None
    assert check(item.certificate, data, asked.text).margin == item.margin
    assert item.margin is not None
    assert item.margin > 0


def test_falsified_carries_an_input_of_the_set_and_what_onnxruntime_answered() -> None:
    model, x = load_model(classifier()), np.array([0.3, -0.2, 0.5, 0.1], np.float32)
    asked = robustness(x, label=label_of(model, x), epsilon=5, outputs=3)
    (item,) = certify(model, [asked], Options())
    assert (item.verdict, item.assurance, item.certificate) == ("falsified", "replayed", None)
    assert item.counterexample is not None
    found = np.array(item.counterexample.input, np.float32)
    assert asked.cases[0].inputs.contains(found)
    assert np.array_equal(model.executor.run(found[None])[0], np.float32(item.counterexample.output))
    assert np.argmax(item.counterexample.output) != label_of(model, x)


def test_all_cases_of_a_specification_must_hold() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = load_model(network(nodes, 1, 1))
    good, bad = above("0.5", "1", "2"), above("0.5", "0.25", "0.75")
    verdicts = [certify(model, [from_cases(cases)], Options())[0].verdict for cases in ([good], [good, bad])]
    assert verdicts == ["verified", "falsified"]


def test_a_network_whose_rounding_swallows_its_input_gets_no_certificate() -> None:
    model = load_model(swallowing())
    assert model.network is None
    assert "far from real arithmetic" in (model.unreadable or "")
    (item,) = certify(model, [from_cases([above("0.25", "0.5", "1")])], Options())
    assert (item.verdict, item.certificate) == ("falsified", None)
    (item,) = certify(model, [from_cases([above("0.25", "0.5", "1")])], Options(method="crown"))
    assert (item.verdict, item.certificate) == ("unknown", None)
    assert "far from real arithmetic" in (item.reason or "")


def test_integers_that_wrap_in_the_executor_are_refused() -> None:
    """46341 squared is negative in the int32 that the file declares."""
    nodes = [
        helper.make_node("Mul", ["big", "big"], ["square"]),
        helper.make_node("Cast", ["square"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "factor"], ["y"]),
    ]
    made = onnx.load_from_string(network(nodes, 1, 1))
    made.graph.initializer.append(numpy_helper.from_array(np.array([46341], np.int32), "big"))
    with pytest.raises(InvalidModel, match="does not fit 32 bits"):
        load_model(made.SerializeToString())


def test_an_empty_list_of_axes_is_refused_by_both_readers() -> None:
    """onnxruntime squeezes all axes then, the standard's own shape inference none."""
    nodes = [helper.make_node("Squeeze", ["x", "axes"], ["s"]), helper.make_node("Relu", ["s"], ["y"])]
    made = onnx.load_from_string(network(nodes, 1, 1))
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.int64), "axes"))
    with pytest.raises(UnsupportedOp, match="empty list of axes"):
        load_model(made.SerializeToString())
    with pytest.raises(CertificateRejected, match="empty list of axes"):
        read_network(made.SerializeToString())


def test_float16_networks_are_refused() -> None:
    made = onnx.load_from_string(network([helper.make_node("Relu", ["x"], ["y"])], 1, 1))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(InvalidModel, match="it must be FLOAT or DOUBLE"):
        load_model(made.SerializeToString())
    with pytest.raises(CertificateRejected, match="no tensor of floats"):
        read_network(made.SerializeToString())


def test_huge_values_are_not_confirmed_by_float64_alone() -> None:
    """y = (0 x + 2^33) - 2^33 + 4096 > 4095.5: true, but the margin is small beside what passes through the sums."""
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "big"], ["lifted"]),
        helper.make_node("Sub", ["lifted", "big"], ["back"]),
        helper.make_node("Add", ["back", "rest"], ["y"]),
    ]
    data = network(nodes, 1, 1, zero=np.zeros(1), big=np.array([2.0**33]), rest=np.array([4096.0]))
    asked = from_cases([above("4095.5", "0", "1")])
    (item,) = certify(load_model(data), [asked], Options(method="crown", certificates=False))
    assert (item.verdict, item.assurance) == ("unknown", None)
    assert "not confirmed in float64" in (item.reason or "")


def test_what_the_kernel_does_not_read_is_computed_in_float64_and_says_so() -> None:
    readable = load_model(classifier())
    model = LoadedModel(readable.graph, readable.executor, None, "an operator it does not read")
    x = np.array([0.3, -0.2, 0.5, 0.1], np.float32)
    asked = robustness(x, label=label_of(model, x), epsilon=0.001, outputs=3)
    (item,) = certify(model, [asked], Options())
    assert (item.verdict, item.assurance, item.certificate) == ("verified", "computed", None)
    assert "an operator it does not read" in (item.reason or "")
    (item,) = certify(readable, [asked], Options(certificates=False))
    assert (item.verdict, item.assurance) == ("verified", "computed")


def test_a_margin_that_is_lost_to_rounding_is_unknown_never_verified() -> None:
    """y = x > 1/2 on [1/2 + 2^-60, 1]: true, but below what float32 and its bounds can tell."""
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = load_model(network(nodes, 1, 1))
    close = from_cases([above("0.5", str(Fraction(1, 2) + Fraction(1, 2**60)), "1")])
    (item,) = certify(model, [close], Options())
    assert item.verdict == "unknown"


@pytest.mark.parametrize("method", ["auto", "ibp", "crown"])
def test_an_ended_budget_is_a_timeout(method: str) -> None:
    model, x = load_model(classifier()), np.zeros(4, np.float32)
    asked = robustness(x, label=label_of(model, x), epsilon=0.001, outputs=3)
    (item,) = certify(model, [asked], Options(method=method, seconds=0.0))
    assert (item.verdict, item.certificate, item.margin) == ("timeout", None, None)


def test_a_batch_equals_its_items_one_by_one() -> None:
    model, generator = load_model(classifier(1)), np.random.default_rng(0)
    points = generator.normal(size=(6, 4)).astype(np.float32)
    asked = [robustness(x, label=label_of(model, x), epsilon=e, outputs=3) for x in points for e in (0.01, 0.1, "1/2")]
    together = certify(model, asked, Options(method="crown"))
    for item, question in zip(together, asked, strict=True):
        (alone,) = certify(model, [question], Options(method="crown"))
        assert (item.verdict, item.certificate) == (alone.verdict, alone.certificate)


def test_certificates_are_the_same_bytes_each_time() -> None:
    model, x = load_model(classifier()), np.zeros(4, np.float32)
    assert model.network is not None
    asked = robustness(x, label=label_of(model, x), epsilon=0.001, outputs=3)
    assert emit(model.network, asked, "crown", {}) == emit(model.network, asked, "crown", {})


def test_what_does_not_fit_is_refused_before_anything_is_bounded() -> None:
    model = load_model(classifier())
    with pytest.raises(InvalidSpecification, match="3 input variables, the network has 4"):
        certify(model, [robustness(np.zeros(3), label=0, epsilon=0, outputs=3)], Options())
    with pytest.raises(InvalidSpecification, match="5 output variables, the network has 3"):
        certify(model, [robustness(np.zeros(4), label=0, epsilon=0, outputs=5)], Options())
    fits = robustness(np.zeros(4), label=0, epsilon=0, outputs=3)
    with pytest.raises(BackendError, match="unknown method"):
        certify(model, [fits], Options(method="magic"))
    with pytest.raises(BackendError, match="not available here; available: cpu"):
        certify(model, [fits], Options(device="abacus"))


def test_where_a_proof_is_too_near_auto_goes_on_to_branch_and_bound() -> None:
    """The linear programme is positive by 1e-8, which roundings cost: its proof is refused, that of parts is not."""
    data = load("digits-mlp")
    model, image = load_model(data), load_digits()[1].images[0].ravel()
    label = int(model.executor.run(image.reshape(1, *model.executor.input_shape))[0].argmax())
    rival = (label + 1) % 10
    row = tuple(Fraction((k == rival) - (k == label)) for k in range(10))
    lower, upper = (tuple(Fraction(float(v)) + Fraction(side, 20) for v in image) for side in (-1, 1))

    def asked(bound: Fraction) -> Specification:
        clause = Clause((row, (Fraction(0),) * 10), (bound, Fraction(-1)))  # 0 >= -1 says nothing
        return from_cases([Case(InputSet(lower, upper), (clause,))])

    (known,) = certify(model, [asked(Fraction(0))], Options("lp", certificates=False))
    assert known.margin is not None
    near = asked(Fraction(1, 10**8) - Fraction(known.margin))
    (refused,) = certify(model, [near], Options("lp"))
    assert refused.verdict == Verdict.UNKNOWN
    assert "not proved" in (refused.reason or "")
    (item,) = certify(model, [near], Options("auto"))
    assert (item.verdict, item.assurance, item.method) == ("verified", "checked", "branch-and-bound")
