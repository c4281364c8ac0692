"""Blobs: what comes back is what went in, or an error; in a directory and in S3."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from s3_kit import Store, credentials, moto, swift
from service_kit import SMALL, Server, mlp, serving, small_request

from provenn.api.blob_cache import RECENT_SECONDS, Cache
from provenn.api.blobs import PIECE, BlobCorrupted, BlobMissing, Blobs, BlobsUnavailable
from provenn.api.jobs.model import State
from provenn.api.settings import Settings

pytestmark = pytest.mark.xdist_group("blobs")
MISSING = hashlib.sha256(b"never stored").hexdigest()
Make = Callable[..., Blobs]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with moto() as running:
        yield running


@pytest.fixture(params=["directory", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens the same store every time, on machines of different names."""
    shared: dict[str, object] = {}
    if request.param == "s3":
        shared = request.getfixturevalue("store").settings()

    def open_(machine: str = "one", **changes: object) -> Blobs:
        folder = tmp_path / (machine if shared else "one")
        return Blobs.of(Settings(data_dir=folder, **(shared | changes)))  # type: ignore[arg-type]

    return open_


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=100))
def test_what_goes_in_comes_out(make: Make, data: bytes) -> None:
    blobs = make()
    assert blobs.put(data) == blobs.put_file(io.BytesIO(data)) == digest(data)
    assert blobs.get(digest(data)) == b"".join(blobs.open(digest(data))) == data
    for machine in ("one", "two"):
        assert make(machine).local(digest(data)).read_bytes() == data
    assert blobs.exists(digest(data))
    assert (digest(data), len(data)) in {(each.digest, each.bytes) for each in blobs.digests()}


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_pieces(make: Make, size: int) -> None:
    data = os.urandom(size)
    blobs = make()
    assert blobs.put_file(io.BytesIO(data)) == digest(data)
    assert b"".join(blobs.open(digest(data))) == data
    assert blobs.local(digest(data)).read_bytes() == data


def test_what_was_never_stored_is_missing(make: Make) -> None:
    blobs = make()
    for read in (blobs.get, blobs.local, blobs.open):
        with pytest.raises(BlobMissing, match=MISSING):
            read(MISSING)
    assert not blobs.exists(MISSING)


def test_what_is_set_aside_comes_back_when_it_is_asked_for(make: Make) -> None:
    blobs = make()
    for number, read in enumerate((blobs.get, blobs.local, lambda name: list(blobs.open(name)), blobs.exists)):
        name = blobs.put(b"old" + bytes([number]))
        blobs.withdraw(name)
        assert [each.digest for each in blobs.aside()] == [name]
        assert name not in {each.digest for each in blobs.digests()}
        assert read(name)
        assert not list(blobs.aside())
    blobs.withdraw(name)
    blobs.discard(name)
    assert not blobs.exists(name)
    blobs.withdraw(MISSING)
    blobs.discard(MISSING)
    assert not blobs.restore(MISSING)


def test_a_put_makes_an_old_blob_young(make: Make, tmp_path: Path) -> None:
    blobs = make()
    name = blobs.put(b"again")
    first = next(each.modified for each in blobs.digests())
    if (tmp_path / "one" / "blobs").exists():
        os.utime(tmp_path / "one" / "blobs" / name[:2] / name, (0, 0))
    blobs.put(b"again")
    assert next(each.modified for each in blobs.digests()) >= first - 1


def test_many_write_the_same_at_once(make: Make) -> None:
    data = os.urandom(PIECE + 1)
    trouble: list[BaseException] = []

    def write(machine: str) -> None:
        try:
            blobs = make(machine)
            for _ in range(3):
                assert blobs.local(blobs.put_file(io.BytesIO(data))).read_bytes() == data
        except BaseException as error:
            trouble.append(error)
            raise

    threads = [threading.Thread(target=write, args=[f"m{number % 2}"]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not trouble
    assert [each.digest for each in make().digests()] == [digest(data)]
    assert not list(make().leftovers())


class Restless(io.BytesIO):
    """A file that somebody writes to between two readings."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.readings = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.readings += (offset, whence) == (0, 0)
        if self.readings == 2:
            with self.getbuffer() as view:
                view[-1] ^= 1
        return super().seek(offset, whence)


def test_a_file_that_changes_is_not_stored(make: Make) -> None:
    blobs = make()
    data = os.urandom(2 * PIECE)
    with pytest.raises(OSError, match="changed"):
        blobs.put_file(Restless(data))
    assert not list(blobs.digests())
    assert not list(blobs.leftovers())


@pytest.mark.parametrize("size", [100, 2 * PIECE])
def test_rotten_bytes_are_never_given_out(make: Make, size: int) -> None:
    blobs = make()
    name = blobs.put_file(io.BytesIO(os.urandom(size)))
    blobs._store.put(f"{name[:2]}/{name}", os.urandom(size))
    for read in (blobs.get, blobs.local, lambda name: list(blobs.open(name))):
        with pytest.raises(BlobCorrupted, match=name):
            read(name)
    seen = b""
    with pytest.raises(BlobCorrupted):
        for piece in blobs.open(name):
            seen += piece
    assert len(seen) < size
    assert not list(blobs.leftovers())


def test_a_rotten_copy_is_fetched_again(store: Store, tmp_path: Path) -> None:
    blobs = Blobs.of(Settings(data_dir=tmp_path, **store.settings()))  # type: ignore[arg-type]
    path = blobs.local(blobs.put(b"sound"))
    assert path.parent == tmp_path / "cache"
    path.write_bytes(b"rotten")
    assert blobs.local(path.name).read_bytes() == b"sound"


def test_the_cache_is_limited_but_for_what_is_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3)
    names = [digest(bytes([number])) for number in range(5)]

    def made(number: int) -> Path:
        return cache.file(names[number], lambda: iter([bytes([number])]))

    paths = [made(number) for number in range(4)]
    assert all(path.exists() for path in paths)
    for age, path in enumerate(reversed(paths)):
        old = path.stat().st_mtime - RECENT_SECONDS - 1 - age
        os.utime(path, (old, old))
    made(0)
    made(4)
    assert [path.exists() for path in paths] == [True, False, False, True]


def test_an_error_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise BlobCorrupted(MISSING)

    with pytest.raises(BlobCorrupted):
        Cache(tmp_path, 100).file(MISSING, broken)
    assert not list(tmp_path.iterdir())


FULL = """
import io, os, resource, signal, sys
from pathlib import Path
from provenn.api.blobs import PIECE, Blobs, BlobsUnavailable
from provenn.api.settings import Settings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
blobs = Blobs.of(Settings(data_dir=Path(sys.argv[1])))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for size in (PIECE - 1, 2 * PIECE):
    try:
        blobs.put_file(io.BytesIO(os.urandom(size)))
    except BlobsUnavailable as error:
        print(error)
"""


def test_a_disk_that_takes_no_more_leaves_no_half_blob(tmp_path: Path) -> None:
    """The limit of a process's files stands in for the disk's end: a write stops in the middle."""
    found = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [f"blobs cannot be kept in {tmp_path}/blobs: file too large"] * 2
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


MEMORY = """
import sys
from pathlib import Path
from provenn.api.blobs import Blobs
from provenn.api.settings import Settings
def high(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) // 1024
blobs = Blobs.of(Settings(data_dir=Path(sys.argv[1]), **eval(sys.argv[3])))
blobs.local(blobs.put(b"warm"))
before = high()
with open(sys.argv[2], "rb") as file:
    name = blobs.put_file(file)
blobs.local(name)
for piece in blobs.open(name):
    pass
print(high() - before)
"""


@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_memory_stays_small(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        for _ in range(40 if kind == "s3" else 200):
            file.write(os.urandom(1 << 20))
    shared = request.getfixturevalue("store").settings() if kind == "s3" else {}
    command = [sys.executable, "-c", MEMORY, tmp_path, large, repr(shared)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 50


@pytest.mark.slow
@pytest.mark.xdist_group("swift")
def test_swift(tmp_path: Path) -> None:
    """Its s3api knows no conditional writes and no checksums of S3's newer kinds."""
    with swift() as running:
        shared = running.settings()
        blobs, other = (opened(tmp_path / name, **shared) for name in ("one", "two"))
        for data in (b"", b"small", os.urandom(2 * PIECE + 1)):
            name = blobs.put_file(io.BytesIO(data))
            assert blobs.put(data) == name
            assert other.get(name) == b"".join(other.open(name)) == other.local(name).read_bytes() == data
            blobs.withdraw(name)
            assert [each.digest for each in other.aside()] == [name]
            assert not list(other.digests())
            assert other.exists(name)
            assert [(each.digest, each.bytes) for each in blobs.digests()] == [(name, len(data))]
            blobs.withdraw(name)
            blobs.discard(name)
        with pytest.raises(BlobMissing):
            blobs.get(name)
        missing = opened(tmp_path, blobs="s3://no-such-bucket", blob_endpoint=running.endpoint)
        with pytest.raises(BlobsUnavailable, match="the bucket does not exist"):
            missing.put(b"")


def opened(tmp_path: Path, **changes: object) -> Blobs:
    return Blobs.of(Settings(data_dir=tmp_path, **changes))  # type: ignore[arg-type]


def test_a_bucket_that_is_missing_is_said_to_be(store: Store, tmp_path: Path) -> None:
    blobs = opened(tmp_path, blobs="s3://no-such-bucket", blob_endpoint=store.endpoint)
    for use in (lambda: blobs.put(b""), lambda: blobs.get(MISSING), lambda: list(blobs.digests()), blobs.probe):
        with pytest.raises(BlobsUnavailable, match=r"s3://no-such-bucket.*: the bucket does not exist"):
            use()


def test_wrong_credentials_are_said_to_be(store: Store, tmp_path: Path) -> None:
    blobs = opened(tmp_path, **store.settings())
    store.demand_credentials(0)
    try:
        for use in (lambda: blobs.put(b""), lambda: blobs.get(MISSING), lambda: list(blobs.digests())):
            with pytest.raises(BlobsUnavailable, match="there is no such access key"):
                use()
    finally:
        store.demand_credentials(float("inf"))


def test_a_store_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    with credentials():
        blobs = opened(tmp_path, blobs="s3://bucket", blob_endpoint="http://127.0.0.1:9")
        for use in (lambda: blobs.put(b""), lambda: blobs.get(MISSING)):
            with pytest.raises(BlobsUnavailable, match="the store does not answer"):
                use()


def test_credentials_may_be_in_files(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
        (tmp_path / name).write_text(f"{name}-value\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    blobs = opened(tmp_path, **store.settings())
    assert blobs.get(blobs.put(b"with files")) == b"with files"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID_FILE", str(tmp_path / "missing"))
    with pytest.raises(BlobsUnavailable, match=r"AWS_ACCESS_KEY_ID_FILE=.* cannot be read"):
        opened(tmp_path, **store.settings())


@pytest.mark.parametrize("url", ["bucket", "https://bucket", "s3://", "s3://b?x=1"])
def test_an_url_of_no_bucket_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(BlobsUnavailable, match="s3://BUCKET"):
        opened(tmp_path, blobs=url)


def test_readiness_says_what_is_wrong_with_the_bucket(store: Store, tmp_path: Path) -> None:
    with serving(tmp_path, **store.settings()) as server:
        assert server.upload(SMALL).status_code == 201
        httpx.post(f"{store.endpoint}/moto-api/reset").raise_for_status()
        response = server.client.get("/readyz")
        assert (response.status_code, response.json()["blobs"]) == (
            503,
            "blobs cannot be kept: the bucket does not exist",
        )


def test_a_rotten_or_missing_network_is_named_and_never_used(server: Server) -> None:
    model = server.model(mlp([4, 9, 3], seed=7))
    path = server.service.blobs.local(model)
    path.write_bytes(SMALL)  # a sound network, but another one
    rotten = server.ended(server.submit(small_request(model, epsilons=[0.0123])))
    with pytest.raises(httpx.TransportError):
        server.client.get(f"/v1/models/{model}/file")
    path.unlink()
    missing = server.ended(server.submit(small_request(model, epsilons=[0.0124])))
    for found, words in ((rotten, f"the blob {model} has other bytes"), (missing, f"there is no blob {model}")):
        assert (found["state"], found["attempt"]) == (State.FAILED, 1)
        assert found["reason"] == found["error"]["detail"]
        assert words in found["reason"]
    assert server.service.engine.status == "ready"
