"""The queue gives back what it was given, smallest margin first, from memory and from disk."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.solvers.branch_and_bound.queue import Domains, Queue, joined

MARGINS = st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=40)


def domains(margins: list[float], first: int, width: int = 2) -> Domains:
    count = len(margins)
    ids = torch.arange(first, first + count)
    return Domains(
        {
            "id": ids,
            "margin": torch.tensor(margins),
            "box": ids[:, None, None].float().expand(count, 2, 3),
            "path": ids[:, None].expand(count, width),
            "beta": ids[:, None].float().expand(count, width),
        }
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(MARGINS, min_size=1, max_size=6), st.integers(1, 7), st.sampled_from([1e-4, 2e-3, 1.0]))
def test_all_rows_come_back_once_and_whole(groups: list[list[float]], count: int, memory: float) -> None:
    pushed: dict[int, float] = {}
    found: list[int] = []
    with Queue(memory) as queue:
        for width, margins in enumerate(groups, start=1):
            queue.push(domains(margins, len(pushed), width))
            pushed |= {len(pushed) + i: torch.tensor(m).item() for i, m in enumerate(margins)}
        assert len(queue) == len(pushed)
        everything = queue.everything()
        assert everything is not None and sorted(everything["id"].tolist()) == list(pushed)
        while len(queue):
            part = queue.pop(count)
            assert 1 <= len(part) <= count
            for i, margin, box, path in zip(
                part["id"].tolist(), part["margin"], part["box"], part["path"], strict=True
            ):
                assert pushed[i] == margin.item() and (box == i).all()
                assert path[0] == i and ((path == i) | (path == -1)).all()
            found += part["id"].tolist()
    assert sorted(found) == list(pushed)


def test_the_smallest_margin_comes_first_and_ties_in_order_of_arrival() -> None:
    queue = Queue()
    queue.push(domains([3.0, 1.0, 2.0], 0))
    queue.push(domains([1.0, -5.0], 3))
    assert queue.lowest == -5.0
    assert torch.cat([queue.pop(2)["id"], queue.pop(9)["id"]]).tolist() == [4, 1, 3, 2, 0]
    assert queue.lowest == float("inf") and queue.everything() is None


def test_a_spilled_queue_knows_its_lowest_margin() -> None:
    with Queue(memory=1e-4) as queue:
        for margin in range(50):
            queue.push(domains([50.0 - margin], margin))
        assert len(queue) == 50 and queue.lowest == 1.0


def test_rows_of_different_depth_are_joined_with_padding() -> None:
    both = joined([domains([1.0], 5, 1), domains([2.0], 6, 3)])
    assert both["path"].tolist() == [[5, -1, -1], [6, 6, 6]]
    assert both["beta"].tolist() == [[5.0, 0.0, 0.0], [6.0, 6.0, 6.0]]
