"""A typed client of the REST service, blocking or for asyncio, that believes nothing it has not checked here.

flow: conversations as data, retries; verbs: the routes; asking: whole questions; evidence, derivatives: what is
believed of the answers; clients: who drives the conversations; events: streams; errors: what can go wrong.
"""

from provenn.api.client.clients import AsyncClient, Client
from provenn.api.client.errors import JobFailed, RequestRefused, ServiceError, ServiceUnreachable, UnexpectedAnswer
from provenn.api.client.events import JobEvent
from provenn.api.client.verbs import Progress

__all__ = [
    "AsyncClient",
    "Client",
    "JobEvent",
    "JobFailed",
    "Progress",
    "RequestRefused",
    "ServiceError",
    "ServiceUnreachable",
    "UnexpectedAnswer",
]
