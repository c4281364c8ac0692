"""Every op there is: what `provenn ops` prints and the documentation lists."""

from __future__ import annotations

from provenn.verifier.ops.arithmetic import Add, ReduceMean, ReduceSum, Scale, Sub
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.conv import Conv, ConvTranspose
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import LeftLinear, Linear
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.pool import AveragePool
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Concat, Expand, Pad, Reshape, Select, Transpose
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh

OPS: tuple[type[Op], ...] = (
    Linear,
    LeftLinear,
    Conv,
    ConvTranspose,
    AveragePool,
    MaxPool,
    Reshape,
    Transpose,
    Select,
    Pad,
    Concat,
    Expand,
    Add,
    Sub,
    Scale,
    ReduceSum,
    ReduceMean,
    Relu,
    LeakyRelu,
    Clip,
    Sigmoid,
    Tanh,
)
"""Affine ops first, then the nonlinear ones."""
