"""The ONNX operators that are read, each by one function: (plan, node) -> the values of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provenn.models.onnx_ops import arithmetic, constants, convolution, linear, movement, nonlinear
from provenn.models.onnx_ops.plan import Node, Plan, Value

Reader = Callable[[Plan, Node], Sequence[Value]]

OPSETS = range(7, 27)
"""Versions of the operator set that are read: numpy's broadcasting begins with 7, the executor ends with 26."""

OPERATORS: dict[str, Reader] = {
    "Add": arithmetic.add,
    "AveragePool": convolution.average_pool,
    "BatchNormalization": arithmetic.batch_normalization,
    "Cast": constants.cast,
    "Clip": nonlinear.clip,
    "Concat": movement.concat,
    "Constant": constants.constant,
    "ConstantOfShape": constants.constant_of_shape,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "Div": arithmetic.divide,
    "Dropout": constants.dropout,
    "Expand": movement.expand,
    "Flatten": movement.flatten,
    "Gather": movement.gather,
    "Gemm": linear.gemm,
    "GlobalAveragePool": arithmetic.global_average_pool,
    "GlobalMaxPool": convolution.global_max_pool,
    "Identity": constants.identity,
    "LeakyRelu": nonlinear.leaky_relu,
    "MatMul": linear.matmul,
    "MaxPool": convolution.max_pool,
    "Mul": arithmetic.multiply,
    "Neg": arithmetic.negate,
    "Pad": movement.pad,
    "ReduceMean": arithmetic.reduce_mean,
    "ReduceSum": arithmetic.reduce_sum,
    "Relu": nonlinear.relu,
    "Reshape": movement.reshape,
    "Shape": constants.shape,
    "Sigmoid": nonlinear.sigmoid,
    "Slice": movement.slice_,
    "Split": movement.split,
    "Squeeze": movement.squeeze,
    "Sub": arithmetic.subtract,
    "Sum": arithmetic.sum_,
    "Tanh": nonlinear.tanh,
    "Transpose": movement.transpose,
    "Unsqueeze": movement.unsqueeze,
}

REASONS = {
    **dict.fromkeys(("If", "Loop", "Scan"), "control flow; export the network without it"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "export the network up to its logits, whose order is the same"),
}
"""What to say about operators that are not read."""
