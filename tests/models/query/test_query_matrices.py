"""With matrices, the kernel's network of a small model holds what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from query_kit import network, node, run

from provenn.models.query.matrices import COPYING, with_matrices
from provenn.verifier.check import read_network
from provenn.verifier.check.rows import Bounds, Box

WHOLE = {
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    "picked": np.array([1, 0, 1], np.int64),
    "cut": np.array([1, 2], np.int64),
    "size": np.array([2, 2, 3], np.int64),
    "pads": np.array([0, 1, 1, 0], np.int64),
    "times": np.array([1, 2], np.int64),
    "more": np.array([[5.0, 6.0, 7.0]], np.float32),
}

NODES = {
    "Concat": [node("Concat", "x more", "y", axis=0)],
    "Expand": [node("Expand", "x size", "y")],
    "Gather": [node("Gather", "x picked", "y", axis=1)],
    "Identity": [node("Identity", "x", "y")],
    "Neg": [node("Neg", "x", "y")],
    "Pad": [node("Pad", "x pads", "y")],
    "ReduceSum": [node("ReduceSum", "x one", "y", keepdims=0)],
    "Slice": [node("Slice", "x one two one", "y")],
    "Split": [node("Split", "x cut", "a b", axis=1), node("Concat", "b a b", "y", axis=1)],
    "Squeeze": [node("Slice", "x one two one", "a"), node("Neg", "a", "b"), node("Unsqueeze", "b one", "c"),
                node("Squeeze", "c one", "y")],
    "Tile": [node("Tile", "x times", "y")],
    "Transpose": [node("Transpose", "x", "y", perm=[1, 0])],
    "Unsqueeze": [node("Unsqueeze", "x one", "y")],
    "constants": [node("Shape", "x", "s"), node("Cast", "s", "f", to=TensorProto.FLOAT), node("Gather", "f two0", "g"),
                  node("Mul", "x g", "y")],
    "casts": [node("Cast", "x", "d", to=TensorProto.DOUBLE), node("Neg", "d", "e"),
              node("Cast", "e", "y", to=TensorProto.FLOAT)],
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_the_kernel_reads_what_it_would_refuse(name: str) -> None:
    stored = WHOLE | {"two0": np.array([0], np.int64)}
    used = {source for n in NODES[name] for source in n.input}
    nodes = [*NODES[name], node("Relu", "y", "z")]
    content = network(nodes, [("x", "f", [2, 3])], [("z", "f", [])], {k: v for k, v in stored.items() if k in used})
    plain = read_network(with_matrices(onnx.ModelProto.FromString(content)).SerializeToString())
    generator = np.random.default_rng(1)
    for _ in range(5):
        x = generator.integers(-4, 4, (2, 3)).astype(np.float32)
        (expected,) = run(content, {"x": x})
        point = x.ravel().astype(np.float64)
        box = Bounds(plain, Box(point, point)).box(plain.output)
        assert (box.lower <= expected.ravel()).all()
        assert (expected.ravel() <= box.upper).all()
        assert (box.upper - box.lower).max() < 1e-9


def test_every_copying_operator_is_tried() -> None:
    assert NODES.keys() >= COPYING


def test_large_tensors_and_other_operators_stay_as_they_are() -> None:
    content = network([node("Neg", "x", "a"), node("Exp", "a", "y")], [("x", "f", [300])], [("y", "f", [300])])
    model = onnx.ModelProto.FromString(content)
    assert list(with_matrices(model).graph.node) == list(model.graph.node)
