"""What has been uploaded, told by its content, and the one file that becomes of it: canonical, and self-contained."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace

from provenn.models import archive, pickles, pt2, weights
from provenn.models.implicit_file import FORMAT, is_implicit_file
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decoded, decompressed
from provenn.models.preprocessing import preprocessed, read_preprocessing
from provenn.models.tensors import embed
from provenn.verifier.errors import InvalidModel

ONNX, BUNDLE, PT2, SAFETENSORS, STATE_DICT = "onnx", "onnx-bundle", "pt2", "safetensors", "state-dict"
FORMATS = (ONNX, BUNDLE, FORMAT, PT2, SAFETENSORS, STATE_DICT)
WEIGHTS = (SAFETENSORS, STATE_DICT)
PROTOBUF = (1 << 31) - 1
"""Bytes of one protobuf message, and so of a self-contained ONNX file."""
GZIP = b"\x1f\x8b"
PICKLE = b"\x80"


@dataclass(frozen=True, eq=False)
class Arrived:
    """data: the canonical file, whose digest names the network; format: one of FORMATS, which it was made of."""

    data: bytes
    format: str


def arrive(data: bytes, architecture: bytes | None, limits: Limits, preprocessing: bytes | None = None) -> Arrived:
    """The canonical file: what was uploaded where that is an ONNX file or a provenn-network/1, and not compressed.

    architecture: the layers that weights belong to, as JSON; preprocessing: what the canonical file does to its input
    before that, as JSON (`read_preprocessing`).
    Raises: InvalidModel or UnsupportedOp, saying what to upload instead; ResourceLimit.
    """
    content = _unpacked(data, limits)
    found = _told(content)
    if found not in WEIGHTS and architecture is not None:
        raise InvalidModel(f"an architecture goes with weights alone, and this file is of format {found}")
    if found in WEIGHTS and architecture is None:
        raise InvalidModel(
            "these are weights without layers: send the field 'architecture' with them, or export to ONNX"
        )
    if found == BUNDLE:
        content = _self_contained(archive.files(content, limits), limits)
    elif found == PT2:
        content = pt2.to_onnx(content, limits)
    elif architecture is not None:
        content = weights.to_onnx(content, architecture, limits)
    if preprocessing is not None:
        content = preprocessed(content, read_preprocessing(preprocessing), limits)
    return Arrived(content, found)


def _unpacked(data: bytes, limits: Limits) -> bytes:
    """The content of a gzip or xz file, once.   Raises: InvalidModel if it is compressed twice or otherwise."""
    packed = data.startswith((GZIP, archive.XZ))
    content = archive.inflated_xz(data, limits) if data.startswith(archive.XZ) else decompressed(data, limits)
    if packed and content.startswith((GZIP, archive.XZ, archive.ZIP)):
        raise InvalidModel("the file is packed twice; upload the archive or the network itself")
    for magic, name in archive.OTHERS.items():
        if content.startswith(magic):
            raise InvalidModel(f"{name} files are not read; pack the network as .zip, .tar.gz or .tar.xz")
    return content


def _told(content: bytes) -> str:
    """The format, from the first bytes and, in an archive, from the names.   Raises: InvalidModel for code."""
    if is_implicit_file(content):  # first: its header may be 0x80 bytes long, as a pickle begins
        return FORMAT if _names_layers(content) else SAFETENSORS
    if archive.is_tar(content):
        return BUNDLE
    if archive.is_zip(content):
        names = archive.zip_names(content)
        if pt2.is_pt2(content):
            return PT2
        if not any(posixpath.basename(name) == "data.pkl" for name in names):
            return BUNDLE
    if archive.is_zip(content) or content.startswith(PICKLE):
        refusal = pickles.refusal(content)
        if refusal is not None:
            raise refusal
        return STATE_DICT
    return ONNX


def _names_layers(content: bytes) -> bool:
    """Whether the header of a safetensors file has the entry that holds the layers."""
    return b'"provenn"' in content[8 : 8 + int.from_bytes(content[:8], "little")]


def _self_contained(files: Mapping[str, bytes], limits: Limits) -> bytes:
    """The one ONNX file of a bundle, with the data that lie beside it put in.

    Raises: InvalidModel if there is not exactly one; ResourceLimit if it grows beyond what an ONNX file can hold.
    """
    models = [name for name in files if name.lower().endswith(".onnx")]
    if len(models) != 1:
        found = ", ".join(f"'{name}'" for name in (models or sorted(files))[:5]) or "nothing"
        raise InvalidModel(f"an archive must hold exactly one .onnx file, and its data; this one holds {found}")
    content = files[models[0]]
    model = decoded(content, limits)
    folder = posixpath.dirname(models[0])
    inside = f"{folder}/" if folder else ""
    beside = {name.removeprefix(inside): data for name, data in files.items() if name.startswith(inside)}
    if embed(model, beside, replace(limits, bytes=min(limits.bytes, PROTOBUF))):
        content = model.SerializeToString(deterministic=True)
    return content
