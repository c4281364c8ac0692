"""The process that is always there: starts the placement again whenever it ends, after a look at the cluster's lock."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from provenn.api.cluster.authentication import ClusterAway, environment, require_authentication
from provenn.api.cluster.orders import Order

COMMAND = [sys.executable, "-m", "provenn.api.cluster.placement"]
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
STEADY_SECONDS = 60.0
"""A placement that has lasted so long was a good one: the next pause is the first again."""
log = logging.getLogger("provenn.place")


def keep(order: Order, token_file: Path | None) -> int:
    """For ever, and whatever ends it ends no supervisor. An order to end these is tried once: its exit code.

    Raises: ClusterRefused, also later, if a new head has no authentication; ClusterAway, of an order to end.
    """
    pause = FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            variables = environment(token_file)
            require_authentication(order.address, variables)
        except ClusterAway as away:
            if order.end:
                raise
            log.warning("%s; trying again", away)
        else:
            code = place(order, variables)
            if order.end:
                return code
            log.warning("the placement has ended (%d); starting it again", code)
        if time.monotonic() - began > STEADY_SECONDS:
            pause = FIRST_PAUSE
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def place(order: Order, variables: dict[str, str]) -> int:
    """One placement to its end: its exit code. It ends with us, by the end of its standard input."""
    with subprocess.Popen(COMMAND, env=variables, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(order)) + "\n")
        process.stdin.flush()
        return process.wait()
