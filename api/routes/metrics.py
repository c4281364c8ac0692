"""What Prometheus scrapes."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from provenn.api.auth import Operator
from provenn.api.service import Parts

router = APIRouter(tags=["system"])
TEXT = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"}}


@router.get("/metrics", summary="Measure", response_class=Response, responses=TEXT)  # type: ignore[arg-type]
def metrics(parts: Parts, caller: Operator) -> Response:
    """Queue, jobs, supervisors, GPUs and requests, in the text format of Prometheus."""
    parts.metrics.refresh()
    return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)
