"""JSON schemas (draft 2020-12) of specification documents: one a kind, and one of them all."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from provenn.models.specification import KINDS, plain
from provenn.models.specification.documents import MONOTONE
from provenn.models.specification.monotone import Document as Monotone

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ALL = "specification"


def documents() -> dict[str, type[BaseModel]]:
    """The keys of every kind, by its name."""
    resolved = {name: kind.document for name, kind in KINDS.items()}
    found: dict[str, type[BaseModel]] = {**resolved, **plain.KINDS, MONOTONE: Monotone}
    return dict(sorted(found.items()))


def schema(kind: str) -> dict[str, Any]:
    """Of one kind, or, for "specification", of a document of any kind.   Raises: KeyError."""
    if kind != ALL:
        return {"$schema": DRAFT, **_titled(kind, documents()[kind].model_json_schema())}
    each, shared = {}, dict[str, Any]()
    for name, document in documents().items():
        found = document.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        shared |= {f"{name}.{part}": content for part, content in found.pop("$defs", {}).items()}
        each[name] = _titled(name, found)
    mapping = {name: f"#/$defs/{name}" for name in each}
    return {
        "$schema": DRAFT,
        "title": "provenn-specification/1",
        "description": "A specification document: its kind says which keys it has.",
        "oneOf": [{"$ref": place} for place in mapping.values()],
        "discriminator": {"propertyName": "kind", "mapping": mapping},
        "$defs": {**each, **shared},
    }


def _titled(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "title": f"provenn-specification/1, kind {kind}"}
