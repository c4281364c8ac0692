"""No cluster without a token: whoever reaches an open one may run anything on its nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from provenn.verifier.errors import ProvennError

KNOCK_SECONDS = 15.0
REFUSED = 10
# In a process of its own: ray reads the mode once, when it is imported, and a client without an answer never gives up.
KNOCK = f"""
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1])
except AuthenticationError:
    sys.exit({REFUSED})
"""
SPOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class ClusterRefused(ProvennError):
    """The cluster is not one to run on, and waiting will not change that: it is open to all, or not ours."""


class ClusterAway(ProvennError):
    """No cluster answers at the address, now."""


def environment(token_file: Path | None, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of a process that speaks to the cluster.   Raises: ClusterRefused if there is no token."""
    token = _token(token_file, base)
    if not token:
        raise ClusterRefused(
            "there is no token: give --token-file, RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN, the same as of the cluster's "
            "own processes, which need RAY_AUTH_MODE=token too"
        )
    kept = {name: value for name, value in base.items() if name not in SPOKEN}
    return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}


def _token(token_file: Path | None, base: Mapping[str, str]) -> str:
    if token_file is None and base.get("RAY_AUTH_TOKEN"):
        return base["RAY_AUTH_TOKEN"]
    named = token_file or base.get("RAY_AUTH_TOKEN_PATH")
    if not named:
        return ""
    try:
        return Path(named).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterRefused(f"the token in {named} cannot be read: {type(error).__name__}") from error


def require_authentication(address: str, variables: Mapping[str, str]) -> None:
    """Knocks without the token, which has to be refused, and with it, which has not.

    Whoever has a token is let in by a cluster without authentication too, so only knocking tells. It is enough to ask
    the head: a node without authentication cannot join one that has it.
    Raises: ClusterRefused; ClusterAway.
    """
    plain = {name: value for name, value in variables.items() if not name.startswith("RAY_")}
    if _knock(address, plain | {"RAY_AUTH_MODE": "disabled"}):
        raise ClusterRefused(
            f"the Ray cluster at {address} lets in whoever asks: start its processes with RAY_AUTH_MODE=token"
        )
    if not _knock(address, variables):
        raise ClusterRefused(f"the Ray cluster at {address} has another token")


def _knock(address: str, variables: Mapping[str, str]) -> bool:
    """Whether the cluster lets in.   Raises: ClusterAway."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", KNOCK, address],
            env=dict(variables),
            timeout=KNOCK_SECONDS,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterAway(f"no Ray cluster answers at {address}") from None
    if done.returncode not in (0, REFUSED):
        raise ClusterAway(f"no Ray cluster answers at {address}")
    return done.returncode == 0
