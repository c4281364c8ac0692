"""API keys of the caller's own project; `/v1/keys` has the keys that sign certificates."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import AwareDatetime, BeforeValidator, Field

from provenn.api import wire
from provenn.api.auth import FORBIDDEN, Admin, Caller
from provenn.api.json_bodies import JsonRoute
from provenn.api.keys import Grant, Scope
from provenn.api.problems import invalid, not_found, problem
from provenn.api.routes.paging import Limit, unknown_cursor
from provenn.api.service import Parts, Service
from provenn.api.tables import KeyRow

router = APIRouter(prefix="/v1/api-keys", tags=["access"], route_class=JsonRoute)
DAY = 86_400.0
EXAMPLES = {"reader": {"summary": "A key that reads", "value": {"name": "dashboard", "scopes": ["read"]}}}
Cursor = Annotated[str | None, Query(pattern="^[0-9a-f]{16}$", description="`next` of the page before")]


def _number(given: object) -> object:
    """JSON has one number 7, however it is written; false and "7" are none."""
    if isinstance(given, bool | str):
        raise ValueError("give a number")
    return given


Count = Annotated[int, Field(ge=0, le=10**9), BeforeValidator(_number)]
Bytes = Annotated[int, Field(ge=0, le=10**15), BeforeValidator(_number)]
"""Numbers that the columns hold, and JSON's readers too."""


class KeyRequest(wire.Request):
    """A key to be made. Limits that are null are those of the key that makes it, or the settings'."""

    name: str = Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$", description="what it is for")
    scopes: list[Scope] = Field(min_length=1, description="what it may do; submit includes read, admin both")
    expires_days: wire.Number | None = Field(None, gt=0, le=36_500, description="null: when the key that makes it does")
    max_queued: Count | None = Field(None, description="jobs that may wait at a time")
    max_bytes: Bytes | None = Field(None, description="bytes of networks and requests that it may store")
    max_seconds: wire.Number | None = Field(None, ge=0, description="seconds of workers in a rolling day")


class ApiKey(wire.Response):
    """A key, without its secret."""

    id: str = Field(description="the part of the key between its two underscores")
    name: str
    scopes: list[Scope]
    max_queued: int | None
    max_bytes: int | None
    max_seconds: float | None
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    used_at: AwareDatetime | None = Field(description="to the minute")


class NewApiKey(ApiKey):
    """A key that was just made."""

    key: str = Field(description="the key itself: shown this once")


class ApiKeys(wire.Response):
    """A page of keys."""

    items: list[ApiKey]
    next: str | None = Field(description="cursor of the next page; null: this is the last")


@router.post("", status_code=201, summary="Make an API key")
def create(
    request: Annotated[KeyRequest, Body(openapi_examples=EXAMPLES)], who: Admin, parts: Parts, response: Response
) -> NewApiKey:
    """Makes a key of the own project, which may do no more, and lives no longer, than the key that makes it."""
    grant = _within(request, _own(who, parts))
    row, key = parts.keys.create(who.project, grant)
    response.headers["Location"] = f"/v1/api-keys/{row.id}"
    return NewApiKey(**vars(described(row)), key=key)


@router.get("", summary="List API keys")
def keys(who: Admin, parts: Parts, limit: Limit = 20, cursor: Cursor = None) -> ApiKeys:
    """The keys of the own project, the newest first, ended ones too."""
    if cursor is not None and parts.keys.get(cursor, who.project) is None:
        raise unknown_cursor(cursor)
    rows = parts.keys.page(limit, who.project, cursor)
    return ApiKeys(items=[described(row) for row in rows], next=rows[-1].id if len(rows) == limit else None)


@router.delete("/{key}", summary="Revoke an API key")
def revoke(key: str, who: Admin, parts: Parts) -> ApiKey:
    """Ends a key of the own project for good, within some seconds; event streams that are open go on."""
    _own(who, parts)
    row = parts.keys.revoke(key, who.project)
    if row is None:
        raise not_found("API key", key)
    return described(row)


def described(row: KeyRow) -> ApiKey:
    """The row as the service shows it."""
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=[Scope(scope) for scope in row.scopes.split()],
        max_queued=row.max_queued,
        max_bytes=row.max_bytes,
        max_seconds=row.max_seconds,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        expires_at=_time(row.expires_at),
        revoked_at=_time(row.revoked_at),
        used_at=_time(row.used_at),
    )


def _own(who: Caller, parts: Service) -> KeyRow:
    """The key that asks. Who needs none must not make or end those that will be needed one day."""
    row = None if who.key is None else parts.keys.get(who.key)
    if row is None:
        raise problem(FORBIDDEN, "there is no authentication: `provenn keys` makes and revokes keys")
    return row


def _within(asked: KeyRequest, maker: KeyRow) -> Grant:
    """Raises: a problem, if the new key could do more than its maker."""
    ends = maker.expires_at if asked.expires_days is None else time.time() + DAY * asked.expires_days
    if maker.expires_at is not None and ends is not None and ends > maker.expires_at:
        raise invalid("/expires_days", "the new key would outlive the one that makes it")
    limits = {}
    for name in ("max_queued", "max_bytes", "max_seconds"):
        most, wanted = getattr(maker, name), getattr(asked, name)
        if most is not None and wanted is not None and wanted > most:
            raise invalid(f"/{name}", f"{wanted} is above the {most} of the key that makes it")
        limits[name] = most if wanted is None else wanted
    return Grant(asked.name, frozenset(asked.scopes), ends, **limits)


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
