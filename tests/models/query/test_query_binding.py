"""Files that do not fit the declarations are refused, and what is said of them is exact."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from query_kit import DOUBLE, LAYER, PAIR, network, node

from provenn.models.query.binding import bind
from provenn.verifier.errors import InvalidModel, InvalidSpecification
from provenn.verifier.query.reading import read_query

F = "(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))"
G = "(declare-network g {same} (declare-input U float32 [1,2]) (declare-output V float32 [1,2]))"


def query(networks: str, asserted: str = "(>= X[0,0] 0.0)") -> object:
    return read_query(f"(vnnlib-version <2.0>){networks}(assert {asserted})".encode())


def test_symbolic_axes_take_the_declared_length_and_files_may_be_packed() -> None:
    networks = F.replace("[1,2]", "[5,2]")
    (found,) = bind(query(networks), {"f": gzip.compress(LAYER)})
    assert [(port.name, port.shape, port.elements) for port in found.ports] == [
        ("x", (5, 2), range(10)),
        ("y", (5, 2), range(10, 20)),
    ]


def test_a_hidden_tensor_may_be_named_by_its_node() -> None:
    renamed = network(
        [node("Neg", "x", "inner"), node("Relu", "inner", "y")], [("x", "f", [1, 2])], [("y", "f", [1, 2])]
    ).replace(b'\x1a\x05inner"\x03Neg', b'\x1a\x05block"\x03Neg')
    hidden = F.replace("(declare-output", '(declare-hidden H float32 [1,2] "block")(declare-output')
    (found,) = bind(query(hidden), {"f": renamed})
    assert found.hidden[0].name == "inner"


def test_equal_networks_take_one_file() -> None:
    first, second = bind(query(F + G.format(same="(equal-to f)")), {"f": LAYER})
    assert (first.twin, second.twin) == (None, 0)
    assert second.ports[0].elements == range(4, 6)


def test_an_input_with_a_default_is_an_input_where_it_is_declared() -> None:
    stored = network([node("Add", "x c", "y")], [("x", "f", [2]), ("c", "f", [2])], [("y", "f", [2])], {"c": [1, 2]})
    declared = "(declare-network f (declare-input X float32 [2]) {more} (declare-output Y float32 [2]))"
    (found,) = bind(query(declared.format(more="(declare-input C float32 [2])"), "(>= X[0] 0.0)"), {"f": stored})
    assert [port.name for port in found.inputs] == ["x", "c"]
    (found,) = bind(query(declared.format(more=""), "(>= X[0] 0.0)"), {"f": stored})
    assert [port.name for port in found.inputs] == ["x"]


HALF = network([node("Relu", "x", "y")], [("x", "h", [1, 2])], [("y", "h", [1, 2])])
DEEPER = network([node("Relu", "x", "a"), node("Neg", "a", "y")], [("x", "f", [1, 2])], [("y", "f", [1, 2])])
HIDDEN = F.replace("(declare-output", '(declare-hidden H float32 [1,3] "nowhere")(declare-output')
LONG = F.replace("(declare-output", '(declare-hidden H float32 [1,4] "a")(declare-output')

REFUSED = {
    "no file": (F, {}, "network 'f' is declared, but no model file is given for it"),
    "a file missing": (
        F + G.format(same=""),
        {"f": LAYER},
        "network 'g' is declared, but no model file is given for it",
    ),
    "a file too many": (F, {"f": LAYER, "h": LAYER}, "a model file is given for 'h', which the query does not declare"),
    "a file for an equal network": (
        F + G.format(same="(equal-to f)"),
        {"f": LAYER, "g": LAYER},
        "network 'g' is declared equal to 'f': it takes no file of its own",
    ),
    "another type": (
        F.replace("float32", "float64"),
        {"f": LAYER},
        "input 'X' of network 'f' is declared float64, but 'x' of its model holds FLOAT",
    ),
    "another type of output": (
        "(declare-network f (declare-input X float64 [3]) (declare-output Y float32 [3]))",
        {"f": DOUBLE},
        "output 'Y' of network 'f' is declared float32, but 'y' of its model holds DOUBLE",
    ),
    "an unsound type": (
        F.replace("float32", "float16"),
        {"f": HALF},
        "tensor 'X' is declared float16: no sound analysis of this element type is known here; "
        "sound: real, float32, float64, int64, int32. Declared real, its model is read as one over the real numbers",
    ),
    "real halves": (
        F.replace("float32", "real"),
        {"f": HALF},
        "input 'X' of network 'f': 'x' of its model holds FLOAT16, which is not read",
    ),
    "another shape": (
        F.replace("X float32 [1,2]", "X float32 [2]"),
        {"f": LAYER},
        "input 'X' of network 'f' is declared with shape [2], but 'x' of its model has [?, 2]",
    ),
    "another number of inputs": (
        F,
        {"f": PAIR},
        "network 'f' declares 1 inputs, its model has 2 ('p', 'q')",
    ),
    "a hidden tensor that is not there": (
        HIDDEN,
        {"f": LAYER},
        "hidden 'H' of network 'f': no node of its model computes 'nowhere'",
    ),
    "a hidden tensor of another shape": (
        LONG,
        {"f": LAYER},
        "hidden 'H' of network 'f' is declared with shape [1, 4], but 'a' of its model has [1, 3]",
    ),
    "another graph": (
        F + G.format(same="(isomorphic-to f)"),
        {"f": LAYER, "g": DEEPER},
        "network 'g' is declared isomorphic to 'f', but the graph of its model is another one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name: str) -> None:
    networks, files, message = REFUSED[name]
    asserted = "(>= Y[0] 0.0)" if "[3]" in networks else "(>= Y[0,0] 0.0)"
    asserted = asserted.replace("0.0", "1.0")
    where = "" if name == "a file too many" else "line 1: "
    with pytest.raises(InvalidSpecification, match=f"^{where}{re.escape(message)}$"):
        bind(query(networks, asserted), files)


def test_isomorphic_networks_may_have_other_weights() -> None:
    other = network(
        [node("Gemm", "x w b", "z", transB=1), node("Relu", "z", "a"), node("Gemm", "a v", "y", transB=1)],
        [("x", "f", [1, 2])],
        [("y", "f", [1, 2])],
        {"w": np.eye(2, dtype=np.float32), "b": [0, 0], "v": np.eye(2, dtype=np.float32)},
    )
    found = bind(query(F + G.format(same="(isomorphic-to f)")), {"f": LAYER, "g": other})
    assert [implementation.twin for implementation in found] == [None, None]


def test_a_file_that_is_no_model_is_named() -> None:
    with pytest.raises(InvalidModel, match="the model file of network 'f': not an ONNX file"):
        bind(query(F), {"f": b"weights"})


def test_the_old_form_counts_elements() -> None:
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (>= X_0 0.0))"
    with pytest.raises(InvalidSpecification, match="it has 1 variables X, the network has 2 inputs"):
        bind(read_query(text.encode()), {"any": LAYER})
    with pytest.raises(InvalidSpecification, match="speaks of one network, 2 model files are given"):
        bind(read_query(text.encode()), {"a": LAYER, "b": LAYER})
