"""Models of a few nodes, and how the reader is held against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from provenn.models.admission import admit
from provenn.models.executor import OnnxExecutor
from provenn.models.onnx_reader import read
from provenn.verifier.errors import InvalidModel, ProvennError

Array = np.ndarray


@dataclass(frozen=True)
class OneOp:
    """One node: `x` is the network's input, the other inputs are constants, in order; None stands for x itself."""

    op: str
    shape: Sequence[int | str]
    constants: Sequence[Array | None] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    place: int = 0
    """Which of the node's inputs is x."""
    after: str = ""
    """An operator that x goes through first: one whose values the node is defined on."""

    def model(self) -> onnx.ModelProto:
        inputs: list[str] = []
        stored: dict[str, Array] = {}
        for i, array in enumerate(self.constants):
            if array is not None:
                stored[f"c{i}"] = array
            inputs.append("" if array is None else f"c{i}")
        inputs.insert(self.place, "x0" if self.after else "x")
        outputs = [f"y{i}" for i in range(self.outputs)]
        nodes = [helper.make_node(self.after, ["x"], ["x0"])] if self.after else []
        nodes.append(helper.make_node(self.op, inputs, outputs, **self.attributes))
        if self.outputs > 1 and self.op == "Split":
            joined = [helper.make_node("Mul", [o, f"f{i}"], [f"z{i}"]) for i, o in enumerate(outputs)]
            stored |= {f"f{i}": np.float32(i + 1) for i in range(self.outputs)}
            axis = self.attributes.get("axis", 0)
            nodes += [*joined, helper.make_node("Concat", [f"z{i}" for i in range(self.outputs)], ["y"], axis=axis)]
            outputs = ["y"]
        return model(nodes, self.shape, stored, outputs[0], self.opset)


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[int | str],
    constants: Mapping[str, Array] | None = None,
    output: str = "y",
    opset: int = 17,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model with input `x`."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [onnx.ValueInfoProto(name=output, type=helper.make_tensor_type_proto(dtype, None))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 10 if opset > 21 else 8
    # The checker wants the output's shape: inferred, or any where the model is meant to be wrong.
    inferred = onnx.shape_inference.infer_shapes(made).graph.output[0]
    known = inferred.type.tensor_type.HasField("shape")
    made.graph.output[0].CopyFrom(inferred if known else helper.make_tensor_value_info(output, dtype, ["any"]))
    return made


def relu_model(shape: Sequence[int | str] = (1, 3), **changes: Any) -> onnx.ModelProto:
    """relu(x)."""
    return model([helper.make_node("Relu", ["x"], ["y"])], shape, **changes)


def mlp_model(seed: int = 0) -> onnx.ModelProto:
    """4 -> 5 -> 3, two Gemms."""
    rng = np.random.default_rng(seed)
    constants = {
        "w1": rng.standard_normal((5, 4)).astype(np.float32),
        "b1": rng.standard_normal(5).astype(np.float32),
        "w2": rng.standard_normal((3, 5)).astype(np.float32),
        "b2": rng.standard_normal(3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1, name="first"),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], transB=1, name="second"),
    ]
    return model(nodes, ("batch", 4), constants)


def refused(data: bytes | onnx.ModelProto, match: str, error: type[ProvennError] = InvalidModel, **given: Any) -> None:
    data = data if isinstance(data, bytes) else data.SerializeToString()
    with pytest.raises(error, match=match) as caught:
        admit(data, **given)
    assert type(caught.value) is error


def require_agreement(data: bytes, files: Mapping[str, bytes] | None = None, seed: int = 0, batch: int = 4) -> None:
    """The graph and onnxruntime agree on random inputs.

    Float32 against float32: 1e-5 of the largest output. The float64 graph against onnxruntime's float32, whose
    rounding is all of the difference (see `require_exact_agreement`): 4e-6.
    """
    graph, executor = read(data, files), OnnxExecutor(data, files)
    assert graph.input_shape == executor.input_shape
    assert graph.output_shape == executor.output_shape
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *graph.input_shape)).astype(np.float32)
    expected = executor.run(x).astype(np.float64)
    exact = graph.forward(torch.from_numpy(x).double()).numpy()
    rounded = graph.to("cpu", torch.float32).forward(torch.from_numpy(x)).numpy()
    scale = max(1.0, float(np.abs(expected).max()))
    assert exact.shape == expected.shape
    assert graph.dtype == torch.float64
    assert np.abs(exact - expected).max() <= 4e-6 * scale
    assert np.abs(rounded - expected).max() <= 1e-5 * scale


def require_exact_agreement(data: bytes, seed: int = 0) -> None:
    """The float64 graph and the model with every float made a double agree to 1e-12 of the largest output.

    The other side is onnxruntime, or onnx's reference evaluator where onnxruntime has no such kernel (Conv).
    """
    graph, wide = read(data), doubled(admit(data))
    stored = {t.name for t in wide.graph.initializer}
    declared = next(i for i in wide.graph.input if i.name not in stored)
    x = np.random.default_rng(seed).standard_normal(graph.input_shape).astype(np.float32).astype(np.float64)
    shape = [d.dim_value or 1 for d in declared.type.tensor_type.shape.dim]
    feed = {declared.name: x.reshape(shape)}
    try:
        (expected,) = onnxruntime.InferenceSession(wide.SerializeToString(), quiet()).run(None, feed)
    except (runtime.NotImplemented, runtime.InvalidGraph):
        (expected,) = ReferenceEvaluator(wide).run(None, feed)
    exact = graph.forward(torch.from_numpy(x)[None]).numpy()
    assert np.abs(exact.ravel() - expected.ravel()).max() <= 1e-12 * max(1.0, np.abs(expected).max())


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every float32 number, input and output in float64."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in [*wide.graph.input, *wide.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del wide.graph.value_info[:]
    return wide


def quiet() -> onnxruntime.SessionOptions:
    """One thread, nothing printed, no nodes fused: fused ones hold factors in float32, whatever the model's type."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
