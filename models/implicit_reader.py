"""A network with implicit layers as the verifier's graph."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor

from provenn.models.implicit_file import Activation, Array, Implicit, ImplicitNetwork, parse
from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops import implicit
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh

OPS: dict[str, Op] = {"relu": Relu(), "tanh": Tanh(), "sigmoid": Sigmoid()}


def read(data: bytes) -> Graph:
    """The network of a "provenn-network/1" file (gzip or not), parameters in float64 on the CPU.

    Nodes: "input", "input.flat" where it has several axes, then "layer0", "layer1", ..; an implicit layer K is
    "layerK.input" (U x + b) and "layerK".
    Raises: InvalidModel, ResourceLimit.
    """
    return graph(parse(data))


def graph(network: ImplicitNetwork) -> Graph:
    """The same of a network that is read already."""
    nodes = [Node("input", None, (), network.shape)]

    def add(name: str, op: Op, width: int) -> None:
        nodes.append(Node(name, op, (len(nodes) - 1,), (width,)))

    if len(network.shape) > 1:
        add("input.flat", Reshape((prod(network.shape),)), prod(network.shape))
    for index, layer in enumerate(network.layers):
        name = f"layer{index}"
        if isinstance(layer, Activation):
            add(name, OPS[layer.function], nodes[-1].shape[0])
        elif isinstance(layer, Implicit):
            add(f"{name}.input", _linear(layer.input, layer.bias), len(layer.input))
            add(name, implicit.Implicit(_tensor(layer.weight), OPS[layer.function]), len(layer.input))
        else:
            add(name, _linear(layer.weight, layer.bias), len(layer.weight))
    return Graph(tuple(nodes))


def _linear(weight: Array, bias: Array | None) -> Linear:
    return Linear(_tensor(weight), torch.zeros(len(weight), dtype=torch.float64) if bias is None else _tensor(bias))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(array.astype(np.float64))
