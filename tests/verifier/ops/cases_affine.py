"""Rows of the table for the ops that pick, contract, resize and mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from op_case import Case, OnnxNode, integers, numbers, scalar

from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.einsum import Einsum
from provenn.verifier.ops.pick import Pick, Places


def cells(*shape: int) -> np.ndarray:
    """The numbers of the cells of a node."""
    return np.arange(int(np.prod(shape))).reshape(shape)


def pick(name: str, shapes: tuple[tuple[int, ...], ...], places: np.ndarray, node: OnnxNode | None = None) -> Case:
    size = sum(int(np.prod(s)) for s in shapes)
    op = Pick(Places.of(torch.from_numpy(np.ascontiguousarray(places)), size))
    return Case(f"pick-{name}", op, shapes, node)


def einsum(name: str, shape: tuple[int, ...], letters: str, constant: torch.Tensor) -> Case:
    """letters: "source,factor->result" of the node; ONNX's equation has the batch in front."""
    terms, result = letters.split("->")
    source, factor = terms.split(",")
    # ONNX's Einsum in the runtime takes no scalars.
    operands = (None, constant) if factor else (None,)
    named = f"Z{source},{factor}" if factor else f"Z{source}"
    node = OnnxNode("Einsum", operands, {"equation": f"{named}->Z{result}"})
    return Case(f"einsum-{name}", Einsum(constant, source, factor, result), (shape,), node)


def pick_cases() -> list[Case]:
    image = cells(2, 3, 4)
    reflect = OnnxNode("Pad", (None, integers(0, 0, 1, 2, 0, 0, 2, 1)), {"mode": "reflect"})
    edge = OnnxNode("Pad", (None, integers(0, 0, 1, 2, 0, 0, 2, 1)), {"mode": "edge"})
    around = ((0, 0), (1, 2), (2, 1))
    doubled: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    resize = OnnxNode("Resize", (None, "", np.array([1, 1, 2, 3], dtype=np.float32)), doubled)
    holes = np.array([[3, -1, 0, 0], [5, -1, -1, 3]])
    return [
        pick("tile", ((2, 3),), np.tile(cells(2, 3), (2, 3)), OnnxNode("Tile", (None, integers(1, 2, 3)))),
        pick("reflect", ((2, 3, 4),), np.pad(image, around, "reflect"), reflect),
        pick("edge", ((2, 3, 4),), np.pad(image, around, "edge"), edge),
        pick("nearest", ((2, 3, 4),), image.repeat(2, 1).repeat(3, 2), resize),
        pick("permutation", ((2, 3, 4),), image.transpose(2, 0, 1)),
        pick("zeros", ((6,),), holes),
        pick("of-two", ((3, 2), (4,)), np.array([9, 0, 3, 3, 6])),
        pick("of-two-with-zeros", ((3, 2), (4,)), np.array([[9, -1], [3, 6]])),
        pick("one-cell", ((6,),), np.array(4)),
    ]


def einsum_cases() -> list[Case]:
    ramp = torch.from_numpy(np.tri(4))
    return [
        einsum("right", (3, 4), "ij,jk->ik", numbers(4, 5)),
        einsum("left", (3, 4), "ij,ki->kj", numbers(5, 3)),
        einsum("stack", (2, 3, 4), "hij,hjk->hik", numbers(2, 4, 5)),
        einsum("heads", (3, 4), "te,ehd->htd", numbers(4, 2, 5)),
        einsum("outer", (4,), "i,j->ji", numbers(3)),
        einsum("elementwise", (3, 4), "ij,ij->ij", numbers(3, 4)),
        einsum("summed", (3, 4), "ij,ki->k", numbers(5, 3)),
        einsum("middle", (2, 3, 4), "abc,zb->azc", numbers(5, 3)),
        einsum("diagonal", (4, 4), "ii,ij->ij", numbers(4, 4)),
        einsum("trace", (4, 4, 3), "iij,->j", scalar(1.0)),
        Case("einsum-cumulative", Einsum(ramp, "ab", "zb", "az"), ((3, 4),), OnnxNode("CumSum", (None, integers(2)))),
    ]


def mask_cases() -> list[Case]:
    kept = np.array([[True, False, True, False], [False, False, True, True], [True, True, True, False]])
    other = numbers(3, 4)
    mask = torch.from_numpy(kept).double()
    triangle = torch.ones(3, 4, dtype=torch.float64).triu(1)
    return [
        Case("scale-where", Scale(mask, (1 - mask) * other), ((3, 4),), OnnxNode("Where", (kept, None, other))),
        Case("scale-trilu", Scale(triangle, scalar(0.0)), ((3, 4),), OnnxNode("Trilu", (None, np.int64(1)))),
    ]


AFFINE_CASES = pick_cases() + einsum_cases() + mask_cases()
