"""Posting to strangers' URLs: to public addresses alone, within a time, and reading nothing but the status."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from importlib.metadata import version

import httpcore
import httpx

from provenn.api.jobs.refusals import UnusableWebhook
from provenn.api.webhook_addresses import RefusedAddress, Resolver, addresses, system
from provenn.verifier.errors import ProvennError

SECONDS = 10.0
"""For one attempt, from looking the name up to the status of the answer."""


class NotDelivered(ProvennError):
    """A message has not arrived; the text says why."""


class Sender:
    """Posts to URLs of strangers. private: private addresses and plain http are allowed."""

    def __init__(self, private: bool, resolver: Resolver = system, trust: ssl.SSLContext | None = None) -> None:
        self._private, self._resolver = private, resolver
        self._trust = trust or httpx.create_ssl_context(trust_env=False)

    def require(self, url: str) -> None:
        """The URL may be a webhook's, as far as can be seen now.   Raises: UnusableWebhook."""
        host, port = _place(self._parsed(url))
        try:
            addresses(host, port, self._resolver, self._private)
        except (OSError, UnicodeError) as error:
            raise UnusableWebhook(f"the host {host!r} cannot be found: {error}") from error
        except RefusedAddress as error:
            raise UnusableWebhook(str(error)) from error

    def post(self, url: str, headers: dict[str, str], content: bytes) -> int:
        """The status of the answer, of which nothing else is read; redirects are not followed.

        Raises: NotDelivered; UnusableWebhook.
        """
        parsed = self._parsed(url)
        target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
        ours = {"Host": parsed.netloc.decode(), "User-Agent": f"provenn/{version('provenn')}"}
        sent = ours | {"Content-Type": "application/json"} | headers
        backend = _Guarded(self._resolver, self._private, time.monotonic() + SECONDS)
        try:
            with (
                httpcore.ConnectionPool(ssl_context=self._trust, network_backend=backend) as pool,
                pool.stream("POST", target, headers=_raw(sent), content=content) as response,
            ):
                return int(response.status)
        except httpcore.TimeoutException as error:
            raise NotDelivered(f"no answer within {SECONDS:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, RefusedAddress, OSError, UnicodeError) as error:
            raise NotDelivered(str(error) or type(error).__name__) from error

    def _parsed(self, url: str) -> httpx.URL:
        schemes = ("https", "http") if self._private else ("https",)
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UnusableWebhook(f"no URL: {error}") from error
        if parsed.scheme not in schemes or not parsed.host:
            raise UnusableWebhook(f"a webhook's URL begins with {' or '.join(schemes)} and a host")
        if parsed.port is not None and not 0 < parsed.port < 1 << 16:
            raise UnusableWebhook(f"there is no port {parsed.port}")
        if parsed.userinfo or parsed.fragment:
            raise UnusableWebhook("a webhook's URL has no user, password or fragment")
        return parsed


def _place(url: httpx.URL) -> tuple[str, int]:
    return url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]


class _Guarded(httpcore.NetworkBackend):
    """Connects to addresses that were looked at, and ends everything at `end` (a time.monotonic value)."""

    def __init__(self, resolver: Resolver, private: bool, end: float) -> None:
        self._resolver, self._private, self._end = resolver, private, end
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first of the host's addresses that answers.   Raises: RefusedAddress, OSError, httpcore's errors."""
        failed: httpcore.ConnectError | None = None
        for address in addresses(host, port, self._resolver, self._private):
            try:
                return _Timed(self._sockets.connect_tcp(address, port, left(self._end)), self._end)
            except httpcore.ConnectError as error:
                failed = error
        assert failed is not None
        raise failed


class _Timed(httpcore.NetworkStream):
    """A stream of which every step gets the time that is left."""

    def __init__(self, stream: httpcore.NetworkStream, end: float) -> None:
        self._stream, self._end = stream, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes.   Raises: httpcore.ReadTimeout."""
        return self._stream.read(max_bytes, left(self._end))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """All bytes.   Raises: httpcore.WriteTimeout."""
        self._stream.write(buffer, left(self._end))

    def close(self) -> None:
        """Ends it."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same, encrypted.   Raises: httpcore.ConnectError if the certificate is not the host's."""
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left(self._end)), self._end)

    def get_extra_info(self, info: str) -> object:
        """What the socket knows."""
        return self._stream.get_extra_info(info)


def left(end: float) -> float:
    """Seconds until then.   Raises: httpcore.ReadTimeout if there are none."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout
    return seconds
