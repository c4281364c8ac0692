"""Coefficients of forms that underflow multiply symbols of any size: no certificate may profit from that."""

from __future__ import annotations

import hashlib
import json
import zlib

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.check.manifest import FORMAT, sealed

SCALES = [-140] * 8 + [127] * 6 + [104]


def vanishing() -> tuple[bytes, str, str]:
    """y = relu of x times powers of two whose product is 1, by way of 2^254 and 2^-866; the steps before each bend."""
    nodes, constants, last = [], [], "x"
    for k, exponent in enumerate([127, *SCALES]):
        if k == 1:
            nodes.append(helper.make_node("LeakyRelu", [last], ["leaky"], alpha=2.0**127))
            last = "leaky"
        sign = -1 if k in (0, len(SCALES)) else 1
        constants.append(numpy_helper.from_array(np.array([sign * 2.0**exponent], np.float32), f"w{k}"))
        nodes.append(helper.make_node("Mul", [last, f"w{k}"], [f"v{k}"]))
        last = f"v{k}"
    nodes.append(helper.make_node("Relu", [last], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    return bytes(network.SerializeToString()), "v0", last


def test_a_part_is_not_empty_because_its_coefficients_vanish() -> None:
    """At x = 1 the output is 1, and unsafe from 1/2 on."""
    model, first, second = vanishing()
    unsafe = [{"C": [["1"]], "d": ["1/2"]}]
    asked = {"format": "provenn-specification/1", "kind": "box", "lower": ["1"], "upper": ["1"], "unsafe": unsafe}
    text = json.dumps(asked).encode()
    whole, none, number = (np.zeros(0, kind) for kind in (np.int32, np.float32, np.float32))
    arrays = {"step": np.array([-1], np.int32), "neuron": whole, "threshold": none, "bounded": np.ones(1, np.uint8)}
    arrays |= {"node": np.zeros(1, np.int32), "clause": np.array([-1], np.int32)}
    chunk = zlib.compress(write_payload(arrays | {"weights": np.zeros(1, np.float32), "betas": number}))
    low = np.nextafter(np.float32(-(2.0**127)), np.float32([-np.inf, 0]))
    ends = {"l": low[:1], "u": low[1:], "l2": np.float32([0.99]), "u2": np.float32([1.01])}
    payload = write_payload(ends)
    interval = {"kind": "interval", "case": 0, "method": "interval"}
    claims = [
        {"id": 0, **interval, "node": first, "lower": "l", "upper": "u", "uses": []},
        {"id": 1, **interval, "node": second, "lower": "l2", "upper": "u2", "uses": [0]},
        {"id": 2, "kind": "tree", "case": 0, "clauses": [0], "steps": [], "uses": [0, 1]},
    ]
    claims[2]["chunks"] = [["t", hashlib.sha256(chunk).hexdigest()]]
    content = {
        "format": FORMAT,
        "semantics": "real",
        "verdict": "verified",
        "model": {"sha256_file": hashlib.sha256(model).hexdigest()},
        "specification": {"file": "s.json", "form": "json", "sha256_file": hashlib.sha256(text).hexdigest()},
        "payload": {"file": "p", "sha256": hashlib.sha256(payload).hexdigest()},
        "claims": claims,
        "produced_by": {},
        "statistics": {},
    }
    with pytest.raises(CertificateRejected, match="does not hold"):
        check({"manifest.json": sealed(content), "s.json": text, "p": payload, "t": chunk}, model)
