"""Layers as torch defines them, written in ONNX: products, convolutions, pooling, normalization, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isinf, isnan, prod

import numpy as np

from provenn.models import onnx_shapes as shapes
from provenn.models.onnx_writer import Value, Writer, shown

PLAIN = ("Abs", "Cos", "Erf", "Exp", "HardSwish", "Log", "Mish", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sin", "Sqrt",
         "Tanh")  # fmt: skip
"""Operators of one input and no attributes that torch and ONNX define alike."""

THRESHOLD = 20.0
"""Beyond it torch's softplus is z itself: within 2.1e-9 of log(1 + exp(z))."""


def plain(w: Writer, operator: str, x: Value) -> Value:
    """One of PLAIN, entry by entry."""
    return w.node(operator, [x], x.shape)


def linear(w: Writer, x: Value, weight: Value, bias: Value | None) -> Value:
    """X weight' + bias;  x [.., in], weight [out, in], bias [out]."""
    w.require(len(weight.shape) == 2 and len(x.shape) > 0, f"a weight of shape {shown(weight.shape)}; it needs 2 axes")
    outer, inner = weight.shape
    w.require(x.shape[-1] == inner, f"inputs {shown(x.shape)} do not fit weight {shown(weight.shape)}")
    w.require(bias is None or bias.shape == (outer,), "the bias does not fit the weight")
    constant = weight.numbers is not None and (bias is None or bias.numbers is not None)
    if constant and len(x.shape) == 2:
        return w.node("Gemm", [x, weight, bias], (x.shape[0], outer), transB=1)
    product = matmul(w, x, shapes.transpose(w, weight, (1, 0)))
    return product if bias is None else arithmetic(w, "Add", product, bias)


def matmul(w: Writer, x: Value, y: Value) -> Value:
    """X y, with leading axes that broadcast, as numpy does; [k] stands for a row on the left, a column on the right."""
    w.require(x.shape and y.shape, "a product with a single number")
    left, right = x.shape if len(x.shape) > 1 else (1, *x.shape), y.shape if len(y.shape) > 1 else (*y.shape, 1)
    w.require(left[-1] == right[-2], f"shapes {shown(x.shape)} and {shown(y.shape)} do not fit together")
    leading = w.broadcast(left[:-2], right[:-2]) if len(left) + len(right) > 4 else ()
    ends = (left[-2:-1] if len(x.shape) > 1 else ()) + (right[-1:] if len(y.shape) > 1 else ())
    return w.node("MatMul", [x, y], (*leading, *ends))


def arithmetic(w: Writer, operator: str, x: Value, y: Value) -> Value:
    """Add, Sub, Mul, Div, Max, Min of two values, with broadcasting; computed now if both are constant."""
    x, y = _alike(x, y), _alike(y, x)
    shape = w.broadcast(x.shape, y.shape)
    if (
        x.numbers is None
        or y.numbers is None
        or x.type != y.type
        or np.broadcast(x.numbers, y.numbers).size > max(x.each, y.each)
    ):
        return w.node(operator, [x, y], shape)
    with np.errstate(all="ignore"):  # what is not finite is refused when the file is admitted
        return w.constant(np.asarray(FOLDED[operator](x.numbers, y.numbers)), x.name)


FOLDED: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
}


def _alike(x: Value, other: Value) -> Value:
    """A single constant number takes the type of a float tensor beside it, as in torch."""
    if x.numbers is None or x.shape or not other.shape or x.type == other.type or other.type.kind != "f":
        return x
    return Value(x.name, (), other.type, x.numbers.astype(other.type))


def convolution(
    w: Writer, x: Value, weights: tuple[Value, Value | None], stride: Sequence[int],
    padding: Sequence[int] | str, dilation: Sequence[int], groups: int,
) -> Value:  # fmt: skip
    """X [batch, in, *size], weights ([out, in / groups, *kernel], [out] or None); padding, or its name."""
    weight, bias = weights
    rank = len(weight.shape) - 2
    w.require(rank in (1, 2, 3), f"a weight of shape {shown(weight.shape)}; convolutions run along 1 to 3 axes")
    if len(x.shape) == rank + 1:
        whole = convolution(w, shapes.unsqueeze(w, x, 0), weights, stride, padding, dilation, groups)
        return shapes.squeeze(w, whole, [0])
    outer, inner, *kernel = (int(n) for n in weight.shape)
    w.require(len(x.shape) == rank + 2, f"inputs {shown(x.shape)} do not fit weight {shown(weight.shape)}")
    fits = groups > 0 and outer % groups == 0 and x.shape[1] == inner * groups
    w.require(fits, f"inputs {shown(x.shape)} do not fit weight {shown(weight.shape)} in {groups} groups")
    w.require(bias is None or bias.shape == (outer,), "the bias does not fit the weight")
    strides, dilations = spread(w, stride, rank, "stride"), spread(w, dilation, rank, "dilation")
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if isinstance(padding, str):
        w.require(padding in ("same", "valid"), "a padding other than numbers, 'same' and 'valid'")
        w.require(padding == "valid" or set(strides) == {1}, "padding 'same' with a stride")
        before = [(s - 1) // 2 if padding == "same" else 0 for s in spans]
        after = [s - 1 - b if padding == "same" else 0 for s, b in zip(spans, before, strict=True)]
    else:
        before = after = spread(w, padding, rank, "padding", 0)
    size = [(w.within(x, i + 2) + before[i] + after[i] - spans[i]) // strides[i] + 1 for i in range(rank)]
    return w.node(
        "Conv", [x, weight, bias], (x.shape[0], outer, *size),
        strides=strides, pads=[*before, *after], dilations=dilations, group=groups, kernel_shape=kernel,
    )  # fmt: skip


def spread(w: Writer, numbers: Sequence[int], rank: int, what: str, least: int = 1) -> list[int]:
    """One number an axis, or one for all."""
    found = list(numbers) * rank if len(numbers) == 1 else list(numbers)
    w.require(len(found) == rank, f"{what} has {len(found)} numbers, for {rank} axes")
    w.require(all(least <= n < 2**31 for n in found), f"{what} is {found}; at least {least} is expected")
    return found


def max_pool(
    w: Writer, x: Value, kernel: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], ceil: bool,
) -> Value:  # fmt: skip
    """The largest entry of every window of x [batch, channels, *size]; windows that begin inside count, if `ceil`."""
    rank = len(kernel)
    if len(x.shape) == rank + 1:
        whole = max_pool(w, shapes.unsqueeze(w, x, 0), kernel, stride, padding, dilation, ceil)
        return shapes.squeeze(w, whole, [0])
    dilations = spread(w, dilation, rank, "dilation")
    strides, pads, size = _windows(w, x, kernel, stride, padding, dilations, ceil)
    return w.node(
        "MaxPool", [x], (*x.shape[:2], *size), kernel_shape=list(kernel), strides=strides, pads=pads,
        dilations=dilations,
    )  # fmt: skip


def average_pool(
    w: Writer, x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil: bool, counted: bool
) -> Value:
    """The mean of every window of x [batch, channels, *size]; `counted`: with the zeros of the padding."""
    rank = len(kernel)
    if len(x.shape) == rank + 1:
        return shapes.squeeze(
            w, average_pool(w, shapes.unsqueeze(w, x, 0), kernel, stride, padding, ceil, counted), [0]
        )
    strides, pads, size = _windows(w, x, kernel, stride, padding, [1] * rank, ceil)
    enlarged = pads[:rank] != pads[rank:]
    w.require(not enlarged or not counted or not any(pads[:rank]), "ceil_mode with a padding that is counted")
    return w.node(
        "AveragePool", [x], (*x.shape[:2], *size), kernel_shape=list(kernel), strides=strides, pads=pads,
        count_include_pad=int(counted and not enlarged),
    )  # fmt: skip


def _windows(
    w: Writer, x: Value, kernel: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilations: Sequence[int], ceil: bool,
) -> tuple[list[int], list[int], list[int]]:  # fmt: skip
    """(strides, pads, sizes of the result) of pooling; an incomplete last window is completed by padding."""
    rank = len(kernel)
    w.require(rank in (1, 2, 3) and len(x.shape) == rank + 2, f"windows of {rank} axes on inputs {shown(x.shape)}")
    spread(w, kernel, rank, "kernel_size")
    strides, before = spread(w, stride or kernel, rank, "stride"), spread(w, padding, rank, "padding", 0)
    w.require(all(2 * p <= k for p, k in zip(before, kernel, strict=True)), "padding is above half of kernel_size")
    after, size = list(before), []
    for i in range(rank):
        span, length = dilations[i] * (kernel[i] - 1) + 1, w.within(x, i + 2)
        room = length + 2 * before[i] - span
        count = room // strides[i] + 1
        if ceil and room % strides[i] and count * strides[i] < length + before[i]:
            after[i] = count * strides[i] + span - length - before[i]
            count += 1
        size.append(count)
    return strides, [*before, *after], size


def adaptive_average_pool(w: Writer, x: Value, output: Sequence[int | None]) -> Value:
    """Means of equal parts of x [batch, channels, *size]; None keeps an axis.   Raises: if parts would be unequal."""
    rank = len(output)
    if len(x.shape) == rank + 1:
        return shapes.squeeze(w, adaptive_average_pool(w, shapes.unsqueeze(w, x, 0), output), [0])
    w.require(rank in (1, 2, 3) and len(x.shape) == rank + 2, f"windows of {rank} axes on inputs {shown(x.shape)}")
    sizes = [w.within(x, i + 2) for i in range(rank)]
    counts = [size if n is None else n for n, size in zip(output, sizes, strict=True)]
    even = all(n > 0 and size % n == 0 for n, size in zip(counts, sizes, strict=True))
    w.require(even, f"adaptive pooling of {sizes} to {counts}: the parts would not be of one size")
    if set(counts) == {1}:
        return w.node("GlobalAveragePool", [x], (*x.shape[:2], *counts))
    kernel = [size // n for n, size in zip(counts, sizes, strict=True)]
    return average_pool(w, x, kernel, kernel, [0], False, True)


def batch_norm(
    w: Writer, x: Value, affine: tuple[Value | None, Value | None], moments: tuple[Value, Value], epsilon: float
) -> Value:
    """(x - mean) / sqrt(variance + epsilon) scale + shift;  affine (scale, shift), moments (mean, variance)."""
    w.require(len(x.shape) >= 2, f"batch normalization of {shown(x.shape)}; it needs a batch and channels")
    channels = x.shape[1:2]
    values = [*_filled(w, x, affine, channels), *moments]
    w.require(all(v.shape == channels for v in values), f"statistics do not fit {shown(x.shape)}")
    return w.node("BatchNormalization", [x, *values], x.shape, epsilon=_epsilon(w, epsilon))


def layer_norm(
    w: Writer, x: Value, shape: Sequence[int], affine: tuple[Value | None, Value | None], epsilon: float
) -> Value:
    """X normalized over its last axes, of that shape, times scale plus shift."""
    last = tuple(shape)
    w.require(last and x.shape[-len(last) :] == last, f"normalized_shape {shown(last)} of inputs {shown(x.shape)}")
    values = _filled(w, x, affine, last)
    w.require(all(v.shape == last for v in values), f"scale or shift do not fit normalized_shape {shown(last)}")
    return w.node("LayerNormalization", [x, *values], x.shape, axis=-len(last), epsilon=_epsilon(w, epsilon))


def _filled(w: Writer, x: Value, affine: tuple[Value | None, Value | None], shape: Sequence[int | str]) -> list[Value]:
    sizes = [n for n in shape if isinstance(n, int)]
    return [w.constant(np.full(sizes, n, x.type)) if v is None else v for n, v in zip((1, 0), affine, strict=True)]


def _epsilon(w: Writer, epsilon: float) -> float:
    w.require(0 < epsilon < 1, f"eps is {epsilon}; a number between 0 and 1 is expected")
    return epsilon


def clip(w: Writer, x: Value, minimum: float | None, maximum: float | None) -> Value:
    """min(max(x, minimum), maximum); None or infinite: no limit."""
    w.require(not any(n is not None and isnan(n) for n in (minimum, maximum)), "a limit is not a number")
    limits = [None if n is None or isinf(n) else w.scalar(n, x) for n in (minimum, maximum)]
    w.require(minimum != np.inf and maximum != -np.inf, "a limit that leaves no finite number")
    return w.node("Clip", [x, *limits], x.shape)


def elu(w: Writer, x: Value, alpha: float) -> Value:
    """X where x > 0, alpha (exp(x) - 1) elsewhere."""
    return w.node("Elu", [x], x.shape, alpha=float(alpha))


def leaky_relu(w: Writer, x: Value, slope: float) -> Value:
    """X where x > 0, slope x elsewhere."""
    return w.node("LeakyRelu", [x], x.shape, alpha=float(slope))


def prelu(w: Writer, x: Value, slope: Value) -> Value:
    """X where x > 0, slope x elsewhere; slope [1] or one a channel, axis 1."""
    w.require(len(slope.shape) == 1, f"slopes of shape {shown(slope.shape)}; a list is expected")
    channels = x.shape[1] if len(x.shape) > 1 else 1
    w.require(slope.shape[0] in (1, channels), f"{slope.shape[0]} slopes for inputs {shown(x.shape)}")
    each = shapes.reshape(w, slope, (*slope.shape, *(1,) * max(len(x.shape) - 2, 0)))
    return w.node("PRelu", [x, each], x.shape)


def gelu(w: Writer, x: Value, approximate: str) -> Value:
    """X Phi(x), Phi the normal distribution; or its form with tanh."""
    w.require(approximate in ("none", "tanh"), "gelu: approximate is neither 'none' nor 'tanh'")
    return w.node("Gelu", [x], x.shape, approximate=approximate)


def silu(w: Writer, x: Value) -> Value:
    """X sigmoid(x)."""
    return w.node("Mul", [x, plain(w, "Sigmoid", x)], x.shape)


def softplus(w: Writer, x: Value, beta: float, threshold: float) -> Value:
    """log(1 + exp(beta x)) / beta; torch's x where beta x > threshold is within 2.1e-9 / beta of it."""
    w.require(0 < beta < 2**20, f"softplus with beta {beta}; a positive number is expected")
    w.require(threshold >= THRESHOLD, f"softplus with threshold {threshold}, where it would jump; at least {THRESHOLD}")
    if beta == 1:
        return w.node("Softplus", [x], x.shape)
    steep = w.node("Softplus", [arithmetic(w, "Mul", x, w.scalar(beta, x))], x.shape)
    return arithmetic(w, "Div", steep, w.scalar(beta, x))


def softmax(w: Writer, x: Value, axis: int, operator: str = "Softmax") -> Value:
    """exp(x) / sum of exp(x) along an axis; or LogSoftmax."""
    axis = w.axis(axis, len(x.shape))
    w.within(x, axis)
    return w.node(operator, [x], x.shape, axis=axis)


def reduced(w: Writer, operator: str, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """ReduceMean, ReduceSum, ReduceMax or ReduceMin along axes (none given: all)."""
    axes = w.axes(axes or range(len(x.shape)), len(x.shape))
    w.require(axes and prod(w.within(x, axis) for axis in axes), "a single number has no axes")
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes)
    return w.node(operator, [x, w.integers(axes)], kept, keepdims=int(keep))


def largest(w: Writer, x: Value, count: int, axis: int, rising: bool = False) -> Value:
    """The `count` largest values along an axis in falling order, or the smallest in rising order."""
    axis = w.axis(axis, len(x.shape))
    w.require(1 <= count <= w.within(x, axis), f"{count} of {x.shape[axis]} values")
    shape = tuple(count if i == axis else n for i, n in enumerate(x.shape))
    return w.node("TopK", [x, w.integers([count])], shape, axis=axis, largest=int(not rising), sorted=1)
