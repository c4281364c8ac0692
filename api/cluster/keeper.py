"""The process that is always there: starts the placement again whenever it ends, after a look at the cluster's lock."""

from __future__ import annotations

import json
import logging
import select
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from provenn.api.cluster.authentication import ClusterAway, environment, require_authentication
from provenn.api.cluster.orders import Order

COMMAND = [sys.executable, "-m", "provenn.api.cluster.placement"]
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
LOOK_SECONDS = 0.2
STEADY_SECONDS = 60.0
"""A placement that has lasted so long was a good one: the next pause is the first again."""
log = logging.getLogger("provenn.place")


def keep(order: Order, token_file: Path | None, stop: int) -> int:
    """Until there is something to read from `stop`, a descriptor; an order to end the supervisors is tried once.

    What is placed stays: only who looks after it goes. Returns the exit code of the last placement, 0 for one stopped.
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
            code = place(order, variables, stop)
            if code is None or order.end:
                return code or 0
            log.warning("the placement has ended (%d); starting it again", code)
        if time.monotonic() - began > STEADY_SECONDS:
            pause = FIRST_PAUSE
        if select.select([stop], [], [], pause)[0]:
            return 0
        pause = min(2 * pause, LONGEST_PAUSE)


def place(order: Order, variables: dict[str, str], stop: int) -> int | None:
    """One placement, to its end, whose exit code it returns, or to ours: None."""
    with subprocess.Popen(COMMAND, env=variables, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(order)) + "\n")
        process.stdin.flush()
        while process.poll() is None:
            if select.select([stop], [], [], LOOK_SECONDS)[0]:
                process.kill()
                return None
        return process.returncode
