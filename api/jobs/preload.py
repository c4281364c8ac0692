"""What the forkserver imports before it forks: the worker, with what only the first use would build or import.

A sandboxed child can open no file any more, so whatever its readers import late has to be imported here.

Nothing here may start a thread: a fork keeps only one. So no onnxruntime session, no autograd, no blob store.
"""

from __future__ import annotations

import io
import signal
import zipfile

import highspy
from onnx import TensorProto, helper
from scipy.optimize import linprog

from provenn.api import monotone
from provenn.api.jobs import (
    asking,
    batches,
    derivatives,
    inspecting_documents,
    inspection,
    mining,
    parts,
    searching,
    worker,
)
from provenn.models.arrival import arrive
from provenn.models.limits import Limits
from provenn.models.reading import read
from provenn.models.specification.documents import resolve
from provenn.models.specification.schemas import documents
from provenn.models.summary import summarize
from provenn.verifier.check import read_network
from provenn.verifier.spec_json import robustness
from provenn.verifier.spec_reader import read_specification

VNNLIB_2 = b"""(vnnlib-version <2.0>)
(declare-network N (declare-input X float32 [1]) (declare-output Y float32 [1]))
(assert (and (>= X[0] 0.0) (<= X[0] 1.0)))
(assert (>= Y[0] 0.0))
"""
__all__ = [
    "asking",
    "batches",
    "derivatives",
    "highspy",
    "inspecting_documents",
    "inspection",
    "linprog",
    "mining",
    "monotone",
    "parts",
    "resolve",
    "searching",
    "worker",
]


def _one_neuron() -> bytes:
    """relu(x), as an ONNX file."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "warm", [x], [y])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def _warm() -> None:
    """Builds onnx's operator schemas, and runs each reader once."""
    data = _one_neuron()
    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("warm.onnx", data)
    arrive(bundle.getvalue(), None, Limits())
    summarize(data, read(data))
    read_network(data)
    robustness([0.0], label=0, epsilon=0.1, outputs=2)
    read_specification(VNNLIB_2)
    documents()


_warm()
signal.signal(signal.SIGINT, signal.SIG_IGN)  # children inherit it: Ctrl-C is the server's, which ends them itself
