"""Data files: what is read is what was written; whatever else a file holds is refused, by name and with a remedy."""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from provenn.api.batch import numbers
from provenn.api.batch.data import Data, read_data
from provenn.api.files import InvalidFile
from provenn.verifier.errors import ProvennError, ResourceLimit

SHAPE = (2, 2, 3)
X = (np.arange(36, dtype=np.float32) / 7).reshape(3, *SHAPE)
FLAT = X.reshape(3, 12)
Y = [1, 0, 2]
WIDE = pytest.mark.parametrize("shape", [SHAPE, (12,)])


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def text(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def csv(path: Path, inputs: np.ndarray = FLAT, header: str | None = None) -> Path:
    rows = [",".join(map(repr, [*map(float, x), y])) for x, y in zip(inputs, Y, strict=True)]
    return text(path, *([] if header is None else [header]), *rows)


def table(path: Path, columns: dict[str, object]) -> Path:
    parquet.write_table(arrow.table(columns), path)
    return path


def lists(path: Path, kind: arrow.DataType | None = None) -> Path:
    kind = kind or arrow.list_(arrow.float32())
    return table(path, {"pixels": arrow.array(FLAT.tolist(), kind), "label": Y})


def columns(path: Path) -> Path:
    return table(path, {"label": Y, **{f"x{i}": FLAT[:, i] for i in range(12)}})


WRITERS: dict[str, Callable[[Path], Path]] = {
    "a.npz": lambda path: npz(path, x=X, y=Y),
    "b.npz": lambda path: npz(path, inputs=FLAT, labels=np.array(Y)[:, None], more=np.zeros(5)),
    "c.npz": lambda path: npz(path, images=np.asfortranarray(X), y=np.array(Y, np.uint8)),
    "a.csv": csv,
    "b.csv": lambda path: csv(path, header=",".join([*(f"x{i}" for i in range(12)), "class"])),
    "c.csv": lambda path: csv(path, header=",".join([*map(str, range(12)), "label"])),
    "a.parquet": lists,
    "b.parquet": lambda path: lists(path, arrow.list_(arrow.float32(), 12)),
    "c.parquet": lambda path: lists(path, arrow.large_list(arrow.float64())),
    "d.parquet": columns,
}


@WIDE
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_holds_the_same_data(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    data = read_data(WRITERS[name](tmp_path / name), shape)
    assert data.inputs.shape == (3, 12)
    assert data.inputs.dtype in (np.float32, np.float64)
    assert data.inputs.flags.c_contiguous
    np.testing.assert_array_equal(data.inputs.astype(np.float32), FLAT)
    assert (data.labels, data.names, len(data)) == ((1, 0, 2), ("0", "1", "2"), 3)
    part = data.part(1, 3)
    np.testing.assert_array_equal(part.inputs, data.inputs[1:])
    assert (part.labels, part.names) == ((0, 2), ("1", "2"))


@pytest.mark.parametrize("labels", ["1,0,2", "labels.npy"])
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.parquet"])
def test_classes_from_beside_the_file(name: str, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("labels.npy", Y)
    np.save("x.npy", X)
    npz(Path("x.npz"), x=X)
    np.savetxt("x.csv", FLAT.astype(np.float64), delimiter=",", fmt="%.17g")
    table(Path("x.parquet"), {"pixels": arrow.array(FLAT.tolist())})
    data = read_data(Path(name), SHAPE, labels)
    np.testing.assert_array_equal(data.inputs.astype(np.float32), FLAT)
    assert data.labels == (1, 0, 2)


@given(x=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2), y=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decimals_are_the_floats_that_they_name(x: list[float], y: int, tmp_path: Path) -> None:
    read = read_data(text(tmp_path / "x.csv", "a,label,b", f"{x[0]!r},{y},{x[1]!r}", "", ' 1e1 ,"0",.5'), (2,))
    assert read.inputs.tolist() == [x, [10.0, 0.5]]
    assert read.labels == (y, 0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uint8", "float32"),
        ("bool", "float32"),
        ("float16", "float32"),
        (">f4", "float32"),
        ("int32", "float64"),
        ("int64", "float64"),
        ("float64", "float64"),
    ],
)
def test_numbers_of_every_type_are_floats_exactly(kind: str, expected: str, tmp_path: Path) -> None:
    x = np.array([[0, 1], [1, 0]]).astype(kind)
    inputs = read_data(npz(tmp_path / "x.npz", x=x, y=[0, 1]), (2,)).inputs
    assert inputs.dtype == expected
    np.testing.assert_array_equal(inputs, x)


def test_whole_numbers_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="2\\^53"):
        read_data(npz(tmp_path / "x.npz", x=np.array([[2**53 + 1]]), y=[0]), (1,))


# Images


def image(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path)
    return path


def pictures(folder: Path, *shape: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    names = ("cat/1.png", "cat/2.PNG", "ant/7.png")
    return {name: generator.integers(0, 256, shape, dtype=np.uint8) for name in names}


@pytest.mark.parametrize(
    ("shape", "stored", "moved"),
    [
        ((1, 3, 5), (3, 5), (0, 1)),
        ((3, 5), (3, 5), (0, 1)),
        ((15,), (3, 5), (0, 1)),
        ((4, 5, 1), (4, 5), (0, 1)),
        ((3, 4, 5), (4, 5, 3), (2, 0, 1)),
        ((4, 5, 3), (4, 5, 3), (0, 1, 2)),
    ],
)
def test_images_are_their_stored_numbers(shape: tuple[int, ...], stored: tuple[int, ...], moved: tuple[int, ...],
                                         tmp_path: Path) -> None:  # fmt: skip
    made = pictures(tmp_path, *stored)
    for name, pixels in made.items():
        image(tmp_path / name, pixels)
    (tmp_path / "README.txt").write_text("beside the classes")
    data = read_data(tmp_path, shape)
    assert data.names == ("ant/7.png", "cat/1.png", "cat/2.PNG")
    assert data.labels == (0, 1, 1)
    assert data.inputs.dtype == np.float32
    expected = [np.transpose(made[name], moved).ravel() for name in data.names]
    np.testing.assert_array_equal(data.inputs, expected)


def test_folders_named_by_numbers_are_these_classes(tmp_path: Path) -> None:
    for name in ("10", "2", "07"):
        image(tmp_path / name / "a.png", np.zeros((2, 2), np.uint8))
    data = read_data(tmp_path, (1, 2, 2))
    assert (data.labels, data.names) == ((2, 7, 10), ("2/a.png", "07/a.png", "10/a.png"))


def test_grey_is_read_as_equal_colours_and_equal_colours_as_grey(tmp_path: Path) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image(tmp_path / "0" / "grey.png", pixels)
    image(tmp_path / "0" / "palette.png", pixels, "P")
    image(tmp_path / "0" / "rgb.png", pixels, "RGB")
    np.testing.assert_array_equal(read_data(tmp_path, (1, 2, 3)).inputs, [pixels.ravel()] * 3)
    np.testing.assert_array_equal(read_data(tmp_path, (3, 2, 3)).inputs, [np.tile(pixels.ravel(), 3)] * 3)


def test_a_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    path = image(tmp_path / "0" / "a.jpg", np.full((8, 8), 100, np.uint8))
    with Image.open(path) as picture:
        np.testing.assert_array_equal(read_data(tmp_path, (8, 8)).inputs[0], np.asarray(picture).ravel())


# What is refused

SQUARE = np.zeros((2, 2), np.uint8)


def png_of(width: int, height: int) -> bytes:
    """A file that says it is that large, and holds 100 bytes of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def _colour(folder: Path) -> None:
    image(folder / "0" / "a.png", np.arange(12, dtype=np.uint8).reshape(2, 2, 3))


def _written(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return write


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda folder: None, "holds no images; give .*CLASS/NAME.png"),
    "empty class": (lambda folder: (folder / "cat").mkdir(), "holds no images"),
    "loose": (lambda folder: image(folder / "a.png", SQUARE), "a.png: lies in no folder of a class"),
    "other file": (_written("0/notes.txt", b"hello"), "notes.txt: is no image that is read"),
    "nested": (lambda folder: image(folder / "0" / "1" / "a.png", SQUARE), "0/1: is no image that is read"),
    "size": (
        lambda folder: image(folder / "0" / "a.png", np.zeros((3, 2), np.uint8)),
        "a.png: is 2 x 3, .* takes 2 x 2",
    ),
    "mixed sizes": (
        lambda folder: (
            image(folder / "0" / "a.png", SQUARE),
            image(folder / "0" / "b.png", np.zeros((4, 4), np.uint8)),
        ),
        "b.png: is 4 x 4, .*scale it yourself",
    ),
    "colours": (_colour, "a.png: has colours, but the network takes one channel"),
    "transparent": (lambda folder: image(folder / "0" / "a.png", SQUARE, "LA"), "mode LA or transparent"),
    "16 bits": (lambda folder: image(folder / "0" / "a.png", np.zeros((2, 2), np.uint16)), "8 bits a channel"),
    "truncated": (_written("0/a.png", png_of(2, 2)[:45]), "a.png: is not a complete PNG or JPEG"),
    "another format": (_written("0/a.jpg", b"GIF89a" + bytes(50)), "a.jpg: is not a complete PNG or JPEG"),
    "bomb": (_written("0/a.png", png_of(30000, 30000)), "a.png: is far too large"),
    "large": (_written("0/a.png", png_of(12000, 10000)), "a.png: is far too large|is 12000 x 10000"),
    "mixed names": (
        lambda folder: (image(folder / "0" / "a.png", SQUARE), image(folder / "cat" / "a.png", SQUARE)),
        "classes with numbers \\('0'\\) and with names \\('cat'\\)",
    ),
    "twice": (
        lambda folder: (image(folder / "1" / "a.png", SQUARE), image(folder / "01" / "a.png", SQUARE)),
        "two folders of one class",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_bad_folders_are_refused(case: str, tmp_path: Path) -> None:
    write, message = FOLDERS[case]
    write(tmp_path)
    with pytest.raises(InvalidFile, match=message) as caught:
        read_data(tmp_path, (1, 2, 2))
    assert str(tmp_path) in str(caught.value)


def test_images_need_a_network_of_images(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"takes \[5, 2, 2\], which is no shape of a grey or RGB one"):
        read_data(tmp_path, (5, 2, 2))


class Trap:
    """Would leave a file behind if anything unpickled it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def _header(shape: tuple[int, ...], version: int = 1) -> bytes:
    """What stands before the numbers of an .npy file."""
    described = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(described)) + described


def _packed(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return made.getvalue()


def _saved(array: object) -> bytes:
    made = io.BytesIO()
    np.save(made, array)  # type: ignore[arg-type]
    return made.getvalue()


X2 = _saved(np.zeros((3, 2)))
NPZ: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "no zip": (b"PK\x03\x04nonsense", "is not a complete .npz file"),
    "npy": (X2, "is not a complete .npz file"),
    "truncated": (_packed(x=X2, y=_saved(Y))[:-40], "is not a complete .npz file"),
    "no inputs": (_packed(a=X2, y=_saved(Y)), "one array named x or inputs or images; it holds a, y"),
    "two inputs": (_packed(x=X2, images=X2, y=_saved(Y)), "one array named"),
    "no classes": (_packed(x=X2), "holds no classes: give labels"),
    "shape": (_packed(x=_saved(np.zeros((3, 5))), y=_saved(Y)), r"has shape \[3, 5\], but the network takes \[2\]"),
    "count": (_packed(x=X2, y=_saved([1])), "3 inputs and 1 classes"),
    "negative": (_packed(x=X2, y=_saved([1, -1, 0])), "the class of input 1 is -1"),
    "one-hot": (_packed(x=X2, y=_saved(np.eye(3, dtype=int))), "argmax"),
    "float classes": (_packed(x=X2, y=_saved([0.0, 1, 2])), "integers"),
    "nan": (_packed(x=_saved([[0, np.nan]] * 3), y=_saved(Y)), r"the array x has the value nan at index \[0, 1\]"),
    "text": (_packed(x=_saved([["a", "b"]]), y=_saved(Y)), "numbers are needed"),
    "complex": (_packed(x=_saved(np.zeros((3, 2), complex)), y=_saved(Y)), "numbers are needed"),
    "short": (_packed(x=X2[:-8], y=_saved(Y)), r"40 bytes where shape \[3, 2\] of float64 needs 48"),
    "long": (_packed(x=X2 + b"1", y=_saved(Y)), "has 49 bytes"),
    "a lie": (_packed(x=_header((1 << 40, 2)), y=_saved(Y)), "has 0 bytes where shape"),
    "negative extent": (_packed(x=_header((-3, -2)) + bytes(48), y=_saved(Y)), "the array x"),
    "no header": (_packed(x=b"\x93NUMPY\x01\x00\x10\x00{'descr': 1}    \n", y=_saved(Y)), "is not a .npy array"),
    "later version": (_packed(x=_header((3, 2), version=3) + bytes(48), y=_saved(Y)), "is not a .npy array"),
    "no rows": (_packed(x=_saved(np.zeros((0, 2))), y=_saved(np.zeros(0, int))), r"has shape \[0, 2\]"),
}


@pytest.mark.parametrize("case", NPZ)
def test_bad_npz_files_are_refused(case: str, tmp_path: Path) -> None:
    content, message = NPZ[case]
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidFile, match=message) as caught:
        read_data(path, (2,))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_nothing_pickled_is_opened(suffix: str, tmp_path: Path) -> None:
    path, trace = tmp_path / f"data.{suffix}", tmp_path / "opened"
    trap = np.array([Trap(trace)], dtype=object)
    if suffix == "npz":
        np.savez(path, x=trap, y=[0])
    else:
        np.save(path, trap)
    with pytest.raises(InvalidFile, match="pickled objects, never opened"):
        read_data(path, (1,), None if suffix == "npz" else "0")
    path.write_bytes(pickle.dumps(Trap(trace)))
    with pytest.raises(InvalidFile):
        read_data(path, (1,), "0")
    assert not trace.exists()


def test_an_archive_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("y.npy", _saved([0]))
        with archive.open("x.npy", "w") as member:
            member.write(bytes(1 << 12))
    content = bytearray(path.read_bytes())
    size = content.rindex(struct.pack("<I", 1 << 12))  # in the directory, which is what is believed
    content[size : size + 4] = struct.pack("<I", (1 << 32) - 2)
    path.write_bytes(content)
    with pytest.raises(ResourceLimit, match="split the file"):
        read_data(path, (2,))


def test_too_many_numbers_are_refused_before_they_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "NUMBERS", 35)
    for name in ("a.npz", "a.csv", "a.parquet", "d.parquet"):
        with pytest.raises(ResourceLimit, match="split the file"):
            read_data(WRITERS[name](tmp_path / name), SHAPE)
    image(tmp_path / "f" / "0" / "a.png", np.zeros((6, 6), np.uint8))
    with pytest.raises(ResourceLimit):
        read_data(tmp_path / "f", (6, 6))


CSV: dict[str, tuple[str, str]] = {
    "empty": ("", "empty"),
    "blank": ("\n\n", "holds no rows"),
    "header alone": ("a,b,label\n", "holds no rows"),
    "too few": ("1,2\n", "line 1: has 2 columns; 2 of inputs and one of classes are needed"),
    "too many": ("a,b,label\n1,2,3\n1,2,3,4\n", "line 3: has 4 columns"),
    "an index": (",a,b,label\n0,1,2,3\n", "line 1: has 4 columns"),
    "semicolons": ("1;2;0\n", "separated by commas"),
    "text": ("a,b,label\n1,2,0\n1,x,0\n", "line 3: column 2 must be a finite number, not 'x'"),
    "text in line 1": ("1,x,0\n", "line 1: column 2 must be a finite number, not 'x'"),
    "blank cell": ("1,,0\n", "line 1: column 2 must be a finite number, not ''"),
    "nan": ("1,2,0\n1,nan,0\n", "line 2: column 2 must be a finite number, not 'nan'"),
    "infinity": ("1,1e999,0\n", "line 1: column 2"),
    "underscore": ("1,1_0,0\n", "line 1: column 2"),
    "class": ("1,2,cat\n", "line 1: column 3 must be the number of a class, not 'cat'"),
    "half a class": ("label,a,b\n1.5,2,0\n", "line 2: column 1 must be the number of a class, not '1.5'"),
    "negative class": ("1,2,-1\n", "the class of input 0 is -1"),
    "quote": ('1,2,0\n1,"2,0\n', "not a table with commas"),
    "bytes": ("1,2,0\n1,\udcff,0\n", "UTF-8"),
}


@pytest.mark.parametrize("case", CSV)
def test_bad_csv_files_are_refused(case: str, tmp_path: Path) -> None:
    content, message = CSV[case]
    path = tmp_path / "data.csv"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InvalidFile, match=message) as caught:
        read_data(path, (2,))
    assert str(caught.value).startswith(str(path))


A, B = [1.0, 2.0], [3.0, 4.0]
PARQUET: dict[str, tuple[dict[str, object], str]] = {
    "no classes": ({"a": A, "b": B}, "holds no classes"),
    "no rows": ({"a": arrow.array([], arrow.float32()), "label": arrow.array([], arrow.int64())}, "holds no rows"),
    "columns": ({"a": A, "b": B, "c": B, "label": [0, 1]}, "has 3 columns beside 'label'; the network takes 2"),
    "text": ({"a": A, "b": ["x", "y"], "label": [0, 1]}, "column 'b' holds values of type string"),
    "null": ({"a": A, "b": [1.0, None], "label": [0, 1]}, "row 1 of column 'b' is empty"),
    "nan": ({"a": A, "b": [1.0, np.nan], "label": [0, 1]}, "row 1 of column 'b' is nan"),
    "classes": ({"a": A, "b": B, "label": [0.0, 1.0]}, "'label' holds values of type double"),
    "no class": ({"a": A, "b": B, "label": [0, None]}, "row 1 of column 'label' is empty"),
    "lengths": ({"x": [[1.0, 2.0], [1.0]], "label": [0, 1]}, "row 1 of column 'x' has 1 numbers"),
    "null list": ({"x": [[1.0, 2.0], None], "label": [0, 1]}, "row 1 of column 'x' is empty"),
    "null in a list": ({"x": [[1.0, 2.0], [None, 1.0]], "label": [0, 1]}, "row 2 of column 'x, flattened' is empty"),
    "nested": ({"x": [[[1.0]], [[2.0]]], "label": [0, 1]}, "numbers"),
}


@pytest.mark.parametrize("case", PARQUET)
def test_bad_parquet_files_are_refused(case: str, tmp_path: Path) -> None:
    held, message = PARQUET[case]
    path = table(tmp_path / "data.parquet", held)
    with pytest.raises(InvalidFile, match=message) as caught:
        read_data(path, (2,))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["a.npz", "a.csv", "a.parquet"])
def test_broken_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    """Whatever byte changes and wherever the file ends: data of the right form, or an error of ours."""
    content = WRITERS[name](tmp_path / name).read_bytes()
    generator, path = np.random.default_rng(0), tmp_path / f"broken-{name}"
    for _ in range(150):
        broken = bytearray(content[: generator.integers(1, len(content) + 1)] if generator.random() < 0.3 else content)
        broken[generator.integers(len(broken))] ^= 1 << generator.integers(8)
        path.write_bytes(broken)
        try:
            data = read_data(path, SHAPE)
        except ProvennError as error:
            assert str(path) in str(error)
        else:
            assert isinstance(data, Data)
            assert data.inputs.shape == (len(data), 12)
            assert np.isfinite(data.inputs).all()


def test_classes_are_given_once(tmp_path: Path) -> None:
    image(tmp_path / "f" / "0" / "a.png", SQUARE)
    for path, shape in [(WRITERS[n](tmp_path / n), SHAPE) for n in ("a.npz", "c.csv", "a.parquet")] + [
        (tmp_path / "f", (2, 2))
    ]:
        with pytest.raises(InvalidFile, match="leave the labels out"):
            read_data(path, shape, "1,0,2")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InvalidFile, match="2 labels for 3 inputs"):
        read_data(tmp_path / "x.npy", SHAPE, "1,0")
    with pytest.raises(InvalidFile, match="neither a class number"):
        read_data(tmp_path / "x.npy", SHAPE, "cat")


@pytest.mark.parametrize("name", ["data.pkl", "data.txt", "data"])
def test_other_files_are_not_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"1,2,0")
    with pytest.raises(InvalidFile, match=r"give one that ends in \.npz, \.npy, \.csv, \.parquet, or a folder"):
        read_data(tmp_path / name, (2,))


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    for name in ("x.npz", "x.npy", "x.csv", "x.parquet"):
        with pytest.raises(InvalidFile, match="No such file"):
            read_data(tmp_path / name, (2,), "0")


def test_channels_last_are_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="declare layout hwc"):
        read_data(npz(tmp_path / "x.npz", x=np.zeros((3, 4, 5, 3)), y=Y), (3, 4, 5))


def test_the_programs_of_the_manual_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manual = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    programs = re.findall(r"```python\n(.*?)```", manual, re.DOTALL)
    assert len(programs) == 3
    for program in programs:
        exec(compile(program, "docs/data.md", "exec"), {})
