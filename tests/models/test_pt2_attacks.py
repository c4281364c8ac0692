"""Files that torch.export.load would run code for: each is refused or defused, and a canary shows that none ran."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pt2_kit import PROGRAM, SAMPLE, WEIGHTS, Edit, assert_equal, changed, saved
from torch import nn

from provenn.models.limits import Limits
from provenn.models.pt2 import to_onnx
from provenn.verifier.errors import InvalidModel, ResourceLimit

pytestmark = pytest.mark.xdist_group("torch export")
"""What the tests share is made once."""

FIXED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Evil:
    """Its pickle makes a file when it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.canary,))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def plain(module: nn.Module) -> bytes:
    return saved(module, (3,))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def evil_archive(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Evil(canary), buffer)
    return buffer.getvalue()


def test_the_evil_pickle_is_one(canary: Path) -> None:
    torch.load(io.BytesIO(evil_archive(canary)), weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("form", ["sample inputs", "use_pickle", "expr_str"])
def test_torch_itself_runs_the_code(form: str, plain: bytes, canary: Path) -> None:
    """So that the tests below attack for real."""
    file = "archive/data/weights/weight_0"
    evil = {
        "sample inputs": changed(plain, files={SAMPLE: evil_archive(canary)}),
        "use_pickle": changed(plain, {WEIGHTS: pickled}, {file: evil_archive(canary)}),
        "expr_str": changed(plain, {PROGRAM: symbolic(f"__import__('pathlib').Path({str(canary)!r}).touch()")}),
    }
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.load(io.BytesIO(evil[form]))
    assert canary.exists()
    canary.unlink()
    with contextlib.suppress(InvalidModel):
        to_onnx(evil[form], Limits())
    assert not canary.exists()


def pickled(config: dict) -> None:
    """The first weight is said to be a pickle."""
    config["config"]["0.weight"]["use_pickle"] = True


def symbolic(text: str, everywhere: bool = False) -> Edit:
    """Symbolic lengths, or all, become this text."""

    def put(program: dict) -> None:
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            for axis, size in enumerate(meta["sizes"]):
                if "as_expr" in size or (everywhere and axis):
                    meta["sizes"][axis] = {"as_expr": {"expr_str": text, "hint": {"as_int": 2}}}

    return put


def test_a_pickle_among_the_sample_inputs_is_never_opened(plain: bytes, module: nn.Module, canary: Path) -> None:
    assert_equal(to_onnx(changed(plain, files={SAMPLE: evil_archive(canary)}), Limits()), module, (3,))
    assert_equal(to_onnx(changed(plain, files={SAMPLE: pickle.dumps(Evil(canary))}), Limits()), module, (3,))
    assert not canary.exists()


def test_pickled_weights_are_refused(plain: bytes, canary: Path) -> None:
    weight = "archive/data/weights/weight_0"
    with pytest.raises(InvalidModel, match=r"'0.weight' has use_pickle true: .*provenn export"):
        to_onnx(changed(plain, {WEIGHTS: pickled}, {weight: evil_archive(canary)}), Limits())
    with pytest.raises(InvalidModel, match="bytes of its own"):
        to_onnx(changed(plain, files={weight: evil_archive(canary)}), Limits())
    assert not canary.exists()


@pytest.mark.parametrize("form", ["call", "sum", "other symbol", "assumptions"])
def test_symbolic_expressions_are_not_evaluated(form: str, plain: bytes, canary: Path) -> None:
    texts = {
        "call": f"__import__('pathlib').Path({str(canary)!r}).touch()",
        "sum": "Add(Symbol('s77', positive=True, integer=True), Integer(1))",
        "other symbol": "Symbol('s1', positive=True, integer=True)",
        "assumptions": f"Symbol('s77', positive=open({str(canary)!r}, 'w'))",
    }

    put = symbolic(texts[form], form == "other symbol")
    with pytest.raises(InvalidModel, match=r"expr_str|symbolic length s1"):
        to_onnx(changed(plain, {PROGRAM: put}), Limits())
    assert not canary.exists()


def test_guards_are_refused(plain: bytes, canary: Path) -> None:
    def put(program: dict) -> None:
        program["guards_code"] = [f"__import__('pathlib').Path({str(canary)!r}).touch()"]

    with pytest.raises(InvalidModel, match="guards_code holds Python code, which is never run"):
        to_onnx(changed(plain, {PROGRAM: put}), Limits())
    assert not canary.exists()


@pytest.mark.parametrize("strides", [[0, 0], [2**20, 1]])
def test_a_weight_larger_than_its_bytes_is_refused(plain: bytes, strides: list[int]) -> None:
    def put(config: dict) -> None:
        meta = config["config"]["0.weight"]["tensor_meta"]
        meta["sizes"] = [{"as_int": 2**20}, {"as_int": 2**20}]
        meta["strides"] = [{"as_int": stride} for stride in strides]

    with pytest.raises(InvalidModel, match="needs 4398046511104 bytes of its own, 24 are stored"):
        to_onnx(changed(plain, {WEIGHTS: put}), Limits())


def test_two_weights_may_not_overlap_but_may_be_one(plain: bytes) -> None:
    def put(config: dict) -> None:
        config["config"]["0.bias"]["path_name"] = config["config"]["0.weight"]["path_name"]

    with pytest.raises(InvalidModel, match="needs 8 bytes of its own, 24 are stored"):
        to_onnx(changed(plain, {WEIGHTS: put}), Limits())


def padded(program: dict, pads: list[int]) -> None:
    """The graph's second node pads the first's result by so many entries."""
    graph = program["graph_module"]["graph"]
    node = graph["nodes"][1]
    node["target"] = "torch.ops.aten.constant_pad_nd.default"
    node["inputs"].append({"name": "pad", "arg": {"as_ints": pads}, "kind": 1})


def test_padding_beyond_the_limits_is_refused(plain: bytes) -> None:
    with pytest.raises(ResourceLimit):
        to_onnx(changed(plain, {PROGRAM: lambda p: padded(p, [2**40, 2**61])}), Limits())


def test_a_zip_bomb_is_refused(plain: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        source = zipfile.ZipFile(io.BytesIO(plain))
        for name in source.namelist():
            archive.writestr(name, source.read(name))
        archive.writestr("archive/extra/zeros", bytes(64 << 20))
    assert len(buffer.getvalue()) < 1 << 20
    with pytest.raises(ResourceLimit, match="unpacked"):
        to_onnx(buffer.getvalue(), Limits(bytes=32 << 20))


def test_a_deep_program_is_refused(plain: bytes) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    with pytest.raises(InvalidModel, match="cannot be read as JSON"):
        to_onnx(changed(plain, files={PROGRAM: deep}), Limits())


def attempt(data: bytes) -> None:
    """Whatever the file is, it is read or refused: anything else that is raised fails the test."""
    try:
        to_onnx(data, Limits())
    except (InvalidModel, ResourceLimit):
        return


@FIXED
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(data: st.DataObject, plain: bytes) -> None:
    content = bytearray(plain)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if kind == "set":
            content[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place : place + data.draw(st.integers(1, 50))]
        else:
            content[place:place] = data.draw(st.binary(max_size=20))
    attempt(bytes(content))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 10**30, 0.5, 1e300, "Infinity", "", "x", "relu"]),
    st.just({"as_int": 2**62}),
    st.just({"as_none": True}),
    st.just({"as_tensor": {"name": "x"}}),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 3), max_size=4),
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Every place in a JSON value."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        if key not in ("metadata", "module_call_graph"):
            found += places(part, (*path, key))
    return found


@pytest.fixture(scope="module")
def rich() -> bytes:
    """A file with many kinds of calls."""
    parts = (nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.AvgPool2d(1))
    dense = (nn.Flatten(), nn.Linear(8, 4), nn.LayerNorm(4), nn.Softplus(), nn.Hardtanh(), nn.Softmax(1))
    return saved(nn.Sequential(*parts, *dense).eval(), (1, 4, 4))


@FIXED
@given(data=st.data())
def test_changed_fields_are_read_or_refused(data: st.DataObject, rich: bytes) -> None:
    member = data.draw(st.sampled_from([PROGRAM, PROGRAM, WEIGHTS]))
    tree = json.loads(zipfile.ZipFile(io.BytesIO(rich)).read(member))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(places(tree)))
        part = tree
        for key in way:
            part = part[key]
        if data.draw(st.booleans()) and isinstance(part, dict | list):
            part[last] = data.draw(VALUES)
        elif isinstance(part, dict):
            part[data.draw(st.sampled_from(["name", "as_int", "as_ints", "x"]))] = part.pop(last)
        else:
            del part[last]
    attempt(changed(rich, files={member: json.dumps(tree).encode()}))


@FIXED
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(InvalidModel):
        to_onnx(content, Limits())
    with pytest.raises(InvalidModel):
        to_onnx(b"PK\x03\x04" + content, Limits())


def test_sizes_that_the_directory_lies_about_are_refused(plain: bytes) -> None:
    name = b"archive/data/weights/weight_0"
    place = plain.rindex(name) - 46
    for size in (1, 25, 2**20, 2**31):
        lying = bytearray(plain)
        struct.pack_into("<II", lying, place + 20, size, size)
        with pytest.raises((InvalidModel, ResourceLimit)):
            to_onnx(bytes(lying), Limits())
