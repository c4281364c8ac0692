"""What a network is, in a few numbers and a row for every node."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch

from provenn.models.implicit_file import FORMAT, is_implicit_file
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decoded, decompressed
from provenn.verifier.graph import Graph
from provenn.verifier.ops.base import Shape


@dataclass(frozen=True)
class Layer:
    """One node: its op, the shape of its value, how many parameters it holds, and the nodes it reads."""

    name: str
    op: str
    shape: Shape
    parameters: int
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """sha256: of the file, decompressed. Shapes leave out the batch.

    opset: 0 for a network with implicit layers, which is no ONNX; its producer is the name of its format.
    neurons: values of nonlinear nodes, each of which may be unstable over a region.
    """

    sha256: str
    opset: int
    producer: str
    input_name: str
    input_shape: Shape
    output_name: str
    output_shape: Shape
    parameters: int
    neurons: int
    layers: tuple[Layer, ...]

    @property
    def nodes(self) -> int:
        """How many nodes there are, the input among them."""
        return len(self.layers)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: tuples become lists, `nodes` the number of layers."""
        return {**{k: _plain(v) for k, v in asdict(self).items()}, "nodes": self.nodes}


def summarize(data: bytes, graph: Graph) -> Summary:
    """What the file `data` says of itself, and what its graph holds.   Raises: InvalidModel if it is of no format."""
    content = decompressed(data, Limits())
    opset, producer, first, last = _heading(content, graph)
    return Summary(
        sha256=hashlib.sha256(content).hexdigest(),
        opset=opset,
        producer=producer,
        input_name=first,
        input_shape=graph.input_shape,
        output_name=last,
        output_shape=graph.output_shape,
        parameters=graph.parameter_count(),
        neurons=sum(prod(n.shape) for n in graph.nodes if n.op is not None and not n.op.affine),
        layers=_layers(graph),
    )


def _heading(content: bytes, graph: Graph) -> tuple[int, str, str, str]:
    """(opset, producer, name of the input, name of the output)."""
    if is_implicit_file(content):
        return 0, FORMAT, graph.nodes[0].name, graph.nodes[-1].name
    model = decoded(content, Limits())
    stored = {t.name for t in model.graph.initializer}
    producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
    name = next((i.name for i in model.graph.input if i.name not in stored), "")
    output = next((o.name for o in model.graph.output), "")
    return next((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), 0), producer, name, output


def _layers(graph: Graph) -> tuple[Layer, ...]:
    rows = []
    for node in graph.nodes:
        values = [] if node.op is None else vars(node.op).values()
        parameters = sum(v.numel() for v in values if isinstance(v, torch.Tensor))
        op = "Input" if node.op is None else type(node.op).__name__
        rows.append(Layer(node.name, op, node.shape, parameters, tuple(graph.nodes[i].name for i in node.inputs)))
    return tuple(rows)


def _plain(value: Any) -> Any:
    """Tuples as lists, at every depth."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
