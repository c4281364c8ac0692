"""Pickled modules and TorchScript are told by their bytes, never opened, and the message says what to do instead."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from provenn.models.limits import Limits
from provenn.models.pickles import COMMAND, refusal
from provenn.models.plain_pickle import interpreted
from provenn.models.state_dict import tensors
from provenn.verifier.errors import InvalidModel, ResourceLimit


class Evil:
    """Its pickle makes a file when it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.canary,))


def saved(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def script() -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about TorchScript
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), buffer)
    return buffer.getvalue()


def archive(program: bytes) -> bytes:
    """A torch.save archive around a pickle of ours."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/data/0", bytes(24))
    return buffer.getvalue()


BYTEARRAY = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R."
"""bytearray(8 GiB): allowed by torch.load(weights_only=True)."""


REFUSED = {
    "a module": (lambda: saved(nn.Linear(3, 2)), "refers to 'torch.nn.modules.linear Linear'"),
    "a module in the old format": (
        lambda: saved(nn.Linear(3, 2), _use_new_zipfile_serialization=False),
        "a Python pickle",
    ),
    "weights in the old format": (
        lambda: saved(nn.Linear(3, 2).state_dict(), _use_new_zipfile_serialization=False),
        "a Python pickle",
    ),
    "a plain pickle": (lambda: pickle.dumps(OrderedDict), "a Python pickle"),
    "TorchScript": (script, "TorchScript"),
    "8 GiB": (lambda: archive(BYTEARRAY), "refers to 'builtins bytearray'"),
    "8 GiB by itself": (lambda: BYTEARRAY, "refers to 'builtins bytearray'"),
    "a broken pickle": (lambda: archive(b"\x80\x02}q"), "broken"),
    "an endless pickle": (lambda: archive(b"\x80\x02}"), "pickle exhausted|has no end"),
    "an extension": (lambda: archive(b"\x80\x02\x82\x01."), "has EXT1"),
    "an object": (lambda: archive(b"\x80\x02(cos\nsystem\n)o."), "refers to 'os system'"),
    "a class by its state": (lambda: archive(b"(S'id'\nios\nsystem\n."), "has STRING|has INST"),
    "a stacked name": (
        lambda: archive(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."),
        "refers to 'os system'",
    ),
    "a remembered name": (
        lambda: archive(b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x01h\x00\x93."),
        "refers to 'os system'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_run_code_is_refused_with_the_command(name: str) -> None:
    make, message = REFUSED[name]
    found = refusal(make())
    assert isinstance(found, InvalidModel)
    assert COMMAND in str(found)
    with pytest.raises(InvalidModel, match=message):
        raise found
    with pytest.raises(InvalidModel, match=message):
        tensors(make(), Limits())


def test_no_code_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for data in (saved(Evil(canary)), pickle.dumps(Evil(canary)), saved({"weight": Evil(canary)})):
        assert refusal(data) is not None
        with pytest.raises(InvalidModel):
            tensors(data, Limits())
    assert not canary.exists()
    pickle.loads(pickle.dumps(Evil(canary)))  # noqa: S301 - it is evil indeed
    assert canary.exists()


@pytest.mark.parametrize("data", [b"", b"ONNX", b"PK\x05\x06" + bytes(18)], ids=["empty", "other", "empty archive"])
def test_other_files_are_not_refused_here(data: bytes) -> None:
    assert refusal(data) is None


def test_a_state_dict_is_not_refused() -> None:
    assert refusal(saved(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict())) is None
    assert refusal(saved({})) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"model": nn.Linear(3, 2).state_dict(), "epoch": 3}, "'model' of the weights is no tensor"),
        ([torch.zeros(2)], "not a dictionary of tensors"),
        ({"a": torch.zeros(2, 3)[1]}, "a view of another tensor"),
        ({"a": torch.zeros(1).expand(2**20)}, "a view of another tensor"),
        ({"a": torch.zeros(3, dtype=torch.int8)}, r"'a' is 'int8'; call module.float\(\)"),
    ],
    ids=["checkpoint", "list", "view", "stride 0", "int8"],
)
def test_archives_that_are_no_state_dict(value: object, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        tensors(saved(value), Limits())


def test_a_tensor_larger_than_its_numbers_is_refused() -> None:
    data = saved({"a": torch.zeros(6)})
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name in source.namelist():
            content = source.read(name)
            # The size and stride (6,), (1,) become (2^31 - 1,), (0,).
            file.writestr(
                name, content.replace(b"K\x06\x85", b"J\xff\xff\xff\x7f\x85").replace(b"K\x01\x85", b"K\x00\x85")
            )
    with pytest.raises((InvalidModel, ResourceLimit), match=r"of its own|broken"):
        tensors(target.getvalue(), Limits())


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_pickle_is_interpreted_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(PROGRAMS)))
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            content[place:place] = data.draw(st.binary(max_size=6))
    try:
        interpreted(bytes(content))
    except InvalidModel:
        return


PROGRAMS = [
    zipfile.ZipFile(io.BytesIO(saved(nn.Linear(3, 2).state_dict(), pickle_protocol=protocol))).read("archive/data.pkl")
    for protocol in (2, 4)
]
