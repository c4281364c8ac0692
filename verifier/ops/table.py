"""Every op there is: what `provenn ops` prints and the documentation lists."""

from __future__ import annotations

from provenn.verifier.ops.abs import Abs, PRelu
from provenn.verifier.ops.arithmetic import Add, ReduceMean, ReduceSum, Scale, Sub
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.centre import Centre
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.conv import Conv, ConvTranspose
from provenn.verifier.ops.einsum import Einsum
from provenn.verifier.ops.exponential import Cosh, Elu, Exp, Log, Sinh, Softplus
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.gated import Gelu, GeluTanh, HardSwish, Mish, Silu
from provenn.verifier.ops.implicit import Implicit
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import LeftLinear, Linear
from provenn.verifier.ops.log_sum_exp import LogSumExp
from provenn.verifier.ops.matmul import MatMul
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.maximum import Maximum, Minimum, ReduceMax, ReduceMin
from provenn.verifier.ops.periodic import Cos, Sin, Tan
from provenn.verifier.ops.pick import Pick
from provenn.verifier.ops.pool import AveragePool
from provenn.verifier.ops.power import Pow, Reciprocal, Sqrt
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.root_mean_square import RootMeanSquare
from provenn.verifier.ops.saturating import Atan, Erf, Softsign
from provenn.verifier.ops.shape import Concat, Expand, Pad, Reshape, Select, Transpose
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.softmax import LogSoftmax, Softmax
from provenn.verifier.ops.sort import Sort
from provenn.verifier.ops.steps import Ceil, Floor, Round, Sign
from provenn.verifier.ops.tanh import Tanh

AFFINE: tuple[type[Op], ...] = (
    Linear,
    LeftLinear,
    Einsum,
    Conv,
    ConvTranspose,
    AveragePool,
    Reshape,
    Transpose,
    Select,
    Pick,
    Pad,
    Concat,
    Expand,
    Add,
    Sub,
    Scale,
    ReduceSum,
    ReduceMean,
    Centre,
)
"""Their linear bounds are the ops themselves."""

PIECEWISE_LINEAR: tuple[type[Op], ...] = (
    MaxPool,
    Relu,
    LeakyRelu,
    PRelu,
    Abs,
    Clip,
    Sign,
    Floor,
    Ceil,
    Round,
    Maximum,
    Minimum,
    ReduceMax,
    ReduceMin,
    Sort,
    Gate,
)
"""Made of finitely many affine pieces."""

SMOOTH: tuple[type[Op], ...] = (
    Sigmoid,
    Tanh,
    Erf,
    Atan,
    Softsign,
    Exp,
    Log,
    Softplus,
    Elu,
    Sinh,
    Cosh,
    Sqrt,
    Reciprocal,
    Pow,
    Gelu,
    GeluTanh,
    Silu,
    Mish,
    HardSwish,
    Sin,
    Cos,
    Tan,
)
"""Curved functions of one value."""

PRODUCTS: tuple[type[Op], ...] = (Multiply, MatMul, LogSumExp, Softmax, LogSoftmax, RootMeanSquare)
"""Curved functions of several values."""

OPS = AFFINE + PIECEWISE_LINEAR + SMOOTH + PRODUCTS
"""All that have an interval rule and linear bounds, and are read from ONNX."""

LIPSCHITZ_ONLY: tuple[type[Op], ...] = (Implicit,)
"""Ops of other formats, with neither: nothing that goes through all of `OPS` applies to them."""

KINDS: dict[str, tuple[type[Op], ...]] = {
    "affine": AFFINE,
    "piecewise linear": PIECEWISE_LINEAR,
    "smooth": SMOOTH,
    "products": PRODUCTS,
}
"""Name of a kind -> its ops."""
