"""How often somebody may ask: moving windows, one a key, or one a network where there is no key."""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, ip_address, ip_network

from fastapi.concurrency import run_in_threadpool
from limits import RateLimitItem
from limits.errors import StorageError

from provenn.api.problems import UNAVAILABLE, Kind, problem
from provenn.api.settings import Settings
from provenn.api.windows import limit, local, windows

TOO_MANY = Kind("too-many-requests", 429, "Too many requests")
WITH_KEYS = "6000/minute"
"""Of one key, unless the settings say otherwise; without authentication there is no limit by itself."""


class Limits:
    """Counts in this process alone, unless the settings name a storage that several share."""

    def __init__(self, settings: Settings) -> None:
        self._windows = windows(settings.limit_storage)
        self._local = local(self._windows)
        rate = settings.rate_limit or (WITH_KEYS if settings.authentication == "keys" else None)
        self._rate = None if rate is None else limit(rate)
        self._failures = limit(settings.failed_limit)

    async def count_key(self, key: str) -> None:
        """One more request of a key.   Raises: a problem (429), if that is too many."""
        if self._rate is not None:
            await self._hit(self._rate, "key", key, "requests")

    async def count_address(self, address: str) -> None:
        """One more request that needs no key.   Raises: a problem (429), if that is too many."""
        if self._rate is not None:
            await self._hit(self._rate, "address", network(address), "requests")

    async def count_failure(self, address: str) -> None:
        """One more request that had no valid key.   Raises: a problem (429), if that is too many."""
        await self._hit(self._failures, "failures", network(address), "requests without a valid key")

    async def _hit(self, most: RateLimitItem, kind: str, who: str, what: str) -> None:
        if self._local:
            retry = self._take(most, kind, who)  # some microseconds: a thread would cost more
        else:
            try:
                retry = await run_in_threadpool(self._take, most, kind, who)
            except StorageError as error:
                raise problem(UNAVAILABLE, "the storage of the rate limits does not answer") from error
        if retry is not None:
            detail = f"too many {what}: the limit is {most}; try again in {retry} s"
            raise problem(TOO_MANY, detail, headers={"Retry-After": str(retry)}, limit=str(most), retry_after=retry)

    def _take(self, most: RateLimitItem, kind: str, who: str) -> int | None:
        """Seconds to wait, if the limit is reached."""
        if self._windows.hit(most, kind, who):
            return None
        return max(1, math.ceil(self._windows.get_window_stats(most, kind, who).reset_time - time.time()))


def network(address: str) -> str:
    """An IPv6 address stands for its /64, which is what one subscriber has."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address
