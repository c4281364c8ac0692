"""How a child says how far it is."""

from __future__ import annotations

import math
import time

from provenn.api.jobs.child import Reporter
from provenn.api.jobs.narrowing import Narrowing
from provenn.solvers.base import Phase, Progress

SECONDS = 0.25
"""Between two reports, at least."""


def told(reporter: Reporter, first: int, items: int, narrowing: Narrowing | None = None) -> Progress:
    """Reports over the whole job, at most every SECONDS, but for bounds of outputs, if there are any to be reported."""
    last = -math.inf

    def progress(done: int, total: int, phase: str) -> None:
        nonlocal last
        narrowed = narrowing is not None and narrowing.go_on()
        if narrowed or time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            said = phase if isinstance(phase, Phase) else Phase(phase)
            bound = said.bound if said.bound is not None and math.isfinite(said.bound) else None
            step = {"done": first + done, "total": max(items, total), "phase": said[:2000]}
            step |= {"bound": bound, "domains": said.domains, "share": float(said.share)}
            step["bounds"] = None if narrowing is None else narrowing.found
            reporter.send({"progress": step})

    return progress
