"""Every ONNX operator the kernel reads: node -> steps.

Operators that only move entries act on index arrays (Entries) and on constants by one numpy call. Linear ones
become one matrix each; the file's numbers enter it unchanged, or within 8 u.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
import scipy.sparse
from numpy.typing import NDArray

from provenn.verifier.check.functions import RELU, SIGMOID, TANH, Function, piecewise_linear
from provenn.verifier.check.network import Affine, Elementwise, Index, Matrix, MaxPool, Step
from provenn.verifier.check.rounding import Array, require

ELEMENT_LIMIT, NONZERO_LIMIT = 2**24, 2**26  # entries of any one tensor, of any one matrix
Constant = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Entries:
    """A tensor whose entry at p is entry index[p] of step `step`: moving entries about costs no step."""

    step: int
    index: Index


Tensor = Constant | Entries


def budget(shape: Sequence[int], limit: int = ELEMENT_LIMIT) -> None:
    """Raises: CertificateRejected if a tensor of this shape would be too large."""
    require(prod(max(int(n), 1) for n in shape) <= limit, "model", f"a tensor of shape {list(shape)} is too large")


def decode(tensor: onnx.TensorProto) -> Constant:
    """The numbers of a tensor stored within the file itself.

    Raises: CertificateRejected for external data, other types, or floats that are not finite or (float64 only) outside
    2^-300 .. 2^300, where products neither overflow nor underflow; ValueError, TypeError for wrong lengths.
    """
    inside = tensor.data_location == onnx.TensorProto.DEFAULT and not tensor.external_data
    require(inside and tensor.data_type in (1, 6, 7, 9, 10, 11), "model", f"tensor {tensor.name}: its data is not read")
    budget(tensor.dims)
    values = onnx.numpy_helper.to_array(tensor)
    sizes = np.abs(values[values != 0].astype(np.float64)) if values.dtype.kind == "f" else np.ones(1)
    fits = ((sizes >= 2.0**-300) & (sizes <= 2.0**300)).all()
    require(fits, "model", f"tensor {tensor.name}: a number is not finite, or too large or small")
    return values


@dataclass
class Node:
    """One node: its operator, the tensors it reads (None: left out), and its attributes, removed as they are read."""

    name: str
    operator: str
    inputs: list[Tensor | None]
    outputs: int
    attributes: dict[str, Any]
    doubts: list[str] = field(default_factory=list)

    def single(self, condition: object, reason: str) -> None:
        """Notes that float32 executions of this node are not covered (single.py) unless the condition holds."""
        self.doubts += [] if condition else [f"node {self.name} ({self.operator}): {reason}"]

    def require(self, condition: object, reason: str) -> None:
        """Raises: CertificateRejected naming this node unless the condition holds."""
        require(condition, "model", f"node {self.name} ({self.operator}): {reason}")

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value."""
        return self.attributes.pop(name, default)

    def variable(self, position: int = 0) -> Entries:
        """The tensor at `position`, which must depend on the network's input."""
        tensor = self.inputs[position]
        self.require(isinstance(tensor, Entries), f"input {position} is not computed from the network's input")
        return tensor  # type: ignore[return-value]

    def constant(self, position: int, kinds: str = "fib") -> Constant:
        """The constant at `position`, of floats "f", integers "i" or truth values "b"."""
        tensor = self.inputs[position]
        known = isinstance(tensor, np.ndarray) and tensor.dtype.kind in kinds
        self.require(known, f"input {position} is not a constant of the right type")
        return tensor  # type: ignore[return-value]

    def real(self, position: int) -> Array:
        """The constant of floats at `position` in float64, exactly."""
        value = self.constant(position, "f")
        self.single(value.dtype == np.float32, f"input {position} is {value.dtype}")
        return value.astype(np.float64)

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """The shape of the tensor at `position`, at batch 1."""
        tensor = self.inputs[position]
        return tensor.index.shape if isinstance(tensor, Entries) else self.constant(position).shape

    def listed(self, name: str, position: int) -> list[int] | None:
        """Integers that are an attribute in older operator sets and an input in newer ones; None if left out."""
        given = self.attribute(name)
        return [int(n) for n in self.constant(position, "i").ravel()] if self.inputs[position] is not None else given


class Operators:
    """The steps read so far; one method an operator, each from a node to its outputs."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.doubts: list[str] = []

    def add(self, step: Step) -> int:
        """Appends a step.   Raises: CertificateRejected if its name is taken."""
        require(step.name not in {s.name for s in self.steps}, "model", f"two values are called {step.name!r}")
        self.steps.append(step)
        return len(self.steps) - 1

    def flat(self, tensor: Entries, name: str) -> int:
        """The step whose coordinates are the tensor's entries in C order, made if there is none."""
        index, length = tensor.index.ravel(), self.steps[tensor.step].length
        if np.array_equal(index, np.arange(length)):
            return tensor.step
        matrix, zero = combination(index[:, None], np.ones((len(index), 1)), length), np.zeros(len(index))
        return self.add(Affine(f"{name} <- {len(self.steps)}", len(zero), (tensor.step,), matrix, zero, zero, 0))

    def linear(self, node: Node, tensors: Sequence[Entries], positions: Index, numbers: Array) -> int:
        """Sums of numbers [n, k] at positions [n, k] of the tensors, one after the other: a step."""
        sources, zero = tuple(self.flat(t, node.name) for t in tensors), np.zeros(len(positions))
        matrix = combination(positions, numbers, sum(t.index.size for t in tensors))
        copies = positions.shape[1] == 1 and (numbers == 1).all()
        return self.add(Affine(node.name, len(zero), sources, matrix, zero, zero, 0 if copies else 3))

    def move(self, node: Node) -> list[Tensor]:
        """An operator that only moves entries."""
        tensor, how = node.inputs[0], _movement(node, node.shape())
        moved = np.asarray(how(tensor.index if isinstance(tensor, Entries) else node.constant(0)))
        return [Entries(tensor.step, moved) if isinstance(tensor, Entries) else moved]

    def concat(self, node: Node) -> list[Tensor]:
        """Values among themselves, or constants among themselves, along one axis."""
        axis, count = node.attribute("axis"), sum(tensor is not None for tensor in node.inputs)
        if not any(isinstance(tensor, Entries) for tensor in node.inputs):
            return [np.concatenate([node.constant(i) for i in range(count)], axis)]
        tensors = [node.variable(i) for i in range(count)]
        index = np.concatenate(_places(tensors), axis)
        return whole(self.linear(node, tensors, index.reshape(-1, 1), np.ones((index.size, 1))), index.shape)

    def constant(self, node: Node) -> list[Tensor]:
        """A tensor in the node itself."""
        node.inputs = [node.attribute("value")]
        return [node.constant(0)]

    def shape(self, node: Node) -> list[Tensor]:
        """The shape at batch 1."""
        return [np.array(node.shape()[node.attribute("start", 0) : node.attribute("end")], np.int64)]

    def product(self, node: Node) -> list[Tensor]:
        """MatMul; Gemm, alpha A' B' + beta C with B and C constant, where alpha or beta other than 1 rounds once."""
        index, weight = node.variable().index, node.real(1)
        index = index.T if node.attribute("transA", 0) else index
        weight = weight.T if node.attribute("transB", 0) else weight
        alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
        fits = index.ndim >= weight.ndim == 2 and index.shape[-1] == weight.shape[0] and np.isfinite(alpha + beta)
        node.require(fits and (node.operator == "MatMul" or index.ndim == 2), "the shapes do not fit")
        node.single(all(2.0**-20 <= abs(a) <= 2.0**20 for a in (alpha, beta)), "alpha or beta is beyond 2^-20 .. 2^20")
        copies, output = prod(index.shape[:-1]), (*index.shape[:-1], weight.shape[1])
        budget([copies, weight.size], NONZERO_LIMIT)
        matrix: Matrix = np.ascontiguousarray(alpha * weight.T)
        if copies > 1:
            matrix = scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(copies), matrix, "csr"))
        bias = np.broadcast_to(beta * node.real(2) if node.inputs[2] is not None else np.zeros(()), output).ravel()
        source = self.flat(Entries(node.variable().step, index), node.name)
        return whole(self.add(Affine(node.name, len(bias), (source,), matrix, bias, np.abs(bias))), output)

    def arithmetic(self, node: Node) -> list[Tensor]:
        """Add, Sub, Mul, Div of a value and a constant (1/constant is rounded once); Add, Sub of two values."""
        left, right, operator = *node.inputs[:2], node.operator
        output = np.broadcast_shapes(node.shape(0), node.shape(1))
        budget(output)
        if isinstance(left, Entries) and isinstance(right, Entries):
            node.require(operator in ("Add", "Sub"), "a product of two values is not linear")
            parts = [np.broadcast_to(part, output).ravel() for part in _places((left, right))]
            signs = np.broadcast_to([1.0, 1.0 if operator == "Add" else -1.0], (prod(output), 2))
            return whole(self.linear(node, (left, right), np.stack(parts, axis=1), signs), output)
        first = isinstance(left, Entries)
        x, number = node.variable(0 if first else 1), np.broadcast_to(node.real(1 if first else 0), output)
        x, zero, one = Entries(x.step, np.broadcast_to(x.index, output)), np.zeros(output), np.ones(output)
        if operator in ("Add", "Sub"):
            shift = -number if operator == "Sub" and first else number
            return self._scaled(node, x, -one if operator == "Sub" and not first else one, shift, np.abs(shift))
        node.require(operator == "Mul" or (first and number.all()), "only a division by numbers other than 0 is linear")
        return self._scaled(node, x, number if operator == "Mul" else one / number, zero, zero)

    def _scaled(
        self, node: Node, x: Entries, scale: Array, shift: Array, size: Array, singles: int = 3
    ) -> list[Tensor]:
        """Scale x + shift, entry by entry, |shift| <= size. A shift joins a linear step without b: still exact."""
        scale, shift, size = (np.ascontiguousarray(a).ravel() for a in (scale, shift, size))
        source = self.flat(x, node.name)
        before = self.steps[source]
        if isinstance(before, Affine) and (scale == 1).all() and not before.bias_size.any():
            both = before.singles + singles
            joined = Affine(node.name, len(shift), before.sources, before.matrix, shift, size, both)
            return whole(self.add(joined), x.index.shape)
        matrix = combination(np.arange(len(scale))[:, None], scale[:, None], len(scale))
        return whole(self.add(Affine(node.name, len(shift), (source,), matrix, shift, size, singles)), x.index.shape)

    def batch_normalization(self, node: Node) -> list[Tensor]:
        """S x + t with s = scale / sqrt(var + eps), t = bias - s mean.

        As computed, s is within 3 u of the real one and t within 5 u (|bias| + |s mean|): both within 8 u. A term of
        S x + t or S (x - mean) + bias passes at most 4 roundings of s, one product and two additions.
        """
        node.attribute("momentum")
        x, epsilon = node.variable(), node.attribute("epsilon", float(np.float32(1e-5)))
        inference = node.attribute("spatial", 1) == 1 and not node.attribute("training_mode", 0)
        scale, bias, mean, variance = (node.real(i) for i in range(1, 5))
        node.require(inference and 2.0**-300 < epsilon < 2.0**300, "it is in training mode, or its epsilon is no such")
        node.require((variance >= 0).all(), "a variance is negative")
        s, sizes = scale / np.sqrt(variance + epsilon), np.abs([scale, bias, mean, variance + epsilon])
        plain = sizes.max() <= 2.0**40 and sizes[3].min() >= 2.0**-40
        node.single(plain, "a number is above 2^40, or a variance with its epsilon below 2^-40")
        channels, extents = (1, -1) + (1,) * (x.index.ndim - 2), x.index.shape
        numbers = (s, bias - s * mean, np.abs(bias) + np.abs(s * mean))
        slope, shift, size = (np.broadcast_to(a.reshape(channels), extents) for a in numbers)
        return self._scaled(node, x, slope, shift, size, singles=8)

    def convolution(self, node: Node) -> list[Tensor]:
        """Conv in any number of dimensions, weight [m, c/g, *kernel]."""
        weight, groups, shape = node.real(1), node.attribute("group", 1), node.shape()
        node.require(len(shape) == weight.ndim >= 3 and shape[0] == 1, "only batch 1 is read")
        outer, inner, *kernel = weight.shape
        node.require(groups > 0 and outer % groups == 0 and inner * groups == shape[1], "the channels do not fit")
        node.require(list(node.attribute("kernel_shape", kernel)) == kernel, "kernel_shape is not the weight's")
        seen = windows(node, shape[1:], kernel)
        places = prod(seen.shape[1:-1])
        budget([outer, places, inner, *kernel], NONZERO_LIMIT)
        bias = node.real(2) if node.inputs[2] is not None else np.zeros(outer)
        node.require(bias.shape == (outer,), "the bias does not fit")
        # [channels, *out, kernel] -> [group, 1, places, inner kernel], the same for all outputs of a group
        grouped = seen.reshape(groups, inner, places, -1).transpose(0, 2, 1, 3).reshape(groups, 1, places, -1)
        full = (groups, outer // groups, places, grouped.shape[-1])
        positions = np.broadcast_to(grouped, full).reshape(outer * places, -1)
        numbers = np.broadcast_to(weight.reshape(groups, outer // groups, 1, -1), full).reshape(outer * places, -1)
        matrix, offset = combination(positions, numbers, prod(shape)), np.repeat(bias, places)
        source = self.flat(node.variable(), node.name)
        step = Affine(node.name, len(offset), (source,), matrix, offset, np.abs(offset))
        return whole(self.add(step), [1, outer, *seen.shape[1:-1]])

    def pool(self, node: Node) -> list[Tensor]:
        """MaxPool without indices; AveragePool, padding counted or not; GlobalAveragePool, ReduceMean over space."""
        shape, everywhere = node.shape(), node.operator in ("GlobalAveragePool", "ReduceMean")
        kernel = list(shape[2:]) if everywhere else node.attribute("kernel_shape", [])
        node.require(kernel and len(shape) == len(kernel) + 2 and shape[0] == node.outputs == 1, "its form")
        node.require(node.attribute("ceil_mode", 0) == node.attribute("storage_order", 0) == 0, "ceil_mode")
        seen = windows(node, shape[1:], kernel)
        positions, output = seen.reshape(-1, seen.shape[-1]), [1, *seen.shape[:-1]]
        if node.operator == "ReduceMean":
            node.attribute("noop_with_empty_axes")  # there are axes
            axes = sorted(range(len(shape))[axis] for axis in node.listed("axes", 1) or ())
            node.require(axes == list(range(2, len(shape))), "only the mean over all axes but two is read")
            output = output if node.attribute("keepdims", 1) else output[:2]
        present = (positions >= 0).sum(axis=1)
        node.require(present.min() > 0, "a window lies in the padding")
        if node.operator == "MaxPool":
            source = self.flat(node.variable(), node.name)
            return whole(self.add(MaxPool(node.name, len(positions), (source,), positions)), output)
        counts = np.full_like(present, positions.shape[1]) if node.attribute("count_include_pad", 0) else present
        numbers = np.broadcast_to(1 / counts[:, None], positions.shape)
        return whole(self.linear(node, [node.variable()], positions, numbers), output)

    def elementwise(self, node: Node) -> list[Tensor]:
        """A scalar function."""
        source, smooth = self.flat(node.variable(), node.name), node.operator in ("Sigmoid", "Tanh")
        node.single(not smooth, "how far a runtime's function is from the real one is not known")
        singles, length = int(node.operator == "LeakyRelu"), self.steps[source].length
        return whole(self.add(Elementwise(node.name, length, (source,), _function(node), singles)), node.shape())


OPERATORS: dict[str, Callable[[Operators, Node], list[Tensor]]] = {
    **dict.fromkeys(("Flatten", "Gather", "Identity", "Reshape"), Operators.move),
    **dict.fromkeys(("Squeeze", "Transpose", "Unsqueeze"), Operators.move),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), Operators.arithmetic),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean"), Operators.pool),
    **dict.fromkeys(("Gemm", "MatMul"), Operators.product),
    **dict.fromkeys(("Clip", "LeakyRelu", "Relu", "Sigmoid", "Tanh"), Operators.elementwise),
    **{"BatchNormalization": Operators.batch_normalization, "Concat": Operators.concat, "Shape": Operators.shape},
    **{"Constant": Operators.constant, "Conv": Operators.convolution},
}


def whole(step: int, shape: Sequence[int]) -> list[Tensor]:
    """The step as one tensor."""
    return [Entries(step, np.arange(prod(shape)).reshape(shape))]


def _places(tensors: Sequence[Entries]) -> list[Index]:
    """For each tensor the positions of its entries when all are laid one after the other."""
    starts = np.cumsum([0, *(t.index.size for t in tensors)])
    return [np.arange(t.index.size).reshape(t.index.shape) + s for t, s in zip(tensors, starts, strict=False)]


def combination(positions: Index, numbers: Array, length: int) -> scipy.sparse.csr_array:
    """The matrix [n, length] of numbers [n, k] at positions [n, k], none twice in a row; -1 stands for nowhere."""
    present = positions >= 0
    ends = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return scipy.sparse.csr_array((numbers[present], positions[present], ends), (len(positions), length))


def windows(node: Node, extents: Sequence[int], kernel: Sequence[int]) -> Index:
    """Flat positions that each output reads, -1 for padding: extents (channels, *spatial) -> [channels, *out, k].

    Reads strides, dilations, pads and auto_pad from the node.
    """
    rank = len(kernel)
    strides, dilations = node.attribute("strides", [1] * rank), node.attribute("dilations", [1] * rank)
    pads, auto = node.attribute("pads", [0] * (2 * rank)), node.attribute("auto_pad", b"NOTSET")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    known = auto in (b"NOTSET", b"VALID") and len(pads) == 2 * rank
    node.require(known and min(*kernel, *strides, *dilations) > 0 <= min(pads), "its geometry")
    amounts = [(0, 0), *((0, 0) if auto == b"VALID" else (pads[i], pads[i + rank]) for i in range(rank))]
    budget([n + a + b for n, (a, b) in zip(extents, amounts, strict=True)])
    index = np.pad(np.arange(prod(extents)).reshape(extents), amounts, constant_values=-1)
    seen = np.lib.stride_tricks.sliding_window_view(index, reach, axis=tuple(range(1, rank + 1)))
    every = [slice(None), *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations)]
    seen = seen[tuple(every)]
    budget(seen.shape, NONZERO_LIMIT)
    return seen.reshape(*seen.shape[: rank + 1], -1)


def _movement(node: Node, shape: tuple[int, ...]) -> Callable[[Constant], Constant]:
    """What an operator that moves entries does to an array of this shape."""
    if node.operator == "Reshape":
        target, keep = [int(n) for n in node.constant(1, "i")], not node.attribute("allowzero", 0)
        target = [shape[i] if n == 0 and keep else n for i, n in enumerate(target)]
        return lambda a: a.reshape(target)
    if node.operator == "Flatten":
        axis = node.attribute("axis", 1)
        node.require(-len(shape) <= axis <= len(shape), "axis out of range")
        first = prod(shape[: axis if axis >= 0 else len(shape) + axis])
        return lambda a: a.reshape(first, -1)
    if node.operator == "Transpose":
        order = node.attribute("perm")
        return lambda a: a.transpose(order)
    if node.operator in ("Squeeze", "Unsqueeze"):
        listed, squeeze = node.listed("axes", 1), node.operator == "Squeeze"
        node.require(listed is None or len(listed), "an empty list of axes")  # runtimes take it for all axes
        axes = None if listed is None else tuple(listed)
        return lambda a: a.squeeze(axes) if squeeze else np.expand_dims(a, axes or ())
    if node.operator == "Gather":
        axis, where = node.attribute("axis", 0), node.constant(1, "i")
        return lambda a: np.take(a, where, axis)
    return lambda a: a


def _function(node: Node) -> Function:
    """The scalar function of an elementwise operator."""
    if node.operator == "Clip":
        ends = [node.attribute("min", -np.inf), node.attribute("max", np.inf)]
        low, high = (node.real(i + 1).item() if node.inputs[i + 1] is not None else end for i, end in enumerate(ends))
        node.require(low <= high, "its lower limit is above its upper limit, or not a number")
        kinks = tuple(kink for kink in (low, high) if np.isfinite(kink))
        return piecewise_linear(kinks, lambda z: np.clip(z, low, high))
    if node.operator == "LeakyRelu":
        slope = node.attribute("alpha", float(np.float32(0.01)))
        node.require(np.isfinite(slope), "its slope is not a number")
        return piecewise_linear((0.0,), lambda z: np.where(z > 0, z, slope * z))
    return {"Relu": RELU, "Sigmoid": SIGMOID, "Tanh": TANH}[node.operator]
