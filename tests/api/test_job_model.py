"""The life of a job: every event in every state."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenn.api.jobs.model import LONGEST_DELAY, MOVES, Event, IllegalTransition, State, delay, transition


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_move_is_in_the_table_or_refused(state: State, event: Event) -> None:
    if (state, event) in MOVES:
        assert transition(state, event) is MOVES[state, event]
    else:
        with pytest.raises(IllegalTransition, match=state):
            transition(state, event)


@given(st.lists(st.sampled_from(Event)))
def test_nothing_leaves_a_final_state(events: list[Event]) -> None:
    state = State.QUEUED
    for event in events:
        before = state
        try:
            state = transition(state, event)
        except IllegalTransition:
            continue
        assert not before.final


def test_every_state_is_reached() -> None:
    assert {State.QUEUED, *MOVES.values()} == set(State)


def test_delays_double_up_to_the_longest() -> None:
    delays = [delay(attempt) for attempt in range(1, 30)]
    assert all(later == min(2 * earlier, LONGEST_DELAY) for earlier, later in pairwise(delays))
    assert delays[-1] == LONGEST_DELAY
