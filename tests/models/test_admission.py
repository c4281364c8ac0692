"""What a stranger may upload: every refusal, attacked for real."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_kit import mlp_model, model, refused, relu_model, require_agreement

from provenn.models.admission import Limits, admit
from provenn.models.onnx_reader import read
from provenn.verifier.errors import InvalidModel, ProvennError, ResourceLimit, UnsupportedOp

node = helper.make_node
GOOD = mlp_model().SerializeToString()


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    made = mlp_model()
    change(made)
    return made


def test_a_good_model_comes_back_whole() -> None:
    assert admit(GOOD) == mlp_model()
    assert admit(gzip.compress(GOOD, mtime=0)) == mlp_model()


# --- bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"hello, this is no network", "not an ONNX file"),
        (b"\x00" * 64, "not an ONNX file"),
        (GOOD[:-7], "not an ONNX file, or a truncated one"),
        (GOOD[: len(GOOD) // 2], "not an ONNX file, or a truncated one"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x80\x04\x95rest", "a Python pickle"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "it has no graph of nodes"),
        (gzip.compress(GOOD, mtime=0)[:-20], "the gzip data is truncated"),
        (gzip.compress(GOOD, mtime=0)[:30] + b"\xff" * 50, "the gzip data is"),
        (gzip.compress(GOOD, mtime=0) + b"more", "followed by something else"),
        (gzip.compress(GOOD, mtime=0) * 2, "followed by something else"),
        (gzip.compress(b"", mtime=0), "contains nothing"),
        (gzip.compress(gzip.compress(GOOD, mtime=0), mtime=0), "not an ONNX file"),
    ],
)
def test_bytes_that_are_no_model_are_refused(data: bytes, match: str) -> None:
    refused(data, match)


def test_a_file_that_is_too_large_is_refused() -> None:
    refused(
        GOOD, r"the file \(\d+ bytes or more\) exceeds the limit of 100 bytes", ResourceLimit, limits=Limits(bytes=100)
    )


def test_a_gzip_bomb_is_inflated_no_further_than_the_limit() -> None:
    bomb = gzip.compress(bytes(2**28), mtime=0)
    assert len(bomb) < 2**19
    tracemalloc.start()
    refused(bomb, "the decompressed file", ResourceLimit, limits=Limits(bytes=2**20))
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_names_that_are_not_text_are_refused() -> None:
    for name in (b"f\xff\xfest", b"a\xed\xa0\x80b", b"a\x1b[2J", b"a\nbcd"):
        data = mlp_model().SerializeToString().replace(b"first", name)
        refused(data, "the name .* is not printable text")


# --- what a model may hold ----------------------------------------------------------------------------------------


def control_flow(kind: str) -> onnx.ModelProto:
    inner = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 3])
    body = helper.make_graph([node("Identity", ["x"], ["b"])], "body", [], [inner])
    made = relu_model((1, 3))
    made.graph.node[0].op_type = kind
    made.graph.node[0].attribute.append(helper.make_attribute("body", body))
    return made


@pytest.mark.parametrize("kind", ["If", "Loop", "Scan"])
def test_control_flow_is_refused(kind: str) -> None:
    refused(control_flow(kind), f"operator {kind} is not supported: control flow", UnsupportedOp)


def test_a_graph_inside_a_known_operator_is_refused() -> None:
    refused(control_flow("Relu"), "it holds a graph of its own", UnsupportedOp)


def test_local_functions_are_refused_unread() -> None:
    def nest(made: onnx.ModelProto) -> None:
        for i in range(25):
            twice = [node(f"f{i + 1}", ["a"], ["b"], domain="d"), node(f"f{i + 1}", ["b"], ["c"], domain="d")]
            made.functions.append(
                helper.make_function("d", f"f{i}", ["a"], ["c"], twice, [helper.make_opsetid("", 17)])
            )

    refused(changed(nest), r"25 local functions \('f0', 'f1', 'f2'\): inline them")


def test_unknown_operators_and_domains_are_refused_by_name() -> None:
    late = model([node("Hardmax", ["x"], ["y"], name="late")], (1, 3))
    refused(late, r"node 'late': operator Hardmax is not supported\. Supported operators: Abs, .*Xor", UnsupportedOp)
    foreign = relu_model((1, 3))
    foreign.graph.node[0].domain = "com.microsoft"
    refused(foreign, r"operator com\.microsoft\.Relu is not supported", UnsupportedOp)


@pytest.mark.parametrize("version", [-1, 0, 6, 27, 999, 2**62])
def test_operator_sets_outside_the_range_are_refused(version: int) -> None:
    def change(made: onnx.ModelProto) -> None:
        made.opset_import[0].version = version

    refused(changed(change), rf"operator set {version} is not supported; export with one from 7 to 26")


def test_one_standard_operator_set_must_be_imported() -> None:
    refused(changed(lambda m: m.ClearField("opset_import")), "must import the standard operator set once, not 0 times")
    refused(changed(lambda m: m.opset_import.add(domain="", version=9)), "not 2 times")


def test_training_information_and_sparse_tensors_are_refused() -> None:
    refused(changed(lambda m: m.training_info.add()), "training information")
    refused(changed(lambda m: m.graph.sparse_initializer.add()), "sparse initializers")


# --- order --------------------------------------------------------------------------------------------------------


def test_cycles_and_nodes_out_of_order_are_refused() -> None:
    cycle = model([node("Add", ["x", "y"], ["h"]), node("Relu", ["h"], ["y"])], (1, 3))
    refused(cycle, "node 'Add_0': reads 'y' before it is computed: a cycle, or nodes out of order")
    itself = model([node("Relu", ["y"], ["y"])], (1, 3))
    refused(itself, "a cycle")
    unsorted = model([node("Relu", ["h"], ["y"]), node("Neg", ["x"], ["h"])], (1, 3))
    refused(unsorted, "out of order")


def test_tensors_defined_twice_or_never_are_refused() -> None:
    twice = model([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], (1, 3))
    refused(twice, "node 'Neg_1': computes 'y', which is defined already")
    refused(model([node("Relu", ["x"], ["x"])], (1, 3), output="x"), "computes 'x', which is defined already")
    refused(model([node("Relu", ["nowhere"], ["y"])], (1, 3)), "reads 'nowhere', which nothing computes")
    refused(changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])), "two initializers have one name")
    refused(relu_model(output="z"), "z")


def test_what_onnx_itself_refuses_is_refused() -> None:
    refused(model([node("Relu", ["x", "x"], ["y"])], (1, 3)), "ONNX's checker refuses it: Node .* has input size 2")
    refused(model([node("Relu", ["x"], ["y"], alpha=1.0)], (1, 3)), "ONNX's checker refuses it")
    group = node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2)
    old = model([group], (1, 4, 3), {"s": np.ones(2, np.float32)}, opset=18)
    refused(old, "ONNX's checker refuses it: .* is deprecated")


def test_outputs_that_no_operator_here_computes_cannot_be_read() -> None:
    mask = model([node("Dropout", ["x"], ["d", "mask"]), node("Identity", ["mask"], ["y"])], (1, 3))
    refused(mask, "reads 'mask', an output of a kind that is not computed here")


UNNAMED = {
    "split": (["Split", ["x"], ["a", ""]], 11, InvalidModel),
    "split in the middle": (["Split", ["x"], ["a", "", "c"]], 13, InvalidModel),
    "split of listed lengths": (["Split", ["x", "lengths"], ["", "a"]], 13, InvalidModel),
    "split of none": (["Split", ["x"], ["", ""]], 13, InvalidModel),
    "normalization": (["BatchNormalization", ["x", *["ones"] * 4], ["a", "", "", "", ""]], 8, UnsupportedOp),
    "normalization 15": (["BatchNormalization", ["x", *["ones"] * 4], ["a", "", ""]], 15, UnsupportedOp),
}


@pytest.mark.parametrize("name", UNNAMED)
def test_outputs_without_names_are_refused_where_runtimes_crash_on_them(name: str) -> None:
    made, opset, error = UNNAMED[name]
    constants = {"lengths": np.array([1, 5]), "ones": np.ones(6, np.float32)}
    some = {k: v for k, v in constants.items() if k in made[1]}
    attributes = {"axis": 1} if made[0] == "Split" else {}
    nodes = [node(*made, **attributes), node("Neg", ["a" if "a" in made[2] else "x"], ["y"])]
    refused(model(nodes, (1, 6), some, opset=opset), "an output has no name|training form", error)


TRAILING = {
    "pool": (["MaxPool", ["x"], ["a", ""]], {"kernel_shape": [2]}),
    "dropout": (["Dropout", ["x"], ["a", ""]], {}),
    "normalization": (["LayerNormalization", ["x", "ones"], ["a", "", ""]], {}),
}


@pytest.mark.parametrize("name", TRAILING)
def test_outputs_without_names_are_left_out_elsewhere(name: str) -> None:
    made, attributes = TRAILING[name]
    constants = {"ones": np.ones(4, np.float32)} if "ones" in made[1] else {}
    require_agreement(
        model([node(*made, **attributes), node("Neg", ["a"], ["y"])], (1, 2, 4), constants).SerializeToString()
    )


# --- inputs and outputs -------------------------------------------------------------------------------------------


def with_input(shape: list[int | str | None], dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    made = relu_model((1, 3))
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", dtype, shape))
    return made


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        (["n", "width"], r"axis 1 \('width'\) of input 'x' has no fixed length; only axis 0, the batch"),
        ([1, 3, None], "axis 2 of input 'x' has no fixed length"),
        ([2, 3], "fixed batch of 2; export with a batch of 1, or a symbolic one"),
        ([0, 3], "is empty"),
        ([1, 0], "is empty"),
    ],
)
def test_dynamic_or_batched_inputs_are_refused(shape: list[int | str | None], match: str) -> None:
    refused(with_input(shape), match)


def test_inputs_must_be_one_tensor_of_floats_and_so_must_the_output() -> None:
    refused(with_input([1, 3], TensorProto.INT64), "input 'x' has element type INT64; it must be FLOAT or DOUBLE")
    whole = changed(lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.INT64))
    refused(whole, "output 'y' has element type INT64; it must be FLOAT or DOUBLE")
    shapeless = relu_model((1, 3))
    shapeless.graph.input[0].type.tensor_type.ClearField("shape")
    refused(shapeless, "shape")
    second = helper.make_tensor_value_info("second", 1, [1, 3])
    refused(changed(lambda m: m.graph.input.append(second)), r"it has 2 inputs \('x', 'second'\)")
    refused(changed(lambda m: m.graph.node[0].input.__setitem__(0, "w1") or m.graph.ClearField("input")), "0 inputs")


def test_initializers_listed_as_inputs_are_constants() -> None:
    made = changed(lambda m: m.graph.input.append(helper.make_tensor_value_info("w1", 1, [5, 4])))
    require_agreement(made.SerializeToString())


def test_there_must_be_one_output_that_depends_on_the_input() -> None:
    made = changed(lambda m: m.graph.output.append(helper.make_tensor_value_info("a", 1, ["n", 5])))
    refused(made, r"it has 2 outputs \('y', 'a'\); choose one")
    constant = model([node("Identity", ["c"], ["y"]), node("Relu", ["x"], ["z"])], (1, 3), {"c": np.float32([1, 2])})
    refused(constant, "output 'y' does not depend on the input")


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_numbers_are_refused_by_name(bad: float) -> None:
    weight = np.float32([[1, bad, 3]])
    made = model([node("Mul", ["x", "gain"], ["y"])], (1, 3), {"gain": weight})
    refused(made, "initializer 'gain' contains nan or inf; every weight must be a finite number")
    stored = [node("Constant", [], ["c"], value=numpy_helper.from_array(weight)), node("Mul", ["x", "c"], ["y"])]
    refused(model(stored, (1, 3)), r"attribute 'value' of node 'Constant_0' contains nan or inf")
    refused(model([node("LeakyRelu", ["x"], ["y"], alpha=bad)], (1, 3)), "attribute 'alpha' is nan or infinite")


@pytest.mark.parametrize("dtype", [TensorProto.UINT8, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.INT4])
def test_weights_of_other_types_are_refused(dtype: int) -> None:
    made = relu_model((1, 3))
    made.graph.initializer.append(TensorProto(name="w", data_type=dtype, dims=[2], raw_data=bytes(4)))
    name = TensorProto.DataType.Name(dtype)
    refused(made, f"initializer 'w' has element type {name}; readable types: FLOAT, DOUBLE, FLOAT16, INT64|checker")


def test_data_that_do_not_fill_their_shape_are_refused() -> None:
    made = relu_model((1, 3))
    made.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[2, 3], raw_data=bytes(20)))
    refused(made, "initializer 'w'|checker")
    typed = relu_model((1, 3))
    typed.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[4], float_data=[1.0, 2.0]))
    refused(typed, "initializer 'w'|checker")


# --- size ---------------------------------------------------------------------------------------------------------


def doubling(source: str, times: int) -> list[onnx.NodeProto]:
    names = [source, *(f"d{i}" for i in range(times))]
    return [node("Concat", [a, a], [b], axis=1) for a, b in pairwise(names)]


BOMBS: dict[str, onnx.ModelProto] = {
    "ConstantOfShape": model(
        [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], (1, 3), {"s": np.int64([65536, 65536])}
    ),
    "ConstantOfShape with an overflowing product": model(
        [node("ConstantOfShape", ["s"], ["c"]), node("Add", ["x", "c"], ["y"])], (1, 1), {"s": np.int64([2**32, 2**32])}
    ),
    "40 doublings of a constant": model(
        [*doubling("c", 40), node("Add", ["x", "d39"], ["y"])], (1, 1), {"c": np.float32([[1]])}
    ),
    "40 doublings of the input": model([*doubling("x", 40), node("Relu", ["d39"], ["y"])], (1, 1)),
    "40 doublings of a shape": model(
        [
            *[node("Concat", [f"s{i}", f"s{i}"], [f"s{i + 1}"], axis=0) for i in range(40)],
            node("Reshape", ["x", "s40"], ["y"]),
        ],
        (1, 1),
        {"s0": np.int64([1])},
    ),
    "outer sum": model([node("Add", ["x", "c"], ["y"])], (1, 2**15, 1), {"c": np.zeros((1, 2**14), np.float32)}),
    "outer product of constants": model(
        [node("MatMul", ["a", "b"], ["ab"]), node("Add", ["x", "ab"], ["y"])],
        (1, 1),
        {"a": np.zeros((2**15, 1), np.float32), "b": np.zeros((1, 2**15), np.float32)},
    ),
    "Expand": model([node("Expand", ["x", "s"], ["y"])], (1, 1), {"s": np.int64([2**20, 2**20])}),
    "Pad": model([node("Pad", ["x", "p"], ["y"])], (1, 3), {"p": np.int64([0, 2**40, 0, 2**40])}),
    "ConvTranspose": model(
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2**20, 2**20])],
        (1, 1, 9, 9),
        {"w": np.zeros((1, 1, 2, 2), np.float32)},
    ),
    "ConvTranspose cropped to one": model(
        [node("ConvTranspose", ["x", "w"], ["y"], strides=[2**40], pads=[2**39, 2**39])],
        (1, 1, 2),
        {"w": np.zeros((1, 1, 1), np.float32)},
    ),
    "padding of a convolution": model(
        [node("Conv", ["x", "w"], ["y"], pads=[2**40, 2**40], strides=[2**40])],
        (1, 1, 3),
        {"w": np.zeros((1, 1, 1), np.float32)},
    ),
    "input": relu_model((1, 2**15, 2**15)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_grow_too_large_is_refused_before_it_is_computed(name: str) -> None:
    data = BOMBS[name].SerializeToString()
    tracemalloc.start()
    refused(data, "exceeds the limit of", ResourceLimit)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_many_large_constants_are_refused_together() -> None:
    nodes = [node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(20)]
    nodes += [node("Add", ["x" if i == 0 else f"a{i - 1}", f"c{i}"], [f"a{i}"]) for i in range(20)]
    made = model(nodes, (1, 1), {"s": np.int64([1, 2**27])}, output="a19")
    refused(made, "the constants computed within the model exceeds the limit of", ResourceLimit)


def test_long_lists_of_positions_are_refused() -> None:
    nodes = [node("Slice", ["x", "one", "end", "one"], [f"s{i}"]) for i in range(3)]
    nodes += [node("Add", ["s0", "s1"], ["a"]), node("Add", ["a", "s2"], ["y"])]
    made = model(nodes, (1, 2**21), {"one": np.int64([1]), "end": np.int64([2**40])})
    refused(made, "positions listed so far exceeds the limit", ResourceLimit)


def test_pools_with_endless_windows_are_refused() -> None:
    made = model([node("MaxPool", ["x"], ["y"], kernel_shape=[2**13], pads=[2**13 - 1, 0])], (1, 1, 2**13))
    refused(made, "cells of the pooling windows along one axis", ResourceLimit)


def test_too_many_nodes_are_refused_and_many_are_read_quickly() -> None:
    def chain(length: int) -> onnx.ModelProto:
        nodes = [node("Neg", ["c"], ["n0"])]
        nodes += [node("Neg", [f"n{i}"], [f"n{i + 1}"]) for i in range(length - 2)]
        return model([*nodes, node("Add", ["x", f"n{length - 2}"], ["y"])], (1, 3), {"c": np.float32([1, 2, 3])})

    refused(chain(20_001), r"the number of nodes \(20001\) exceeds the limit of 20000", ResourceLimit)
    assert len(read(chain(20_000).SerializeToString()).nodes) == 2


# --- fuzz ---------------------------------------------------------------------------------------------------------


SMALL = Limits(bytes=2**20, elements=2**20, folded=2**21)


def survives(data: bytes) -> None:
    """It is refused by an error of ours, or its graph runs."""
    try:
        admit(data, limits=SMALL)
        read(data)
    except ProvennError as refusal:
        assert str(refusal)


@settings(max_examples=120, deadline=None)
@given(length=st.integers(0, len(GOOD) - 1), packed=st.booleans())
def test_truncated_models_never_raise_anything_else(length: int, packed: bool) -> None:
    data = gzip.compress(GOOD, mtime=0) if packed else GOOD
    survives(data[:length])


FLIP = st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255))


@settings(max_examples=100, deadline=None)
@given(flips=st.lists(FLIP, min_size=1, max_size=8))
@example(flips=[(0, 255)])
def test_mutated_models_never_raise_anything_else(flips: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, mask in flips:
        data[place] ^= mask
    survives(bytes(data))


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    survives(data)
