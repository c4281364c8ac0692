"""Names of inputs come out of an .npz file as they went in, or the file is refused: by name, before it takes memory."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.api.batch import names as texts
from provenn.api.batch.arrays import decoded_npz
from provenn.api.batch.canonical import packed
from provenn.api.batch.data import Data, read_data
from provenn.api.files import InvalidFile
from provenn.verifier.errors import ResourceLimit

FILE = Path("theirs.npz")


def archive(names: Any, count: int = 2) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((count, 3), np.float32), y=[0] * count, names=names)
    return buffer.getvalue()


@given(st.lists(st.text(st.characters(exclude_categories=texts.UNREADABLE), min_size=1, max_size=20), min_size=1))
@settings(max_examples=50, deadline=None)
def test_what_is_packed_is_what_is_read(names: list[str]) -> None:
    data = Data(np.zeros((len(names), 3), np.float32), (0,) * len(names), tuple(names))
    assert decoded_npz(FILE, packed(data)).names == tuple(names)


def test_of_a_file_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(archive(["cat/1.png", "dog/Größe 2.png"]))
    assert read_data(path, (3,)).names == ("cat/1.png", "dog/Größe 2.png")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "b", "c"], "3 names"),
        (["a"], "1 names"),
        ([["a"], ["b"]], r"shape \[2, 1\]"),
        ([1, 2], "names are text|they are text"),
        (np.array([b"a", b"b"]), "they are text"),
        (np.array(["a", {}], object), "they are text"),
        (["a", ""], "input 1 has 0 characters"),
        (["a", "x" * (texts.NAME + 1)], "input 1 has 513 characters"),
        (["a\nb", "c"], "input 0"),
        (["a", "\x1b[31m"], "cannot be shown"),
        (["a", "\ud800"], "cannot be shown"),
        (["a", "a\0b"], "cannot be shown"),
    ],
)
def test_what_is_no_name_is_refused(names: Any, reason: str) -> None:
    with pytest.raises(InvalidFile, match=reason) as refusal:
        decoded_npz(FILE, archive(names))
    assert "theirs.npz" in str(refusal.value)


def test_headers_that_lie() -> None:
    """Of characters that are none, of more than there are, and of far too many."""
    content = archive(["ab", "cd"])
    with zipfile.ZipFile(io.BytesIO(content)) as packed_up:
        files = {name: packed_up.read(name) for name in packed_up.namelist()}
    told = files["names.npy"]
    for changed, refusal in (
        (told[:-4] + b"\xff\xff\xff\x7f", InvalidFile),
        (told.replace(b"(2,)", b"(3,)"), InvalidFile),
        (told[:-4], InvalidFile),
        (told.replace(b"(2,), }", b"(2,      "), InvalidFile),
        (told[:40], InvalidFile),
        (told.replace(b"(2,), }           ", b"(999999999999,), }"), ResourceLimit),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            for name, data in (files | {"names.npy": changed}).items():
                made.writestr(name, data)
        with pytest.raises(refusal):
            decoded_npz(FILE, buffer.getvalue())


def test_a_long_name_among_many_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BYTES", 1000)
    with pytest.raises(ResourceLimit, match="shorten the longest"):
        decoded_npz(FILE, archive(["a" * 200, "b"]))
