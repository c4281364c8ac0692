"""x -> f(x) as p -> f(clip(x_0 + M p)): an affine map of few parameters, as the first layer of the network itself.

Certificates and bounds are then about the parameters. The file names the value that the given network f takes, so that
whoever has it can tell, of parameters, the input of f that they make, and run f by itself there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from provenn.models.admission import Admitted, admitted
from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_file import FORMAT, is_implicit_file
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.models.preprocessing import INITIALIZERS_ALONE, free_prefix, rename_inputs
from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Shape

SEAM, GIVEN = "provenn.input", "provenn.network"
"""Metadata of a composed file: the value that the given network takes, and the SHA-256 of its (uncompressed) file."""
CLIP_BY_INPUTS = 11
"""The operator set from which Clip takes its ends as inputs."""


@dataclass(frozen=True, eq=False)
class Map:
    """p [parameters] -> clip(centre + directions^T p): centre float64 [n], directions float64 [parameters, n].

    clip: the range of every entry, or None. All numbers are rounded to the type that the network computes in.
    """

    centre: NDArray[np.float64]
    directions: NDArray[np.float64]
    clip: tuple[float, float] | None = None


def parametrized(data: bytes, map: Map, limits: Limits | None = None) -> bytes:
    """The ONNX file (self-contained) of p -> f(map(p)), whose input `parameters` is [1, parameters].

    Raises: InvalidModel if it is no ONNX file, its inputs are not as many, or its output is its input; UnsupportedOp,
    ResourceLimit as for any network.
    """
    content = decompressed(data, limits or Limits())
    if is_implicit_file(content):
        raise InvalidModel(f"this is a {FORMAT}; layers are put before ONNX files alone")
    network = admitted(content, limits=limits)
    size = prod(network.input.held_shape)
    if network.output_name == network.input_name:
        raise InvalidModel("the network's output is its input; nothing can be put before it")
    if map.directions.shape[1:] != map.centre.shape or map.centre.shape != (size,):
        raise InvalidModel(f"the map makes {map.centre.size} numbers, but the network has {size} inputs")
    model = network.file.model
    prefix = free_prefix(model.graph, "perturbation/")
    nodes, constants = _layer(network, map, prefix)
    declared = next(i for i in model.graph.input if i.name == network.input_name)
    element, image = declared.type.tensor_type.elem_type, nodes[-1].output[0]
    model.graph.value_info.append(helper.make_tensor_value_info(image, element, list(network.input.shape)))
    declared.CopyFrom(helper.make_tensor_value_info(f"{prefix}parameters", element, [1, len(map.directions)]))
    rename_inputs(model.graph.node, {network.input_name: image})
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(constants)
    model.ir_version = max(model.ir_version, INITIALIZERS_ALONE)
    about = {SEAM: image, GIVEN: hashlib.sha256(content).hexdigest()}
    helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | about)
    composed: bytes = model.SerializeToString(deterministic=True)
    return composed


def _layer(network: Admitted, map: Map, prefix: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes from `parameters` to the network's input, in order, and their constants."""
    shape, kind = network.input.shape, network.input_type
    numbers = {"centre": map.centre[None], "directions": map.directions}
    ends = dict(zip(("lowest", "highest"), map.clip or (), strict=False))
    stored = {name: _rounded(value, kind) for name, value in numbers.items()}
    stored |= {name: _rounded(np.array(value), kind) for name, value in ends.items()}
    stored["shape"] = np.array(shape, np.int64)
    steps = [("MatMul", ["parameters", "directions"], "moved"), ("Add", ["moved", "centre"], "sum")]
    attributes: dict[str, Any] = {}
    if map.clip is not None and network.file.opset >= CLIP_BY_INPUTS:
        steps.append(("Clip", ["sum", "lowest", "highest"], "clipped"))
    elif map.clip is not None:
        attributes = {"min": float(stored.pop("lowest")), "max": float(stored.pop("highest"))}
        if any(float(np.float32(end)) != end for end in attributes.values()):  # which Clip held as float32 then
            raise InvalidModel(
                f"operator set {network.file.opset} cuts {kind} to float32 numbers alone; export with 11"
            )
        steps.append(("Clip", ["sum"], "clipped"))
    steps.append(("Reshape", [steps[-1][2], "shape"], "image"))
    nodes = [
        helper.make_node(
            operator,
            [prefix + name for name in inputs],
            [prefix + output],
            prefix + output,
            **(attributes if operator == "Clip" else {}),
        )
        for operator, inputs, output in steps
    ]
    return nodes, [numpy_helper.from_array(value, prefix + name) for name, value in stored.items()]


def _rounded(values: NDArray[np.float64], kind: np.dtype[np.floating]) -> NDArray[np.floating]:
    with np.errstate(over="ignore"):
        rounded = values.astype(kind)
    if not np.isfinite(rounded).all():
        raise InvalidModel(f"a number of the map is too large for {kind}, in which the network computes")
    return rounded


def _cut(model: ModelProto) -> tuple[ModelProto, ModelProto] | None:
    """What computes the input of the given network, and that network, of a file that `parametrized` has made.

    None if it is another file, or one in which the two have more than that value in common.
    """
    name = next((p.value for p in model.metadata_props if p.key == SEAM), None)
    value = next((v for v in model.graph.value_info if v.name == name), None)
    needed = {name}
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
    before = [node for node in model.graph.node if needed & set(node.output)]
    after = [node for node in model.graph.node if not needed & set(node.output)]
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [declared for declared in model.graph.input if declared.name not in stored]
    inside = {output for node in before for output in node.output} | {declared.name for declared in inputs}
    if value is None or not before or any(inside & set(node.input) - {name} for node in after):
        return None
    ends = (inputs, [value]), ([value], [*model.graph.output])
    first, second = (_part(model, nodes, *each) for nodes, each in zip((before, after), ends, strict=True))
    return first, second


def _part(
    model: ModelProto, nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]
) -> ModelProto:
    """Some nodes of a model, with the constants that they read."""
    read = {name for node in nodes for name in node.input}
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(list(nodes), model.graph.name, list(inputs), list(outputs), stored)
    return helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)


class Parametrized:
    """Runs a composed file in two steps, each by itself: the input of the given network, then that network there."""

    def __init__(self, map: OnnxExecutor, network: OnnxExecutor) -> None:
        self.map, self.network = map, network
        self.name = network.name
        self.input_shape: Shape = map.input_shape
        self.output_shape: Shape = network.output_shape

    @classmethod
    def of(cls, data: bytes, given: bytes | None = None) -> Parametrized | None:
        """Of a composed file, None for any other; given: the file of the network, or it is cut from the composed one.

        Raises: InvalidModel, UnsupportedOp, ResourceLimit.
        """
        content = decompressed(data, Limits())
        composed = SEAM.encode() in content and not is_implicit_file(content)
        parts = _cut(ModelProto.FromString(content)) if composed else None
        if parts is None:
            return None
        before, after = (part.SerializeToString() for part in parts)
        map, network = OnnxExecutor(before), OnnxExecutor(after if given is None else given)
        return cls(map, network) if prod(map.output_shape) == prod(network.input_shape) else None

    def image(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inputs [batch, *input] of the given network, of parameters [batch, parameters], both float32."""
        return self.map.run(inputs).reshape(len(inputs), *self.network.input_shape)

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs [batch, *output_shape] of the given network for parameters [batch, parameters], both float32."""
        return self.network.run(self.image(inputs))
