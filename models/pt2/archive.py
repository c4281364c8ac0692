"""The zip file that torch.export.save writes: which of its members are read, and that nothing else is in it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from provenn.models.limits import Limits
from provenn.verifier.errors import InvalidModel, ResourceLimit

ADVICE = "export the network to ONNX on your own machine: provenn export"
MEMBERS = 20_000
JSON_BYTES = 32 * 2**20
"""Of one JSON member: its values take ten times as much memory."""

ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, KeyError, NotImplementedError,
    RuntimeError, IndexError, OverflowError,
)  # fmt: skip
"""What zipfile raises about a file that is broken, encrypted or compressed in some other way."""

CONFIGURATIONS = {
    "data/weights/": "data/weights/model_weights_config.json",
    "data/constants/": "data/constants/model_constants_config.json",
}
PROGRAM = "models/model.json"
UNREAD = ("data/sample_inputs/", ".data/", "extra/")
"""Folders whose files are never opened: example inputs are pickles, the others say nothing about the network."""


@dataclass(frozen=True, eq=False)
class Archive:
    """The members by name, without the folder that all of them are in."""

    file: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    limits: Limits

    def read(self, name: str) -> bytes:
        """The bytes of a member.   Raises: InvalidModel if it is missing or broken."""
        if name not in self.members:
            raise InvalidModel(f"the .pt2 file lacks {name}; save the network again with torch.export.save")
        try:
            return self.file.read(self.members[name])
        except ERRORS as error:
            raise InvalidModel(f"{name} of the .pt2 file cannot be read: {error!a:.200}") from error

    def text(self, name: str) -> bytes:
        """The bytes of a JSON member.   Raises: ResourceLimit if it is too large."""
        if name in self.members and self.members[name].file_size > JSON_BYTES:
            raise ResourceLimit(f"{name} ({self.members[name].file_size} bytes)", f"{JSON_BYTES} bytes")
        return self.read(name)


def is_pt2(data: bytes) -> bool:
    """Whether the file is a zip archive with a program of torch.export in it, of this format or an older one."""
    if not data.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            names = file.namelist()
    except ERRORS:
        return False
    return any(name.split("/")[-1] in ("archive_format", "serialized_exported_program.json") for name in names)


def opened(data: bytes, limits: Limits) -> Archive:
    """The archive of a .pt2 file, its directory checked, nothing unpacked.

    Raises: InvalidModel for another file, unknown members or names that are given twice; ResourceLimit.
    """
    limits.require_bytes(len(data), "the file")
    try:
        file = zipfile.ZipFile(io.BytesIO(data))
    except ERRORS as error:
        raise InvalidModel(f"not a .pt2 file: it is no sound zip archive ({error!a:.200})") from error
    entries = file.infolist()
    if len(entries) > MEMBERS:
        raise ResourceLimit(f"the number of files in the archive ({len(entries)})", str(MEMBERS))
    limits.require_bytes(sum(e.file_size for e in entries), "the .pt2 file, unpacked")
    archive = Archive(file, _members(entries), limits)
    _require_format(archive)
    return archive


def _members(entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    roots = {e.filename.split("/")[0] for e in entries if e.filename.endswith("/archive_format")}
    if any(e.filename.endswith("serialized_exported_program.json") for e in entries):
        raise InvalidModel("a .pt2 file of a torch before 2.8, whose weights are a pickle; export it again with 2.13")
    if len(roots) != 1:
        raise InvalidModel("not a .pt2 file: a zip archive without an archive_format, as torch.export.save writes it")
    prefix = roots.pop() + "/"
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename.removeprefix(prefix)
        if name == entry.filename or name in members:
            raise InvalidModel(
                f"the .pt2 file has {entry.filename!a:.200} twice, or outside of its folder {prefix!a:.99}"
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise InvalidModel(f"{name!a:.200} of the .pt2 file is encrypted, or compressed in a way that is not read")
        members[name] = entry
    return members


def _require_format(archive: Archive) -> None:
    expected = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
    for name, content in expected.items():
        if archive.members.get(name) is None or archive.members[name].file_size > 16 or archive.read(name) != content:
            raise InvalidModel(
                f"{name} of the .pt2 file must be {content.decode()!r}, as torch 2.13 writes it; {ADVICE}"
            )
    known = {*expected, PROGRAM, *CONFIGURATIONS.values()}
    for name in archive.members:
        if name.startswith("models/") and name.endswith(".json") and name != PROGRAM:
            raise InvalidModel(f"the .pt2 file has a second program, {name!a:.200}; save one network as 'model' alone")
        if name not in known and not name.startswith((*UNREAD, *CONFIGURATIONS)):
            raise InvalidModel(f"the .pt2 file has {name!a:.200}, which is not known there; {ADVICE}")
