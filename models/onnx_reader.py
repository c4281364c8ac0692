"""ONNX bytes to the verifier's graph."""

from __future__ import annotations

from collections.abc import Mapping

from provenn.models.admission import admitted
from provenn.models.onnx_ops import OPERATORS
from provenn.models.operator_names import OPSETS
from provenn.verifier.fold import folded
from provenn.verifier.graph import Graph

__all__ = ["OPERATORS", "OPSETS", "read"]


def read(data: bytes, files: Mapping[str, bytes] | None = None) -> Graph:
    """The network of an ONNX file (gzip or not) at batch 1, parameters in float64 on the CPU.

    Stored numbers are kept exactly; constants of the file's own arithmetic (BatchNormalization's scale, Gemm's alpha
    times B, a scaling beside a matrix, folded nodes) are rounded to float64. Shapes leave the batch out: ONNX
    (1, 3, 32, 32) is (3, 32, 32). Scalings are folded into matrices: the nodes are not the file's one by one.
    Raises: InvalidModel, UnsupportedOp, ResourceLimit.   Source: the ONNX operator specifications, opsets 7 to 26.
    """
    network = admitted(data, files)
    return folded(network.plan.graph(network.output))
