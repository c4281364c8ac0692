"""What is uploaded is told by its content, whatever it is called, and becomes one canonical file."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_kit import mlp_model, model

from provenn.models import arrival
from provenn.models.arrival import BUNDLE, FORMATS, ONNX, PT2, SAFETENSORS, STATE_DICT, arrive
from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_file import FORMAT
from provenn.models.limits import Limits
from provenn.models.onnx_reader import read
from provenn.verifier.errors import InvalidModel, ProvennError, ResourceLimit

GOOD = mlp_model().SerializeToString()
SMALL = Limits(bytes=1 << 20, elements=1 << 20, folded=1 << 21)
WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def external(location: str, **entries: str) -> bytes:
    """x W with W in a file of its own."""
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], (1, 3), {"w": WEIGHT})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return made.SerializeToString()


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return made.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as target:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return made.getvalue()


def refused(data: bytes, match: str, architecture: bytes | None = None, limits: Limits = SMALL) -> None:
    with pytest.raises(InvalidModel, match=match):
        arrive(data, architecture, limits)


def saved(value: object, **how: bool) -> bytes:
    made = io.BytesIO()
    torch.save(value, made, **how)
    return made.getvalue()


# --- one canonical file -------------------------------------------------------------------------------------------


def test_an_onnx_file_is_its_own_canonical_file() -> None:
    arrived = arrive(GOOD, None, SMALL)
    assert arrived.data is GOOD
    assert arrived.format == ONNX
    for packed in (gzip.compress(GOOD), lzma.compress(GOOD)):
        assert (arrive(packed, None, SMALL).data, arrive(packed, None, SMALL).format) == (GOOD, ONNX)


@pytest.mark.parametrize("folder", ["", "exported/net/"])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_bundle_becomes_self_contained(kind: str, folder: str) -> None:
    files = {
        "README.txt": b"a network",
        f"{folder}net.onnx": external("data/w.bin", offset="4", length="48"),
        f"{folder}data/w.bin": b"skip" + WEIGHT.tobytes(),
        "w.bin": bytes(52),
    }
    data = zipped(files) if kind == "zip" else tarred(files)
    data = {"tar.gz": gzip.compress, "tar.xz": lzma.compress}.get(kind, bytes)(data)
    arrived = arrive(data, None, SMALL)
    assert arrived.format == BUNDLE
    assert arrived.data == arrive(data, None, SMALL).data
    (stored,) = onnx.load_from_string(arrived.data).graph.initializer
    assert (stored.data_location, len(stored.external_data)) == (TensorProto.DEFAULT, 0)
    x = np.float32([[1, 2, 3]])
    assert np.array_equal(OnnxExecutor(arrived.data).run(x), x @ WEIGHT)
    assert np.array_equal(read(arrived.data).forward(torch.from_numpy(x).double()).numpy(), (x @ WEIGHT).astype(float))


def test_a_self_contained_network_in_an_archive_keeps_its_bytes() -> None:
    assert arrive(zipped({"a/net.ONNX": GOOD}), None, SMALL).data == GOOD


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "must hold exactly one .onnx file, and its data; this one holds nothing|empty zip"),
        ({"a.onnx": GOOD, "b.onnx": GOOD}, "this one holds 'a.onnx', 'b.onnx'"),
        ({"weights.h5": b"1"}, "this one holds 'weights.h5'"),
        ({"net.onnx": external("w.bin")}, "its data file 'w.bin' was not uploaded with the model"),
        ({"a/net.onnx": external("w.bin"), "w.bin": WEIGHT.tobytes()}, "was not uploaded with the model"),
        ({"a/net.onnx": external("../w.bin"), "w.bin": WEIGHT.tobytes()}, "only names within the uploaded bundle"),
        ({"net.onnx": external("/etc/passwd")}, "only names within the uploaded bundle"),
        ({"net.onnx": gzip.compress(GOOD)}, "not an ONNX file"),
        ({"net.onnx": zipped({"net.onnx": GOOD})}, "a zip archive"),
        ({"net.onnx": GOOD, "more.zip": b"1"}, "holds another archive"),
    ],
)
def test_other_bundles_are_refused(files: dict[str, bytes], match: str) -> None:
    refused(zipped(files), match)
    if files:
        refused(tarred(files), match)


def test_a_bundle_cannot_grow_beyond_what_an_onnx_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each initializer may name the same bytes: the canonical file would hold them many times."""
    made = onnx.load_from_string(external("w.bin"))
    for i in range(200):
        made.graph.initializer.add().CopyFrom(made.graph.initializer[0])
        made.graph.initializer[-1].name = f"w{i}"
    bundle = zipped({"net.onnx": made.SerializeToString(), "w.bin": WEIGHT.tobytes()})
    monkeypatch.setattr(arrival, "PROTOBUF", made.ByteSize() + 100 * WEIGHT.nbytes)
    with pytest.raises(ResourceLimit, match="the model with its external data"):
        arrive(bundle, None, SMALL)


# --- other formats ------------------------------------------------------------------------------------------------


def implicit() -> bytes:
    text = '{"format": "provenn-network/1"}'
    return safetensors.numpy.save({"w": WEIGHT}, {"provenn": text})


def test_formats_are_told_by_their_content() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    assert arrive(implicit(), None, SMALL).format == FORMAT
    assert arrive(implicit(), None, SMALL).data == implicit()
    assert implicit()[:1] == arrival.PICKLE  # the length of its header, as it happens
    assert arrival._told(zipped({"net/archive_format": b"pt2", "net/models/model.json": b"{}"})) == PT2
    assert arrival._told(safetensors.numpy.save({"w": WEIGHT})) == SAFETENSORS
    assert arrival._told(saved(module.state_dict())) == STATE_DICT
    assert set(FORMATS) == {ONNX, BUNDLE, FORMAT, PT2, SAFETENSORS, STATE_DICT}


def test_weights_need_an_architecture_and_nothing_else_takes_one() -> None:
    refused(saved(torch.nn.Linear(4, 3).state_dict()), "send the field 'architecture'")
    refused(safetensors.numpy.save({"w": WEIGHT}), "send the field 'architecture'")
    refused(GOOD, "goes with weights alone, and this file is of format onnx", b"{}")
    refused(zipped({"net.onnx": GOOD}), "and this file is of format onnx-bundle", b"{}")


class Evil:
    """Pickled, it would create a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    evil = Evil(tmp_path / "was here")
    pickle.loads(pickle.dumps(evil))  # noqa: S301 - so it does what it is meant to do
    evil.path.unlink()
    for data in (pickle.dumps(evil), saved(evil), saved(evil, _use_new_zipfile_serialization=False)):
        for architecture in (None, b"{}"):
            with pytest.raises(InvalidModel):
                arrive(data, architecture, SMALL)
    assert not evil.path.exists()


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the file is empty"),
        (gzip.compress(gzip.compress(GOOD)), "packed twice"),
        (gzip.compress(zipped({"net.onnx": GOOD})), "packed twice"),
        (lzma.compress(gzip.compress(GOOD)), "packed twice"),
        (b"(\xb5/\xfd" + bytes(20), "zstandard files are not read; pack the network as .zip, .tar.gz or .tar.xz"),
        (b"BZh9" + bytes(20), "bzip2 files are not read"),
        (b"7z\xbc\xaf\x27\x1c", "7z files are not read"),
        (b"Rar!\x1a\x07", "rar files are not read"),
        (b"PK\x03\x04" + bytes(40), "the zip archive"),
        (gzip.compress(tarred({"net.onnx": GOOD}))[:-9], "the gzip data is truncated"),
        (struct.pack("<Q", 1 << 20) + b'{"a": 1}', "send the field 'architecture'"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, match: str) -> None:
    refused(data, match)


# --- fuzz ---------------------------------------------------------------------------------------------------------

SEEDS = [
    GOOD,
    gzip.compress(GOOD),
    zipped({"net.onnx": external("w.bin"), "w.bin": WEIGHT.tobytes()}),
    tarred({"net.onnx": external("w.bin"), "w.bin": WEIGHT.tobytes()}),
    implicit(),
]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    flips=st.lists(st.tuples(st.integers(0, 1 << 13), st.integers(1, 255)), max_size=6),
    keep=st.floats(0, 1),
)
def test_mutated_uploads_never_raise_anything_else(seed: bytes, flips: list[tuple[int, int]], keep: float) -> None:
    data = bytearray(seed)
    for place, mask in flips:
        data[place % len(data)] ^= mask
    data = data[: int(keep * len(data)) + 1] if keep < 0.5 else data
    try:
        arrive(bytes(data), None, SMALL)
    except ProvennError as refusal:
        assert str(refusal)


@settings(max_examples=100, deadline=None)
@given(
    data=st.binary(max_size=300),
    magic=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x04", b"\x1f\x8b\x08", b"\xfd7zXZ\x00"]),
)
def test_random_bytes_never_raise_anything_else(data: bytes, magic: bytes) -> None:
    try:
        arrive(magic + data, None, SMALL)
    except ProvennError as refusal:
        assert str(refusal)
