"""Whom a listening address lets in: light, so that a refusal comes before anything heavy is imported."""

from __future__ import annotations

from ipaddress import ip_address

from provenn.api.settings import Settings
from provenn.verifier.errors import ProvennError


class PublicWithoutAuthentication(ProvennError):
    """The service would be open to whoever reaches its address."""


def require_authentication(settings: Settings) -> None:
    """Raises: PublicWithoutAuthentication if others than this machine could use the service without a key."""
    if settings.authentication == "keys" or settings.public_without_authentication or _is_loopback(settings.host):
        return
    raise PublicWithoutAuthentication(
        f"whoever reaches {settings.host} could use the service: set PROVENN_AUTHENTICATION=keys and make a key with "
        "`provenn keys create`, or listen on 127.0.0.1"
    )


def is_address(name: str) -> bool:
    """Whether it is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)
