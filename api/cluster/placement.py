"""Keeps one supervisor on every node of a Ray cluster: a detached, named actor a node, looked up and placed in a loop.

Always a process of its own: ray ends its driver, from C++, when the head stays away or comes back empty, and reads
RAY_AUTH_MODE once, at import. `keeper` starts it again. It gets one order on its standard input, and ends with it.

Ray only places processes: no retries, no restarts, no results. What a lost supervisor was doing is found again in the
database, whose leases expire.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from provenn.api.cluster.actor import NodeSupervisor
from provenn.api.cluster.orders import Order

NAMESPACE, PREFIX = "provenn", "supervisor-"
ANSWER_SECONDS = 10.0
THREADS = 4
GOOD = ("starting", "ready", "draining")
log = logging.getLogger("provenn.place")


class Placement:
    """One supervisor a living node that has room for it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._actor = ray.remote(NodeSupervisor)
        self._said: dict[str, str] = {}

    def once(self) -> None:
        """Looks every supervisor up, or places it; replaces one that cannot work any more."""
        actors = {node["NodeID"]: self._supervisor(node) for node in _nodes() if self._has_room(node)}
        asked = {actor.status.remote(): node for node, actor in actors.items()}
        answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
        for reference in late:
            self._say(asked[reference], "does not answer yet")
        for reference in answered:
            node = asked[reference]
            try:
                status = ray.get(reference)
            except RayError as problem:
                self._say(node, f"does not answer: {_reason(problem)}")
                continue
            self._say(node, f"{status['status']}: {status['id']} on {status['host']}, process {status['pid']}")
            if status["status"] not in GOOD:
                ray.kill(actors[node], no_restart=True)

    def end(self) -> None:
        """Drains every supervisor, all at a time, and ends it."""
        actors = [self._actor_of(node["NodeID"]) for node in _nodes() if node["Alive"]]
        found = [actor for actor in actors if actor is not None]
        for actor, done in [(actor, actor.drain.remote()) for actor in found]:
            try:
                ray.get(done)
            except RayError as problem:
                log.warning("a supervisor was not drained: %s", _reason(problem))
            ray.kill(actor, no_restart=True)
        log.warning("ended %d supervisors", len(found))

    def _has_room(self, node: dict[str, Any]) -> bool:
        cpus, gpus = self._share(node)
        return bool(node["Alive"]) and 0 < cpus <= node["Resources"].get("CPU", 0) and gpus <= _gpus(node)

    def _share(self, node: dict[str, Any]) -> tuple[float, float]:
        """CPUs and GPUs of a supervisor there."""
        cpus, gpus = self._order.cpus, self._order.gpus
        return node["Resources"].get("CPU", 0) if cpus is None else cpus, _gpus(node) if gpus is None else gpus

    def _supervisor(self, node: dict[str, Any]) -> Any:
        """The actor of this node, which is there or will be: two placements agree by its name."""
        cpus, gpus = self._share(node)
        options = self._actor.options(
            name=PREFIX + node["NodeID"],
            get_if_exists=True,
            lifetime="detached",
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=THREADS,
            num_cpus=cpus,
            num_gpus=gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        )
        return options.remote(self._order.settings, cpus, gpus)

    def _actor_of(self, node: str) -> Any:
        try:
            return ray.get_actor(PREFIX + node, namespace=NAMESPACE)
        except ValueError:
            return None

    def _say(self, node: str, what: str) -> None:
        """Only what is new."""
        if self._said.get(node) != what:
            self._said[node] = what
            log.warning("node %s: %s", node[:12], what)


def _nodes() -> list[dict[str, Any]]:
    """All that have ever been, in Ray's words."""
    return list(ray.nodes())  # type: ignore[no-untyped-call]


def _gpus(node: dict[str, Any]) -> float:
    return float(node["Resources"].get("GPU", 0))


def _reason(problem: RayError) -> str:
    """The last line of what may be a long report."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[-1].strip()


def _end_with(parent: Any) -> None:
    """The parent holds the other end of standard input until it is gone."""
    parent.read()
    os._exit(0)


def main() -> None:
    """Fulfils one order, for ever, or ends the supervisors."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    order = Order(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with, args=[sys.stdin], daemon=True).start()
    ray.init(address=order.address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    placement = Placement(order)
    if order.end:
        placement.end()
        return
    while True:
        placement.once()
        time.sleep(order.seconds)


if __name__ == "__main__":
    main()
