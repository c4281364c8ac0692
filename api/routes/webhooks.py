"""Webhooks: where a project is told that its jobs are over."""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import AwareDatetime, Field

from provenn.api.auth import Admin
from provenn.api.json_bodies import JsonRoute
from provenn.api.problems import not_found
from provenn.api.routes.shown import moment
from provenn.api.service import Parts
from provenn.api.tables import WebhookRow
from provenn.api.webhooks import new_secret
from provenn.api.wire import Request, Response, Text

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=JsonRoute)
EXAMPLES = {"team": {"summary": "A team's server", "value": {"url": "https://hooks.example.com/provenn"}}}


class WebhookRequest(Request):
    """Where the project wants to be told that a job is over."""

    url: Text = Field(min_length=1, max_length=2000, description="https, on the public internet")


class WebhookInfo(Response):
    """A webhook, without its secret."""

    id: str
    url: str
    created_at: AwareDatetime
    due: int = Field(description="messages that have not arrived yet")


class NewWebhook(WebhookInfo):
    """A webhook that was just made, with its secret, which is not shown again."""

    secret: str = Field(description="signs every message, as Standard Webhooks has it")


class Webhooks(Response):
    """All webhooks of the project."""

    items: list[WebhookInfo]


@router.post("", status_code=201, summary="Make a webhook")
def create(request: Annotated[WebhookRequest, Body(openapi_examples=EXAMPLES)], who: Admin, parts: Parts) -> NewWebhook:
    """From now on the URL gets a signed message for every job of the project that is over, parts left out."""
    parts.sender.require(request.url)
    row = WebhookRow(id=uuid.uuid4().hex, project_id=who.project, url=request.url, secret=new_secret())
    parts.webhooks.register(row)
    return NewWebhook(id=row.id, url=row.url, created_at=moment(row.created_at), due=0, secret=row.secret)


@router.get("", summary="List webhooks")
def webhooks(who: Admin, parts: Parts) -> Webhooks:
    """The project's, oldest first, without their secrets."""
    backlog = parts.webhooks.backlog(who.project)
    rows = parts.webhooks.webhooks(who.project)
    return Webhooks(
        items=[
            WebhookInfo(id=row.id, url=row.url, created_at=moment(row.created_at), due=backlog.get(row.id, 0))
            for row in rows
        ]
    )


@router.delete("/{webhook}", status_code=204, summary="Delete a webhook")
def remove(webhook: str, who: Admin, parts: Parts) -> None:
    """It gets no more messages, not even those that are due."""
    if not parts.webhooks.remove(who.project, webhook):
        raise not_found("webhook", webhook)
