"""JSON schemas of what is written by hand: specification documents of every kind, and the gate's configuration."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from provenn.api.auth import Reader
from provenn.api.gate.config import Gate
from provenn.api.problems import not_found
from provenn.api.wire import Response
from provenn.models.specification import schemas as documents

router = APIRouter(prefix="/v1/schemas", tags=["system"])
GATE = "gate"


class SchemaInfo(Response):
    """A schema that there is."""

    name: str
    title: str
    description: str


@router.get("", summary="List the schemas")
def schemas(who: Reader) -> list[SchemaInfo]:
    """The whole of specification documents, each of their kinds, and the gate's configuration."""
    return [_described(name) for name in _names()]


@router.get("/{schema}", summary="Read a schema")
def schema(schema: str, who: Reader) -> dict[str, Any]:
    """JSON schema, draft 2020-12, as editors and validators take it."""
    if schema not in _names():
        raise not_found("schema", schema)
    return _schema(schema)


def _names() -> list[str]:
    return [documents.ALL, *documents.documents(), GATE]


def _schema(name: str) -> dict[str, Any]:
    if name == GATE:
        return {"$schema": documents.DRAFT, **Gate.model_json_schema(), "title": "provenn.toml"}
    return documents.schema(name)


def _described(name: str) -> SchemaInfo:
    found = _schema(name)
    return SchemaInfo(name=name, title=found["title"], description=found["description"])
