"""What to say to files that only running code could read: told by their opcodes, never unpickled. Loads no torch."""

from __future__ import annotations

import io
import zipfile

from provenn.models.plain_pickle import PROGRAM_BYTES, interpreted
from provenn.models.pt2.archive import ERRORS
from provenn.verifier.errors import InvalidModel

COMMAND = "provenn export my_package.my_module:build_model --input-shape 1,28,28 --weights model.pt --out model.onnx"


def refusal(data: bytes) -> InvalidModel | None:
    """Why this file is not read, and the command that exports it, if it is a pickle of more than plain tensors.

    A zip archive of torch.save with a state dict in it gives None, as any file of another kind does.
    """
    if is_safetensors(data):
        return None
    if data.startswith(b"\x80"):
        return _refused("a Python pickle" + (_beyond(data[:PROGRAM_BYTES]) or ""))
    if not data.startswith(b"PK"):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return _of_archive(file)
    except ERRORS as error:
        return InvalidModel(f"the archive cannot be read: {error!a:.200}")


def is_safetensors(data: bytes) -> bool:
    """Whether it begins with a header's length below 2^32, whose first byte may be any, and the header's brace."""
    return data[4:9] == bytes(4) + b"{"


def _of_archive(file: zipfile.ZipFile) -> InvalidModel | None:
    names = file.namelist()
    pickled = [name for name in names if name.split("/")[-1] == "data.pkl"]
    if not pickled:
        return None
    if any(name.split("/")[-1] == "constants.pkl" or "/code/" in name for name in names):
        return _refused("TorchScript, which is a program of any kind")
    if len(pickled) > 1 or file.getinfo(pickled[0]).file_size > PROGRAM_BYTES:
        return InvalidModel(
            "the archive has several files data.pkl, or one of more than 32 MiB, as no torch.save writes"
        )
    beyond = _beyond(file.read(pickled[0]))
    return None if beyond is None else _refused("a pickled object" + beyond)


def _beyond(pickle: bytes) -> str | None:
    """What in a pickle is beyond plain tensors, if anything."""
    try:
        interpreted(pickle)
    except InvalidModel as error:
        return f" ({error})"
    return None


def _refused(what: str) -> InvalidModel:
    return InvalidModel(
        f"the file is {what}: reading it would run its code, so it is never opened. Export it where you trust it: "
        f"{COMMAND}. Or save module.state_dict() alone with torch.save, and send an 'architecture' with it"
    )
