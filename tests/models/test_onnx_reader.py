"""Whole networks: the reference ones, random graphs, and how a network is laid out as nodes."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_kit import Array, mlp_model, model, relu_model, require_agreement, require_exact_agreement

from provenn.models.onnx_reader import OPERATORS, read
from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.table import OPS

node = helper.make_node


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["vnncomp2022", "lipschitz/local"])
def test_every_reference_network_agrees_with_onnxruntime(shared: Path, folder: str) -> None:
    paths = sorted(p for p in (shared / folder).rglob("*.onnx*") if p.is_file())
    assert paths, f"no networks under {shared / folder}"
    for path in paths:
        require_agreement(path.read_bytes(), seed=len(path.name))
        require_exact_agreement(path.read_bytes(), seed=len(path.name))


@pytest.mark.shared
def test_shapes_leave_the_batch_out(shared: Path) -> None:
    graph = read((shared / "vnncomp2022/mnist_fc/onnx/mnist-net_256x2.onnx.gz").read_bytes())
    assert (graph.input_shape, graph.output_shape) == ((784, 1), (10,))
    assert [type(n.op).__name__ for n in graph.nodes[1:]] == ["Reshape", "Linear", "Relu", "Linear", "Relu", "Linear"]
    assert graph.parameter_count() == 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert all(p.dtype == torch.float64 for n in graph.nodes for p in vars(n.op or n).values() if torch.is_tensor(p))


def test_weights_are_kept_exactly() -> None:
    weight = np.float32([[0.1, 1e-30], [3.3, -7.7]])
    graph = read(model([node("MatMul", ["x", "w"], ["y"])], (1, 2), {"w": weight}).SerializeToString())
    op = graph.nodes[-1].op
    assert torch.equal(vars(op)["weight"], torch.from_numpy(weight.astype(np.float64).T))


def test_gzip_is_read_like_the_file() -> None:
    data = mlp_model().SerializeToString()
    plain, packed = read(data), read(gzip.compress(data))
    assert [(n.name, n.shape) for n in plain.nodes] == [(n.name, n.shape) for n in packed.nodes]


def test_names_are_the_files_or_made_and_never_repeat() -> None:
    assert [n.name for n in read(mlp_model().SerializeToString()).nodes] == ["x", "first", "Relu_1", "second"]
    nodes = [node("Relu", ["x"], ["a"], name="same"), node("Neg", ["a"], ["y"], name="same")]
    assert [n.name for n in read(model(nodes, (1, 3)).SerializeToString()).nodes] == ["x", "same", "same:2"]


def test_dead_nodes_are_dropped_and_their_numbers_never_needed() -> None:
    constants = {"zero": np.float32([0])}
    nodes = [
        node("Div", ["x", "zero"], ["dead"]),
        node("Relu", ["dead"], ["too"]),
        node("Tanh", ["x"], ["y"]),
        node("Neg", ["y"], ["late"]),
    ]
    graph = read(model(nodes, (1, 3), constants).SerializeToString())
    assert [type(n.op).__name__ for n in graph.nodes[1:]] == ["Tanh"]


def test_identity_alone_is_the_input() -> None:
    assert len(read(model([node("Identity", ["x"], ["y"])], (1, 3)).SerializeToString()).nodes) == 1


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_both_float_types_are_read(dtype: int) -> None:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    made = model([node("Mul", ["x", "c"], ["y"])], (1, 3), {"c": np.array([1, 2, -3], dtype=kind)}, dtype=dtype)
    require_agreement(made.SerializeToString())


def test_half_precision_weights_are_widened() -> None:
    constants = {"c": np.float16([0.1, -0.3, 5])}
    nodes = [node("Cast", ["c"], ["wide"], to=TensorProto.FLOAT), node("Mul", ["x", "wide"], ["y"])]
    require_agreement(model(nodes, (1, 3), constants).SerializeToString())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 4), (4,)), (("n", 4), (4,)), ((4,), (4,)), ((1,), (1,)), (("n",), (1,)), ((1, 1, 2, 2), (1, 2, 2)), ((), ())],
)
def test_the_batch_axis_may_be_symbolic_fixed_or_missing(
    shape: tuple[int | str, ...], expected: tuple[int, ...]
) -> None:
    made = relu_model(shape).SerializeToString()
    assert read(made).input_shape == expected
    require_agreement(made)


CHAINS: dict[str, tuple[list[onnx.NodeProto], dict[str, Array]]] = {
    "flatten by its own shape": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["batch"], axis=0),
            node("Unsqueeze", ["batch", "axes"], ["b"]),
            node("Concat", ["b", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
        ],
        {"zero": np.int64(0), "axes": np.int64([0]), "rest": np.int64([-1])},
    ),
    "half of its own length": (
        [
            node("Shape", ["x"], ["s"], start=2, end=3),
            node("Div", ["s", "two"], ["half"]),
            node("Sub", ["half", "ten"], ["before"]),
            node("Mul", ["before", "minus"], ["after"]),
            node("Slice", ["x", "one", "after", "axis"], ["y"]),
        ],
        {
            "two": np.int64([2]),
            "ten": np.int64([7]),
            "minus": np.int64([-1]),
            "one": np.int64([1]),
            "axis": np.int64([2]),
        },
    ),
    "ones of its own shape": (
        [
            node("Shape", ["x"], ["s"]),
            node("ConstantOfShape", ["s"], ["ones"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.5])),
            node("Add", ["x", "ones"], ["y"]),
        ],
        {},
    ),
    "zeros by default": (
        [node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["o"]), node("Concat", ["o", "x"], ["y"], axis=1)],
        {},
    ),
    "integers become floats": (
        [
            node("Shape", ["x"], ["s"]),
            node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
            node("ReduceSum", ["f"], ["n"], keepdims=0),
            node("Div", ["x", "n"], ["y"]),
        ],
        {},
    ),
    "weights computed in the file": (
        [
            node("Transpose", ["w"], ["t"], perm=[1, 0]),
            node("Neg", ["t"], ["n"]),
            node("Relu", ["n"], ["positive"]),
            node("Unsqueeze", ["positive", "axes"], ["stack"]),
            node("Squeeze", ["stack", "axes"], ["back"]),
            node("MatMul", ["x", "back"], ["y"]),
        ],
        {"w": np.float32(np.random.default_rng(3).standard_normal((5, 4))), "axes": np.int64([0])},
    ),
    "weights multiplied in the file": (
        [
            node("MatMul", ["a", "b"], ["ab"]),
            node("Sub", ["ab", "c"], ["w"]),
            node("Expand", ["w", "shape"], ["wide"]),
            node("Split", ["wide"], ["left", "right"], axis=1),
            node("Concat", ["right", "left"], ["swapped"], axis=1),
            node("MatMul", ["x", "swapped"], ["y"]),
        ],
        {
            "a": np.float32([[1], [2], [3], [4]]),
            "b": np.float32([[1, -1]]),
            "c": np.float32([0.5]),
            "shape": np.int64([4, 2]),
        },
    ),
    "every kind of constant": (
        [
            node("Constant", [], ["number"], value_float=0.5),
            node("Constant", [], ["numbers"], value_floats=[1.0, 2.0, 3.0, 4.0]),
            node("Constant", [], ["axes"], value_ints=[1]),
            node("Constant", [], ["which"], value_int=2),
            node("Constant", [], ["tensor"], value=helper.make_tensor("v", TensorProto.FLOAT, [4], [1, 0, 2, 0])),
            node("Add", ["x", "number"], ["a"]),
            node("Mul", ["a", "numbers"], ["b"]),
            node("ReduceSum", ["b", "axes"], ["c"], keepdims=1),
            node("Gather", ["c", "which"], ["d"], axis=3 - 1),
            node("Add", ["d", "tensor"], ["y"]),
        ],
        {},
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_constants_and_shapes_are_folded(name: str) -> None:
    nodes, constants = CHAINS[name]
    require_agreement(model(nodes, ("n", 3, 4), constants, opset=17).SerializeToString())


def test_a_normalization_becomes_one_scale() -> None:
    numbers = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    constants = {"scale": numbers[0], "bias": numbers[1], "mean": numbers[2], "var": numbers[3] ** 2}
    nodes = [node("BatchNormalization", ["x", "scale", "bias", "mean", "var"], ["y"])]
    graph = read(model(nodes, (1, 3, 2, 2), constants).SerializeToString())
    op = graph.nodes[1].op
    assert isinstance(op, Scale)
    variance = constants["var"].astype(np.float64)
    expected = constants["scale"].astype(np.float64) / np.sqrt(variance + float(np.float32(1e-5)))
    assert np.array_equal(op.weight.numpy().ravel(), expected)


def test_numbers_that_overflow_while_folding_are_refused() -> None:
    constants = {"a": np.float64([1e300]), "b": np.float64([1e300])}
    nodes = [node("Mul", ["a", "b"], ["huge"]), node("Mul", ["x", "huge"], ["y"])]
    with pytest.raises(InvalidModel, match=r"node 'Mul_0': its constant value is nan or infinite"):
        read(model(nodes, (1, 3), constants, dtype=TensorProto.DOUBLE).SerializeToString())
    gemm = node("Gemm", ["x", "b"], ["y"], alpha=1e38)
    with pytest.raises(InvalidModel, match=r"node 'Gemm_0': a parameter computed within the model is nan or infinite"):
        read(model([gemm], (1, 1), {"b": np.float64([[1e300]])}, dtype=TensorProto.DOUBLE).SerializeToString())


def test_every_operator_that_an_op_names_is_read() -> None:
    assert {name for op in OPS for name in op.onnx} <= set(OPERATORS)


# --- random graphs ------------------------------------------------------------------------------------------------


class Draft:
    """A random network under construction: values [n, 6] by name."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.values = ["x"]
        self.constants: dict[str, Array] = {}
        self.nodes: list[onnx.NodeProto] = []

    def pick(self) -> str:
        return str(self.rng.choice(self.values[-3:]))

    def constant(self, *shape: int) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = self.rng.standard_normal(shape).astype(np.float32)
        return name

    def listed(self, *numbers: int) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(numbers, dtype=np.int64)
        return name

    def grow(self, kind: str) -> None:
        x, y, inner, out = self.pick(), self.pick(), f"i{len(self.nodes)}", f"v{len(self.nodes)}"
        made: list[onnx.NodeProto]
        if kind == "linear":
            made = [node("Gemm", [x, self.constant(6, 6), self.constant(6)], [out], transB=1, alpha=0.5)]
        elif kind in ("Relu", "Tanh", "Sigmoid", "Neg", "LeakyRelu", "Identity"):
            made = [node(kind, [x], [out])]
        elif kind in ("Add", "Sub"):
            made = [node(kind, [x, y], [out])]
        elif kind == "shift":
            made = [node("Sub", [self.constant(1, 6), x], [out])]
        elif kind == "scale":
            made = [node("Mul", [x, self.constant(6)], [out])]
        elif kind == "grid":
            shape, flat = self.listed(0, 2, 3), self.listed(0, -1)
            made = [node("Reshape", [x, shape], [inner]), node("Transpose", [inner], [inner + "t"], perm=[0, 2, 1])]
            made.append(node("Reshape", [inner + "t", flat], [out]))
        elif kind == "halves":
            made = [
                node("Split", [x], [inner, inner + "b"], axis=1),
                node("Concat", [inner + "b", y], [inner + "c"], axis=1),
            ]
            made.append(
                node("Slice", [inner + "c", self.listed(-1), self.listed(2), self.listed(1), self.listed(-1)], [out])
            )
        elif kind == "drop batch":
            made = [node("Squeeze", [x, self.listed(0)], [inner]), node("Add", [inner, y], [out])]
        elif kind == "gather":
            made = [node("Gather", [x, self.listed(*self.rng.integers(-6, 6, 6).tolist())], [out], axis=1)]
        elif kind == "mean":
            made = [node("ReduceMean", [x], [inner], axes=[1]), node("Sub", [y, inner], [out])]
        else:
            self.constants[f"w{len(self.nodes)}"] = self.rng.standard_normal((3, 1, 2)).astype(np.float32)
            made = [node("Unsqueeze", [x, self.listed(1)], [inner])]
            made.append(node("Conv", [inner, f"w{len(self.nodes)}"], [inner + "c"], strides=[3]))
            made.append(node("Flatten", [inner + "c"], [out]))
        self.nodes += made
        self.values.append(out)


KINDS = ["linear", "Relu", "Tanh", "Sigmoid", "Neg", "LeakyRelu", "Identity", "Add", "Sub", "shift", "scale", "grid"]
KINDS += ["halves", "drop batch", "gather", "mean", "convolution"]


@settings(max_examples=80, deadline=None)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), seed=st.integers(0, 2**16))
def test_random_graphs_agree_with_onnxruntime(kinds: list[str], seed: int) -> None:
    draft = Draft(seed)
    for kind in kinds:
        draft.grow(kind)
    made = model(draft.nodes, (1, 6), draft.constants, draft.values[-1])
    require_agreement(made.SerializeToString(), seed=seed)
    require_exact_agreement(made.SerializeToString(), seed=seed)
