"""What the OpenAPI document says beyond what the routes say themselves: what a problem is, and what leads where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from provenn.api.problems import PREFIX

Document = dict[str, Any]
PROBLEM = "#/components/schemas/Problem"
UNUSED = ("HTTPValidationError", "ValidationError")
"""The framework's own form of a 422, which nothing here answers with."""
WRONG_PLACE = {
    "type": "object",
    "title": "Where a request is wrong",
    "properties": {
        "pointer": {"type": "string", "description": "JSON pointer into the body, or a parameter's name"},
        "detail": {"type": "string"},
    },
    "required": ["pointer", "detail"],
}
PROBLEM_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457; further members belong to its type",
    "properties": {
        "type": {"type": "string", "pattern": f"^{PREFIX}[a-z-]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": WRONG_PLACE, "description": "of type invalid-request"},
    },
    "required": ["type", "title", "status", "detail"],
}
NEW, MODEL, CERTIFICATE = (f"$response.body#/{where}" for where in ("id", "model", "result/items/0/certificate"))
QUESTION = {"model": NEW, "lipschitz": {}}
"""A job's request that fits every network."""
VALUES = [
    ("post", "/v1/models", "/v1/models/{model}", NEW),
    ("post", "/v1/jobs", "/v1/jobs/{job}", NEW),
    ("post", "/v1/webhooks", "/v1/webhooks/{webhook}", NEW),
    ("post", "/v1/api-keys", "/v1/api-keys/{key}", NEW),
    ("get", "/v1/jobs/{job}", "/v1/models/{model}", MODEL),
    ("get", "/v1/jobs/{job}", "/v1/certificates/{certificate}", CERTIFICATE),
]
"""Method and path of an answer; the path that a value of it names, which others may go on from; the value."""


def install(app: FastAPI) -> None:
    """Completes the document that the app makes of its routes."""
    described = app.openapi

    def document() -> Document:
        found = described()
        _state_problems(found)
        _state_links(found["paths"])
        return found

    app.openapi = document  # type: ignore[method-assign]


def _state_problems(document: Document) -> None:
    """Every refusal is of one form, a 422 too."""
    schemas = document["components"]["schemas"]
    schemas["Problem"] = PROBLEM_SCHEMA
    for name in UNUSED:
        schemas.pop(name, None)
    for _, _, operation in _operations(document["paths"]):
        if "422" in operation["responses"]:
            refused = {"application/problem+json": {"schema": {"$ref": PROBLEM}}}
            operation["responses"]["422"] = {"description": "The request is not valid", "content": refused}


def _state_links(paths: Document) -> None:
    """Which operations go on from an answer, and with which of its values."""
    for method, path, named, value in VALUES:
        parameter = named[named.index("{") + 1 : -1]
        for _, target, operation in _operations(paths):
            if target == named or target.startswith(f"{named}/"):
                _link(paths[path][method], operation["operationId"], {"parameters": {parameter: value}})
    _link(paths["/v1/models"]["post"], paths["/v1/jobs"]["post"]["operationId"], {"requestBody": QUESTION})


def _link(answered: Document, target: str, given: Document) -> None:
    """From every success."""
    for status, response in answered["responses"].items():
        if status.startswith("2"):
            response.setdefault("links", {})[target] = {"operationId": target} | given


def _operations(paths: Document) -> Iterator[tuple[str, str, Document]]:
    return ((method, path, operation) for path, ways in paths.items() for method, operation in ways.items())
