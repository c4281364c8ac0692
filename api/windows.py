"""The moving windows of the `limits` package: what is a limit, and where it can be counted."""

from __future__ import annotations

import time
from collections import deque

from limits import RateLimitItem, parse
from limits.errors import ConfigurationError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

SWEEP_SECONDS = 60.0


class Here(MemoryStorage):
    """Windows in this process, for one thread: the times of a key's requests, oldest first.

    The package's own start a thread at a request, which visits every key, and never forget one: who has many addresses
    could make all requests slow. Here a key's window is cut when it is used, and once a minute empty ones are dropped.
    """

    STORAGE_SCHEME: list[str] = []  # noqa: RUF012 - as the base class has it; made by `windows` alone

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, deque[float]]] = {}
        self._swept_at = time.time()

    def __len__(self) -> int:
        return len(self._windows)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts `amount` more, unless the last `expiry` seconds would then have more than `limit`."""
        now = time.time()
        if now - self._swept_at > SWEEP_SECONDS:
            self._sweep(now)
        _, times = self._windows.setdefault(key, (expiry, deque()))
        _cut(times, now - expiry)
        if len(times) + amount > limit:
            return False
        times.extend([now] * amount)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest that counts was, and how many there are."""
        now = time.time()
        _, times = self._windows.get(key, (expiry, deque()))
        _cut(times, now - expiry)
        return (times[0] if times else now), len(times)

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        over = [key for key, (expiry, times) in self._windows.items() if not times or times[-1] <= now - expiry]
        for key in over:
            del self._windows[key]


def limit(text: str) -> RateLimitItem:
    """As 600/minute.   Raises: ValueError."""
    return parse(text)


def windows(uri: str) -> MovingWindowRateLimiter:
    """Windows in the storage with this URI, which is not asked for anything yet.   Raises: ValueError."""
    if uri == "memory://":
        return MovingWindowRateLimiter(Here())
    try:
        return MovingWindowRateLimiter(storage_from_string(uri, wrap_exceptions=True))
    except (ConfigurationError, NotImplementedError) as error:
        raise ValueError(f"it can hold no limits: {error}") from error


def local(found: MovingWindowRateLimiter) -> bool:
    """Whether they are in this process alone."""
    return isinstance(found.storage, Here)


def _cut(times: deque[float], until: float) -> None:
    while times and times[0] <= until:
        times.popleft()
