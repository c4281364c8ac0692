"""Named tensors out of safetensors files and torch.save archives. Neither torch nor pickle is called.

The pickle of a state dict is interpreted by plain_pickle.py: there is nothing in it that could run, or allocate.
"""

from __future__ import annotations

import io
import zipfile
from math import prod
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from provenn.models import strided
from provenn.models.limits import Limits
from provenn.models.onnx_writer import RANK
from provenn.models.pickles import is_safetensors, refusal
from provenn.models.plain_pickle import Stored, interpreted
from provenn.models.pt2.archive import ERRORS, MEMBERS
from provenn.models.pt2.fields import shown
from provenn.verifier.errors import InvalidModel, ResourceLimit

Array = NDArray[Any]

HEADER_BYTES = 8 * 2**20
SAFETENSORS = {"F32": "float32", "F64": "float64", "I64": "int64", "F16": "float16", "BF16": "bfloat16"}
READ: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8"), "int64": np.dtype("<i8")}


def tensors(data: bytes, limits: Limits) -> dict[str, Array]:
    """The tensors by name, in float32, float64 or int64.

    Raises: InvalidModel for other files, other types, views of shared memory and numbers that are not finite;
    ResourceLimit.
    """
    limits.require_bytes(len(data), "the weights")
    refused = refusal(data)
    if refused is not None:
        raise refused
    found = _archived(data, limits) if data.startswith(b"PK") else _safe(data)
    for name, array in found.items():
        limits.require_elements(array.shape, f"tensor {shown(name)}")
        if len(array.shape) > RANK:
            raise InvalidModel(f"tensor {shown(name)} has {len(array.shape)} axes; at most {RANK} are read")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InvalidModel(f"tensor {shown(name)} holds a number that is not finite")
    return found


def _safe(data: bytes) -> dict[str, Array]:
    """The tensors of a safetensors file, whose library refuses overlaps, holes and shapes beyond the data."""
    length = int.from_bytes(data[:8], "little")
    if not is_safetensors(data):
        raise InvalidModel("the weights are neither a safetensors file nor one of torch.save")
    if length > HEADER_BYTES:
        raise ResourceLimit(f"the header of {length} bytes", f"{HEADER_BYTES} bytes")
    try:
        stored: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise InvalidModel(f"not a sound safetensors file: {shown(str(error))}") from error
    found = {}
    for name, entry in stored:
        kind = _readable(name, SAFETENSORS.get(entry["dtype"], entry["dtype"]))
        found[name] = np.frombuffer(entry["data"], kind).reshape(_short(name, entry["shape"]))
    return found


def _short(name: str, shape: list[int]) -> list[int]:
    if len(shape) > RANK:
        raise InvalidModel(f"tensor {shown(name)} has {len(shape)} axes; at most {RANK} are read")
    return shape


def _readable(name: str, kind: str) -> np.dtype[Any]:
    if kind not in READ:
        raise InvalidModel(f"tensor {shown(name)} is {shown(kind)}; call module.float() before it is saved")
    return READ[kind]


def _archived(data: bytes, limits: Limits) -> dict[str, Array]:
    """The tensors of a state dict in an archive of torch.save."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            if len(entries) > MEMBERS:
                raise ResourceLimit(f"the number of files in the archive ({len(entries)})", str(MEMBERS))
            limits.require_bytes(sum(e.file_size for e in entries), "the weights, unpacked")
            roots = [e.filename.removesuffix("data.pkl") for e in entries if e.filename.endswith("/data.pkl")]
            if len(roots) != 1:
                raise InvalidModel("the weights are an archive without one data.pkl, as torch.save writes it")
            order = f"{roots[0]}byteorder"
            if order in file.namelist() and file.read(order) != b"little":
                raise InvalidModel("the weights are not little-endian")
            described = interpreted(file.read(f"{roots[0]}data.pkl"))
            return {name: _loaded(file, roots[0], name, tensor) for name, tensor in _plain(described).items()}
    except ERRORS as error:
        raise InvalidModel(f"the weights cannot be read: {error!a:.200}") from error


def _plain(value: Any) -> dict[str, Stored]:
    """The value, a dictionary of tensors alone."""
    if not isinstance(value, dict):
        raise InvalidModel("the weights are not a dictionary of tensors; save module.state_dict()")
    for name, tensor in value.items():
        if not isinstance(tensor, Stored):
            raise InvalidModel(f"{shown(name)} of the weights is no tensor; save module.state_dict() alone")
    return value


def _loaded(file: zipfile.ZipFile, root: str, name: str, tensor: Stored) -> Array:
    kind = _readable(name, tensor.storage.kind)
    path = f"{root}data/{tensor.storage.key}"
    info = file.NameToInfo.get(path)
    if info is None:
        raise InvalidModel(f"the numbers of tensor {shown(name)} are not in the archive")
    expected = prod(tensor.shape) * kind.itemsize
    flat = np.frombuffer(file.read(info), kind) if info.file_size == expected else np.empty(0, kind)
    found = strided.dense(flat, tensor.shape, tensor.strides)
    if found is None or tensor.offset or info.file_size != expected:
        raise InvalidModel(
            f"tensor {shown(name)} of shape {list(tensor.shape)} needs {expected} bytes of its own, "
            f"{info.file_size} are stored: a view of another tensor is not read; call .clone() on it before it is saved"
        )
    return found
