"""One way of splitting one case: its parts, worst bound first, until none is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from provenn.solvers.attack import Replayed
from provenn.solvers.branch_and_bound.kept import Kept
from provenn.solvers.branch_and_bound.queue import Queue
from provenn.solvers.branch_and_bound.space import Expanded, Over, Space
from provenn.solvers.branch_and_bound.state import State, Tally


@dataclass(eq=False)
class Descent:
    """way: its name; attack: an unsafe point near those that bounds point at, if the executor confirms one; over:
    whether the time has ended. Whatever interrupts it, what is open is in the queue, and can be saved.
    """

    way: str
    space: Space
    queue: Queue
    tally: Tally
    attack: Callable[[Expanded], Replayed | None]
    over: Over
    kept: Kept | None

    def begin(self, saved: State | None, device: torch.device) -> Replayed | None:
        """From the whole region, or from where a search was saved; an unsafe point that the executor confirms."""
        if saved is not None:
            self.space.least = saved.least
            for block in saved.open:
                self.queue.push(block.to(device))
            return None
        new = self.space.start(self.over)
        found = self.attack(new)
        self._take_in(new, -float("inf"))
        self.tally.closed = new.closed
        return found

    def run(self, gives_way: Callable[[], bool], report: Callable[[], None]) -> Replayed | None:
        """Until nothing is open, the executor confirms an unsafe point, the time has ended or it gives way.

        What is open is saved now and then, where it is kept.
        """
        while len(self.queue) and not (self.over() or gives_way()):
            found = self._step()
            if found is not None:
                return found
            report()
            if self.kept is not None and self.kept.due:
                self.save()
        return None

    def save(self) -> None:
        """Puts it into its file, where it has one."""
        if self.kept is not None:
            self.kept.save(State(self.way, self.space.record, self.tally, self.space.least, self.queue.blocks()))

    def _step(self) -> Replayed | None:
        """Expands the worst parts, which stay in the queue until all that is left of them is there too."""
        record = self.space.record
        parts, mark, whole = self.queue.take(self.space.batch), record.mark(), False
        try:
            new = self.space.expand(parts, self.over)
            found = self.attack(new)
            whole = True
        finally:
            if not whole:
                record.back_to(mark)
        self._take_in(new, float(parts["margin"].nan_to_num(nan=-torch.inf).min()))
        self.queue.done()
        # Last: what is counted as decided has left the queue.
        self.tally.closed += new.closed
        self.tally.domains += len(parts)
        return found

    def _take_in(self, new: Expanded, lowest: float) -> None:
        """Queues what is open, counts what is stuck; lowest: a bound of what it came from."""
        if new.stuck:
            self.tally.lowest = min(self.tally.lowest, lowest)
            self.tally.stuck += new.stuck
        if new.domains is not None:
            self.queue.push(new.domains)
