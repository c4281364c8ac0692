"""The keys that a service signs with: one private key, and the public parts of all there have been.

A folder holds `public.json`, the list that `GET /v1/keys` answers, and `KEYID.pem`, the private part of its active key.
"""

from __future__ import annotations

import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # it does not declare them

from provenn.api.settings import Settings
from provenn.verifier.errors import ProvennError

PUBLIC = "public.json"
OTHERS, GROUP = 0o007, 0o070


class SigningKeyError(ProvennError):
    """The key that signs certificates cannot be used, or may be known to others: `path` says where."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = str(path)
        super().__init__(f"signing key {path}: {reason}")


class PublicKey(BaseModel):
    """The public part of a key that signs, or has signed. `keyid` is a digest of the key, checked where one is read."""

    model_config = ConfigDict(frozen=True)

    keyid: str = Field(description="SHA-256 that follows from the key: signatures name it")
    algorithm: Literal["ed25519"] = "ed25519"
    public: str = Field(description="the public key, PEM")
    created_at: AwareDatetime
    retired_at: AwareDatetime | None = Field(default=None, description="when another key took over; null: it signs now")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def active(self) -> bool:
        """Whether the service signs with it now."""
        return self.retired_at is None

    @classmethod
    def of(cls, signer: CryptoSigner, created_at: datetime) -> Self:
        """That of a private key, active."""
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key.keyval["public"]))
        public = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return cls(keyid=signer.public_key.keyid, public=public, created_at=created_at)

    @property
    def key(self) -> SSlibKey:
        """What verifies."""
        return _verifier(self.public)

    @model_validator(mode="after")
    def _is_named_by_itself(self) -> Self:
        if _verifier(self.public).keyid != self.keyid:
            raise ValueError("the key is another one than its keyid says")
        return self


class PublicKeys(BaseModel):
    """Every key that a service has signed with, the newest first."""

    model_config = ConfigDict(frozen=True)

    keys: list[PublicKey] = []


class Keyring:
    """The keys of a folder, or of a file whose private key signs while the folder keeps the public parts.

    Raises: SigningKeyError if the private key is missing, no ed25519 key, or open to others.
    """

    def __init__(self, folder: Path, key_file: Path | None = None) -> None:
        self.folder, self.key_file = folder, key_file
        self.signer()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of a service."""
        return cls(folder_of(settings), settings.signing_key_file)

    def signer(self) -> CryptoSigner:
        """Who signs now, read anew: another process may have rotated. A folder without keys gets its first one.

        A new key in the file retires the one before it.
        """
        with _held(self.folder):
            keys = _read(self.folder)
            active = next((key for key in keys if key.active), None)
            if self.key_file is not None:
                signer = _private(self.key_file)
                if active is None or active.keyid != signer.public_key.keyid:
                    _activate(self.folder, keys, signer)
                return signer
            return _made(self.folder, keys) if active is None else _private(self.folder / f"{active.keyid}.pem")


def folder_of(settings: Settings) -> Path:
    """Where a service keeps its keys."""
    return settings.signing_keys or settings.data_dir.resolve() / "keys"


def published(folder: Path) -> PublicKeys:
    """The public parts, the newest first; none if there is no such folder."""
    return PublicKeys(keys=_read(folder)[::-1])


def rotate(folder: Path) -> PublicKey:
    """A new key that signs from now on; the private part of the one before it is destroyed."""
    with _held(folder):
        _made(folder, _read(folder))
        return next(key for key in _read(folder) if key.active)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One process at a time; the folder is made if it is not there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SigningKeyError(folder, f"the folder cannot be used: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(folder: Path) -> list[PublicKey]:
    """The public parts, the oldest first."""
    path = folder / PUBLIC
    try:
        return PublicKeys.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        raise SigningKeyError(path, f"it is not a list of keys: {error}") from error


def _made(folder: Path, keys: list[PublicKey]) -> CryptoSigner:
    """A new key, active."""
    signer = CryptoSigner.generate_ed25519()
    _write(folder / f"{signer.public_key.keyid}.pem", signer.private_bytes, 0o600)
    _activate(folder, keys, signer)
    return signer


def _activate(folder: Path, keys: list[PublicKey], signer: CryptoSigner) -> None:
    """Retires every other key. The new list decides: before it is in place all is as it was."""
    now, keyid = datetime.now(UTC), signer.public_key.keyid
    kept = [key.model_copy(update={"retired_at": key.retired_at or now}) for key in keys if key.keyid != keyid]
    since = next((key.created_at for key in keys if key.keyid == keyid), now)
    active = PublicKey.of(signer, since)
    _write(folder / PUBLIC, PublicKeys(keys=[*kept, active]).model_dump_json(indent=2).encode(), 0o644)
    for path in folder.glob("*.pem"):
        if path.stem != keyid:
            path.unlink()


def _write(path: Path, data: bytes, mode: int) -> None:
    """Puts a file in place, as a whole; nobody else can read it meanwhile.   Raises: SigningKeyError."""
    fresh = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise SigningKeyError(path, f"it cannot be written: {error.strerror or error}") from error


def _private(path: Path) -> CryptoSigner:
    """The signer of a file.

    Raises: SigningKeyError if others may read it or, unless another user owns it (as of a mounted secret), its group.
    """
    try:
        with path.open("rb") as file:
            found, data = os.fstat(file.fileno()), file.read(1 << 16)
    except OSError as error:
        lost = f"cannot be read: {error.strerror or error}; put it back, or make a new key: provenn signing rotate"
        raise SigningKeyError(path, lost) from error
    refused = OTHERS | (GROUP if found.st_uid == os.geteuid() else 0)
    if stat.S_IMODE(found.st_mode) & refused:
        raise SigningKeyError(path, "others may read or change it: chmod 600, and rotate if they may have read it")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(path, "is not a private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(path, "is not an ed25519 key: openssl genpkey -algorithm ed25519")
    return CryptoSigner(key)


def _verifier(pem: str) -> SSlibKey:
    """The public key of a PEM text, with the id that follows from it.   Raises: ValueError if it is no ed25519 key."""
    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("the algorithm is not known") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it is not an ed25519 key")
    return SSlibKey.from_crypto(key)
