"""A place where one job runs at a time.

Its child stays for the next job if that is of the same project and network: what it has loaded is loaded then. Children
are never shared between projects.
"""

from __future__ import annotations

from dataclasses import dataclass

from provenn.api.jobs.child import NURSERY, Child, Nursery
from provenn.api.jobs.task import Limits, Nothing, Order, main
from provenn.api.settings import Settings
from provenn.api.tables import JobRow

TRIAL_SECONDS = 60.0
LONGEST = 200
"""Jobs of one child: whatever a library may leak is gone after so many."""


@dataclass
class Kept:
    """A child that waits, and what it has loaded."""

    child: Child
    project: str
    model: str
    jobs: int


class Slot:
    """nursery: where its children are born; limits: theirs."""

    def __init__(self, nursery: Nursery, limits: Limits) -> None:
        self._nursery, self._limits = nursery, limits
        self._kept: Kept | None = None

    def start(self, job: JobRow, order: Order) -> Child:
        """A child at work on the job."""
        kept = self._kept
        if kept is not None and (kept.project, kept.model) == (job.project_id, job.model_id) and kept.jobs < LONGEST:
            kept.jobs += 1
            if kept.child.give(order):
                return kept.child
        self.close()
        child = Child(main, self._limits, nursery=self._nursery)
        child.give(order)
        self._kept = Kept(child, job.project_id, job.model_id, 1)
        return child

    @property
    def pid(self) -> int | None:
        """The child that works or waits, if there is one."""
        return None if self._kept is None else self._kept.child.pid

    def warm_up(self) -> None:
        """Returns once a child has been born and has answered.   Raises: RuntimeError if none does."""
        child = Child(main, self._limits, nursery=self._nursery)
        child.give(Order(Nothing(), TRIAL_SECONDS))
        answered = "answer" in next(child.messages(), {})
        child.kill("it was a trial")
        code = child.close()
        if not answered:
            raise RuntimeError(f"no worker process can be started (exit code {code})")

    def release(self, clean: bool) -> None:
        """The job is over. clean: the child has answered, and nobody has killed it."""
        if not clean:
            self.close()

    def close(self) -> None:
        """Ends the child that waits, if one does."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            kept.child.kill("its slot needs it no longer")
            kept.child.close()


def slots_of(settings: Settings) -> list[Slot]:
    """`workers` of them; or on each GPU as many as shares of its memory fit, whose children see that GPU alone.

    CUDA_VISIBLE_DEVICES is in a GPU's forkserver from its start, before it imports torch.
    """
    if not settings.gpus:
        memory = settings.memory_limit_mb if settings.device == "cpu" else None
        return [Slot(NURSERY, Limits(settings.threads, memory)) for _ in range(settings.workers)]
    limits = Limits(settings.threads, None, settings.gpu_share)
    nurseries = [Nursery(CUDA_VISIBLE_DEVICES=str(gpu)) for gpu in settings.gpu_numbers]
    return [Slot(nursery, limits) for nursery in nurseries for _ in range(int(1 / settings.gpu_share))]
