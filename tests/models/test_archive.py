"""Archives that want out of their folder, or grow: refused before they are unpacked."""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.models import archive
from provenn.models.limits import Limits
from provenn.verifier.errors import InvalidModel, ProvennError, ResourceLimit

GOOD = {"net.onnx": b"a network", "data/w.bin": bytes(range(256))}
SMALL = Limits(bytes=1 << 20)


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return made.getvalue()


def tarred(files: Mapping[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "", form: int = 1) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as target:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            target.addfile(member, io.BytesIO(content))
    return made.getvalue()


Packed = Callable[[Mapping[str, bytes]], bytes]
BOTH = pytest.mark.parametrize("packed", [zipped, tarred])


def refused(data: bytes, match: str, error: type[ProvennError] = InvalidModel, limits: Limits = SMALL) -> None:
    with pytest.raises(error, match=match) as caught:
        archive.files(data, limits)
    assert type(caught.value) is error


@BOTH
def test_files_come_back_and_folders_do_not(packed: Packed) -> None:
    assert archive.files(packed(GOOD), SMALL) == GOOD
    assert archive.files(packed({f"./{name}": data for name, data in GOOD.items()}), SMALL) == GOOD
    extra = {"__MACOSX/._net.onnx": b"junk", "data/._w.bin": b"junk"}
    assert archive.files(packed(GOOD | extra), SMALL) == GOOD


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_told_and_read(form: int) -> None:
    data = tarred({"n" * 90 + "ö.onnx": b"x"}, form=form)
    assert archive.is_tar(data)
    assert list(archive.files(data, SMALL)) == ["n" * 90 + "ö.onnx"]


def test_folders_are_passed_over() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        target.mkdir("data")
        target.writestr("data/w.bin", b"1")
    assert archive.files(made.getvalue(), SMALL) == {"data/w.bin": b"1"}
    folder = tarred({"data": b""}, tarfile.DIRTYPE)
    assert archive.files(folder, SMALL) == {}


@BOTH
@pytest.mark.parametrize(
    "name", ["../w", "a/../../w", "/etc/passwd", "a//b", "a/./b", "C:\\w", "..\\w", "C:w", "a\nb", "..", "a*b", "a/"]
)
def test_names_that_lead_out_are_refused(packed: Packed, name: str) -> None:
    if name == "a/" and packed is zipped:
        return  # a folder
    refused(packed({name: b"1"}), "only names within it are read")


@pytest.mark.parametrize("name", [b"a.onnx\x00/../../b", b"\x00aaaaaaaa.onnx", b"a/\x00aaaaaa.onnx"])
def test_a_name_that_hides_behind_a_zero_byte_is_refused(name: bytes) -> None:
    data = zipped({"aaaaaaaaaa.onnx": b"1"}).replace(b"aaaaaaaaaa.onnx", name)
    refused(data, "only names within it|cannot be read")


@BOTH
def test_a_name_that_comes_twice_is_refused(packed: Packed) -> None:
    twice = packed({"net.onnx": b"1", "net.onny": b"2"}).replace(b"net.onny", b"net.onnx")
    if packed is tarred:
        twice = tarred({"net.onnx": b"1"})[:1024] + tarred({"net.onnx": b"2"})
    refused(twice, "holds 'net.onnx' twice")


@BOTH
@pytest.mark.parametrize("name", ["more.zip", "more.TAR", "a/more.tar.gz", "more.xz", "more.7z"])
def test_archives_within_archives_are_refused(packed: Packed, name: str) -> None:
    refused(packed({name: zipped(GOOD)}), "holds another archive")


SPECIAL = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "pipe": tarfile.FIFOTYPE,
    "contiguous file": tarfile.CONTTYPE,
    "sparse file": tarfile.GNUTYPE_SPARSE,
}


@pytest.mark.parametrize("name", SPECIAL)
def test_links_and_devices_in_tar_are_refused(name: str) -> None:
    refused(tarred({"w.bin": b""}, SPECIAL[name], "/etc/passwd"), "is a link or another special file|cannot be read")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_zip_are_refused(kind: int) -> None:
    member = zipfile.ZipInfo("w.bin")
    member.external_attr = (kind | 0o777) << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as target:
        target.writestr(member, "/etc/passwd")
    refused(made.getvalue(), "is a link or another special file")


def test_encrypted_and_unusual_zips_are_refused() -> None:
    locked = bytearray(zipped({"w.bin": b"12"}, zipfile.ZIP_STORED))
    locked[6] |= 1
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    refused(bytes(locked), "'w.bin' is encrypted")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(zipped(GOOD, method), "compressed in a way that is not read")


# --- size ---------------------------------------------------------------------------------------------------------


@BOTH
def test_too_many_members_are_refused(packed: Packed) -> None:
    refused(packed({str(i): b"" for i in range(1001)}), r"members \(1001 or more\) exceeds the limit", ResourceLimit)


def test_a_bomb_is_refused_by_what_it_declares() -> None:
    bomb = zipped({f"{i}.bin": bytes(1 << 18) for i in range(8)})
    assert len(bomb) < 1 << 14
    tracemalloc.start()
    refused(bomb, r"the files of the archive \(2097152 bytes or more\)", ResourceLimit)
    assert tracemalloc.get_traced_memory()[1] < 1 << 18
    tracemalloc.stop()


def test_a_bomb_that_declares_less_is_inflated_no_further() -> None:
    honest = zipped({"w.bin": bytes(1 << 26)})
    size = (1 << 26).to_bytes(4, "little")
    assert honest.count(size) == 2
    tracemalloc.start()
    refused(honest.replace(size, (10).to_bytes(4, "little")), "cannot be read: Bad CRC-32|another size")
    assert tracemalloc.get_traced_memory()[1] < 1 << 18
    tracemalloc.stop()
    longer = zipped({"w.bin": b"12345"}, zipfile.ZIP_STORED).replace(
        (5).to_bytes(4, "little"), (9).to_bytes(4, "little")
    )
    refused(longer, "cannot be read|another size|truncated")


def test_members_that_share_their_bytes_count_each() -> None:
    """A zip whose list names one compressed member often, as the bombs without nesting do."""
    one = zipped({"aaaa": bytes(1 << 17)})
    begin, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    entry = one[begin:end]
    listed = b"".join(entry.replace(b"aaaa", b"%04d" % i) for i in range(50))
    tail = bytearray(one[end:])
    tail[8:12] = (50).to_bytes(2, "little") * 2
    tail[12:16] = len(listed).to_bytes(4, "little")
    refused(one[:begin] + listed + bytes(tail), "the files of the archive", ResourceLimit)


def test_a_long_list_of_members_is_refused_unread() -> None:
    made = bytearray(zipped({"a": b""}))
    made[-10:-6] = (archive.DIRECTORY_BYTES + 1).to_bytes(4, "little")
    refused(bytes(made), "the list of the archive's members", ResourceLimit)
    wide = zipped({"a": b""})[:-22]
    end64 = b"PK\x06\x06" + bytes(36) + (1 << 40).to_bytes(8, "little") + bytes(8)
    end64 += b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18)
    refused(wide + end64, "the list of the archive's members", ResourceLimit)


def test_tar_members_are_counted_by_what_they_declare() -> None:
    refused(tarred({"w.bin": bytes((1 << 20) + 1)}), "the files of the archive", ResourceLimit)
    header = bytearray(tarred({"w.bin": b"1"}))
    member = tarfile.TarInfo("w.bin")
    member.size = 1 << 40
    header[:512] = member.tobuf(tarfile.GNU_FORMAT)
    refused(bytes(header), "the files of the archive|cannot be read", ResourceLimit)
    member.size = 1000
    header[:512] = member.tobuf(tarfile.GNU_FORMAT)
    refused(bytes(header[:1024]), "another size|cannot be read")


def test_a_tar_that_leads_back_to_its_own_header_ends() -> None:
    """A negative size in base 256 sends the next header backwards (CVE-2025-8194)."""
    made = bytearray(tarred({"w.bin": b"1"}))
    made[124:136] = b"\xff" * 11 + b"\x00"
    total = sum(made[:148]) + sum(made[156:512]) + 8 * 32
    made[148:156] = b"%06o\x00 " % total
    refused(bytes(made), "special file|cannot be read|twice")


def test_an_xz_bomb_is_inflated_no_further_than_the_limit() -> None:
    bomb = lzma.compress(bytes(1 << 27), preset=0)
    assert len(bomb) < 1 << 16
    with pytest.raises(ResourceLimit, match="the decompressed file"):
        archive.inflated_xz(bomb, SMALL)
    greedy = lzma.compress(b"1", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}], check=lzma.CHECK_NONE)
    with pytest.raises(InvalidModel, match="larger dictionary"):
        archive.inflated_xz(greedy, SMALL)


def test_broken_xz_is_refused() -> None:
    packed = lzma.compress(b"some content")
    assert archive.inflated_xz(packed, SMALL) == b"some content"
    for broken in (packed[:-5], packed + b"more", packed[:20] + b"\xff" * 30):
        with pytest.raises(InvalidModel, match="the xz data"):
            archive.inflated_xz(broken, SMALL)


# --- fuzz ---------------------------------------------------------------------------------------------------------


@BOTH
@settings(max_examples=150, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(1, 255)), max_size=6), cut=st.integers(0, 1 << 12))
def test_mutated_archives_never_raise_anything_else(packed: Packed, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(packed(GOOD))
    for place, mask in flips:
        data[place % len(data)] ^= mask
    data = data[: len(data) - cut % len(data)] if cut % 3 == 0 else data
    try:
        archive.files(bytes(data), SMALL)
    except ProvennError as refusal:
        assert str(refusal)
