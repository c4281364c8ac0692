"""Scalar functions applied to every element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from provenn.models.onnx_ops.arithmetic import multiplied
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, tensor
from provenn.models.tensors import Array
from provenn.verifier.ops.abs import Abs, PRelu
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.exponential import Cosh, Elu, Exp, Log, Sinh, Softplus
from provenn.verifier.ops.gated import Gelu, GeluTanh, HardSwish, Mish, Silu
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.periodic import Cos, Sin, Tan
from provenn.verifier.ops.power import Pow, Reciprocal, Sqrt
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.saturating import Atan, Erf, Softsign
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.steps import Ceil, Floor, Round, Sign
from provenn.verifier.ops.tanh import Tanh

Reader = Callable[[Plan, Node], Sequence[Value]]


def each(op: Op) -> Reader:
    """The reader of an operator without attributes."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        return [_each(plan, node, op)]

    return read


abs_ = each(Abs())
atan = each(Atan())
ceil = each(Ceil())
cos = each(Cos())
cosh = each(Cosh())
erf = each(Erf())
exp = each(Exp())
floor = each(Floor())
log = each(Log())
mish = each(Mish())
reciprocal = each(Reciprocal())
relu = each(Relu())
round_ = each(Round())
sigmoid = each(Sigmoid())
sign = each(Sign())
sin = each(Sin())
sinh = each(Sinh())
softplus = each(Softplus())
softsign = each(Softsign())
sqrt = each(Sqrt())
tan = each(Tan())
tanh = each(Tanh())


def leaky_relu(plan: Plan, node: Node) -> Sequence[Value]:
    """X where it is positive, alpha x elsewhere."""
    return [_each(plan, node, LeakyRelu(_number(node, "alpha", 0.01)))]


def prelu(plan: Plan, node: Node) -> Sequence[Value]:
    """X where it is positive, slope x elsewhere."""
    x, slope = node.input(0), node.constant(1, "the slope")
    node.require(slope.floating, "the slope must be of floating point")
    fits = np.broadcast_shapes(x.shape, slope.shape) == x.shape
    node.require(fits, f"a slope of shape {list(slope.shape)} does not fit {list(x.shape)}")
    dropped = 1 if x.lead and len(slope.shape) == len(x.shape) else 0

    def make(array: Array) -> Op:
        return PRelu(tensor(array.reshape(slope.shape[dropped:])))

    return [plan.emit(node, make, [x], x.shape, x.lead, [slope])]


def clip(plan: Plan, node: Node) -> Sequence[Value]:
    """X held between two limits, either of which may be left out; from 0 upwards it is relu."""
    minimum, maximum = node.number("min", 1), node.number("max", 2)
    if minimum is None and maximum is None:
        return [node.input(0)]
    if minimum == 0 and maximum is None:
        return [_each(plan, node, Relu())]
    lower, upper = -inf if minimum is None else minimum, inf if maximum is None else maximum
    node.require(lower <= upper, f"its minimum {lower} is above its maximum {upper}")
    return [_each(plan, node, Clip(lower, upper))]


def elu(plan: Plan, node: Node) -> Sequence[Value]:
    """X where it is positive, alpha (exp(x) - 1) elsewhere."""
    return [_elu(plan, node, _number(node, "alpha", 1.0), 1.0, 1.0)]


def selu(plan: Plan, node: Node) -> Sequence[Value]:
    """Elu times gamma; ONNX's own constants."""
    alpha = _number(node, "alpha", 1.67326319217681884765625)
    return [_elu(plan, node, alpha, _number(node, "gamma", 1.05070102214813232421875), 1.0)]


def celu(plan: Plan, node: Node) -> Sequence[Value]:
    """X where it is positive, alpha (exp(x / alpha) - 1) elsewhere."""
    alpha = _number(node, "alpha", 1.0)
    return [_elu(plan, node, alpha, 1.0, alpha)]


def gelu(plan: Plan, node: Node) -> Sequence[Value]:
    """X Phi(x), or its approximation by tanh."""
    form = node.attribute("approximate", "none")
    node.supported(form in ("none", "tanh"), f"its approximation '{form}'")
    return [_each(plan, node, Gelu() if form == "none" else GeluTanh())]


def swish(plan: Plan, node: Node) -> Sequence[Value]:
    """X / (1 + exp(-alpha x))."""
    alpha = _number(node, "alpha", 1.0)
    node.supported(alpha > 0, f"its alpha {alpha}, which is not positive")
    return [_each(plan, node, Silu(alpha))]


def hard_sigmoid(plan: Plan, node: Node) -> Sequence[Value]:
    """Alpha x + beta, held between 0 and 1."""
    slope, offset = _number(node, "alpha", 0.2), _number(node, "beta", 0.5)
    x = node.input(0)
    scale = Scale(tensor(np.asarray(slope)), tensor(np.asarray(offset)))
    return [plan.emit(node, Clip(0.0, 1.0), [plan.emit(node, scale, [x], x.shape, x.lead)], x.shape, x.lead)]


def hard_swish(plan: Plan, node: Node) -> Sequence[Value]:
    """X times (x / 6 + 1 / 2, held between 0 and 1)."""
    return [_each(plan, node, HardSwish())]


def power(plan: Plan, node: Node) -> Sequence[Value]:
    """X to a constant power, the same for every element; or a constant to the power x."""
    x, y = node.input(0), node.input(1)
    if isinstance(x, Constant) and isinstance(y, Constant):
        shape = np.broadcast_shapes(x.shape, y.shape)
        return [plan.fold(node, [x, y], lambda a, b: np.asarray(_raised(a, b, x.floating)), shape, x.floating)]
    if isinstance(x, Constant):
        base = _uniform(node, x, y.shape, "the base")
        node.supported(base > 0, f"a base {base}, which is not positive")
        exponent = multiplied(plan, node, y, math.log(base))
        return [plan.emit(node, Exp(), [exponent], y.shape, y.lead)]
    node.supported(isinstance(y, Constant), "base and exponent are both computed from the input")
    assert isinstance(y, Constant)
    plan.agreed(node, y, lambda a: a.astype(np.float32))
    number = _uniform(node, y, x.shape, "the exponent")
    node.supported(number != 0, "exponent 0, which makes it a constant")
    if number == 1:
        return [x]
    special: dict[float, Op] = {0.5: Sqrt(), -1.0: Reciprocal()}
    return [_each(plan, node, special.get(number) or Pow(number))]


def _raised(base: Array, exponent: Array, floating: bool) -> Array:
    """The power, in the base's type."""
    result = np.power(base.astype(np.float64), exponent.astype(np.float64))
    return result if floating else np.trunc(result).astype(np.int64)


def _uniform(node: Node, constant: Constant, shape: Sequence[int], what: str) -> float:
    """The one number of a constant that does not enlarge its partner."""
    known = constant.known
    node.supported(known is not None and (known == known.flat[0]).all(), f"{what} differs from element to element")
    assert known is not None
    fits = np.broadcast_shapes(tuple(shape), constant.shape) == tuple(shape)
    node.supported(fits, f"{what} of shape {list(constant.shape)} repeats the other operand")
    return float(known.flat[0])


def _number(node: Node, name: str, default: float) -> float:
    """A float attribute; ONNX stores it, and means the default, in float32."""
    return float(node.attribute(name, float(np.float32(default))))


def _elu(plan: Plan, node: Node, alpha: float, scale: float, width: float) -> Value:
    if alpha == 0 and width == 1:
        return multiplied(plan, node, _each(plan, node, Relu()), scale)
    node.supported(alpha > 0 and scale > 0 and width > 0, "a constant that is not positive")
    return _each(plan, node, Elu(alpha, scale, width))


def _each(plan: Plan, node: Node, op: Op) -> Value:
    x = node.input(0)
    return plan.emit(node, op, [x], x.shape, x.lead)
