"""The service's OpenAPI document, made once: it takes a second."""

from provenn.api.app import create_app
from provenn.api.settings import Settings

DOCUMENT = create_app(Settings()).openapi()
