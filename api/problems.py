"""Every error as an RFC 9457 problem: a type, a title, a status, a detail, and what else is known."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from fastapi_problem.error import Problem, StatusProblem
from fastapi_problem.handler import ExceptionHandler, add_exception_handler, new_exception_handler
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provenn.api.blob_errors import BlobCorrupted, BlobMissing, BlobsUnavailable
from provenn.api.jobs.model import IllegalTransition
from provenn.api.jobs.refusals import IdempotencyConflict, QuotaExceeded, UnusableWebhook
from provenn.verifier.errors import (
    BackendError,
    InvalidBounds,
    InvalidModel,
    InvalidSpecification,
    ProvennError,
    ResourceLimit,
    UnsupportedOp,
)

PREFIX = "urn:provenn:problem:"
SHOWN_ERRORS = 20
TRACE = 8000
"""Characters of an unexpected error's trace that a child tells."""
log = logging.getLogger("provenn.api")


@dataclass(frozen=True)
class Kind:
    """A problem type: its name within `PREFIX`, its status, its title."""

    name: str
    status: int
    title: str


INVALID_REQUEST = Kind("invalid-request", 422, "The request is not valid")
NOT_FOUND = Kind("not-found", 404, "There is no such thing")
UNAVAILABLE = Kind("unavailable", 503, "The service cannot do this now")
INTERNAL = Kind("internal-error", 500, "The service has made a mistake")
CONFLICT = Kind("conflict", 409, "The job's state does not allow this")
DAMAGED = Kind("data-damaged", 500, "What the service has stored is not there as it was")
RESOURCE_LIMIT = Kind("resource-limit", 413, "A limit was reached")

KINDS: dict[type[ProvennError], Kind] = {
    UnsupportedOp: Kind("unsupported-op", 422, "The network has an operator that no rule covers"),
    InvalidModel: Kind("invalid-model", 422, "The file is not a network that can be read"),
    InvalidSpecification: Kind("invalid-specification", 422, "The property is malformed or does not fit the network"),
    InvalidBounds: Kind("invalid-bounds", 422, "A bound is not valid"),
    ResourceLimit: RESOURCE_LIMIT,
    BackendError: Kind("backend-error", 422, "The method cannot take this problem"),
    IllegalTransition: CONFLICT,
    IdempotencyConflict: Kind("idempotency-conflict", 422, "The Idempotency-Key belongs to another request"),
    QuotaExceeded: Kind("quota-exceeded", 429, "A quota is used up"),
    UnusableWebhook: Kind("unusable-webhook", 422, "The URL cannot be a webhook's"),
    BlobsUnavailable: UNAVAILABLE,
    BlobMissing: DAMAGED,
    BlobCorrupted: DAMAGED,
    ProvennError: INTERNAL,
}
"""By the nearest class in the error's ancestry."""


class InternalProblem(StatusProblem):
    """What a stranger is told of our own mistakes: nothing but that they are ours."""

    title = INTERNAL.title
    type_ = INTERNAL.name
    status = INTERNAL.status

    def __init__(self, _: str | None = None) -> None:
        super().__init__("an internal error, not the request's fault; the server's log says more")


def problem(kind: Kind, detail: str, /, **members: Any) -> Problem:
    """The exception to raise in a route."""
    return Problem(kind.title, kind.name, detail, kind.status, **members)


def not_found(what: str, name: str) -> Problem:
    """404: no `what` is called `name`."""
    return problem(NOT_FOUND, f"there is no {what} '{name}'")


def invalid(pointer: str, detail: str) -> Problem:
    """422 at one place of the body (a JSON pointer)."""
    return problem(INVALID_REQUEST, f"{pointer}: {detail}", errors=[{"pointer": f"#{pointer}", "detail": detail}])


def of(error: ProvennError) -> Problem:
    """The problem of one of our errors; its attributes (node, line, op_type, ...) become members."""
    kind = next(KINDS[c] for c in type(error).__mro__ if c in KINDS)
    members = {_member(name): value for name, value in vars(error).items() if not name.startswith("_")}
    found = problem(kind, str(error), **{k: v for k, v in members.items() if v is not None})
    if isinstance(error, QuotaExceeded) and error.retry_after is not None:
        found.headers = {"Retry-After": str(error.retry_after)}
    return found


def document(found: Problem) -> dict[str, Any]:
    """The problem as the JSON object a client sees."""
    return found.marshal(uri=PREFIX + "{type}")


def told(
    call: Callable[[], dict[str, Any]], refusal: type[InvalidModel] | type[InvalidSpecification]
) -> dict[str, Any]:
    """What a call that reads a stranger's bytes has to say, JSON: its `answer`, or a `problem`.

    Such bytes may raise anything, in any library: that is `refusal`, with a `trace` for the server's log.
    """
    try:
        return {"answer": call()}
    except ProvennError as error:
        return {"problem": document(of(error))}
    except Exception as error:  # noqa: BLE001 - that is what it is for
        found = refusal(f"the reader could not take it ({type(error).__name__})")
        return {"problem": document(of(found)), "trace": traceback.format_exc()[-TRACE:]}


def restored(described: dict[str, Any]) -> Problem:
    """The problem that `document` described, in another process."""
    members = {k: v for k, v in described.items() if k not in ("type", "title", "status", "detail")}
    name = str(described["type"]).removeprefix(PREFIX)
    return Problem(described["title"], name, described["detail"], described["status"], **members)


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem, known or not."""
    handler = new_exception_handler(
        handlers={ProvennError: _provenn_error},
        documentation_uri_template=PREFIX + "{type}",
        http_exception_handler=_http_error,
        request_validation_handler=_invalid_request,
    )
    add_exception_handler(app, handler)
    app.add_exception_handler(ProvennError, handler)
    app.add_middleware(RemainingProblems)


class RemainingProblems:
    """The two errors that no handler sees: a plain 413 for an over-long Content-Length, and our own mistakes.

    Left to the framework, a mistake would also close the connection under the client's next request.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything else on."""
        started = replaced = False

        async def relay(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                replaced = message["status"] == 413 and _is_plain(message)
                started = True
                if replaced:
                    await _response(_too_large())(scope, receive, send)
            if not replaced:
                await send(message)

        try:
            await self._app(scope, receive, relay)
        except Exception:
            if started or scope["type"] != "http":
                raise
            log.exception("%s %s", scope["method"], scope["path"])
            await _response(InternalProblem())(scope, receive, send)


def _response(found: Problem) -> JSONResponse:
    return JSONResponse(document(found), found.status, media_type="application/problem+json")


def _is_plain(message: Message) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/plain") for name, value in message["headers"])


def _too_large() -> Problem:
    detail = "the request body exceeds the limit of this route (PROVENN_UPLOAD_LIMIT, PROVENN_REQUEST_LIMIT)"
    return problem(RESOURCE_LIMIT, detail, kind="request body")


def _provenn_error(_: ExceptionHandler, request: Request, error: ProvennError) -> Problem:
    return of(error)


def _http_error(_: ExceptionHandler, request: Request, error: HTTPException) -> Problem:
    """404, 405 and their like."""
    if error.status_code == 413:
        return _too_large()
    if error.status_code == 400:
        return problem(INVALID_REQUEST, str(error.detail))
    phrase = HTTPStatus(error.status_code).phrase
    name = phrase.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {}) | ({"Allow": _allowed(request)} if error.status_code == 405 else {})
    return Problem(phrase, name, detail, error.status_code, headers=headers)


def _allowed(request: Request) -> str:
    """The methods of all routes of the path; the framework names those of the first alone."""
    routes = [r for r in iter_route_contexts(request.app.routes) if r.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in routes for method in route.methods or ()}))


def _invalid_request(_: ExceptionHandler, request: Request, error: RequestValidationError) -> Problem:
    """What pydantic found, without echoing the input: where (a JSON pointer) and what."""
    found = [{"pointer": _pointer(e["loc"]), "detail": _detail(e)} for e in error.errors()]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    detail = f"{found[0]['pointer']}: {found[0]['detail']}{more}"
    return problem(INVALID_REQUEST, detail, errors=found[:SHOWN_ERRORS])


def _pointer(location: tuple[str | int, ...]) -> str:
    """`#/inputs/labels/3` in the body, `limit` in the query or the path."""
    if location[0] == "body":
        return "#" + "".join(f"/{_shown(part)}" for part in location[1:])
    return "/".join(_shown(part) for part in location[1:])


def _shown(part: str | int) -> str:
    """A member's name may hold half a surrogate pair, which has no UTF-8."""
    return str(part).encode("utf-8", "replace").decode()


def _detail(error: dict[str, Any]) -> str:
    context = error.get("ctx", {})
    said = str(error["msg"]).removeprefix("Value error, ")
    return f"{said}: {context['error']}" if error["type"] == "json_invalid" else said


def _member(name: str) -> str:
    """`status` already means the HTTP status in a problem."""
    return f"backend_{name}" if name == "status" else name
