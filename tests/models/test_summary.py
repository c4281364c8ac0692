"""What `inspect` prints of a network."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest
from onnx_kit import mlp_model

from provenn.models.onnx_reader import read
from provenn.models.summary import summarize
from provenn.verifier.errors import InvalidModel


def test_the_summary_of_a_small_network() -> None:
    made = mlp_model()
    made.producer_name, made.producer_version = "kit", "1.2"
    data = made.SerializeToString()
    summary = summarize(data, read(data))
    assert (summary.sha256, summary.opset, summary.producer) == (hashlib.sha256(data).hexdigest(), 17, "kit 1.2")
    assert (summary.input_name, summary.input_shape) == ("x", (4,))
    assert (summary.output_name, summary.output_shape) == ("y", (3,))
    assert (summary.parameters, summary.neurons, summary.nodes) == (4 * 5 + 5 + 5 * 3 + 3, 5, 4)
    assert [(row.name, row.op, row.shape, row.parameters, row.inputs) for row in summary.layers] == [
        ("x", "Input", (4,), 0, ()),
        ("first", "Linear", (5,), 25, ("x",)),
        ("Relu_1", "Relu", (5,), 0, ("first",)),
        ("second", "Linear", (3,), 18, ("Relu_1",)),
    ]


def test_the_dictionary_is_json_as_it_stands() -> None:
    data = mlp_model().SerializeToString()
    made = summarize(data, read(data)).as_dict()
    assert json.loads(json.dumps(made)) == made
    assert (made["nodes"], made["input_shape"], made["layers"][1]["shape"]) == (4, [4], [5])


def test_the_digest_is_of_the_decompressed_file() -> None:
    data = mlp_model().SerializeToString()
    packed = gzip.compress(data)
    assert summarize(packed, read(packed)).sha256 == hashlib.sha256(data).hexdigest()


def test_what_is_not_onnx_has_no_summary() -> None:
    graph = read(mlp_model().SerializeToString())
    with pytest.raises(InvalidModel, match="not an ONNX file"):
        summarize(b"\xff\xff\xff\xff", graph)
