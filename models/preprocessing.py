"""What is done to an input before a network reads it, as the first nodes of the network itself.

A radius, a clip range and a counterexample are then in the units of what is measured (pixels from 0 to 255, say), and
a certificate is about the whole of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorShapeProto, helper, numpy_helper

from provenn.models.admission import Admitted, admitted
from provenn.models.implicit_file import FORMAT, is_implicit_file
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.models.pt2.fields import mapping, parsed, shown
from provenn.verifier.errors import InvalidModel, ResourceLimit

Layout = Literal["chw", "hwc"]
JSON_BYTES = 2**20
INITIALIZERS_ALONE = 4
"""The version of ONNX's form from which initializers need not be inputs, too."""


@dataclass(frozen=True)
class Preprocessing:
    """y = (x / divide - mean) / std, in mean and std one number a channel, or one for all of them.

    layout: hwc if the channels are the last axis of x; y has them first. Raises: InvalidModel for a divisor of 0, for
    numbers that are not finite, for no number at all.
    """

    divide: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "chw"

    def __post_init__(self) -> None:
        for name, numbers in (("divide", (self.divide,)), ("mean", self.mean), ("std", self.std)):
            bad = next((n for n in numbers if not isfinite(n) or (n == 0 and name != "mean")), None)
            if bad is not None or not numbers:
                there = "there is no number" if bad is None else f"there is {bad}"
                kind = "finite numbers" if name == "mean" else "finite numbers other than 0"
                raise InvalidModel(f"the preprocessing's '{name}' must hold {kind}; {there}")
        if self.layout not in get_args(Layout):
            raise InvalidModel(f"the preprocessing's 'layout' must be chw or hwc, not {shown(self.layout)}")

    @classmethod
    def of(cls, members: Mapping[str, Any]) -> Self:
        """From {"divide": 255, "mean": [0.5], "std": [0.25], "layout": "hwc"}, each of which may be left out.

        Raises: InvalidModel naming the member.
        """
        known = ("divide", "mean", "std", "layout")
        if unknown := sorted(members.keys() - set(known)):
            raise InvalidModel(f"the preprocessing has no member {shown(unknown[0])}; it has {', '.join(known)}")
        given = dict(members)
        if "divide" in given:
            given["divide"] = _number(given["divide"], "divide")
        for name in given.keys() & {"mean", "std"}:
            if not isinstance(given[name], list | tuple):
                raise InvalidModel(f"the preprocessing's '{name}' is {shown(given[name])}; give a list, [0.5] for all")
            given[name] = tuple(_number(n, name) for n in given[name])
        return cls(**given)


def read_preprocessing(text: bytes) -> Preprocessing:
    """From the same members as JSON.   Raises: InvalidModel; ResourceLimit for more than 1 MiB."""
    if len(text) > JSON_BYTES:
        raise ResourceLimit(f"the preprocessing of {len(text)} bytes", f"{JSON_BYTES} bytes")
    return Preprocessing.of(mapping(parsed(text, "the preprocessing"), "the preprocessing"))


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidModel(f"the preprocessing's '{name}' holds {shown(value)}; a number is expected")
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidModel(f"the preprocessing's '{name}' holds {shown(value)}, which is too large") from error


def preprocessed(data: bytes, how: Preprocessing, limits: Limits | None = None) -> bytes:
    """The ONNX file (self-contained, gzip or not) of x -> f((x / divide - mean) / std): f itself where that is x.

    The input keeps its name and its batch; divide, mean and std are rounded to the type that the network computes in,
    and the file means the rounded numbers, exactly.
    Raises: InvalidModel if it is no ONNX file, its channels are not as many, or it has no axes to move for hwc;
    UnsupportedOp, ResourceLimit as for any network.
    """
    if is_implicit_file(decompressed(data, limits or Limits())):
        raise InvalidModel(f"this is a {FORMAT}; preprocessing is put before ONNX files alone")
    network = admitted(data, limits=limits)
    if network.output_name == network.input_name:
        raise InvalidModel("the network's output is its input; nothing can be put before it")
    model = network.file.model
    prefix = free_prefix(model.graph, "preprocessing/")
    nodes = [*_moved(network, how, prefix), *_scaled(network, how, prefix)]
    if not nodes:
        return network.file.content
    last = nodes[-1].output[0]
    for before, node in zip([network.input_name, *(n.output[0] for n in nodes)], nodes, strict=False):
        node.input[0] = before
    rename_inputs(model.graph.node, {network.input_name: last})
    _insert(model.graph, nodes)
    model.ir_version = max(model.ir_version, INITIALIZERS_ALONE)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _moved(network: Admitted, how: Preprocessing, prefix: str) -> list[NodeProto]:
    """The node that moves the channels from the last axis to axis 1; the graph's input is declared accordingly."""
    if how.layout == "chw":
        return []
    rank = len(network.input.shape)
    if rank < 3:
        shape = list(network.input.held_shape)
        raise InvalidModel(f"layout hwc needs inputs with channels and places; the network takes {shape}: use chw")
    declared = next(i for i in network.file.model.graph.input if i.name == network.input_name)
    axes = declared.type.tensor_type.shape
    axes.CopyFrom(TensorShapeProto(dim=[axes.dim[i] for i in (0, *range(2, rank), 1)]))
    order = (0, rank - 1, *range(1, rank - 1))
    return [helper.make_node("Transpose", [""], [f"{prefix}moved"], f"{prefix}moved", perm=order)]


def _scaled(network: Admitted, how: Preprocessing, prefix: str) -> list[NodeProto]:
    """The nodes of (x / divide - mean) / std that change anything; their constants go into the graph."""
    steps = (
        ("Div", "divided", "divide", (how.divide,), 1.0),
        ("Sub", "centred", "mean", how.mean, 0.0),
        ("Div", "scaled", "std", how.std, 1.0),
    )
    nodes = []
    for operator, result, name, numbers, neutral in steps:
        if any(number != neutral for number in numbers):
            constant = numpy_helper.from_array(_constant(network, name, numbers), prefix + name)
            network.file.model.graph.initializer.append(constant)
            nodes.append(helper.make_node(operator, ["", prefix + name], [prefix + result], prefix + result))
    return nodes


def _constant(network: Admitted, name: str, numbers: tuple[float, ...]) -> NDArray[Any]:
    """A number a channel, beside the channel axis [c, 1, .., 1]; or one number [1]."""
    shape = network.input.shape or (1,)
    rank = len(shape)
    channels = shape[1 if rank > 1 else 0]
    if len(numbers) not in (1, channels):
        raise InvalidModel(
            f"the preprocessing's '{name}' holds {len(numbers)} numbers; the network's inputs have {channels} channels"
        )
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.array(numbers).astype(network.input_type)
    if not np.isfinite(rounded).all() or (name != "mean" and not rounded.all()):
        raise InvalidModel(f"the preprocessing's '{name}' holds a number too large or too small for {rounded.dtype}")
    return rounded.reshape(-1, *(1,) * max(0, rank - 2)) if len(numbers) > 1 else rounded


def _insert(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Puts the nodes before all others."""
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def rename_inputs(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Makes every node read the new name where it has read the old one."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]


def free_prefix(graph: GraphProto, wanted: str) -> str:
    """The prefix, or one like it, with which no name of the graph begins."""
    taken = {name for node in graph.node for name in (node.name, *node.output)}
    taken |= {value.name for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info)}
    while any(name.startswith(wanted) for name in taken):
        wanted = f"_{wanted}"
    return wanted
