"""Forms of the operators that move, sum, resize or mask elements; each is one node held against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx_kit import Array, OneOp

RNG = np.random.default_rng(11)
IMAGE = (1, 3, 5, 4)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    return np.array(numbers, dtype=np.int64)


def truth(*shape: int) -> Array:
    return RNG.random(shape) < 0.5


def op(name: str, shape: Sequence[int | str], *constants: Array | None, place: int = 0, **attributes: Any) -> OneOp:
    opset, outputs = attributes.pop("opset", 17), attributes.pop("outputs", 1)
    return OneOp(name, shape, constants, attributes, opset, outputs, place)


def einsum(equation: str, shape: Sequence[int | str], *constants: Array, place: int = 0) -> OneOp:
    return op("Einsum", shape, *constants, place=place, equation=equation)


def resized(*scales: float, shape: Sequence[int | str] = IMAGE, **attributes: Any) -> OneOp:
    empty = np.array([], dtype=np.float32)
    return op("Resize", shape, empty, np.float32(scales), **attributes)


def sized(*sizes: int, shape: Sequence[int | str] = IMAGE, **attributes: Any) -> OneOp:
    return op("Resize", shape, None, None, ints(*sizes), **attributes)


PRODUCTS = {
    "matmul stack": op("MatMul", (1, 2, 3, 4), floats(2, 4, 5)),
    "matmul stack lead": op("MatMul", ("n", 2, 3, 4), floats(1, 2, 4, 5)),
    "matmul stack left": op("MatMul", (1, 2, 3, 4), floats(2, 5, 3), place=1),
    "matmul stack repeats": op("MatMul", (1, 1, 3, 4), floats(2, 4, 5)),
    "matmul stack longer": op("MatMul", (1, 3, 4), floats(2, 1, 4, 5)),
    "matmul stack of a batch": op("MatMul", (1, 3, 4), floats(6, 4, 5)),
    "matmul stack vector": op("MatMul", (4,), floats(2, 4, 5)),
    "matmul stack vector left": op("MatMul", (4,), floats(2, 5, 4), place=1),
    "einsum matmul": einsum("bij,jk->bik", ("n", 3, 4), floats(4, 5)),
    "einsum left": einsum("ij,bjk->bik", (1, 3, 4), floats(5, 3), place=1),
    "einsum stack": einsum("bhij,hjk->bhik", (1, 2, 3, 4), floats(2, 4, 5)),
    "einsum heads": einsum("bte,ehd->bhtd", (1, 3, 4), floats(4, 2, 5)),
    "einsum transpose": einsum("bij->bji", (1, 3, 4)),
    "einsum sum": einsum("bij->bi", (1, 3, 4)),
    "einsum sum of a batch": einsum("bij->ij", (1, 3, 4)),
    "einsum all": einsum("ijk->", (1, 3, 4)),
    "einsum trace": einsum("bii->b", (1, 4, 4)),
    "einsum diagonal": einsum("bii->bi", (1, 4, 4)),
    "einsum of a diagonal": einsum("bi,jj->bij", (1, 4), floats(3, 3)),
    "einsum outer": einsum("bi,j->bij", (1, 4), floats(3)),
    "einsum elementwise": einsum("bij,ij->bij", (1, 3, 4), floats(3, 4)),
    "einsum implicit": einsum("bij,jk", (1, 3, 4), floats(4, 5)),
    "einsum implicit order": einsum("za, ab", (1, 4), floats(4, 5)),
    "einsum ellipsis": einsum("...ij,jk->...ik", (1, 2, 3, 4), floats(4, 5)),
    "einsum ellipsis repeats": einsum("...ij,...jk->...ik", (1, 2, 3, 4), floats(1, 1, 4, 5)),
    "einsum ellipsis implicit": einsum("...j,jk", (1, 3, 4), floats(4, 5)),
    "einsum three": einsum("bij,jk,kl->bil", (1, 3, 4), floats(4, 5), floats(5, 2)),
    "einsum constant alone": einsum("bi,jk->bij", (1, 4), floats(3, 5)),
    "einsum capitals": einsum("bIj,jI->bI", (1, 3, 4), floats(4, 3)),
    "einsum one cell": einsum("bi,ij->bj", (1, 1), floats(1, 3)),
    "cumsum": op("CumSum", (1, 3, 4), ints(2)),
    "cumsum scalar axis": op("CumSum", (1, 3, 4), np.int64(1)),
    "cumsum exclusive": op("CumSum", (1, 3, 4), ints(-1), exclusive=1),
    "cumsum reverse": op("CumSum", (1, 3, 4), ints(1), reverse=1),
    "cumsum exclusive reverse": op("CumSum", ("n", 5), ints(1), exclusive=1, reverse=1),
    "cumsum one axis": op("CumSum", (5,), ints(0)),
    "cumsum batch": op("CumSum", (1, 5), ints(0)),
}

MOVES = {
    "tile": op("Tile", (1, 3, 2), ints(1, 2, 3)),
    "tile batch": op("Tile", (1, 3), ints(2, 2)),
    "tile once": op("Tile", (1, 3), ints(1, 1)),
    "tile one axis": op("Tile", (3,), ints(3)),
    "depth to space": op("DepthToSpace", (1, 8, 2, 3), blocksize=2),
    "depth to space CRD": op("DepthToSpace", (1, 8, 2, 3), blocksize=2, mode="CRD"),
    "space to depth": op("SpaceToDepth", ("n", 2, 4, 6), blocksize=2),
    "reflect": op("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 1), mode="reflect"),
    "reflect attribute": op("Pad", IMAGE, pads=[0, 0, 1, 2, 0, 0, 3, 1], mode="reflect", opset=10),
    "edge": op("Pad", IMAGE, ints(0, 1, 1, 0, 0, 0, 7, 1), mode="edge"),
    "wrap": op("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 5, 1), mode="wrap", opset=19),
    "reflect axes": op("Pad", IMAGE, ints(1, 2), None, ints(-1), mode="reflect", opset=18),
    "edge batch": op("Pad", (1, 3), ints(1, 0, 0, 1), mode="edge"),
    "gather elements": op("GatherElements", (1, 3, 4), ints(2, 0, 1, 1, -1, -3).reshape(1, 2, 3), axis=1),
    "gather elements last": op("GatherElements", (1, 3, 4), ints(*range(-4, 2)).reshape(1, 3, 2), axis=-1),
    "gather nd": op("GatherND", (1, 3, 4), ints(0, 2, 0, -1).reshape(2, 2)),
    "gather nd places": op("GatherND", (1, 3, 4), ints(0, 2, 3, 0, 0, -1).reshape(1, 2, 3)),
    "gather nd common": op("GatherND", (1, 3, 4), ints(2, 0, 1).reshape(1, 3, 1), batch_dims=1),
    "gather nd two common": op("GatherND", (1, 3, 4), ints(3, 0, 1).reshape(1, 3, 1), batch_dims=2),
    "scatter elements": op("ScatterElements", (1, 3, 4), ints(1, 0, 2, -1).reshape(1, 1, 4), floats(1, 1, 4), axis=1),
    "scatter elements updates": op("ScatterElements", (1, 2), floats(1, 5), ints(4, -4).reshape(1, 2), axis=1, place=2),
    "scatter nd": op("ScatterND", (1, 3, 4), ints(0, 2, 0, 0).reshape(2, 2), floats(2, 4)),
    "scatter nd updates": op("ScatterND", (1, 4), floats(3, 4), ints(2).reshape(1, 1), place=2),
    "scatter 9": op("Scatter", (1, 4), ints(2, 0).reshape(1, 2), floats(1, 2), axis=1, opset=9),
    "scatter elements added": op(
        "ScatterElements", (1, 4), ints(2, 0, 2, -2).reshape(1, 4), floats(1, 4), axis=1, reduction="add"
    ),
    "scatter elements added once": op(
        "ScatterElements", (1, 3, 4), ints(1, 0, 2, -1).reshape(1, 1, 4), floats(1, 1, 4), axis=1, reduction="add"
    ),
    "scatter elements updates added": op(
        "ScatterElements", (1, 3), floats(1, 5), ints(4, 1, -1).reshape(1, 3), axis=1, reduction="add", place=2
    ),
    "scatter nd added": op("ScatterND", (1, 3, 4), ints(0, 2, 0, 0, 0, 2).reshape(3, 2), floats(3, 4), reduction="add"),
    "scatter nd updates added": op("ScatterND", (1, 4), floats(3, 4), ints(2).reshape(1, 1), reduction="add", place=2),
    "centred": op("CenterCropPad", (1, 4, 5), ints(7, 2), axes=[1, -1], opset=18),
    "centred odd": op("CenterCropPad", (1, 5, 4), ints(2, 7), axes=[1, 2], opset=18),
    "centred batch": op("CenterCropPad", (1, 4), ints(3, 1), opset=18),
    "centred in place": op("CenterCropPad", ("n", 4), ints(4), axes=[1], opset=18),
    "compress": op("Compress", (1, 4, 3), np.array([True, False, True]), axis=1),
    "compress flat": op("Compress", (1, 4), np.array([False, True, True])),
    "reverse sequence": op("ReverseSequence", (1, 5, 2), ints(3), batch_axis=0, time_axis=1),
}

MASKS = {
    "where": op("Where", (1, 3, 4), truth(3, 4), floats(4), place=1),
    "where otherwise": op("Where", (1, 3, 4), truth(1, 3, 4), floats(1, 3, 1), place=2),
    "where enlarging": op("Where", (1, 3, 1), truth(3, 4), floats(1, 1, 4), place=1),
    "where scalar": op("Where", ("n", 4), truth(4), np.float32(-3), place=1),
    "where batch": op("Where", (1, 4), truth(2, 4), np.float32(-3), place=1),
    "trilu": op("Trilu", (1, 3, 4)),
    "trilu lower": op("Trilu", (1, 2, 4, 3), upper=0),
    "trilu shifted": op("Trilu", (1, 3, 4), np.int64(1)),
    "trilu lower shifted": op("Trilu", ("n", 3, 4), np.int64(-1), upper=0),
    "trilu matrix": op("Trilu", (1, 4), np.int64(2)),
}

RESIZES = {
    "nearest": resized(1, 1, 2, 3),
    "nearest asymmetric floor": resized(1, 1, 2, 2, coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "nearest ceil": resized(1, 1, 1.6, 2.3, nearest_mode="ceil"),
    "nearest prefer ceil": resized(1, 1, 2, 0.5, nearest_mode="round_prefer_ceil"),
    "nearest prefer floor": resized(1, 1, 0.5, 0.5, shape=(1, 2, 6, 8), nearest_mode="round_prefer_floor"),
    "nearest corners": resized(1, 1, 2, 2, coordinate_transformation_mode="align_corners"),
    "nearest sizes": sized(1, 3, 8, 3),
    "nearest sizes asymmetric": sized(1, 3, 7, 9, coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "nearest half pixel for nn": resized(
        1, 1, 2, 2, coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor", opset=11
    ),
    "nearest symmetric": resized(1, 1, 1.3, 2.4, coordinate_transformation_mode="half_pixel_symmetric", opset=19),
    "nearest channels": resized(1, 2, 2, 1),
    "nearest 10": op("Resize", IMAGE, np.float32([1, 1, 2, 3]), opset=10),
    "nearest 10 down": op("Resize", (1, 2, 6, 8), np.float32([1, 1, 0.5, 0.6]), opset=10),
    "nearest one axis": resized(1, 1, 2.5, shape=(1, 2, 5)),
    "nearest axes": op("Resize", IMAGE, None, np.float32([2, 2]), axes=[2, 3], opset=18),
    "linear": resized(1, 1, 2, 3, mode="linear"),
    "linear fractions": resized(1, 1, 1.7, 2.4, mode="linear"),
    "linear down": resized(1, 1, 0.6, 0.5, mode="linear"),
    "linear corners": resized(1, 1, 2, 2, mode="linear", coordinate_transformation_mode="align_corners"),
    "linear asymmetric": resized(1, 1, 2, 2, mode="linear", coordinate_transformation_mode="asymmetric"),
    "linear pytorch": sized(1, 3, 1, 7, mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    "linear sizes": sized(1, 3, 7, 9, mode="linear"),
    "linear sizes corners": sized(1, 3, 1, 9, mode="linear", coordinate_transformation_mode="align_corners"),
    "linear one axis": resized(1, 1, 2.5, shape=(1, 2, 5), mode="linear"),
    "linear three axes": resized(1, 1, 2, 1.5, 2, shape=(1, 2, 3, 4, 2), mode="linear"),
    "linear 10": op("Resize", IMAGE, np.float32([1, 1, 2, 3]), opset=10, mode="linear"),
    "cubic": resized(1, 1, 2, 3, mode="cubic"),
    "cubic outside": resized(1, 1, 2.5, 1.5, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    "cubic down corners": resized(1, 1, 0.8, 0.5, mode="cubic", coordinate_transformation_mode="align_corners"),
    "upsample": op("Upsample", IMAGE, np.float32([1, 1, 2, 3]), opset=9),
    "upsample attribute": op("Upsample", IMAGE, scales=[1.0, 1.0, 2.0, 2.0], opset=7),
    "upsample linear": op("Upsample", IMAGE, np.float32([1, 1, 2, 2.5]), opset=9, mode="linear"),
    "average dilated": op("AveragePool", (1, 2, 7, 6), kernel_shape=[2, 3], dilations=[3, 2], opset=19),
    "average dilated pads": op(
        "AveragePool", (1, 2, 7, 6), kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 1, 2, 1], strides=[2, 1], opset=22
    ),
    "average dilated counted": op(
        "AveragePool",
        (1, 2, 7, 6),
        kernel_shape=[3, 2],
        dilations=[2, 3],
        pads=[1, 1, 2, 1],
        count_include_pad=1,
        opset=22,
    ),
    "average dilated ceil": op(
        "AveragePool", (1, 2, 7, 6), kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 3], ceil_mode=1, opset=22
    ),
}

FORMS = {**PRODUCTS, **MOVES, **MASKS, **RESIZES}
