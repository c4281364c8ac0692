"""API keys: random, shown once, stored as digests; what the holder of one may do, and until when."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import string
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import and_, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from provenn.api.database import Database
from provenn.api.tables import KeyRow, ProjectRow

LETTERS = string.ascii_letters + string.digits
SECRET_LENGTH = 43
"""62^43 > 2^256."""
SHAPE = re.compile(rf"pvn_([0-9a-f]{{16}})_[0-9A-Za-z]{{{SECRET_LENGTH}}}", re.ASCII)
TRACE = re.compile(rb"pvn_[0-9a-f]{16}_")
"""What every key has, and nothing else."""
TRUST_SECONDS = 5.0
"""How long a key is believed to be what it was: a revocation is effective everywhere after that."""
USED_SECONDS = 60.0
NOBODY = "0" * 64
log = logging.getLogger("provenn.api")


class Scope(StrEnum):
    """What a key may do; each may also do what those before it may."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"


def allows(granted: frozenset[Scope], needed: Scope) -> bool:
    """Whether one of the scopes is, or comes after, the needed one."""
    order = list(Scope)
    return any(order.index(scope) >= order.index(needed) for scope in granted)


@dataclass(frozen=True)
class Grant:
    """What a new key may do. Limits that are None are the settings'; expires_at None: never."""

    name: str
    scopes: frozenset[Scope]
    expires_at: float | None = None
    max_queued: int | None = None
    max_bytes: int | None = None
    max_seconds: float | None = None


@dataclass(frozen=True)
class Known:
    """A key that was made once, as it was when the database was last asked."""

    id: str
    project: str
    digest: str
    scopes: frozenset[Scope]
    expires_at: float | None
    revoked_at: float | None

    def ended(self, now: float) -> str | None:
        """Why it is not valid any more; None if it is."""
        if self.revoked_at is not None:
            return "the key was revoked"
        return "the key has expired" if self.expires_at is not None and self.expires_at <= now else None


def mint() -> tuple[str, str]:
    """(id, key) of a new one: 256 random bits behind a prefix that scanners for secrets can look for."""
    identifier = secrets.token_hex(8)
    return identifier, f"pvn_{identifier}_" + "".join(secrets.choice(LETTERS) for _ in range(SECRET_LENGTH))


def digest(key: str) -> str:
    """SHA-256: a key is random enough to need neither salt nor stretching."""
    return hashlib.sha256(key.encode()).hexdigest()


def shows_key(text: bytes) -> bool:
    """Whether the text has an API key in it, percent-encoded or not."""
    return TRACE.search(text) is not None or (b"%" in text and TRACE.search(unquote_to_bytes(text)) is not None)


def redacted(text: str) -> str:
    """The text without the secret of any key that is in it."""
    return SHAPE.sub(r"pvn_\1_redacted", text)


class Keys:
    """All that is ever done to keys and projects."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: dict[str, tuple[Known, float]] = {}

    async def verify(self, key: str) -> Known | None:
        """The key with exactly this text, valid or not. The digests are compared in constant time."""
        shape = SHAPE.fullmatch(key)
        if shape is None:
            return None
        known = await self.find(shape[1])
        same = hmac.compare_digest(NOBODY if known is None else known.digest, digest(key))
        return known if same else None

    async def find(self, identifier: str) -> Known | None:
        """The key with this id, as it was at most TRUST_SECONDS ago.   Raises: SQLAlchemyError."""
        known, until = self._cache.get(identifier, (None, 0.0))
        if until < time.monotonic():
            known = await run_in_threadpool(self._load, identifier)
            if known is not None:
                self._cache[identifier] = known, time.monotonic() + TRUST_SECONDS
        return known

    def create(self, project: str, grant: Grant) -> tuple[KeyRow, str]:
        """A new key of the project with this id, and its text, which is nowhere else."""
        identifier, key = mint()
        row = KeyRow(
            id=identifier,
            project_id=project,
            name=grant.name,
            digest=digest(key),
            scopes=" ".join(scope for scope in Scope if scope in grant.scopes),
            expires_at=grant.expires_at,
            max_queued=grant.max_queued,
            max_bytes=grant.max_bytes,
            max_seconds=grant.max_seconds,
        )
        with self._database.writing() as session:
            session.add(row)
        return row, key

    def get(self, identifier: str, project: str | None = None) -> KeyRow | None:
        """The row, if there is one (in that project, if one is given)."""
        with self._database.reading() as session:
            return _row(session, identifier, project)

    def page(self, limit: int, project: str | None = None, before: str | None = None) -> Sequence[KeyRow]:
        """The newest keys, at most `limit`: of one project, or of all."""
        query = select(KeyRow).order_by(KeyRow.created_at.desc(), KeyRow.id.desc()).limit(limit)
        if project is not None:
            query = query.where(KeyRow.project_id == project)
        with self._database.reading() as session:
            if before is not None:
                last = _row(session, before, project)
                if last is None:
                    return []
                same = and_(KeyRow.created_at == last.created_at, KeyRow.id < last.id)
                query = query.where(or_(KeyRow.created_at < last.created_at, same))
            return session.scalars(query).all()

    def revoke(self, identifier: str, project: str | None = None) -> KeyRow | None:
        """Ends a key: here at once, in other processes after TRUST_SECONDS. None if the project has no such key."""
        with self._database.writing() as session:
            row = _row(session, identifier, project)
            if row is not None and row.revoked_at is None:
                row.revoked_at = time.time()
        self._cache.pop(identifier, None)
        return row

    def project(self, name: str) -> ProjectRow:
        """The project of that name, made if there is none."""
        with self._database.writing() as session:
            row = session.scalar(select(ProjectRow).where(ProjectRow.name == name))
            if row is None:
                row = ProjectRow(id=uuid.uuid4().hex, name=name)
                session.add(row)
        return row

    def projects(self) -> Sequence[ProjectRow]:
        """Every project, oldest first."""
        with self._database.reading() as session:
            return session.scalars(select(ProjectRow).order_by(ProjectRow.created_at)).all()

    def _load(self, identifier: str) -> Known | None:
        with self._database.reading() as session:
            row = session.get(KeyRow, identifier)
        if row is None:
            return None
        scopes = frozenset(map(Scope, row.scopes.split()))
        known = Known(row.id, row.project_id, row.digest, scopes, row.expires_at, row.revoked_at)
        if known.ended(time.time()) is None:
            self._note_use(row)
        return known

    def _note_use(self, row: KeyRow) -> None:
        """Once a minute at most; a database that cannot write now does not keep the caller out."""
        now = time.time()
        if row.used_at is not None and row.used_at > now - USED_SECONDS:
            return
        try:
            with self._database.writing() as session:
                session.execute(update(KeyRow).where(KeyRow.id == row.id).values(used_at=now))
        except SQLAlchemyError as error:
            log.warning("the use of key %s could not be noted (%s)", row.id, type(error).__name__)


def _row(session: Session, identifier: str, project: str | None) -> KeyRow | None:
    query = select(KeyRow).where(KeyRow.id == identifier)
    return session.scalar(query if project is None else query.where(KeyRow.project_id == project))
