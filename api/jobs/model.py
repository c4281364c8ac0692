"""The life of a job, as a table: nothing here touches a database or a process."""

from __future__ import annotations

from enum import StrEnum

from provenn.verifier.errors import ProvennError

MAX_DEATHS = 3
"""Worker deaths after which a job is parked: the first run and two more."""
MAX_ATTEMPTS = 20
"""Attempts, whoever's fault their ends were."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before a job is tried again: doubled with every attempt."""


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self not in (State.QUEUED, State.RUNNING)


class Event(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    FINISH = "finish"
    FAIL = "fail"
    CANCEL = "cancel"
    TIME_OUT = "time_out"
    REQUEUE = "requeue"


MOVES: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIM): State.RUNNING,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.FINISH): State.SUCCEEDED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.TIME_OUT): State.TIMED_OUT,
    (State.RUNNING, Event.REQUEUE): State.QUEUED,
}


class IllegalTransition(ProvennError):
    """The job is in a state in which this cannot happen."""

    def __init__(self, state: State, event: Event) -> None:
        self.state = state.value
        super().__init__(f"a job that is {state} cannot {event}")


def transition(state: State, event: Event) -> State:
    """The next state.   Raises: IllegalTransition."""
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None


def delay(attempt: int) -> float:
    """Seconds to wait after the attempt with this number, which an infrastructure failure has ended."""
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (attempt - 1)))
