"""Networks whose verdicts are known by hand, and the command run in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from provenn.api.cli import main


def two_layers(first: Sequence[Sequence[float]], shift: Sequence[float], second: Sequence[Sequence[float]]) -> bytes:
    """y = second relu(first x + shift), as an ONNX file."""
    weights = {"w": first, "b": shift, "v": second}
    constants = [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in weights.items()]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], "first", transB=1),
        helper.make_node("Relu", ["z"], ["a"], "relu"),
        helper.make_node("Gemm", ["a", "v"], ["y"], "second", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", len(first[0])])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", len(second)])
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


PLAIN = two_layers([[1, 0], [0, 1]], [0, 0], [[1, 0], [0, 1]])
"""y = relu(x): at (1, 0) class 0 is safe exactly for radii below 1/2."""

STUBBORN = two_layers([[1], [-1], [1], [0]], [0, 0, 10, 1], [[0, 0, 0, 0.1], [1, -1, -1, 10]])
"""y = (0.1, relu(x) - relu(-x) - (x + 10) + 10) = (0.1, 0) around 0: safe, but not by one linear relaxation."""

PROPERTY = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(assert (>= X_0 0.9))
(assert (<= X_0 1.1))
(assert (>= X_1 -0.1))
(assert (<= X_1 0.1))
(assert (<= Y_0 Y_1))
"""


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return dict(json.loads(lines[0]))


class Command:
    """Runs `provenn` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Ran:
        code = main([str(a) for a in arguments])
        found = self._capsys.readouterr()
        return Ran(code, found.out, found.err)
