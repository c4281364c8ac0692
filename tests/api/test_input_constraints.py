"""Linear constraints over inputs, from the file to the verdict: used by the search, refused by the checker."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provenn.api.certification import Options, certify, load_model
from provenn.verifier.certificate.emit import emit
from provenn.verifier.check import CertificateRejected, read_network
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import FORMAT
from provenn.verifier.spec_reader import read_specification


def summing() -> bytes:
    """y = relu(x_0 - x_1) + relu(x_1 - x_0) / 4."""
    weight = np.array([[1, -1], [-1, 1]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weight, "a"), numpy_helper.from_array(np.array([[1], [0.25]], np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def vnnlib(limit: str, constraint: str) -> Specification:
    text = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)"
    text += "".join(f"(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(2))
    return read_specification(f"{text}(assert (>= Y_0 {limit})){constraint}".encode())


def as_json(limit: float) -> Specification:
    text = f'{{"format": "{FORMAT}", "kind": "box", "lower": [0, 0], "upper": [1, 1], '
    text += f'"constraints": {{"P": [[1, -1]], "q": [0]}}, "unsafe": [{{"C": [[1]], "d": [{limit}]}}]}}'
    return read_specification(text.encode())


ORDERED = "(assert (<= X_0 X_1))"


@pytest.mark.parametrize("method", ["ibp", "crown", "auto"])
def test_a_constraint_decides(method: str) -> None:
    """With x_0 <= x_1 the output is at most 1/4; without, 1."""
    model = load_model(summing())
    if method != "ibp":
        for specification in (vnnlib("0.5", ORDERED), as_json(0.5)):
            (item,) = certify(model, [specification], Options(method=method))
            assert (item.verdict, item.assurance, item.certificate) == ("verified", "computed", None)
            assert "linear constraints" in (item.reason or "")
    (item,) = certify(model, [vnnlib("0.5", "")], Options(method=method))
    assert item.verdict == ("falsified" if method == "auto" else "unknown")


def test_a_counterexample_satisfies_the_constraints() -> None:
    (item,) = certify(load_model(summing()), [vnnlib("0.2", ORDERED)], Options())
    assert (item.verdict, item.assurance) == ("falsified", "replayed")
    assert item.counterexample is not None
    assert item.counterexample.input[0] <= item.counterexample.input[1]


@pytest.mark.parametrize("specification", [vnnlib("0.5", ORDERED), as_json(0.5)], ids=["vnnlib", "json"])
def test_the_checker_does_not_accept_what_it_does_not_understand(specification: Specification) -> None:
    assert onnx.load_from_string(summing()).graph.node
    with pytest.raises(CertificateRejected) as caught:
        emit(read_network(summing()), specification, "crown", {})
    assert caught.value.claim == "specification"
