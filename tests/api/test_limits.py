"""Rate limits: one key's, one address's, and those of wrong keys, which never keep a right one out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_kit import READ, Front, new_key, sqlite
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from provenn.api import windows
from provenn.api.limiting import WITH_KEYS, network
from provenn.api.problems import PREFIX
from provenn.api.settings import Settings

Make = Callable[..., Front]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Front] = []

    def front(**settings: Any) -> Front:
        made.append(Front(sqlite(tmp_path), **settings))
        return made[-1]

    yield front
    for each in made:
        each.close()


def limited(response: httpx.Response) -> dict[str, Any]:
    found = dict(response.json())
    assert (response.status_code, found["type"]) == (429, PREFIX + "too-many-requests"), found
    seconds = int(response.headers["retry-after"])
    assert 1 <= seconds <= 60
    assert found["retry_after"] == seconds
    assert found["limit"] in found["detail"]
    return found


def test_a_key_has_its_limit_wherever_it_is_used(make: Make) -> None:
    front = make(rate_limit="3/minute")
    one, two = (new_key(front.keys, "vision", READ) for _ in range(2))
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        assert front.ask("/", one, address).status_code == 200
    assert limited(front.ask("/", one, "192.0.2.4"))["limit"] == "3 per 1 minute"
    assert front.ask("/", two, "192.0.2.1").status_code == 200


def test_without_authentication_an_address_has_one(make: Make) -> None:
    front = make(authentication="none", rate_limit="2/minute")
    for _ in range(2):
        assert front.ask("/", address="192.0.2.1").status_code == 200
    limited(front.ask("/", address="192.0.2.1"))
    assert front.ask("/", address="192.0.2.2").status_code == 200


def test_what_needs_no_key_is_limited_by_address(make: Make) -> None:
    front = make(rate_limit="1/minute")
    assert front.ask("/healthz").status_code == 200
    limited(front.ask("/readyz"))
    assert front.ask("/", new_key(front.keys, "vision", READ)).status_code == 200


def test_wrong_keys_are_limited_and_right_ones_pass(make: Make) -> None:
    front = make(failed_limit="2/minute")
    right = new_key(front.keys, "vision", READ)
    statuses = [front.ask("/v1/models", wrong).status_code for wrong in (None, "wrong", right[:-1], f"{right}x")]
    assert statuses == [401, 401, 429, 429]
    limited(front.ask(f"/v1/models?key={right}"))
    assert front.ask("/v1/models", right).status_code == 200
    assert front.ask("/v1/models", "wrong", address="192.0.2.9").status_code == 401
    assert len(front.audit.page(100)) == 3  # nobody fills the database with what is refused


@pytest.mark.parametrize("uri", ["nowhere://", "memcached://127.0.0.1", "async+redis://127.0.0.1", ""])
def test_a_storage_has_moving_windows(uri: str) -> None:
    with pytest.raises(ValidationError, match="limit_storage"):
        Settings(limit_storage=uri)


@pytest.mark.parametrize("name", ["rate_limit", "failed_limit"])
def test_what_is_no_limit_is_refused_at_once(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: "many/moon"})  # type: ignore[arg-type]


def test_the_limit_by_itself_is_the_documented_one() -> None:
    assert WITH_KEYS in str(Settings.model_fields["rate_limit"].description)


Steps = st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["one", "two"])), max_size=60)


@given(Steps, st.integers(1, 5))
def test_no_window_has_more_than_its_limit(steps: list[tuple[float, str]], most: int) -> None:
    """Beside a plain list of what was let through: the next one is, exactly if fewer than `most` are in its minute."""
    now = 1e9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows.time, "time", lambda: now)
        limiter = windows.windows("memory://")
        assert windows.local(limiter)
        passed: dict[str, list[float]] = {"one": [], "two": []}
        for wait, key in steps:
            now += wait
            recent = [t for t in passed[key] if t > now - 60]
            let = limiter.hit(windows.limit(f"{most}/minute"), key)
            assert let == (len(recent) < most)
            if let:
                passed[key].append(now)
            stats = limiter.get_window_stats(windows.limit(f"{most}/minute"), key)
            assert stats.remaining == most - len(recent) - let
            assert stats.reset_time == (recent[0] if recent else now) + 60


def test_who_has_not_asked_for_long_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr(windows.time, "time", lambda: now)
    limiter = windows.windows("memory://")
    for number in range(100):
        limiter.hit(windows.limit("5/minute"), str(number))
    now += 61
    limiter.hit(windows.limit("5/minute"), "another")
    assert len(limiter.storage) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_networks(address: str, expected: str) -> None:
    assert network(address) == expected
