"""Entry by entry: arithmetic with tensors and numbers, activations."""

from __future__ import annotations

from collections.abc import Callable

from provenn.models import onnx_layers as layers
from provenn.models.onnx_writer import Value, Writer
from provenn.models.pt2.call import Call

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
Reader = Callable[[Writer, Call], list[Value]]


def _beside(w: Writer, x: Value, other: Value | float) -> Value:
    return other if isinstance(other, Value) else w.scalar(other, x)


def arithmetic(operator: str) -> Reader:
    """The sum self + alpha other and its relatives; one of the two may be a number."""

    def read(w: Writer, call: Call) -> list[Value]:
        x, other = call.operand("self"), call.operand("other")
        alpha = call.number("alpha", 1.0) if operator in ("Add", "Sub") else 1.0
        if operator == "Div":
            w.require(call.text("rounding_mode", "") == "", "a division with rounding_mode is not read")
        if not isinstance(x, Value):
            if not isinstance(other, Value):
                w.refuse("it computes with numbers alone")
            x = w.scalar(x, other)
        y = _beside(w, x, other)
        if alpha != 1:
            y = layers.arithmetic(w, "Mul", y, w.scalar(alpha, y))
        return [layers.arithmetic(w, operator, x, y)]

    return read


def reversed_subtraction(w: Writer, call: Call) -> list[Value]:
    """Other - self."""
    x, other = call.tensor("self"), call.operand("other")
    w.require(call.number("alpha", 1.0) == 1, "a subtraction with alpha is not read")
    return [layers.arithmetic(w, "Sub", _beside(w, x, other), x)]


def negate(w: Writer, call: Call) -> list[Value]:
    """-self."""
    x = call.tensor("self")
    return [layers.arithmetic(w, "Mul", x, w.scalar(-1.0, x))]


def power(w: Writer, call: Call) -> list[Value]:
    """Self to the power of a number."""
    x = call.tensor("self")
    return [w.node("Pow", [x, w.scalar(call.number("exponent"), x)], x.shape)]


def plain(operator: str) -> Reader:
    """A function that ONNX has too."""

    def read(w: Writer, call: Call) -> list[Value]:
        return [layers.plain(w, operator, call.tensor("self"))]

    return read


def leaky_relu(w: Writer, call: Call) -> list[Value]:
    """Self where it is positive, a multiple elsewhere."""
    return [layers.leaky_relu(w, call.tensor("self"), call.number("negative_slope", 0.01))]


def prelu(w: Writer, call: Call) -> list[Value]:
    """As leaky_relu, with a stored slope, one for all or one a channel."""
    return [layers.prelu(w, call.tensor("self"), call.tensor("weight"))]


def elu(w: Writer, call: Call) -> list[Value]:
    """Self where it is positive, alpha (exp(self) - 1) elsewhere."""
    x, alpha = call.tensor("self"), call.number("alpha", 1.0)
    w.require(call.number("scale", 1.0) == call.number("input_scale", 1.0) == 1, "elu with a scale is not read")
    return [layers.elu(w, x, alpha)]


def gelu(w: Writer, call: Call) -> list[Value]:
    """The exact form, or the one with tanh."""
    return [layers.gelu(w, call.tensor("self"), call.text("approximate", "none"))]


def silu(w: Writer, call: Call) -> list[Value]:
    """Self sigmoid(self)."""
    return [layers.silu(w, call.tensor("self"))]


def softplus(w: Writer, call: Call) -> list[Value]:
    """log(1 + exp(beta self)) / beta."""
    x, beta, threshold = call.tensor("self"), call.number("beta", 1.0), call.number("threshold", 20.0)
    return [layers.softplus(w, x, beta, threshold)]


def clamp(w: Writer, call: Call) -> list[Value]:
    """min(max(self, min), max)."""
    x, minimum, maximum = call.tensor("self"), call.limit("min"), call.limit("max")
    return [layers.clip(w, x, minimum, maximum)]


def hardtanh(w: Writer, call: Call) -> list[Value]:
    """min(max(self, min_val), max_val)."""
    x, minimum, maximum = call.tensor("self"), call.number("min_val", -1.0), call.number("max_val", 1.0)
    return [layers.clip(w, x, minimum, maximum)]


def relu6(w: Writer, call: Call) -> list[Value]:
    """min(max(self, 0), 6)."""
    return [layers.clip(w, call.tensor("self"), 0.0, 6.0)]


TABLE: dict[str, Reader] = {
    **{f"{name.lower()}.{kind}": arithmetic(name) for name in ARITHMETIC for kind in ("Tensor", "Scalar")},
    "maximum.default": arithmetic("Max"),
    "minimum.default": arithmetic("Min"),
    "rsub.Scalar": reversed_subtraction,
    "neg.default": negate,
    "pow.Tensor_Scalar": power,
    **{f"{name.lower()}.default": plain(name) for name in layers.PLAIN},
    "leaky_relu.default": leaky_relu,
    "prelu.default": prelu,
    "elu.default": elu,
    "gelu.default": gelu,
    "silu.default": silu,
    "softplus.default": softplus,
    "clamp.default": clamp,
    "clamp_min.default": clamp,
    "clamp_max.default": clamp,
    "hardtanh.default": hardtanh,
    "relu6.default": relu6,
}
