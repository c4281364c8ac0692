"""Changes of an upload that a file may have by accident or by an attacker's will: of bytes, and of what they mean."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from random import Random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from upload_seeds import DATASET, SPECIFICATION, Upload, tarred, zipped

Change = Callable[[bytes, Random], bytes]
LIMIT = 1 << 20
"""Bytes of a changed upload: what grows beyond is cut."""
WHOLE = (-1, 0, 1, 2, 7, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
VALUES: tuple[Any, ...] = (
    *WHOLE, 1 << 70, 0.5, -0.0, 1e308, float("nan"), float("inf"), None, True, False, "", "x", "\0", "\ud800", "../x",
    "/etc/passwd", "9" * 400, "1e9999", "é" * 50, [], {}, [[]], [0] * 1000, [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]],
)  # fmt: skip
WORDS = ("(", ")", "and", "or", "assert", "X_0", "Y_99999999999", "1e99999999", "-", "+", "*", "<=", "Real", "|", "\0")


# --- bytes --------------------------------------------------------------------------------------------------------


def flipped(data: bytes, chance: Random) -> bytes:
    """Some bits."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
    return bytes(made)


def overwritten(data: bytes, chance: Random) -> bytes:
    """A number of some width, as a length or an offset would be."""
    width = chance.choice((1, 2, 4, 8))
    at = chance.randrange(len(data))
    value = chance.choice((*WHOLE, len(data), len(data) - 1, chance.getrandbits(64))) % (1 << 8 * width)
    return data[:at] + value.to_bytes(width, chance.choice(("little", "big"))) + data[at + width :]


def truncated(data: bytes, chance: Random) -> bytes:
    """Its beginning, or its end."""
    at = chance.randrange(len(data))
    return data[:at] if chance.random() < 0.8 else data[at:]


def repeated(data: bytes, chance: Random) -> bytes:
    """A piece of it again, many times or elsewhere."""
    start = chance.randrange(len(data))
    piece = data[start : start + chance.choice((1, 4, 16, 256))]
    at = chance.randrange(len(data))
    return data[:at] + piece * chance.choice((1, 2, 50, 4000)) + data[at:]


def removed(data: bytes, chance: Random) -> bytes:
    """Without a piece."""
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.choice((1, 2, 8, 64)) :]


BYTES: tuple[Change, ...] = (flipped, overwritten, truncated, repeated, removed)


def bytewise(data: bytes, chance: Random) -> bytes:
    """One of BYTES, now and then several."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(BYTES)(data or b"\0", chance)[:LIMIT]
    return data


# --- meanings -----------------------------------------------------------------------------------------------------


def json_changed(data: bytes, chance: Random) -> bytes:
    """A value replaced, removed, or put in twice; what is no JSON changes its bytes."""
    try:
        value = json.loads(data)
    except ValueError:
        return bytewise(data, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = [*_places(value)]
        if not places:
            return json.dumps(chance.choice(VALUES)).encode()
        parent, key = chance.choice(places)
        match chance.randrange(5):
            case 0:
                del parent[key]
            case 1:
                parent[key] = deepcopy(chance.choice(places)[0])
            case 2 if isinstance(parent, dict):
                parent[chance.choice(("", "\0", "\ud800", "type", "x" * 300))] = parent.pop(key)
            case _:
                parent[key] = deepcopy(chance.choice(VALUES))
    return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield value, key
        yield from _places(part)


def onnx_changed(data: bytes, chance: Random) -> bytes:
    """Fields of the protobuf replaced, removed, or put in twice; what is no ONNX file changes its bytes."""
    try:
        model = onnx.load_from_string(data)
    except DecodeError:
        return bytewise(data, chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        messages = [*_messages(model)]
        _field_changed(chance.choice(messages), chance)
    return bytes(model.SerializeToString())


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                yield from _messages(part)


def _field_changed(message: Message, chance: Random) -> None:
    field = chance.choice(message.DESCRIPTOR.fields)
    if field.is_repeated:
        values = getattr(message, field.name)
        kind = chance.randrange(3)
        if kind == 0 and len(values):
            del values[chance.randrange(len(values))]
        elif kind == 1 and len(values):
            values.extend([values[chance.randrange(len(values))]] * chance.choice((1, 3)))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            values.add()
        else:
            values.append(_scalar(field, chance))
    elif field.type == FieldDescriptor.TYPE_MESSAGE or chance.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, chance))


def _scalar(field: FieldDescriptor, chance: Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        texts = ("", "x", "w", "a", "\0", "Relu", "Loop", "If", "Gemm", "../w.bin", "é" * 100)
        return chance.choice(texts)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice((b"", b"\xff", b"\0" * 8, chance.randbytes(32)))
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([value.number for value in field.enum_type.values])
    wide = field.type == FieldDescriptor.TYPE_INT64
    value = chance.choice([v for v in WHOLE if wide or -(1 << 31) <= v < 1 << 31])
    return value if field.type != FieldDescriptor.TYPE_UINT64 else abs(value)


def header_changed(data: bytes, chance: Random) -> bytes:
    """The JSON before the tensors of a safetensors file, and the JSON in it, with a length that fits."""
    size = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + size], data[8 + size :]
    try:
        value = json.loads(header)
        inner = value["__metadata__"]["provenn"]
    except (ValueError, KeyError, TypeError):
        inner = None
    if isinstance(inner, str) and chance.random() < 0.6:
        value["__metadata__"]["provenn"] = json_changed(inner.encode(), chance).decode("latin-1")
        header = json.dumps(value).encode()
    else:
        header = json_changed(header, chance)
    return len(header).to_bytes(8, "little") + header + body


def zip_changed(data: bytes, chance: Random) -> bytes:
    """A member changed, renamed, left out, or put in twice."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return bytewise(data, chance)
    return zipped(_files_changed(files, chance))


def arrays_changed(data: bytes, chance: Random) -> bytes:
    """An array's header or its numbers changed, stored or packed; or the whole, as any zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return bytewise(data, chance)
    name = chance.choice(sorted(files))
    match chance.randrange(4):
        case 0:
            files[name] = header_swapped(files[name], chance)
        case 1:
            files[name] = bytewise(files[name], chance)
        case 2:
            files[chance.choice(("x.npy", "y.npy", "labels.npy", "names.npy"))] = files.pop(name)
        case _:
            return zip_changed(data, chance)
    return zipped(files)


TOLD = (b"(5, 4)", b"(5,)", b"(3,)", b"(3, 1)", b"(3, 2, 2)", b"<f4", b"<i8", b"<U7", b"False")
UNTRUE = (b"(999999999999,)", b"(-1,)", b"(0,)", b"()", b"(3, 2, 2)", b"|O", b"<U0", b">U7", b"<U9", b"|S4", b"True")
"""What the headers of the seeds say, and what else one might."""


def header_swapped(array: bytes, chance: Random) -> bytes:
    """The .npy file with another shape or kind of values, in as many bytes."""
    told = [each for each in TOLD if each in array]
    changed = array.replace(chance.choice(told or [b"'"]), chance.choice(UNTRUE), 1)
    wide = array.find(b"\n") - changed.find(b"\n")
    return changed.replace(b" \n", b" " * wide + b" \n", 1) if wide >= 0 else changed.replace(b" " * -wide, b"", 1)


def tar_changed(data: bytes, chance: Random) -> bytes:
    """The same of a tar."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    return tarred(_files_changed(files, chance))


def _files_changed(files: dict[str, bytes], chance: Random) -> dict[str, bytes]:
    name = chance.choice(sorted(files))
    match chance.randrange(6):
        case 0:
            del files[name]
        case 1:
            other = chance.choice(("../x.onnx", "/x", "data.pkl", "net/net.onnx", "a/" * 100 + "x", "\u202e.onnx"))
            files[other] = files.pop(name)
        case 2:
            files[name + chance.choice(("", ".onnx", "/x"))] = files[name]
        case _:
            files[name] = inside(files[name], chance)
    return files


def inside(data: bytes, chance: Random) -> bytes:
    """What a member holds."""
    if data[:1] in (b"{", b"["):
        return json_changed(data, chance)
    return (onnx_changed if chance.random() < 0.5 else bytewise)(data or b"\0", chance)


def words_changed(data: bytes, chance: Random) -> bytes:
    """A VNN-LIB file's words, or a JSON file's values."""
    if data.startswith(b"{"):
        return json_changed(data, chance)
    words = data.replace(b"(", b" ( ").replace(b")", b" ) ").split(b" ")
    for _ in range(chance.choice((1, 2, 5))):
        at = chance.randrange(len(words))
        words[at : at + chance.randrange(2)] = [chance.choice((*WORDS, words[-1].decode("latin-1"))).encode()]
    return b" ".join(words)


def repacked(data: bytes, change: Change, chance: Random) -> bytes:
    """The content of a compressed file changed, and compressed again."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(change(gzip.decompress(data), chance), mtime=0)
    return lzma.compress(change(lzma.decompress(data), chance))


MEANINGS: dict[str, Change] = {
    "onnx": onnx_changed,
    "gzip": lambda data, chance: repacked(data, onnx_changed, chance),
    "xz": lambda data, chance: repacked(data, onnx_changed, chance),
    "zip bundle": zip_changed,
    "tar bundle": tar_changed,
    "tar.gz bundle": lambda data, chance: repacked(data, tar_changed, chance),
    "provenn-network/1": header_changed,
    "safetensors": header_changed,
    "state dict": zip_changed,
    "pt2": zip_changed,
    SPECIFICATION: words_changed,
    DATASET: arrays_changed,
}


def changed(upload: Upload, others: list[Upload], chance: Random) -> Upload:
    """Another upload of that kind: its bytes changed, or what they mean, or its architecture, or two files in one."""
    kind = chance.random()
    if upload.architecture is not None and kind < 0.4:
        return replace(upload, architecture=json_changed(upload.architecture, chance))
    if kind < 0.65:
        return replace(upload, data=MEANINGS[upload.format](upload.data, chance)[:LIMIT])
    if kind < 0.95:
        return replace(upload, data=bytewise(upload.data, chance))
    other = chance.choice(others).data
    at = chance.randrange(len(upload.data))
    return replace(upload, data=upload.data[:at] + other[chance.randrange(len(other)) :])
