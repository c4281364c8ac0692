"""Every ONNX operator the kernel reads: node -> steps.

Operators that only move entries act on index arrays (Entries) and on constants by one numpy call. Linear ones
become one matrix each; the file's numbers enter it unchanged, or within 8 u.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import scipy.sparse

from provenn.verifier.check.functions import (
    ABS,
    GELU,
    GELU_TANH,
    RELU,
    SIGMOID,
    SLOPES,
    SWISH,
    TANH,
    Function,
    between,
    piecewise_linear,
)
from provenn.verifier.check.network import Affine, Elementwise, Index, Matrix, MaxPool, Step
from provenn.verifier.check.rounding import Array, require, up
from provenn.verifier.check.tensors import (
    NONZERO_LIMIT,
    Constant,
    Entries,
    Node,
    Tensor,
    budget,
    combination,
    sums,
    whole,
)

STAGES, LARGEST = 2**10, float(np.finfo(np.float32).max)  # the longest axis that is sorted; the default of Clip


class Operators:
    """The steps read so far; one method an operator, each from a node to its outputs."""

    def __init__(self, slopes: bool = False) -> None:
        self.steps: list[Step] = []
        self.doubts: list[str] = []
        self.pairs: dict[Any, Entries] = {}  # of two values, (max, min)
        self.slopes = slopes  # whether functions are read of which slopes alone are known

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
        name = f"{name} <- {len(self.steps)}"
        return self.add(sums(name, (tensor.step,), index[:, None], np.ones((len(index), 1)), length, 0))

    def linear(self, node: Node, tensors: Sequence[Entries], positions: Index, numbers: Array) -> int:
        """Sums of numbers [n, k] at positions [n, k] of the tensors, one after the other: a step."""
        sources, width = tuple(self.flat(t, node.name) for t in tensors), sum(t.index.size for t in tensors)
        copies = positions.shape[1] == 1 and (numbers == 1).all()
        return self.add(sums(node.name, sources, positions, numbers, width, 0 if copies else 3))

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
        index = np.concatenate(places(tensors), axis)
        return whole(self.linear(node, tensors, index.reshape(-1, 1), np.ones((index.size, 1))), index.shape)

    def split(self, node: Node) -> list[Tensor]:
        """Consecutive parts along one axis: of given lengths, or equal ones (the last may be shorter)."""
        x, axis, sizes = node.variable(), node.attribute("axis", 0), node.listed("split", 1)
        length, count = x.index.shape[axis], node.attribute("num_outputs", node.outputs)
        each = -(-length // count)
        sizes = [min(each, length - i * each) for i in range(count)] if sizes is None else sizes
        fits = len(sizes) == count == node.outputs and sum(sizes) == length and min(sizes) > 0
        node.require(fits, "the parts do not fit")
        return [Entries(x.step, part) for part in np.split(x.index, np.cumsum(sizes)[:-1], axis)]

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
            if operator == "Mul" and self.slopes:
                return self.gated(node, left, right)
            node.require(operator in ("Add", "Sub"), "a product of two values is not linear")
            parts = [np.broadcast_to(part, output).ravel() for part in places((left, right))]
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

    def maximum(self, node: Node) -> list[Tensor]:
        """Max, Min of two values; those of the same two share their comparators."""
        node.require(node.inputs[1] is not None and all(t is None for t in node.inputs[2:]), "it must have two inputs")
        shape, values = np.broadcast_shapes(node.shape(0), node.shape(1)), (node.variable(0), node.variable(1))
        budget(shape)
        each = [(t.step, t.index.shape, t.index.tobytes()) for t in values]
        keys = [(shape, *each), (shape, *each[::-1])]
        known = next((self.pairs[key] for key in keys if key in self.pairs), None)
        if known is None:
            parts, (step, other) = [t.index for t in values], (t.step for t in values)
            if step != other:
                parts, every = places(values), np.arange(sum(t.index.size for t in values))[:, None]
                step = self.linear(replace(node, name=f"{node.name}.pair"), values, every, np.ones(every.shape))
            pairs = np.stack([np.broadcast_to(part, shape).ravel() for part in parts], axis=1)
            known = self.pairs[keys[0]] = self._compared(node, node.name, Entries(step, pairs), np.array([[0, 1]]))
        return [Entries(known.step, known.index[:, int(node.operator == "Min")].reshape(shape))]

    def ranked(self, node: Node) -> list[Tensor]:
        """The values of TopK: the axis sorted by comparators, a stage for every layer of Batcher's network."""
        x, axis, k = node.variable(), node.attribute("axis", -1), int(node.constant(1, "i").item())
        groups = np.moveaxis(x.index, axis, -1)
        count = groups.shape[-1]
        rising, in_order = not node.attribute("largest", 1), node.attribute("sorted", 1) == 1
        node.require(in_order and 1 <= k <= count <= STAGES, f"only sorted values of at most {STAGES} are read")
        budget([groups.size, count, 2], NONZERO_LIMIT)
        current = Entries(x.step, groups.reshape(-1, count))
        for s, layer in enumerate(comparators(count)):
            current = self._compared(node, f"{node.name}.{s}", current, layer[:, ::-1] if rising else layer)
        index = current.index[:, :k].reshape(*groups.shape[:-1], k)
        return [Entries(current.step, np.moveaxis(index, -1, axis))]

    def _compared(self, node: Node, name: str, current: Entries, layer: Index) -> Entries:
        """The entries of all groups in pairs x, y at layer [n, 2] replaced by max, min, with one relu for both:

        max(x, y) = y + relu(x - y), min(x, y) = x - relu(x - y).
        """
        node.single(False, "a runtime does not subtract")
        index, length = current.index, self.steps[current.step].length
        above, below = (np.s_[:, ends] for ends in layer.T)
        pairs = np.stack([index[above].ravel(), index[below].ravel()], axis=1)
        inner = sums(f"{name}.difference", (current.step,), pairs, np.broadcast_to([1.0, -1.0], pairs.shape), length)
        relu = self.add(Elementwise(f"{name}.relu", len(pairs), (self.add(inner),), RELU))
        before, own, signs = index.copy(), np.full(index.shape, -1), np.ones(index.shape)
        before[above], before[below] = index[below], index[above]
        own[above] = own[below] = length + np.arange(len(pairs)).reshape(len(index), -1)
        signs[below] = -1.0
        positions, numbers = (np.stack(p, -1).reshape(-1, 2) for p in ((before, own), (np.ones_like(signs), signs)))
        step = self.add(sums(name, (current.step, relu), positions, numbers, length + len(pairs)))
        return Entries(step, np.arange(index.size).reshape(index.shape))

    def gated(self, node: Node, left: Entries, right: Entries) -> list[Tensor]:
        """The product x sigmoid(x)."""
        for x, gate in ((left, right), (right, left)):
            step = self.steps[gate.step]
            gates = isinstance(step, Elementwise) and step.function is SIGMOID and step.sources == (x.step,)
            if gates and np.array_equal(x.index, gate.index):
                source, shape = self.flat(x, node.name), x.index.shape
                node.single(False, "a product of two values")
                return whole(self.add(Elementwise(node.name, prod(shape), (source,), SWISH)), shape)
        node.require(False, "a product of two values is not linear")
        return []

    def elementwise(self, node: Node) -> list[Tensor]:
        """A scalar function."""
        source, exact = self.flat(node.variable(), node.name), node.operator in ("Abs", "Clip", "LeakyRelu", "Relu")
        node.single(exact, "how far a runtime's function is from the real one is not known")
        singles, length = int(node.operator == "LeakyRelu"), self.steps[source].length
        return whole(self.add(Elementwise(node.name, length, (source,), _function(node), singles)), node.shape())


def comparators(size: int) -> list[Index]:
    """Layers [n, 2] of pairs i < j whose exchanges, the larger to i, sort `size` entries: Batcher's merging, 1968."""
    layers, p = [], 1
    while p < size:
        for k in (p >> shift for shift in range(p.bit_length())):
            pairs = [(i + j, i + j + k) for j in range(k % p, size - k, 2 * k) for i in range(min(k, size - j - k))]
            layers.append(np.array([(i, j) for i, j in pairs if i // (2 * p) == j // (2 * p)], np.int64))
        p *= 2
    return layers


OPERATORS: dict[str, Callable[[Operators, Node], list[Tensor]]] = {
    **dict.fromkeys(("Flatten", "Gather", "Identity", "Reshape"), Operators.move),
    **dict.fromkeys(("Squeeze", "Transpose", "Unsqueeze"), Operators.move),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), Operators.arithmetic),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean"), Operators.pool),
    **dict.fromkeys(("Gemm", "MatMul"), Operators.product),
    **dict.fromkeys(("Clip", "LeakyRelu", "Relu", "Sigmoid", "Tanh"), Operators.elementwise),
    **dict.fromkeys(("Max", "Min"), Operators.maximum),
    **{"Abs": Operators.elementwise, "Slice": Operators.move, "Split": Operators.split, "TopK": Operators.ranked},
    **{"BatchNormalization": Operators.batch_normalization, "Concat": Operators.concat, "Shape": Operators.shape},
    **{"Constant": Operators.constant, "Conv": Operators.convolution},
}

SLOPES_ONLY = dict.fromkeys(("Celu", "Elu", "Gelu", "HardSigmoid", "Selu", *SLOPES), Operators.elementwise)
"""Read for Lipschitz claims alone."""

SELU = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}  # where they are left out


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
    if node.operator == "Slice":
        names = ("starts", "ends", "axes", "steps")
        starts, ends, along, steps = (node.listed(name, i) or [] for i, name in enumerate(names, 1))
        along, parts = along or list(range(len(starts))), [slice(None)] * len(shape)
        for axis, start, end, step in zip(along, starts, ends, steps or [1] * len(starts), strict=True):
            node.require(parts[axis] == slice(None), "an axis is given twice")
            parts[axis] = slice(start, end, step)
        # ONNX moves a start before the axis to its first entry, Python does not: they differ where Python finds none
        node.require(np.broadcast_to(0, shape)[tuple(parts)].size > 0, "nothing is left")
        return lambda a: a[tuple(parts)]
    return lambda a: a


def _function(node: Node) -> Function:
    """The scalar function of an elementwise operator."""
    if node.operator == "Clip":
        ends = [node.attribute("min", -LARGEST), node.attribute("max", LARGEST)]
        low, high = (node.real(i + 1).item() if node.inputs[i + 1] is not None else end for i, end in enumerate(ends))
        node.require(low <= high, "its lower limit is above its upper limit, or not a number")
        # beyond LARGEST the default limits depend on the type: nothing is known there

        def held(z: Array) -> Array:
            return np.clip(np.where(np.abs(z) <= LARGEST, z, np.nan), low, high)

        return piecewise_linear((low, high), (0.0, 1.0, 0.0), held)
    if node.operator == "LeakyRelu":
        slope = node.attribute("alpha", float(np.float32(0.01)))
        node.require(np.isfinite(slope), "its slope is not a number")
        return piecewise_linear((0.0,), (slope, 1.0), lambda z: np.where(z > 0, z, slope * z))
    if node.operator in SLOPES_ONLY:
        return _sloped(node)
    return {"Abs": ABS, "Relu": RELU, "Sigmoid": SIGMOID, "Tanh": TANH}[node.operator]


def _sloped(node: Node) -> Function:
    """What is known by (1c) of a function of SLOPES_ONLY.

    Elu, Selu: gamma z above 0, below it the derivative is gamma alpha exp(z); Celu: exp(z / alpha).
    """
    name, selu = node.operator, node.operator == "Selu"
    if name == "Gelu":
        form = node.attribute("approximate", b"none")
        node.require(form in (b"none", b"tanh"), "its approximation is not understood")
        return GELU if form == b"none" else GELU_TANH
    alpha = node.attribute("alpha", SELU["alpha"] if selu else float(np.float32(0.2)) if name == "HardSigmoid" else 1.0)
    gamma = node.attribute("gamma", SELU["gamma"] if selu else 1.0)
    numbers = 0 < alpha < np.inf and 0 < gamma < np.inf and np.isfinite(node.attribute("beta", 0.5))
    node.require(numbers, "alpha or gamma is not positive, or no number")
    steepest = {"Celu": 1.0, "Elu": max(1.0, alpha), "HardSigmoid": alpha, "Selu": gamma * max(1.0, alpha)}
    return SLOPES[name] if name in SLOPES else between(0.0, float(up(np.array(steepest[name]))))


def places(tensors: Sequence[Entries]) -> list[Index]:
    """For each tensor the positions of its entries when all are laid one after the other."""
    starts = np.cumsum([0, *(t.index.size for t in tensors)])
    return [np.arange(t.index.size).reshape(t.index.shape) + s for t, s in zip(tensors, starts, strict=False)]


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
