"""ONNX nodes executed in float32 in an order drawn at random, or by any arithmetic with errors up to float32's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray
U, TINY = 2.0**-24, 2.0**-126


@dataclass
class Arithmetic:
    """Elementwise operations on float64 arrays that hold executed numbers, each rounded by `round`.

    fused: products are not rounded before they are added. flush: results below 2^-126 become 0.
    """

    generator: np.random.Generator
    fused: bool = False
    flush: bool = False

    def rounded(self, exact: Array) -> Array:
        """To the nearest float32; double rounding costs less than 2^-29 of u."""
        value = np.asarray(exact).astype(np.float32).astype(np.float64)
        return np.where(np.abs(value) < TINY, 0.0, value) if self.flush else value

    def add(self, a: Array, b: Array) -> Array:
        return self.rounded(a + b)

    def times(self, a: Array, b: Array) -> Array:
        return self.rounded(a * b)

    def inner(self, values: Array, weights: Array, start: Array) -> Array:
        """Sum of values [n, k] times weights [n, k] plus start [n], in a random tree that is the same for every n."""
        if self.fused and self.generator.random() < 0.5:  # one accumulator, fused multiply-add
            order, first = self.generator.permutation(values.shape[1]), bool(self.generator.integers(2))
            total = start if first else np.zeros(len(values))
            for k in order:
                total = self.add(total, values[:, k] * weights[:, k])
            return total if first else self.add(total, start)
        terms = [*self.times(values, weights).T, start]
        shape = self.generator.integers(3)
        order = self.generator.permutation(len(terms)) if shape else np.arange(len(terms))
        terms = [terms[k] for k in order]
        while len(terms) > 1:  # a sequence, or a random tree
            k = int(self.generator.integers(len(terms) - 1)) if shape == 2 else 0
            terms[k : k + 2] = [self.add(terms[k], terms[k + 1])]
        return terms[0]


@dataclass
class Adverse(Arithmetic):
    """Every operation errs by nearly u. style: 0 away from zero, 1 toward it, 2 up, 3 as drawn."""

    style: int = 0

    def rounded(self, exact: Array) -> Array:
        exact = np.asarray(exact)
        signs = (1.0, -1.0, np.sign(exact), self.generator.choice([-1.0, 1.0], exact.shape))[self.style]
        return exact * (1 + signs * U * (1 - 2.0**-20))

    def add(self, a: Array, b: Array) -> Array:
        """Adding zero is exact in every format."""
        return np.where((a == 0) | (b == 0), a + b, self.rounded(a + b))


@dataclass(frozen=True)
class Sums:
    """A value not yet computed: left [n, k] times right [n, k], summed, plus start [n], in this shape."""

    left: Array
    right: Array
    start: Array
    shape: tuple[int, ...]

    def value(self, a: Arithmetic) -> Array:
        """Computed now, in some order."""
        return a.inner(self.left, self.right, self.start).reshape(self.shape)

    def scaled(self, a: Arithmetic, by: Array, shift: Array | None = None) -> Sums:
        """Its coefficients multiplied, its constant multiplied and shifted."""
        s = np.broadcast_to(by, self.shape).ravel().astype(np.float64)
        start = a.times(self.start, s)
        if shift is not None:
            start = a.add(start, np.broadcast_to(shift, self.shape).ravel().astype(np.float64))
        return Sums(self.left, a.times(self.right, s[:, None]), start, self.shape)

    def plus(self, a: Arithmetic, other: Array | Sums, sign: float) -> Sums:
        """Another value, or all terms of another one, among its terms."""
        if isinstance(other, Sums):
            left, right = np.hstack([self.left, other.left]), np.hstack([self.right, sign * other.right])
            return Sums(left, right, a.add(self.start, sign * other.start), self.shape)
        more = np.broadcast_to(other, self.shape).reshape(-1, 1).astype(np.float64)
        left, right = np.hstack([self.left, more]), np.hstack([self.right, np.full_like(more, sign)])
        return Sums(left, right, self.start, self.shape)


@dataclass
class Executor:
    """The values of a model at batch 1, by name.

    merge: scalings, shifts and sums after a product are merged into it where nothing else reads what lies between, as
    optimizing runtimes do; such values have no number of their own and are left out.
    """

    data: bytes
    merge: bool = False

    def run(self, x: Array, a: Arithmetic) -> dict[str, Array]:
        """x: float32 [1, ...]."""
        graph = onnx.ModelProto.FromString(self.data).graph
        constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        values: dict[str, Any] = {**constants, graph.input[0].name: x.astype(np.float64)}
        readers = Counter(name for node in graph.node for name in node.input)
        for node in graph.node:
            how = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            operands = [values[name] for name in node.input]
            merged = _merged(a, node, how, operands) if self.merge else None
            if merged is None:
                for name, operand in zip(node.input, operands, strict=True):
                    values[name] = operand.value(a) if isinstance(operand, Sums) else operand
                merged = RULES[node.op_type](a, how, *(values[name] for name in node.input))
            keep = self.merge and readers[node.output[0]] == 1
            values[node.output[0]] = merged if keep or not isinstance(merged, Sums) else merged.value(a)
        return {name: v for name, v in values.items() if not isinstance(v, Sums) and name not in constants}


def _merged(a: Arithmetic, node: onnx.NodeProto, how: dict[str, Any], operands: list[Any]) -> Sums | None:
    """The operands' sums with this node merged into them, or None."""
    first, last = operands[0], operands[-1]
    if node.op_type == "BatchNormalization" and isinstance(first, Sums):
        s, shift = _scale_and_shift(a, how, len(first.shape), operands[1:])
        return first.scaled(a, s, shift)
    if node.op_type in ("Mul", "Div") and isinstance(first, Sums):
        return first.scaled(a, last if node.op_type == "Mul" else a.rounded(1 / last.astype(np.float64)))
    if node.op_type in ("Add", "Sub"):
        sign = 1.0 if node.op_type == "Add" else -1.0
        if isinstance(first, Sums):
            return first.plus(a, last, sign)
        if isinstance(last, Sums):
            return Sums(last.left, sign * last.right, sign * last.start, last.shape).plus(a, first, 1.0)
    return None


def _affine(values: Array, weight: Array, start: Array) -> Sums:
    """Rows of values [r, k] times weight [k, n] plus start [r, n]."""
    r, n = values.shape[0], weight.shape[1]
    left = np.repeat(values[:, None], n, axis=1).reshape(r * n, -1)
    right = np.repeat(weight.T[None], r, axis=0).reshape(r * n, -1).astype(np.float64)
    return Sums(left, right, np.broadcast_to(start, (r, n)).ravel().astype(np.float64), (r, n))


def _gemm(a: Arithmetic, how: dict[str, Any], x: Array, w: Array, b: Array | float = 0.0) -> Array | Sums:
    w = w.T if how.get("transB") else w
    alpha, beta = how.get("alpha", 1.0), how.get("beta", 1.0)
    if (alpha, beta) == (1.0, 1.0):
        return _affine(x, w, np.asarray(b))
    products = a.times(np.float64(alpha), _affine(x, w, np.zeros(())).value(a))
    return a.add(products, a.times(np.float64(beta), np.asarray(b, np.float64)))


def _matmul(a: Arithmetic, how: dict[str, Any], x: Array, w: Array) -> Sums:
    sums = _affine(x.reshape(-1, x.shape[-1]), w, np.zeros(()))
    return replace(sums, shape=(*x.shape[:-1], w.shape[1]))


def _patches(x: Array, kernel: Sequence[int], how: dict[str, Any]) -> Array:
    """[1, c, h, w] -> [c, places, k], padding is NaN."""
    top, left, bottom, right = how.get("pads", [0] * 4)
    padded = np.pad(x[0], ((0, 0), (top, bottom), (left, right)), constant_values=np.nan)
    seen = np.lib.stride_tricks.sliding_window_view(padded, tuple(kernel), axis=(1, 2))
    down, across = how.get("strides", [1, 1])
    return seen[:, ::down, ::across]


def _conv(a: Arithmetic, how: dict[str, Any], x: Array, w: Array, b: Array | None = None) -> Sums:
    seen, groups = np.nan_to_num(_patches(x, w.shape[2:], how)), how.get("group", 1)
    places, each = seen.shape[1] * seen.shape[2], len(w) // groups
    left, right = [], []
    for g, part in enumerate(np.split(seen, groups)):
        rows = part.transpose(1, 2, 0, 3, 4).reshape(places, -1)
        left.append(np.tile(rows, (each, 1)))
        right.append(np.repeat(w[g * each : (g + 1) * each].reshape(each, -1), places, axis=0))
    start = np.repeat(np.zeros(len(w)) if b is None else b, places).astype(np.float64)
    return Sums(np.vstack(left), np.vstack(right).astype(np.float64), start, (1, len(w), *seen.shape[1:3]))


def _mean(a: Arithmetic, windows: Array) -> Array:
    """[n, k] with NaN for padding: sums divided by the number of entries."""
    count = (~np.isnan(windows)).sum(axis=1)
    total = a.inner(np.nan_to_num(windows), np.ones_like(windows), np.zeros(len(windows)))
    return a.rounded(total / count) if a.generator.random() < 0.5 else a.times(total, a.rounded(1 / count))


def _average(a: Arithmetic, how: dict[str, Any], x: Array) -> Array:
    seen = _patches(x, how["kernel_shape"], how)
    return _mean(a, seen.reshape(int(np.prod(seen.shape[:3])), -1)).reshape(1, *seen.shape[:3])


def _largest(a: Arithmetic, how: dict[str, Any], x: Array) -> Array:
    seen = _patches(x, how["kernel_shape"], how)
    return np.nanmax(seen.reshape(*seen.shape[:3], -1), axis=-1)[None]


def _scale_and_shift(a: Arithmetic, how: dict[str, Any], rank: int, numbers: Sequence[Array]) -> tuple[Array, Array]:
    """S and t of a normalization S x + t."""
    scale, bias, mean, variance = (n.astype(np.float64).reshape((1, -1) + (1,) * (rank - 2)) for n in numbers)
    root = a.rounded(np.sqrt(a.add(variance, np.float64(np.float32(how.get("epsilon", 1e-5))))))
    s = a.rounded(scale / root) if a.generator.random() < 0.5 else a.times(scale, a.rounded(1 / root))
    return s, a.add(bias, -a.times(mean, s))


def _normalized(a: Arithmetic, how: dict[str, Any], x: Array, *numbers: Array) -> Array:
    """Scale and shift first, or (x - mean) first."""
    s, shift = _scale_and_shift(a, how, x.ndim, numbers)
    if a.generator.random() < 0.5:
        return a.add(a.times(x, s), shift)
    _, bias, mean, _ = (n.astype(np.float64).reshape((1, -1) + (1,) * (x.ndim - 2)) for n in numbers)
    return a.add(a.times(a.add(x, -mean), s), bias)


def _divide(a: Arithmetic, how: dict[str, Any], x: Array, c: Array) -> Array:
    return a.rounded(x / c) if a.generator.random() < 0.5 else a.times(x, a.rounded(1 / c.astype(np.float64)))


def _clip(a: Arithmetic, how: dict[str, Any], x: Array, low: Array, high: Array) -> Array:
    return np.clip(x, low, high)


def _leaky(a: Arithmetic, how: dict[str, Any], x: Array) -> Array:
    return np.where(x > 0, x, a.times(np.float64(np.float32(how.get("alpha", 0.01))), x))


RULES: dict[str, Callable[..., Array | Sums]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    "AveragePool": _average,
    "MaxPool": _largest,
    "GlobalAveragePool": lambda a, how, x: _mean(a, x.reshape(x.shape[1], -1)).reshape(1, -1, 1, 1),
    "BatchNormalization": _normalized,
    "Add": lambda a, how, x, y: a.add(x.astype(np.float64), y.astype(np.float64)),
    "Sub": lambda a, how, x, y: a.add(x.astype(np.float64), -y.astype(np.float64)),
    "Mul": lambda a, how, x, y: a.times(x.astype(np.float64), y.astype(np.float64)),
    "Div": _divide,
    "Relu": lambda a, how, x: np.maximum(x, 0.0),
    "LeakyRelu": _leaky,
    "Clip": _clip,
    "Reshape": lambda a, how, x, shape: x.reshape(shape),
    "Flatten": lambda a, how, x: x.reshape(1, -1),
    "Transpose": lambda a, how, x: x.transpose(how["perm"]),
    "Concat": lambda a, how, *x: np.concatenate(x, how["axis"]),
}
