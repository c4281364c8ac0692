"""Pooling, normalization, dropout, softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provenn.models import onnx_layers as layers
from provenn.models.onnx_writer import Value, Writer
from provenn.models.pt2.call import Call

TRAINING = "in training mode; call module.eval() before export"


def _kernel(call: Call, rank: int) -> tuple[int, ...]:
    found = call.integers("kernel_size")
    return found * rank if len(found) == 1 else found


def max_pool(rank: int) -> Callable[[Writer, Call], list[Value | None]]:
    """max_pool1d, max_pool2d, max_pool3d, with the places of the maxima or without; places are not computed."""

    def read(w: Writer, call: Call) -> list[Value | None]:
        kernel, stride = _kernel(call, rank), call.integers("stride", ())
        padding, dilation = call.integers("padding", (0,)), call.integers("dilation", (1,))
        w.require(len(kernel) == rank, f"kernel_size has {len(kernel)} numbers, for {rank} axes")
        x, ceil = call.tensor("self"), call.flag("ceil_mode")
        return [layers.max_pool(w, x, kernel, stride, padding, dilation, ceil), None][: len(call.node.outputs)]

    return read


def average_pool(rank: int) -> Callable[[Writer, Call], list[Value]]:
    """avg_pool1d, avg_pool2d, avg_pool3d."""

    def read(w: Writer, call: Call) -> list[Value]:
        kernel, stride, padding = _kernel(call, rank), call.integers("stride", ()), call.integers("padding", (0,))
        w.require(len(kernel) == rank, f"kernel_size has {len(kernel)} numbers, for {rank} axes")
        w.require(call.position("divisor_override") is None, "divisor_override is not read")
        x, ceil, counted = call.tensor("self"), call.flag("ceil_mode"), call.flag("count_include_pad", True)
        return [layers.average_pool(w, x, kernel, stride, padding, ceil, counted)]

    return read


def adaptive_average_pool(rank: int) -> Callable[[Writer, Call], list[Value]]:
    """adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d to parts of one size."""

    def read(w: Writer, call: Call) -> list[Value]:
        size = call.integers("output_size")
        w.require(len(size) in (1, rank), f"output_size has {len(size)} numbers, for {rank} axes")
        return [layers.adaptive_average_pool(w, call.tensor("self"), size * rank if len(size) == 1 else size)]

    return read


def batch_norm(w: Writer, call: Call) -> list[Value | None]:
    """Batch normalization with the stored mean and variance."""
    w.require(not call.flag("training"), f"batch normalization {TRAINING}")
    affine = (call.optional("weight"), call.optional("bias"))
    mean, variance = call.optional("running_mean"), call.optional("running_var")
    call.pass_over("momentum", "cudnn_enabled", "cudnn_enable")
    if mean is None or variance is None:
        w.refuse("batch normalization without stored statistics mixes the inputs of a batch")
    found = layers.batch_norm(w, call.tensor("input"), affine, (mean, variance), call.number("eps"))
    return [found, None, None][: len(call.node.outputs)]


def layer_norm(w: Writer, call: Call) -> list[Value | None]:
    """Layer normalization."""
    x, shape = call.tensor("input"), call.integers("normalized_shape")
    affine = (call.optional("weight"), call.optional("bias"))
    call.pass_over("cudnn_enable")
    return [layers.layer_norm(w, x, shape, affine, call.number("eps", 1e-5)), None, None][: len(call.node.outputs)]


def dropout(w: Writer, call: Call) -> list[Value]:
    """The input itself."""
    call.number("p")
    w.require(not call.flag("train", True), f"dropout {TRAINING}")
    return [call.tensor("self" if "self" in call.node.arguments else "input")]


def softmax(operator: str) -> Callable[[Writer, Call], list[Value]]:
    """Softmax or log_softmax along `dim`."""

    def read(w: Writer, call: Call) -> list[Value]:
        w.require(call.kind("dtype", call.network_input.type) == call.network_input.type, "a dtype is not read")
        w.require(not call.flag("half_to_float"), "half_to_float is not read")
        return [layers.softmax(w, call.tensor("self"), call.integer("dim"), operator)]

    return read


TABLE: dict[str, Callable[[Writer, Call], Sequence[Value | None]]] = {
    **{f"max_pool{n}d.default": max_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices.default": max_pool(n) for n in (2, 3)},
    **{f"avg_pool{n}d.default": average_pool(n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d.default": adaptive_average_pool(n) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d.default": adaptive_average_pool(n) for n in (2, 3)},
    "batch_norm.default": batch_norm,
    "_native_batch_norm_legit_no_training.default": batch_norm,
    "layer_norm.default": layer_norm,
    "native_layer_norm.default": layer_norm,
    "dropout.default": dropout,
    "dropout_.default": dropout,
    "softmax.int": softmax("Softmax"),
    "_softmax.default": softmax("Softmax"),
    "log_softmax.int": softmax("LogSoftmax"),
    "_log_softmax.default": softmax("LogSoftmax"),
}
