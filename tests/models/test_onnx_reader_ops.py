"""Every operator that is read, in every form, one node at a time, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from forms_affine import FORMS as AFFINE
from forms_functions import FORMS as FUNCTIONS
from forms_selection import FORMS as SELECTION
from onnx import TensorProto
from onnx_kit import Array, OneOp, require_agreement

from provenn.models.onnx_reader import OPERATORS
from provenn.verifier.errors import InvalidModel, UnsupportedOp

RNG = np.random.default_rng(7)
IMAGE = (1, 4, 7, 6)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def op(name: str, shape: Sequence[int | str], *constants: Array | None, place: int = 0, **attributes: Any) -> OneOp:
    opset, outputs = attributes.pop("opset", 17), attributes.pop("outputs", 1)
    return OneOp(name, shape, constants, attributes, opset, outputs, place)


W54, W45 = floats(5, 4), floats(4, 5)
KERNEL = floats(6, 4, 3, 2)
BACK = floats(4, 3, 3, 2)

LINEAR = {
    "gemm": op("Gemm", (1, 4), W45, floats(5)),
    "gemm batch": op("Gemm", ("n", 4), W45, floats(5)),
    "gemm transB": op("Gemm", (1, 4), W54, floats(5), transB=1),
    "gemm alpha beta": op("Gemm", (1, 4), W54, floats(5), transB=1, alpha=0.3, beta=-1.7),
    "gemm no C": op("Gemm", (1, 4), W45, opset=11),
    "gemm scalar C": op("Gemm", (1, 4), W45, floats(), beta=0.5),
    "gemm row C": op("Gemm", (1, 4), W45, floats(1, 5)),
    "gemm one C": op("Gemm", (1, 4), W45, floats(1)),
    "gemm transA": op("Gemm", (1, 4), floats(1, 5), floats(4, 5), transA=1),
    "gemm transA column C": op("Gemm", (1, 4), floats(1, 5), floats(4, 1), transA=1, beta=2.0),
    "gemm constant A": op("Gemm", (1, 4), floats(3, 1), floats(3, 4), place=1, alpha=2.0),
    "gemm constant A transA": op("Gemm", (1, 4), floats(1, 3), place=1, transA=1),
    "gemm constant A transB": op("Gemm", (1, 4), floats(3, 4), place=1, transB=1),
    "gemm computed C": op("Gemm", (1, 5), floats(3, 4), floats(4, 5), place=2, beta=0.5),
    "matmul right": op("MatMul", (1, 4), W45),
    "matmul right 3d": op("MatMul", (1, 3, 4), W45),
    "matmul right 1d input": op("MatMul", (4,), W45),
    "matmul right vector": op("MatMul", (1, 4), floats(4)),
    "matmul right vector 3d": op("MatMul", (1, 3, 4), floats(4)),
    "matmul right one stack": op("MatMul", (1, 3, 4), floats(1, 4, 5)),
    "matmul right one stack 2d": op("MatMul", (1, 4), floats(1, 4, 5)),
    "matmul left": op("MatMul", (1, 4, 3), W54, place=1),
    "matmul left 2d": op("MatMul", (1, 4), floats(5, 1), place=1),
    "matmul left 1d input": op("MatMul", (4,), W54, place=1),
    "matmul left vector": op("MatMul", (1, 4, 3), floats(4), place=1),
    "matmul left one stack": op("MatMul", (1, 4, 3), floats(1, 5, 4), place=1),
}

CONVOLUTIONS = {
    "conv": op("Conv", IMAGE, KERNEL, floats(6)),
    "conv no bias": op("Conv", IMAGE, KERNEL),
    "conv kernel_shape": op("Conv", IMAGE, KERNEL, kernel_shape=[3, 2]),
    "conv 1d": op("Conv", (1, 4, 9), floats(6, 4, 3), floats(6), strides=[2], pads=[1, 0]),
    "conv 3d": op("Conv", (1, 2, 4, 5, 4), floats(3, 2, 2, 3, 2), floats(3), pads=[1, 0, 1, 0, 1, 0]),
    "conv strides": op("Conv", IMAGE, KERNEL, strides=[2, 3]),
    "conv pads": op("Conv", IMAGE, KERNEL, pads=[2, 1, 0, 3]),
    "conv dilations": op("Conv", IMAGE, KERNEL, dilations=[2, 3], pads=[1, 1, 1, 1]),
    "conv groups": op("Conv", IMAGE, floats(6, 2, 3, 3), floats(6), group=2),
    "conv depthwise": op("Conv", ("n", *IMAGE[1:]), floats(4, 1, 3, 3), group=4, pads=[1, 1, 1, 1]),
    "conv valid": op("Conv", IMAGE, KERNEL, auto_pad="VALID", strides=[2, 2]),
    "conv same upper": op("Conv", IMAGE, KERNEL, auto_pad="SAME_UPPER"),
    "conv same upper strides": op("Conv", IMAGE, KERNEL, auto_pad="SAME_UPPER", strides=[2, 3]),
    "conv same lower": op("Conv", IMAGE, KERNEL, auto_pad="SAME_LOWER"),
    "conv same lower strides": op("Conv", IMAGE, floats(2, 4, 4, 4), auto_pad="SAME_LOWER", strides=[3, 2]),
    "conv same one by one": op("Conv", (1, 4, 8, 6), floats(2, 4, 1, 1), auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv notset": op("Conv", IMAGE, KERNEL, auto_pad="NOTSET", pads=[1, 1, 1, 1]),
    "transpose": op("ConvTranspose", IMAGE, BACK, floats(3)),
    "transpose no bias": op("ConvTranspose", IMAGE, BACK),
    "transpose 1d": op("ConvTranspose", (1, 4, 5), floats(4, 2, 3), floats(2), strides=[2], pads=[1, 0]),
    "transpose 3d": op("ConvTranspose", (1, 2, 3, 2, 3), floats(2, 1, 2, 2, 3), strides=[2, 1, 2]),
    "transpose strides": op("ConvTranspose", IMAGE, BACK, strides=[2, 3]),
    "transpose pads": op("ConvTranspose", IMAGE, BACK, strides=[2, 3], pads=[1, 0, 2, 1]),
    "transpose output padding": op(
        "ConvTranspose", IMAGE, BACK, strides=[2, 3], pads=[1, 1, 1, 1], output_padding=[1, 2]
    ),
    "transpose dilations": op("ConvTranspose", IMAGE, BACK, dilations=[2, 3], strides=[2, 2]),
    "transpose groups": op("ConvTranspose", IMAGE, floats(4, 3, 3, 2), floats(6), group=2, strides=[2, 2]),
    "transpose valid": op("ConvTranspose", IMAGE, BACK, auto_pad="VALID"),
    "transpose same upper": op("ConvTranspose", IMAGE, BACK, auto_pad="SAME_UPPER", strides=[2, 1]),
    "transpose same lower": op("ConvTranspose", IMAGE, BACK, auto_pad="SAME_LOWER", strides=[2, 1]),
    "transpose output shape": op("ConvTranspose", IMAGE, BACK, strides=[2, 2], output_shape=[14, 12]),
    "transpose output shape upper": op(
        "ConvTranspose", IMAGE, BACK, strides=[2, 2], output_shape=[14, 11], auto_pad="SAME_UPPER"
    ),
}

POOLS = {
    "average": op("AveragePool", IMAGE, kernel_shape=[3, 2]),
    "average 1d": op("AveragePool", (1, 4, 9), kernel_shape=[3], strides=[2]),
    "average 3d": op("AveragePool", (1, 2, 4, 5, 4), kernel_shape=[2, 2, 2]),
    "average strides": op("AveragePool", IMAGE, kernel_shape=[3, 2], strides=[2, 2]),
    "average pads": op("AveragePool", IMAGE, kernel_shape=[3, 2], pads=[2, 1, 1, 0]),
    "average pads counted": op("AveragePool", IMAGE, kernel_shape=[3, 2], pads=[2, 1, 1, 0], count_include_pad=1),
    "average ceil": op("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average ceil pads": op(
        "AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1], opset=19
    ),
    "average ceil pads counted": op(
        "AveragePool",
        IMAGE,
        kernel_shape=[3, 3],
        strides=[2, 2],
        ceil_mode=1,
        pads=[1, 1, 1, 1],
        count_include_pad=1,
        opset=19,
    ),
    "average same upper": op("AveragePool", IMAGE, kernel_shape=[3, 2], auto_pad="SAME_UPPER", strides=[2, 2]),
    "average same lower": op("AveragePool", IMAGE, kernel_shape=[3, 2], auto_pad="SAME_LOWER"),
    "average valid": op("AveragePool", IMAGE, kernel_shape=[3, 2], auto_pad="VALID"),
    "average opset 7": op("AveragePool", IMAGE, kernel_shape=[3, 2], pads=[1, 1, 1, 1], opset=7),
    "average opset 22": op("AveragePool", IMAGE, kernel_shape=[3, 2], dilations=[1, 1], opset=22),
    "global average": op("GlobalAveragePool", IMAGE),
    "global average 1d": op("GlobalAveragePool", ("n", 4, 9)),
    "global max": op("GlobalMaxPool", IMAGE),
    "max": op("MaxPool", IMAGE, kernel_shape=[3, 2]),
    "max 1d": op("MaxPool", (1, 4, 9), kernel_shape=[3], strides=[2], pads=[1, 0]),
    "max 3d": op("MaxPool", (1, 2, 4, 5, 4), kernel_shape=[2, 2, 2], strides=[1, 2, 1]),
    "max pads": op("MaxPool", IMAGE, kernel_shape=[3, 2], pads=[1, 1, 2, 0], strides=[2, 1]),
    "max dilations": op("MaxPool", IMAGE, kernel_shape=[2, 3], dilations=[3, 2]),
    "max ceil": op("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max ceil pads": op("MaxPool", IMAGE, kernel_shape=[2, 3], strides=[3, 2], ceil_mode=1, pads=[0, 1, 1, 1]),
    "max same upper": op("MaxPool", IMAGE, kernel_shape=[3, 2], auto_pad="SAME_UPPER", strides=[2, 2]),
    "max same lower": op("MaxPool", IMAGE, kernel_shape=[3, 2], auto_pad="SAME_LOWER"),
    "max opset 8": op("MaxPool", IMAGE, kernel_shape=[2, 2], opset=8),
    "max storage order": op("MaxPool", IMAGE, kernel_shape=[2, 2], storage_order=1),
    "max indices unread": op("MaxPool", IMAGE, kernel_shape=[2, 2], outputs=2),
}

ARITHMETIC = {
    **{f"{name} right": op(name, (1, 3, 4), floats(4) + 3) for name in ("Add", "Sub", "Mul", "Div")},
    **{f"{name} left": op(name, (1, 3, 4), floats(3, 1), place=1) for name in ("Add", "Sub", "Mul")},
    **{f"{name} scalar": op(name, (1, 3, 4), floats() + 3) for name in ("Add", "Sub", "Mul", "Div")},
    **{f"{name} full": op(name, ("n", 3, 4), floats(1, 3, 4) + 3) for name in ("Add", "Sub", "Mul", "Div")},
    **{f"{name} enlarging": op(name, (1, 3, 1), floats(1, 3, 4) + 3) for name in ("Add", "Sub", "Mul", "Div")},
    **{f"{name} longer": op(name, (1, 4), floats(1, 3, 4)) for name in ("Add", "Sub", "Mul")},
    **{f"{name} rows": op(name, (1, 4), floats(3, 4), place=1) for name in ("Add", "Sub", "Mul")},
    **{f"{name} one axis": op(name, (4,), floats(4) + 3) for name in ("Add", "Sub", "Mul", "Div")},
    "mul by zero": op("Mul", (1, 4), np.float32([0, 1, 0, -2])),
    "sum": op("Sum", (1, 4), floats(4), floats(1, 4)),
    "sum of one": op("Sum", (1, 4)),
    "mean": op("Mean", (1, 4), floats(4), floats(1, 4)),
    "mean of one": op("Mean", (1, 4)),
    "mean enlarging": op("Mean", (1, 1), floats(4), place=1),
    "neg": op("Neg", (1, 3, 4)),
    "normalization": op("BatchNormalization", IMAGE, floats(4), floats(4), floats(4), floats(4) ** 2, epsilon=1e-3),
    "normalization flat": op("BatchNormalization", (1, 4), floats(4), floats(4), floats(4), floats(4) ** 2 + 0.1),
    "normalization opset 7": op(
        "BatchNormalization", IMAGE, floats(4), floats(4), floats(4), floats(4) ** 2 + 0.1, opset=8, momentum=0.5
    ),
    "normalization opset 9": op("BatchNormalization", IMAGE, *[floats(4)] * 3, floats(4) ** 2 + 0.1, opset=9),
    "normalization opset 15": op(
        "BatchNormalization", IMAGE, *[floats(4)] * 3, floats(4) ** 2 + 0.1, opset=15, training_mode=0
    ),
    "sum axes": op("ReduceSum", (1, 3, 4), axes=[1], opset=11),
    "sum negative axis": op("ReduceSum", (1, 3, 4), axes=[-1], keepdims=0, opset=11),
    "sum input": op("ReduceSum", (1, 3, 4), ints(1, 2), opset=13),
    "sum input drop": op("ReduceSum", (1, 3, 4), ints(2), keepdims=0),
    "sum all": op("ReduceSum", (1, 3, 4)),
    "sum all drop": op("ReduceSum", (1, 3, 4), keepdims=0),
    "sum noop": op("ReduceSum", (1, 3, 4), noop_with_empty_axes=1),
    "sum empty axes": op("ReduceSum", (1, 3, 4), ints()),
    "sum batch axis": op("ReduceSum", (1, 3, 4), ints(0), keepdims=0),
    "mean axes": op("ReduceMean", IMAGE, axes=[2, 3]),
    "mean drop": op("ReduceMean", IMAGE, axes=[-1, -2], keepdims=0),
    "mean input": op("ReduceMean", IMAGE, ints(1), opset=18),
    "mean batch and channel": op("ReduceMean", IMAGE, axes=[0, 1], keepdims=0),
    "mean all": op("ReduceMean", IMAGE, opset=18),
    "mean one axis": op("ReduceMean", (5,), axes=[0]),
}

NONLINEAR = {
    "relu": op("Relu", (1, 3, 4)),
    "relu one axis": op("Relu", (5,)),
    "relu batch alone": op("Relu", ("n",)),
    "leaky": op("LeakyRelu", (1, 5)),
    "leaky alpha": op("LeakyRelu", (1, 5), alpha=0.3),
    "leaky negative": op("LeakyRelu", (1, 5), alpha=-0.3),
    "sigmoid": op("Sigmoid", (1, 5)),
    "tanh": op("Tanh", (1, 5)),
    "clip 6": op("Clip", (1, 9), min=-0.5, max=0.25, opset=6 + 1),
    "clip 6 min": op("Clip", (1, 9), min=-0.5, opset=10),
    "clip 6 max": op("Clip", (1, 9), max=0.5, opset=10),
    "clip 6 none": op("Clip", (1, 9), opset=10),
    "clip 11": op("Clip", (1, 9), np.float32(-0.5), np.float32(0.25), opset=11),
    "clip 13 min": op("Clip", (1, 9), np.float32(-0.5), opset=13),
    "clip 13 relu": op("Clip", (1, 9), np.float32(0), opset=13),
    "clip 13 max": op("Clip", (1, 9), None, np.float32(0.5), opset=13),
    "clip 13 none": op("Clip", (1, 9), opset=13),
}

MOVEMENT = {
    "flatten": op("Flatten", IMAGE),
    "flatten 0": op("Flatten", IMAGE, axis=0),
    "flatten 2": op("Flatten", IMAGE, axis=2),
    "flatten negative": op("Flatten", IMAGE, axis=-1),
    "flatten end": op("Flatten", (1, 3), axis=2),
    "flatten one axis": op("Flatten", (5,), axis=0),
    "reshape": op("Reshape", IMAGE, ints(1, 28, 6)),
    "reshape rest": op("Reshape", IMAGE, ints(1, -1)),
    "reshape keep": op("Reshape", ("n", *IMAGE[1:]), ints(0, 0, -1)),
    "reshape allowzero": op("Reshape", IMAGE, ints(1, 4, -1), allowzero=1),
    "reshape flat": op("Reshape", IMAGE, ints(-1)),
    "reshape no batch": op("Reshape", IMAGE, ints(4, 42)),
    "reshape one axis": op("Reshape", (12,), ints(1, 3, 4)),
    "transpose": op("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    "transpose default": op("Transpose", (1, 3, 4)),
    "transpose batch": op("Transpose", IMAGE, perm=[2, 0, 1, 3]),
    "transpose batch by one": op("Transpose", IMAGE, perm=[1, 0, 2, 3]),
    "transpose ones": op("Transpose", (1, 1, 5, 4), perm=[0, 2, 1, 3]),
    "squeeze": op("Squeeze", (1, 3, 1), ints(2)),
    "squeeze attribute": op("Squeeze", (1, 3, 1), axes=[-1], opset=11),
    "squeeze all": op("Squeeze", (1, 3, 1, 4)),
    "squeeze batch": op("Squeeze", (1, 3, 4), ints(0)),
    "unsqueeze": op("Unsqueeze", (1, 3, 4), ints(1, -1)),
    "unsqueeze attribute": op("Unsqueeze", (1, 3), axes=[2, 0], opset=11),
    "unsqueeze batch": op("Unsqueeze", (5,), ints(0)),
    "expand": op("Expand", (1, 3, 1), ints(1, 3, 4)),
    "expand both": op("Expand", (1, 3, 1), ints(2, 1, 1, 4)),
    "expand nothing": op("Expand", (1, 3), ints(1)),
    "concat first": op("Concat", (1, 3, 4), floats(1, 2, 4), place=1, axis=1),
    "concat last": op("Concat", (1, 3, 4), floats(1, 3, 2), axis=-1),
    "concat between": op("Concat", (1, 3, 4), floats(1, 1, 4), floats(1, 2, 4), place=1, axis=1),
    "concat batch": op("Concat", (1, 3), floats(2, 3), axis=0),
    "concat one": op("Concat", (1, 3), axis=1),
    "concat one axis": op("Concat", (3,), floats(2), axis=0),
    "split": op("Split", (1, 6), axis=1, outputs=3, opset=11),
    "split attribute": op("Split", (1, 6, 2), axis=1, split=[1, 2, 3], outputs=3, opset=11),
    "split input": op("Split", (1, 6), ints(2, 4), axis=-1, outputs=2),
    "split 18": op("Split", (1, 7), axis=1, num_outputs=3, outputs=3, opset=18),
    "split one axis": op("Split", (6,), outputs=2, opset=13),
    "slice attribute": op("Slice", IMAGE, starts=[1, 0], ends=[3, -1], axes=[1, 3], opset=9),
    "slice attribute all": op("Slice", (1, 6), starts=[0, 2], ends=[1, 100], opset=9),
    "slice": op("Slice", IMAGE, ints(1, -3), ints(2**62, -1), ints(1, 2)),
    "slice steps": op("Slice", IMAGE, ints(0, 1), ints(7, 6), ints(2, 3), ints(3, 2)),
    "slice backwards": op("Slice", IMAGE, ints(-1), ints(-(2**63)), ints(2), ints(-1)),
    "slice backwards steps": op("Slice", IMAGE, ints(5, 100), ints(0, -7), ints(2, 3), ints(-2, -3)),
    "slice no axes": op("Slice", (1, 6), ints(0, 1), ints(1, 5)),
    "slice 32 bits": op("Slice", (1, 6), *(np.array([n], np.int32) for n in (1, 5, 1, 2))),
    "gather": op("Gather", (1, 6, 2), ints(3, 0, 0, -1), axis=1),
    "gather scalar": op("Gather", (1, 6, 2), np.int64(2), axis=1),
    "gather matrix": op("Gather", (1, 6), ints(0, 1, 2, 3).reshape(2, 2), axis=-1),
    "gather batch": op("Gather", (1, 6), np.int64(0)),
    "gather batch twice": op("Gather", (1, 6), ints(0, 0)),
    "gather one axis": op("Gather", (6,), ints(5, 1)),
    "pad attribute": op("Pad", (1, 3, 4), pads=[0, 1, 2, 0, 0, 1], value=0.5, opset=10),
    "pad": op("Pad", (1, 3, 4), ints(0, 1, 2, 0, 0, 1), np.float32(-0.5)),
    "pad zeros": op("Pad", (1, 3, 4), ints(0, 1, 2, 0, 0, 1)),
    "pad negative": op("Pad", (1, 5, 4), ints(0, -1, 2, 0, -2, -1), mode="constant"),
    "pad axes": op("Pad", (1, 3, 4), ints(1, 2), np.float32(2), ints(-1), opset=18),
    "pad batch": op("Pad", (1, 3), ints(1, 0, 0, 1), np.float32(2)),
    "identity": op("Identity", (1, 3)),
    "dropout 7": op("Dropout", (1, 3), ratio=0.3, opset=7),
    "dropout 12": op("Dropout", (1, 3), np.float32(0.5), np.bool_(False), seed=3, opset=12),
    "dropout 13 default": op("Dropout", (1, 3)),
    "dropout mask unread": op("Dropout", (1, 3), outputs=2, opset=10),
    "cast": op("Cast", (1, 3), to=TensorProto.FLOAT),
    "cast 19": op("Cast", (1, 3), to=TensorProto.FLOAT, saturate=1, opset=19),
}

FORMS = {
    f"{table}: {name}": form
    for table, forms in {
        "linear": LINEAR,
        "convolution": CONVOLUTIONS,
        "pool": POOLS,
        "arithmetic": ARITHMETIC,
        "nonlinear": NONLINEAR,
        "movement": MOVEMENT,
        "affine": AFFINE,
        "selection": SELECTION,
        "functions": FUNCTIONS,
    }.items()
    for name, form in forms.items()
}

ON_CONSTANTS = {"Equal", "EyeLike", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "NonZero", "Not", "And"}
ON_CONSTANTS |= {"Or", "Range", "Size", "Xor"}
BY_OTHER_TESTS = {"Constant", "ConstantOfShape", "IsNaN", "Shape", "Swish"} | ON_CONSTANTS


def test_the_table_covers_every_operator() -> None:
    assert {form.op for form in FORMS.values()} | BY_OTHER_TESTS == set(OPERATORS)


@pytest.mark.parametrize("name", FORMS)
def test_one_operator_agrees_with_onnxruntime(name: str) -> None:
    require_agreement(FORMS[name].model().SerializeToString())


@pytest.mark.parametrize("opset", [13, 16, 18, 21, 24, 26])
@pytest.mark.parametrize("name", ["gemm", "matmul right", "conv pads", "average pads", "max ceil", "global average"])
def test_the_same_forms_in_newer_operator_sets(name: str, opset: int) -> None:
    form = {**LINEAR, **CONVOLUTIONS, **POOLS}[name]
    made = OneOp(form.op, form.shape, form.constants, form.attributes, opset)
    require_agreement(made.model().SerializeToString())


UNSUPPORTED = {
    "training dropout": (op("Dropout", (1, 3), np.float32(0.5), np.bool_(True)), "training form"),
    "training normalization": (
        op("BatchNormalization", (1, 4), *[floats(4)] * 3, floats(4) ** 2 + 1, training_mode=1, outputs=3),
        "training form",
    ),
    "cast to integers": (op("Cast", (1, 3), to=TensorProto.INT64), "computed values cast to INT64"),
    "cast to bfloat16": (op("Cast", (1, 3), to=TensorProto.BFLOAT16), "computed values cast to BFLOAT16"),
    "same padding of distant windows": (
        op("Conv", IMAGE, floats(2, 4, 1, 2), auto_pad="SAME_UPPER", strides=[4, 5]),
        "SAME_UPPER with strides",
    ),
    "same padding with dilations": (op("Conv", IMAGE, KERNEL, auto_pad="SAME_LOWER", dilations=[2, 1]), "dilations"),
    "four spatial axes": (op("MaxPool", (1, 1, 2, 2, 2, 2), kernel_shape=[1, 1, 1, 1]), "4 spatial axes"),
    "constant kernel convolved": (op("Conv", (1, 4, 3, 3), floats(1, 4, 5, 5), place=1), "the weight must be constant"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_forms_that_no_rule_covers_are_refused(name: str) -> None:
    form, reason = UNSUPPORTED[name]
    with pytest.raises(UnsupportedOp, match=reason) as caught:
        require_agreement(form.model().SerializeToString())
    assert caught.value.op_type == form.op
    assert f"node '{form.op}_0'" in str(caught.value)


MALFORMED = {
    "output padding": (op("ConvTranspose", IMAGE, BACK, output_padding=[1, 0]), "smaller than the strides"),
    "flag": (op("Gemm", (1, 4), W45, transB=2), "transB is 2; it must be 0 or 1"),
    "other flag": (op("AveragePool", IMAGE, kernel_shape=[2, 2], ceil_mode=7), "ceil_mode is 7"),
    "epsilon": (op("BatchNormalization", (1, 2), *[floats(2)] * 4, epsilon=-1.0), "epsilon"),
    "gemm": (op("Gemm", (1, 3), W45), "A' has 3 columns, B' has 4 rows"),
    "gemm C": (op("Gemm", (1, 4), W45, floats(3)), "C of shape"),
    "matmul": (op("MatMul", (1, 3), W45), "does not fit"),
    "channels": (op("Conv", (1, 3, 7, 7), KERNEL), "in 1 groups does not fit"),
    "kernel too large": (op("Conv", (1, 4, 2, 2), KERNEL), "spans 3 cells, the padded axis has 2"),
    "kernel_shape": (op("Conv", IMAGE, KERNEL, kernel_shape=[2, 2]), "kernel_shape"),
    "stride 0": (op("Conv", IMAGE, KERNEL, strides=[0, 1]), "must be positive"),
    "negative pads": (op("Conv", IMAGE, KERNEL, pads=[-1, 0, 0, 0]), "pads"),
    "bias": (op("Conv", IMAGE, KERNEL, floats(5)), "the bias must have 6 numbers"),
    "window in the padding": (op("MaxPool", IMAGE, kernel_shape=[1, 1], pads=[1, 1, 1, 1]), "as wide as the kernel"),
    "addition": (op("Add", (1, 3), floats(4)), "do not fit each other"),
    "division by zero": (op("Div", (1, 3), np.float32([1, 0, 2])), "division by zero"),
    "negative variance": (op("BatchNormalization", (1, 2), *[floats(2)] * 3, np.float32([-1, 1])), "variance"),
    "reshape": (op("Reshape", (1, 6), ints(1, 4)), "does not have the elements"),
    "reshape rest": (op("Reshape", (1, 6), ints(4, -1)), "does not divide"),
    "reshape twice rest": (op("Reshape", (1, 6), ints(-1, -1)), "is not one"),
    "reshape keeps": (op("Reshape", (1, 6), ints(1, 6, 0)), "does not have"),
    "perm": (op("Transpose", (1, 3), perm=[0, 0]), "does not permute"),
    "squeeze": (op("Squeeze", (1, 3), ints(1)), "not all of length 1"),
    "split": (op("Split", (1, 6), ints(1, 2), axis=1, outputs=2), "do not make up 6"),
    "slice": (op("Slice", (1, 6), ints(4), ints(2), ints(1)), "nothing is left"),
    "gather": (op("Gather", (1, 6), ints(6), axis=1), "outside 6 elements"),
    "concat": (op("Concat", (1, 3, 2), floats(1, 3, 3), axis=1), "shapes do not fit"),
    "axis": (op("Concat", (1, 3), floats(1, 3), axis=2), "axis 2 does not exist"),
    "clip": (op("Clip", (1, 3), np.float32(1), np.float32(0)), "above its maximum"),
    "pad all away": (op("Pad", (1, 3), ints(0, -2, 0, -1)), "nothing is left"),
    "expand": (op("Expand", (1, 3), ints(1, 4)), "do not fit|broadcast"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_parameters_that_do_not_fit_are_refused(name: str) -> None:
    form, reason = MALFORMED[name]
    with pytest.raises(InvalidModel, match=reason) as caught:
        require_agreement(form.model().SerializeToString())
    assert caught.value.node is not None
