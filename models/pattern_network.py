"""Networks made from a network and its activation patterns, as ONNX files.

With z the pre-activations of a ReLU, `active` and `inactive` its constrained neurons:
* `exposed`: x -> all pre-activations, one after the other.
* `restricted`: x -> (logits, V), the network on the pattern's inputs. Inactive neurons give 0; all others stay as they
  are. V = sum of relu(m - z_i) over active and relu(z_i) over inactive neurons, m >= 0 a margin.

By induction over the layers, x follows the pattern in the network, with z_i >= m and z_i <= 0 as the constraints,
exactly if V(x) = 0 in the restricted network, and there both have the same logits: as long as no constraint is broken
in the layers before, these compute the same values, since relu(z) = 0 for z <= 0. In real arithmetic all of this is
exact; so is what is copied here, number by number.
relu(m - z) is written as r - (z - m), r = relu(z - m), which for m = 0 is the network's own ReLU. Where a bound has a
coefficient c of r and a weight w >= -c of V, it has (c + w) r - w z >= (c + w) alpha z - w z: the lower slope alpha in
[0, 1] is a Lagrange multiplier (c + w) (1 - alpha) of the constraint, no upper line of the ReLU is needed, and bounds
of the layers behind still know that r is not negative. Slopes are what existing bounds and certificates choose well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from provenn.models.activation_pattern import PatternLayer
from provenn.models.admission import Admitted, admitted
from provenn.models.preprocessing import free_prefix
from provenn.verifier.errors import InvalidModel, InvalidSpecification

INITIALIZERS_ALONE = 4
"""The version of ONNX's form from which initializers need not be inputs, too."""


@dataclass(frozen=True)
class Relu:
    """A hidden layer: the names of the ReLU's input and output, and its shape at batch 1."""

    before: str
    name: str
    shape: tuple[int, ...]

    @property
    def neurons(self) -> int:
        """How many."""
        return int(np.prod(self.shape))


def relus(data: bytes) -> list[Relu]:
    """The ReLUs of an ONNX file, in its order.   Raises: InvalidModel if it has none, or a shape cannot be inferred."""
    return _relus(admitted(data))


def _relus(network: Admitted) -> list[Relu]:
    shapes, found = _shapes(network), []
    for node in network.file.model.graph.node:
        if node.op_type == "Relu":
            name, before = node.output[0], node.input[0]
            shape = shapes.get(name, ())
            if len(shape) < 2 or not all(shape) or shape[0] != 1:
                raise InvalidModel(f"the shape of ReLU {name!r} is not known, or has no batch of 1: patterns need both")
            found.append(Relu(before, name, shape))
    if not found:
        raise InvalidModel("it has no ReLU: activation patterns speak of ReLU neurons")
    return found


def _shapes(network: Admitted) -> dict[str, tuple[int, ...]]:
    """Of values, at batch 1, as they follow from the input and the nodes; an extent that does not is 0.

    What the file declares of other values may be wrong, and is not read.
    """
    model = ModelProto()
    model.CopyFrom(network.file.model)
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for given in model.graph.input:
        if given.name == network.input_name:
            for extent, length in zip(given.type.tensor_type.shape.dim, network.input.shape, strict=True):
                extent.dim_value = length
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = {v.name: v.type.tensor_type.shape for v in (*inferred.value_info, *inferred.output)}
    return {name: tuple(extent.dim_value for extent in shape.dim) for name, shape in values.items()}


def chosen(data: bytes, names: Sequence[str] | None = None) -> list[Relu]:
    """All ReLUs, or those of these names.

    Raises: InvalidSpecification for one that is not there, or named twice; InvalidModel.
    """
    known = relus(data)
    if names is None:
        return known
    by_name = {relu.name: relu for relu in known}
    if len(set(names)) != len(names):
        raise InvalidSpecification("a ReLU is named twice")
    if unknown := [name for name in names if name not in by_name]:
        raise InvalidSpecification(f"the network has no ReLU {unknown[0]!r}; its ReLUs are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def exposed(data: bytes, layers: Sequence[Relu]) -> bytes:
    """The file of x -> pre-activations of some layers, flat, one layer after the other [1, sum of neurons].

    Raises: InvalidModel.
    """
    surgery = _Surgery.of(admitted(data))
    parts = [surgery.flat(relu.before, relu.shape) for relu in layers]
    every = surgery.node("Concat", parts, axis=1)
    return surgery.finished(every, sum(relu.neurons for relu in layers))


@dataclass(frozen=True)
class Constrained:
    """What is known of a layer's neurons."""

    relu: Relu
    active: tuple[int, ...]
    inactive: tuple[int, ...]


def constraints_of(data: bytes, patterns: Sequence[Sequence[PatternLayer]]) -> list[Constrained]:
    """All constraints of some patterns, layer by layer of a network; a neuron may be active in one, inactive in one.

    Raises: InvalidSpecification if a pattern does not fit the network; InvalidModel.
    """
    layers = relus(data)
    known = {relu.name: relu for relu in layers}
    active, inactive = ({name: set[int]() for name in known} for _ in range(2))
    for layer in (layer for layers in patterns for layer in layers):
        if layer.relu not in known:
            raise InvalidSpecification(f"the network has no ReLU {layer.relu!r}; its ReLUs are {', '.join(known)}")
        if layer.neurons != known[layer.relu].neurons:
            size = known[layer.relu].neurons
            raise InvalidSpecification(f"ReLU {layer.relu!r} has {size} neurons, the pattern speaks of {layer.neurons}")
        active[layer.relu].update(layer.active)
        inactive[layer.relu].update(layer.inactive)
    every = [Constrained(r, tuple(sorted(active[r.name])), tuple(sorted(inactive[r.name]))) for r in layers]
    return [one for one in every if one.active or one.inactive]


def restricted(data: bytes, constraints: Sequence[Constrained], margin: Fraction, logits: bool = True) -> bytes:
    """The file of x -> (logits, V) [1, outputs + 1], or V alone [1, 1]. The margin is rounded down.

    A neuron that is both active and inactive keeps its ReLU: no input is left of it but z = 0, and none with a margin.
    Raises: InvalidSpecification if nothing is constrained; InvalidModel.
    """
    if not constraints:
        raise InvalidSpecification("the pattern constrains no neuron: it says nothing")
    surgery = _Surgery.of(admitted(data))
    broken = [surgery.constrain(one, margin) for one in constraints]
    every = broken[0] if len(broken) == 1 else surgery.node("Concat", broken, axis=1)
    count = sum(one.relu.neurons for one in constraints)
    total = surgery.node("MatMul", [every, surgery.constant("ones", np.ones((count, 1), surgery.type))])
    if not logits:
        return surgery.finished(total, 1)
    network = surgery.network
    flat = surgery.flat(network.output_name, network.output.shape)
    width = int(np.prod(network.output.shape)) + 1
    return surgery.finished(surgery.node("Concat", [flat, total], axis=1), width)


@dataclass
class _Surgery:
    """A graph that nodes are put into. after: new nodes, by the name of the value that they follow."""

    network: Admitted
    prefix: str
    after: dict[str, list[NodeProto]] = field(default_factory=dict)
    last: list[NodeProto] = field(default_factory=list)
    into: list[NodeProto] | None = None
    count: int = 0

    @classmethod
    def of(cls, network: Admitted) -> _Surgery:
        return cls(network, free_prefix(network.file.model.graph, "pattern/"))

    @property
    def graph(self) -> GraphProto:
        return self.network.file.model.graph

    @property
    def type(self) -> np.dtype[np.floating]:
        """Of the numbers that the network computes with."""
        return self.network.input_type

    def node(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: int) -> str:
        """One more node at the present place: the name of its output."""
        self.count += 1
        name = output or f"{self.prefix}{self.count}"
        made = helper.make_node(operator, list(inputs), [name], name=f"{self.prefix}{operator}-{self.count}")
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        (self.last if self.into is None else self.into).append(made)
        return name

    def constant(self, what: str, numbers: NDArray[np.generic]) -> str:
        """A stored tensor."""
        self.count += 1
        name = f"{self.prefix}{what}-{self.count}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(numbers), name))
        return name

    def constrain(self, one: Constrained, margin: Fraction) -> str:
        """Puts what a ReLU's layer is on the pattern in its place; what its own constraints are broken by [1, n]."""
        relu, on, off = one.relu, *(self._marked(one.relu, index) for index in (one.active, one.inactive))
        kept = f"{self.prefix}kept-{relu.name}"
        for node in self.graph.node:
            if node.op_type == "Relu" and node.output[0] == relu.name:
                node.output[0] = kept
        self.into = self.after.setdefault(kept, [])
        self.node("Mul", [kept, self.constant("mask", 1 - off * (1 - on))], relu.name)
        above, positive = relu.before, self.node("Mul", [kept, self.constant("inactive", off)])
        beyond = kept
        if margin:
            above = self.node("Sub", [above, self.constant("margin", on * below(margin, self.type))])
            beyond = self.node("Relu", [above])
        active = self.constant("active", on)
        positive = self.node("Add", [positive, self.node("Mul", [beyond, active])])
        outside = self.node("Sub", [positive, self.node("Mul", [above, active])])
        broken = self.flat(outside, relu.shape)
        self.into = None
        return broken

    def _marked(self, relu: Relu, index: Sequence[int]) -> NDArray[np.floating]:
        """1 for some neurons of a layer, 0 for the others: [*shape]."""
        marks = np.zeros(relu.neurons, self.type)
        marks[list(index)] = 1
        return marks.reshape(relu.shape)

    def flat(self, name: str, shape: tuple[int, ...]) -> str:
        """A value [1, n]."""
        if len(shape) == 2 and shape[0] == 1:
            return name
        return self.node("Reshape", [name, self.constant("flat", np.array([1, np.prod(shape)], np.int64))])

    def finished(self, output: str, width: int) -> bytes:
        """The file whose output is this value [1, width]."""
        graph, network = self.graph, self.network
        nodes: list[NodeProto] = [*self.after.get(network.input_name, ())]
        for node in graph.node:
            nodes.append(node)
            nodes += [new for name in node.output for new in self.after.get(name, ())]
        nodes = _needed([*nodes, *self.last], output)
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        inputs = [declared for declared in graph.input if declared.name in read]
        del graph.input[:]
        graph.input.extend(inputs)
        del graph.value_info[:], graph.output[:]
        kind = helper.np_dtype_to_tensor_dtype(self.type)
        graph.output.append(helper.make_tensor_value_info(output, kind, [1, width]))
        model: ModelProto = network.file.model
        model.ir_version = max(model.ir_version, INITIALIZERS_ALONE)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _needed(nodes: Sequence[NodeProto], output: str) -> list[NodeProto]:
    """Those that the output depends on, in order."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def below(margin: Fraction, kind: np.dtype[np.floating]) -> np.floating:
    """The margin in float numbers, or the next one below it: what is proved with less is proved with it, too."""
    if margin >= (largest := Fraction(float(np.finfo(kind).max))):
        return kind.type(float(largest))
    near = kind.type(float(margin))
    return near if Fraction(float(near)) <= margin else np.nextafter(near, kind.type(0))
