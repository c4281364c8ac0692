"""Logs: one line an event, for people or as JSON, with the ids of the request and of the job it is about."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from provenn.api.keys import redacted
from provenn.api.requests import request_id

Format = Literal["text", "json"]


def configure(kind: Format, level: str) -> None:
    """Everything that is logged in this process, uvicorn's lines too, goes to the standard error in this form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # as text, so that what follows sees it: without values of variables
        _with_request,
        _without_keys,
    ]
    if kind == "json":
        last: Processor = structlog.processors.JSONRenderer()
    else:
        plain = structlog.dev.plain_traceback
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    form = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(form)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True


def _with_request(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    identifier = request_id.get()
    return event if identifier is None else {**event, "request": identifier}


def _without_keys(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {name: redacted(value) if isinstance(value, str) else value for name, value in event.items()}
