"""Affine operators in company: shapes and masks computed in the file, several computed values, refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from forms_affine import IMAGE, einsum, floats, ints, op, resized, sized
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_kit import Array, OneOp, model, require_agreement, require_exact_agreement

from provenn.models.onnx_reader import read
from provenn.verifier.errors import InvalidModel, ResourceLimit, UnsupportedOp

node = helper.make_node

CHAINS: dict[str, tuple[list[onnx.NodeProto], dict[str, Array]]] = {
    "expand to a computed shape": (
        [
            node("Shape", ["target"], ["s"]),
            node("ConstantOfShape", ["s"], ["ones"], value=helper.make_tensor("v", TensorProto.INT64, [1], [1])),
            node("Mul", ["ones", "minus"], ["negative"]),
            node("Equal", ["target", "negative"], ["kept"]),
            node("Where", ["kept", "ones", "target"], ["shape"]),
            node("Expand", ["x", "shape"], ["y"]),
        ],
        {"target": ints(-1, 3, 4), "minus": ints(-1)},
    ),
    "causal mask": (
        [
            node("Range", ["zero", "four", "one"], ["r"]),
            node("Unsqueeze", ["r", "last"], ["rows"]),
            node("LessOrEqual", ["r", "rows"], ["mask"]),
            node("Slice", ["mask", "zeros", "ends"], ["part"]),
            node("Where", ["part", "x", "far"], ["y"]),
        ],
        {
            "zero": np.int64(0),
            "four": np.int64(4),
            "one": np.int64(1),
            "last": ints(1),
            "zeros": ints(0, 0),
            "ends": ints(3, 4),
            "far": np.float32(-100),
        },
    ),
    "mask between computed values": (
        [
            node("Neg", ["x"], ["n"]),
            node("Less", ["c", "zero"], ["negative"]),
            node("Not", ["negative"], ["other"]),
            node("And", ["other", "some"], ["both"]),
            node("Where", ["both", "x", "n"], ["y"]),
        ],
        {"c": floats(3, 4), "zero": np.float32(0), "some": np.array([True, False, True, True])},
    ),
    "mask of another shape": (
        [node("ReduceSum", ["x", "axes"], ["total"]), node("Where", ["mask", "x", "total"], ["y"])],
        {"axes": ints(2), "mask": np.array([[True], [False], [True]])},
    ),
    "places of ones": (
        [
            node("Greater", ["c", "zero"], ["g"]),
            node("GreaterOrEqual", ["c", "zero"], ["ge"]),
            node("Or", ["g", "ge"], ["either"]),
            node("Xor", ["either", "nothing"], ["mask"]),
            node("NonZero", ["mask"], ["places"]),
            node("Squeeze", ["places", "first"], ["indices"]),
            node("Gather", ["x", "indices"], ["y"], axis=2),
        ],
        {"c": np.float32([1, -1, 0, 2]), "zero": np.float32(0), "first": ints(0), "nothing": np.array(False)},
    ),
    "odd and even": (
        [
            node("Size", ["x"], ["n"]),
            node("Range", ["zero", "n", "one"], ["r"]),
            node("Mod", ["r", "two"], ["odd"]),
            node("Cast", ["odd"], ["weight"], to=TensorProto.FLOAT),
            node("Reshape", ["weight", "shape"], ["matrix"]),
            node("Mul", ["x", "matrix"], ["y"]),
        ],
        {"zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "shape": ints(1, 3, 4)},
    ),
    "sums of whole numbers": (
        [
            node("CumSum", ["steps", "first"], ["ends"]),
            node("Einsum", ["ends", "pick"], ["end"], equation="i,ji->j"),
            node("Slice", ["x", "first", "end", "two"], ["y"]),
        ],
        {"steps": ints(1, 1, 5), "first": ints(0), "pick": ints(0, 1, 0).reshape(1, 3), "two": ints(2)},
    ),
    "identity matrix": (
        [node("EyeLike", ["like"], ["eye"], k=1), node("MatMul", ["x", "eye"], ["y"])],
        {"like": floats(4, 5)},
    ),
    "constants moved": (
        [
            node("Tile", ["c", "twice"], ["t"]),
            node("Trilu", ["t"], ["u"], upper=0),
            node("Einsum", ["u", "c"], ["e"], equation="ij,ij->ij"),
            node("CumSum", ["e", "axis"], ["s"]),
            node("Add", ["x", "s"], ["y"]),
        ],
        {"c": floats(3, 4), "twice": ints(1, 1), "axis": ints(1)},
    ),
    "updates of computed values": (
        [node("Neg", ["x"], ["n"]), node("ScatterND", ["x", "where", "part"], ["y"])],
        {"where": ints(0, 2).reshape(1, 2), "part": floats(1, 4)},
    ),
    "computed updates": (
        [
            node("Slice", ["x", "zeros", "ones", "one"], ["row"]),
            node("Neg", ["row"], ["other"]),
            node("ScatterElements", ["x", "where", "other"], ["y"], axis=1),
        ],
        {"zeros": ints(0), "ones": ints(1), "one": ints(1), "where": ints(2, 1, 0, 2).reshape(1, 1, 4)},
    ),
    "one letter and two values": (
        [node("Einsum", ["x", "w"], ["h"], equation="bij,jk->bik"), node("Add", ["h", "x"], ["y"])],
        {"w": floats(4, 4)},
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_agree_with_onnxruntime(name: str) -> None:
    nodes, constants = CHAINS[name]
    require_agreement(model(nodes, ("n", 3, 4), constants).SerializeToString())


REFUSED: dict[str, tuple[OneOp, type[InvalidModel], str]] = {
    "antialias": (resized(1, 1, 0.5, 0.5, mode="linear", antialias=1, opset=18), UnsupportedOp, "antialias"),
    "crop": (
        resized(1, 1, 2, 2, coordinate_transformation_mode="tf_crop_and_resize"),
        UnsupportedOp,
        "tf_crop_and_resize",
    ),
    "aspect ratio": (
        sized(1, 3, 7, 7, keep_aspect_ratio_policy="not_larger", opset=18),
        UnsupportedOp,
        "keep_aspect_ratio_policy",
    ),
    "resize in place": (resized(1, 1, 1, 1.1), UnsupportedOp, "as it is"),
    "resize to nothing": (resized(1, 1, 0.1, 1), InvalidModel, "nothing is left"),
    "resize without a size": (op("Resize", IMAGE), InvalidModel, "neither scales nor sizes"),
    "scales": (resized(1, 1, 2), InvalidModel, "do not fit"),
    "long reflection": (op("Pad", (1, 3), ints(0, 3, 0, 0), mode="reflect"), UnsupportedOp, "longer than"),
    "reflection cropped": (op("Pad", (1, 3), ints(0, -1, 0, 1), mode="reflect"), UnsupportedOp, "negative pads"),
    "pad mode": (op("Pad", (1, 3), ints(0, 1, 0, 1), mode="mirror"), UnsupportedOp, "mode 'mirror'"),
    "scatter reduction": (
        op("ScatterND", (1, 3), ints(0, 1).reshape(1, 2), floats(1), reduction="max", opset=18),
        UnsupportedOp,
        "reduction 'max'",
    ),
    "scatter twice": (
        op("ScatterElements", (1, 3), ints(1, 1).reshape(1, 2), floats(1, 2), axis=1),
        UnsupportedOp,
        "several updates",
    ),
    "scatter shapes": (op("ScatterND", (1, 3), ints(0).reshape(1, 1), floats(1)), InvalidModel, "do not fit"),
    "gather elements": (op("GatherElements", (1, 3), ints(3).reshape(1, 1), axis=1), InvalidModel, "outside 3"),
    "gather elements shape": (
        op("GatherElements", (1, 3), ints(0, 0).reshape(2, 1), axis=1),
        InvalidModel,
        "do not fit",
    ),
    "gather nd": (op("GatherND", (1, 3), ints(0, 3).reshape(1, 2)), InvalidModel, "outside"),
    "gather nd axes": (op("GatherND", (1, 3), ints(0, 0, 0).reshape(1, 3)), InvalidModel, "too many axes"),
    "centred": (op("CenterCropPad", (1, 3), ints(2, 2), axes=[1], opset=18), InvalidModel, "do not fit axes"),
    "centred twice": (op("CenterCropPad", (1, 3), ints(2, 2), axes=[1, -1], opset=18), InvalidModel, "do not fit axes"),
    "tile": (op("Tile", (1, 3), ints(1)), InvalidModel, "do not fit"),
    "tile none": (op("Tile", (1, 3), ints(1, 0)), InvalidModel, "do not fit"),
    "blocksize": (op("DepthToSpace", (1, 6, 2, 2), blocksize=2), InvalidModel, "do not fill squares"),
    "space to depth": (op("SpaceToDepth", (1, 1, 3, 2), blocksize=2), InvalidModel, "do not divide into squares"),
    "computed condition": (op("Where", (1, 3), floats(3), floats(3)), UnsupportedOp, "the condition must be constant"),
    "einsum letters": (einsum("bij,jk->bik", (1, 3), floats(3, 4)), InvalidModel, "does not name the axes"),
    "einsum lengths": (einsum("bi,ij->bj", (1, 3), floats(4, 5)), InvalidModel, "names axes of lengths"),
    "einsum result": (einsum("bi,ij->bk", (1, 3), floats(3, 5)), InvalidModel, "letters that no operand has"),
    "einsum twice": (einsum("bi->bii", (1, 3)), InvalidModel, "is not a result"),
    "einsum operands": (einsum("bi,ij", (1, 3)), InvalidModel, "does not name 1 operands"),
    "einsum signs": (einsum("b1->b", (1, 3)), InvalidModel, "cannot be read"),
    "cumsum axis": (op("CumSum", (1, 3), ints(2)), InvalidModel, "axis 2 does not exist"),
    "compress": (op("Compress", (1, 3), np.array([False]), axis=1), InvalidModel, "does not choose"),
    "trilu": (op("Trilu", (3,)), InvalidModel, "holds no matrix"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(name: str) -> None:
    form, error, reason = REFUSED[name]
    with pytest.raises(error, match=reason) as caught:
        read(form.model().SerializeToString())
    assert caught.value.node == f"{form.op}_0"


HUGE = {
    "tile": op("Tile", (1, 9), ints(1, 2**26)),
    "edge": op("Pad", (1, 9), ints(0, 0, 0, 2**27), mode="edge"),
    "nearest": sized(1, 2**26, shape=(1, 9)),
    "linear": sized(1, 1, 1, 2**26, shape=(1, 1, 1, 3), mode="linear"),
    "gather nd": op("GatherND", (1, 2**20), np.zeros((64, 1), dtype=np.int64)),
    "cumsum": op("CumSum", (1, 2**15), ints(1)),
}


@pytest.mark.parametrize("name", HUGE)
def test_small_files_of_huge_results_are_refused_before_they_are_made(name: str) -> None:
    with pytest.raises(ResourceLimit):
        read(HUGE[name].model().SerializeToString())


@pytest.mark.parametrize(("old", "new", "refused"), [(14, 8, True), (14, 32, True), (14, 28, False), (7, 5, False)])
def test_a_cell_that_float32_rounds_elsewhere_is_refused(old: int, new: int, refused: bool) -> None:
    """Cell 4 of 8 lies at 4 * 14 / 8 = 7 exactly; in float32, divided by 8 / 14, it lies below 7."""
    form = sized(1, new, shape=(1, old), coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    data = form.model().SerializeToString()
    if refused:
        with pytest.raises(UnsupportedOp, match="across a cell's border"):
            read(data)
    else:
        require_agreement(data)


@st.composite
def resizings(draw: st.DrawFn) -> OneOp:
    mode = draw(st.sampled_from(["nearest", "linear"]))
    how = draw(st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]))
    rounding = draw(st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    size = draw(st.lists(st.integers(2, 9), min_size=2, max_size=2))
    attributes = {"mode": mode, "coordinate_transformation_mode": how, "nearest_mode": rounding}
    if draw(st.booleans()):
        new = draw(st.lists(st.integers(1, 15), min_size=2, max_size=2))
        return sized(1, 2, *new, shape=(1, 2, *size), **attributes)
    scales = draw(st.lists(st.sampled_from([0.5, 0.75, 1.0, 1.25, 1.3, 2.0, 3.0]), min_size=2, max_size=2))
    return resized(1, 1, *scales, shape=(1, 2, *size), **attributes)


@settings(max_examples=60, deadline=None)
@given(form=resizings())
def test_resizing_agrees_with_onnxruntime(form: OneOp) -> None:
    data = form.model().SerializeToString()
    try:
        read(data)
    except UnsupportedOp as refusal:
        assert "across a cell's border" in str(refusal) or "as it is" in str(refusal)
        return
    require_agreement(data)


FOLDED: dict[str, tuple[list[onnx.NodeProto], list[str]]] = {
    "matrix and bias": ([node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"], name="last")], ["Linear"]),
    "bias first": ([node("MatMul", ["x", "w"], ["h"]), node("Sub", ["b", "h"], ["y"], name="last")], ["Linear"]),
    "bias read twice": (
        [
            node("MatMul", ["x", "w"], ["h"]),
            node("Add", ["h", "b"], ["g"]),
            node("Sub", ["g", "h"], ["y"], name="last"),
        ],
        ["Linear", "Scale", "Sub"],
    ),
    "scaled first": (
        [
            node("Mul", ["x", "s"], ["n"]),
            node("Add", ["n", "s"], ["m"]),
            node("MatMul", ["m", "w"], ["y"], name="last"),
        ],
        ["Linear"],
    ),
    "scaled, then flattened": (
        [
            node("Reshape", ["x", "grid"], ["g"]),
            node("Add", ["g", "plane"], ["a"]),
            node("Relu", ["a"], ["r"]),
            node("Mul", ["r", "plane"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("MatMul", ["f", "w"], ["y"], name="last"),
        ],
        ["Reshape", "Scale", "Relu", "Reshape", "Linear"],
    ),
    "nothing done": (
        [node("Reshape", ["x", "grid"], ["g"]), node("Flatten", ["g"], ["f"]), node("MatMul", ["f", "w"], ["y"])],
        ["Linear"],
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_scalings_are_folded_into_matrices(name: str) -> None:
    nodes, kinds = FOLDED[name]
    constants = {"w": floats(4, 3), "b": floats(3), "s": floats(4), "grid": ints(1, 2, 2), "plane": floats(1, 2, 2)}
    data = model(nodes, (1, 4), constants).SerializeToString()
    graph = read(data)
    assert [type(n.op).__name__ for n in graph.nodes[1:]] == kinds
    assert graph.nodes[-1].name == nodes[-1].name or not nodes[-1].name
    require_agreement(data)
    require_exact_agreement(data)
