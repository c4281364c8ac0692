"""A search that was left off, continued by several, and put together again as if one had gone on with it.

What is open is dealt out; every part goes on from a record of its own, which numbers new parts of the region from
where the whole record ended. Joined, those numbers are shifted apart. Nothing here is trusted: a proof is made from
the joined record, and checked, like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch

from provenn.solvers.branch_and_bound.queue import Domains
from provenn.solvers.branch_and_bound.state import State, Tally, names


def divide(source: Path, targets: Sequence[Path]) -> int:
    """Deals the open parts of the search in `source` out to new files, every one its share; says how many are open.

    Each file gets every len(targets)-th open part, easy and hard ones alike.   Raises: BackendError, OSError.
    """
    network, key = names(source)
    for number, target in enumerate(targets):
        whole = State.load(source, network, key)
        own = State(whole.way, whole.record.continued(), Tally(), whole.least, _dealt(whole, number, len(targets)))
        own.save(target, network, key)
    return sum(len(block) for block in State.load(source, network, key).open)


def join(source: Path, parts: Sequence[Path], target: Path) -> None:
    """What the parts have done, in one search: `source` is the file that was divided.

    What is open in any of them is open; nothing else is. `target` is none of them.   Raises: BackendError, OSError.
    """
    network, key = names(source)
    whole = State.load(source, network, key)
    found = [State.load(part, network, key) for part in parts]
    since = whole.record.end
    opened = [_shifted(state, since, whole.record.take_in(state.record, since)) for state in found]
    tally = Tally(
        domains=whole.tally.domains + sum(s.tally.domains for s in found),
        discarded=whole.tally.discarded + sum(s.tally.discarded for s in found),
        stuck=whole.tally.stuck + sum(s.tally.stuck for s in found),
        lowest=min(s.tally.lowest for s in (whole, *found)),
        closed=whole.tally.closed + sum(s.tally.closed for s in found),
    )
    least = min(s.least for s in (whole, *found))
    State(whole.way, whole.record, tally, least, chain.from_iterable(opened)).save(target, network, key)


def _dealt(state: State, number: int, count: int) -> Iterator[Domains]:
    """Every count-th open part, from the number-th on."""
    first = number
    for block in state.open:
        mine = torch.arange(len(block))[first::count]
        if len(mine):
            yield block.select(mine)
        first = (first - len(block)) % count


def _shifted(state: State, since: int, by: int) -> Iterator[Domains]:
    """The open parts under the numbers that they have in the whole record."""
    for block in state.open:
        ids = block["id"]
        yield block.replaced(id=torch.where(ids >= since, ids + by, ids))
