"""Every ONNX operator the kernel reads: node -> steps.

Operators that only move entries act on index arrays (tensors.Entries) and on constants by one numpy call. Linear ones
become one matrix each; the file's numbers enter it unchanged, or within 8 u.
"""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import scipy.sparse

from provenn.verifier.check.functions import RELU, SIGMOID, TANH, Function, clip, leaky_relu
from provenn.verifier.check.network import Affine, Elementwise, Index, Matrix, MaxPool, Step
from provenn.verifier.check.rejected import require
from provenn.verifier.check.rounding import Array
from provenn.verifier.check.tensors import Constant, Entries, Node, Tensor, budget

NONZERO_LIMIT = 2**26  # entries of one matrix


class Operators:
    """The steps read so far; one method an operator, each from a node to its outputs."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(self, step: Step) -> int:
        """Appends a step.   Raises: CertificateRejected if its name is taken."""
        require(step.name not in {s.name for s in self.steps}, "model", f"two values are called {step.name!r}")
        self.steps.append(step)
        return len(self.steps) - 1

    def affine(self, name: str, sources: Sequence[int], matrix: Matrix, bias: Array, size: Array) -> int:
        """A step W x + b."""
        return self.add(Affine(name, len(bias), tuple(sources), matrix, bias, size))

    def flat(self, tensor: Entries, name: str) -> int:
        """The step whose coordinates are the tensor's entries in C order, made if there is none."""
        index, length = tensor.index.ravel(), self.steps[tensor.step].length
        if np.array_equal(index, np.arange(length)):
            return tensor.step
        matrix, zero = combination(index[:, None], np.ones((len(index), 1)), length), np.zeros(len(index))
        return self.affine(f"{name} <- {len(self.steps)}", [tensor.step], matrix, zero, zero)

    def linear(self, node: Node, tensors: Sequence[Entries], positions: Index, numbers: Array) -> int:
        """Sums of numbers [n, k] at positions [n, k] of the tensors, one after the other: a step."""
        sources, length = [self.flat(t, node.name) for t in tensors], sum(t.index.size for t in tensors)
        zero = np.zeros(len(positions))
        return self.affine(node.name, sources, combination(positions, numbers, length), zero, zero)

    def move(self, node: Node) -> list[Tensor]:
        """An operator that only moves entries."""
        tensor, how = node.inputs[0], _movement(node, node.shape())
        return [Entries(tensor.step, how(tensor.index)) if isinstance(tensor, Entries) else how(node.constant(0))]

    def concat(self, node: Node) -> list[Tensor]:
        """Values among themselves, or constants among themselves, along one axis."""
        axis, everything = node.attribute("axis"), range(len(node.inputs))
        if not any(isinstance(tensor, Entries) for tensor in node.inputs):
            return [np.concatenate([node.constant(i) for i in everything], axis)]
        tensors = [node.variable(i) for i in everything]
        index = np.concatenate(_places(tensors), axis)
        return whole(self.linear(node, tensors, index.reshape(-1, 1), np.ones((index.size, 1))), index.shape)

    def constant(self, node: Node) -> list[Tensor]:
        """A tensor, or integers, in the node itself."""
        numbers = node.attribute("value_ints", node.attribute("value_int"))
        node.inputs = [node.attribute("value") if numbers is None else np.array(numbers, np.int64)]
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
        node.require(np.isfinite([alpha, beta]).all() and index.ndim >= weight.ndim == 2, "its form")
        node.require(node.operator == "MatMul" or index.ndim == 2, "A is not a matrix")
        node.require(index.shape[-1] == weight.shape[0], "the shapes do not fit")
        copies, output = prod(index.shape[:-1]), (*index.shape[:-1], weight.shape[1])
        budget([copies, weight.size], NONZERO_LIMIT)
        matrix: Matrix = np.ascontiguousarray(alpha * weight.T)
        if copies > 1:
            matrix = scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(copies), matrix, "csr"))
        bias = np.broadcast_to(beta * node.real(2) if node.has(2) else np.zeros(()), output).ravel()
        source = self.flat(Entries(node.variable().step, index), node.name)
        return whole(self.affine(node.name, [source], matrix, bias, np.abs(bias)), output)

    def arithmetic(self, node: Node) -> list[Tensor]:
        """Add, Sub, Mul, Div of a value and a constant (1/constant is rounded once); Add, Sub of two values."""
        (left, right), operator = node.inputs, node.operator
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

    def _scaled(self, node: Node, x: Entries, scale: Array, shift: Array, size: Array) -> list[Tensor]:
        """Scale x + shift, entry by entry, |shift| <= size. A shift joins a linear step without b: still exact."""
        scale, shift, size = (np.ascontiguousarray(a).ravel() for a in (scale, shift, size))
        source = self.flat(x, node.name)
        before = self.steps[source]
        if isinstance(before, Affine) and (scale == 1).all() and not before.bias_size.any():
            return whole(self.affine(node.name, before.sources, before.matrix, shift, size), x.index.shape)
        matrix = combination(np.arange(len(scale))[:, None], scale[:, None], len(scale))
        return whole(self.affine(node.name, [source], matrix, shift, size), x.index.shape)

    def batch_normalization(self, node: Node) -> list[Tensor]:
        """S x + t with s = scale / sqrt(var + eps), t = bias - s mean.

        As computed, s is within 3 u of the real one and t within 5 u (|bias| + |s mean|): both within 8 u.
        """
        node.attribute("momentum")
        x, epsilon = node.variable(), node.attribute("epsilon", float(np.float32(1e-5)))
        inference = node.attribute("spatial", 1) == 1 and not node.attribute("training_mode", 0)
        scale, bias, mean, variance = (node.real(i) for i in range(1, 5))
        node.require(inference and (variance >= 0).all(), "it is in training mode, or a variance is negative")
        node.require(2.0**-300 < epsilon < 2.0**300, "its epsilon")
        s = scale / np.sqrt(variance + epsilon)
        channels, extents = (1, -1) + (1,) * (x.index.ndim - 2), x.index.shape
        numbers = (s, bias - s * mean, np.abs(bias) + np.abs(s * mean))
        return self._scaled(node, x, *(np.broadcast_to(a.reshape(channels), extents) for a in numbers))

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
        bias = node.real(2) if node.has(2) else np.zeros(outer)
        node.require(bias.shape == (outer,), "the bias does not fit")
        # [channels, *out, kernel] -> [group, 1, places, inner kernel], the same for all outputs of a group
        grouped = seen.reshape(groups, inner, places, -1).transpose(0, 2, 1, 3).reshape(groups, 1, places, -1)
        full = (groups, outer // groups, places, grouped.shape[-1])
        positions = np.broadcast_to(grouped, full).reshape(outer * places, -1)
        numbers = np.broadcast_to(weight.reshape(groups, outer // groups, 1, -1), full).reshape(outer * places, -1)
        matrix, offset = combination(positions, numbers, prod(shape)), np.repeat(bias, places)
        source = self.flat(node.variable(), node.name)
        step = self.affine(node.name, [source], matrix, offset, np.abs(offset))
        return whole(step, [1, outer, *seen.shape[1:-1]])

    def pool(self, node: Node) -> list[Tensor]:
        """MaxPool without indices; AveragePool, padding counted or not."""
        shape, kernel = node.shape(), node.attribute("kernel_shape", [])
        node.require(kernel and len(shape) == len(kernel) + 2 and shape[0] == node.outputs == 1, "its form")
        node.require(node.attribute("ceil_mode", 0) == node.attribute("storage_order", 0) == 0, "ceil_mode")
        seen = windows(node, shape[1:], kernel)
        positions, output = seen.reshape(-1, seen.shape[-1]), [1, *seen.shape[:-1]]
        present = (positions >= 0).sum(axis=1)
        node.require(present.min() > 0, "a window lies in the padding")
        if node.operator == "MaxPool":
            source = self.flat(node.variable(), node.name)
            return whole(self.add(MaxPool(node.name, len(positions), (source,), positions)), output)
        counts = np.full_like(present, positions.shape[1]) if node.attribute("count_include_pad", 0) else present
        numbers = np.broadcast_to(1 / counts[:, None], positions.shape)
        return whole(self.linear(node, [node.variable()], positions, numbers), output)

    def mean(self, node: Node) -> list[Tensor]:
        """ReduceMean over some axes, GlobalAveragePool over all but two."""
        shape, keep = node.shape(), node.attribute("keepdims", 1)
        axes = range(2, len(shape)) if node.operator == "GlobalAveragePool" else node.listed("axes", 1)
        node.require(axes and not node.attribute("noop_with_empty_axes", 0), "it has no axes")
        gone = sorted({range(len(shape))[axis] for axis in axes or ()})
        left = [axis for axis in range(len(shape)) if axis not in gone]
        positions = np.arange(prod(shape)).reshape(shape).transpose(left + gone)
        positions = positions.reshape(prod(shape[axis] for axis in left), -1)
        output = [1 if axis in gone else n for axis, n in enumerate(shape) if keep or axis in left]
        numbers = np.full(positions.shape, 1 / positions.shape[1])
        return whole(self.linear(node, [node.variable()], positions, numbers), output)

    def elementwise(self, node: Node) -> list[Tensor]:
        """A scalar function; where the input merely rearranges a step, it is applied to that step."""
        x = node.variable()
        length = self.steps[x.step].length
        rearranged = x.index.size == length == len(np.unique(x.index))
        source, index = (x.step, x.index) if rearranged else (self.flat(x, node.name), np.arange(x.index.size))
        step = self.add(Elementwise(node.name, x.index.size, (source,), _function(node)))
        return [Entries(step, index.reshape(x.index.shape))]


OPERATORS: dict[str, Callable[[Operators, Node], list[Tensor]]] = {
    **dict.fromkeys(("Flatten", "Gather", "Identity", "Reshape", "Slice"), Operators.move),
    **dict.fromkeys(("Squeeze", "Transpose", "Unsqueeze"), Operators.move),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), Operators.arithmetic),
    **dict.fromkeys(("AveragePool", "MaxPool"), Operators.pool),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), Operators.mean),
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
    node.require(auto in (b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER"), "auto_pad")
    node.require(min(*kernel, *strides, *dilations) > 0 <= min(pads) and len(pads) == 2 * rank, "its geometry")
    amounts = [(0, 0)]
    for i, (n, s, r) in enumerate(zip(extents[1:], strides, reach, strict=True)):
        total = max((-(-n // s) - 1) * s + r - n, 0)
        same = (total // 2, total - total // 2)
        fixed = (0, 0) if auto == b"VALID" else (pads[i], pads[i + rank])
        amounts.append({b"SAME_UPPER": same, b"SAME_LOWER": same[::-1]}.get(auto, fixed))
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
        axes = node.listed("axes", 1)
        if node.operator == "Squeeze":
            return lambda a: a.squeeze(None if axes is None else tuple(axes))
        return lambda a: np.expand_dims(a, tuple(axes or ()))
    if node.operator == "Gather":
        axis, where = node.attribute("axis", 0), node.constant(1, "i")
        return lambda a: np.take(a, where, axis)
    return _slices(node, shape) if node.operator == "Slice" else lambda a: a


def _slices(node: Node, shape: Sequence[int]) -> Callable[[Constant], Constant]:
    """Slice, with positive steps."""
    starts, ends = node.listed("starts", 1) or [], node.listed("ends", 2) or []
    axes, steps = node.listed("axes", 3) or list(range(len(starts))), node.listed("steps", 4) or [1] * len(starts)
    cuts = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        node.require(step > 0 and cuts[axis] == slice(None), "a step is not positive, or an axis given twice")
        cuts[axis] = slice(start, end, step)
    return lambda a: a[tuple(cuts)]


def _function(node: Node) -> Function:
    """The scalar function of an elementwise operator."""
    if node.operator == "Clip":
        ends = [node.attribute("min", -np.inf), node.attribute("max", np.inf)]
        low, high = (node.real(i + 1).item() if node.has(i + 1) else end for i, end in enumerate(ends))
        node.require(low <= high, "its lower limit is above its upper limit, or not a number")
        return clip(low, high)
    if node.operator == "LeakyRelu":
        slope = node.attribute("alpha", float(np.float32(0.01)))
        node.require(np.isfinite(slope), "its slope is not a number")
        return leaky_relu(slope)
    return {"Relu": RELU, "Sigmoid": SIGMOID, "Tanh": TANH}[node.operator]
