"""Which addresses a webhook may reach: those of the public internet, however they are written.

A name is resolved once and the connection goes to the address that was looked at, so that it cannot be another by then.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from provenn.verifier.errors import ProvennError

Resolver = Callable[[str, int], Sequence[str]]
"""resolver(host, port): its addresses.   Raises: OSError."""
UNICAST = IPv6Network("2000::/3")
TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator: the last 32 bits (RFC 6052)."""
TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))
"""Teredo and 6to4 lead to IPv4 addresses that they hold; nobody serves anything there."""

CLOUDS = (IPv4Network("168.63.129.16/32"), IPv4Network("192.0.0.0/24"))
"""Services of the machine's own cloud, Azure's and Oracle's, on addresses that count as global."""


class RefusedAddress(ProvennError):
    """A host leads, or may lead, into a network that is not public."""


def system(host: str, port: int) -> Sequence[str]:
    """What this machine's resolver says, which reads 127.1, 0x7f000001 and 2130706433 as one address."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def public(text: str) -> bool:
    """Whether an address belongs to the public internet, and so does any IPv4 address within it."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return _public(address.ipv4_mapped)
        if address in TRANSLATED:
            return _public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address in UNICAST and not any(address in tunnel for tunnel in TUNNELS) and _public(address)
    return _public(address)


def _public(address: IPv4Address | IPv6Address) -> bool:
    here = isinstance(address, IPv4Address) and any(address in cloud for cloud in CLOUDS)
    return address.is_global and not (address.is_multicast or address.is_reserved or here)


def addresses(host: str, port: int, resolver: Resolver, private: bool) -> Sequence[str]:
    """Where the host is.   Raises: OSError if it is nowhere; RefusedAddress if any of it is not public."""
    found = list(dict.fromkeys(resolver(host, port)))
    if not found:
        raise OSError(f"{host} has no address")
    if not private and not all(public(address) for address in found):
        raise RefusedAddress(f"{host} is not, or not only, on the public internet (PROVENN_WEBHOOK_PRIVATE)")
    return found
