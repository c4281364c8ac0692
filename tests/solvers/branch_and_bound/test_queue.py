"""The queue gives back what it was given, smallest margin first, from memory and from disk, whatever happens."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_kit import interrupted_at

from provenn.solvers.branch_and_bound import queue as source
from provenn.solvers.branch_and_bound.archive import BLOCK
from provenn.solvers.branch_and_bound.queue import Domains, Queue
from provenn.verifier.errors import BackendError

MARGINS = st.lists(st.floats(-9, 9, width=32) | st.just(float("nan")), min_size=1, max_size=40)


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


def ids(queue: Queue) -> list[int]:
    """Of all rows, in the order in which they are written."""
    return [i for block in queue.blocks() for i in block["id"].tolist()]


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
        assert sorted(ids(queue)) == list(pushed)
        while len(queue):
            part = queue.take(count)
            assert 1 <= len(part) <= count
            for i, margin, box, path in zip(
                part["id"].tolist(), part["margin"], part["box"], part["path"], strict=True
            ):
                assert (pushed[i] == margin.item() or pushed[i] != pushed[i]) and (box == i).all()
                assert path[0] == i and ((path == i) | (path == -1)).all()
            found += part["id"].tolist()
            queue.done()
    assert sorted(found) == list(pushed)


def test_the_smallest_margin_comes_first_and_ties_in_order_of_arrival() -> None:
    queue = Queue()
    queue.push(domains([3.0, 1.0, 2.0], 0))
    queue.push(domains([1.0, -5.0], 3))
    assert queue.lowest == -5.0
    first = queue.take(2)["id"]
    queue.done()
    assert torch.cat([first, queue.take(9)["id"]]).tolist() == [4, 1, 3, 2, 0]
    queue.done()
    assert queue.lowest == float("inf") and ids(queue) == []


def test_what_is_taken_stays_until_it_is_done() -> None:
    queue = Queue()
    queue.push(domains([3.0, 1.0, 2.0], 0))
    assert queue.take(2)["id"].tolist() == [1, 2]
    assert (len(queue), queue.lowest, ids(queue)) == (3, 1.0, [1, 2, 0])
    queue.push(domains([5.0], 3))
    queue.done()
    assert (len(queue), queue.lowest, ids(queue)) == (2, 3.0, [0, 3])


def test_a_margin_that_is_no_number_bounds_nothing() -> None:
    queue = Queue()
    queue.push(domains([1.0, float("nan"), -3.0], 0))
    assert queue.lowest == -float("inf") and queue.take(1)["id"].tolist() == [1]


def test_a_spilled_queue_knows_its_lowest_margin() -> None:
    with Queue(memory=1e-4) as queue:
        for margin in range(50):
            queue.push(domains([50.0 - margin], margin))
        assert len(queue) == 50 and queue.lowest == 1.0


def test_rows_of_different_depth_are_joined_with_padding() -> None:
    queue = Queue()
    queue.push(domains([1.0], 5, 1))
    queue.push(domains([2.0], 6, 3))
    (both,) = queue.blocks()
    assert both["path"].tolist() == [[5, -1, -1], [6, 6, 6]]
    assert both["beta"].tolist() == [[5.0, 0.0, 0.0], [6.0, 6.0, 6.0]]


@pytest.mark.parametrize("memory", [4.0, 1000.0])
def test_all_rows_are_never_in_memory_together(memory: float) -> None:
    """32 MiB of rows, read a few MiB at a time from memory and from disk."""
    with Queue(memory) as queue:
        for first in range(0, 256, 8):
            rows = torch.arange(first, first + 8)
            queue.push(Domains({"id": rows, "margin": rows.float(), "row": torch.zeros(8, 1 << 15)}))
        sizes = [sum(values.nbytes for values in block.fields.values()) for block in queue.blocks()]
        assert sum(sizes) >= 32 * 2**20 and max(sizes) <= BLOCK * 2**20
        assert sorted(ids(queue)) == list(range(256))


def spilled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Queue, Path]:
    """A queue of 8 rows, and the file in which 4 of them are."""
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    queue = Queue(memory=4e-4)
    queue.push(domains([float(i) for i in range(8)], 0))
    (path,) = folder.glob("*/*.parts")
    assert sorted(ids(queue)) == list(range(8))
    return queue, path


def test_no_damage_of_a_file_loses_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte in turn: either it does not matter, or the queue says that it cannot go on."""
    queue, path = spilled(tmp_path, monkeypatch)
    with queue:
        whole, refused = path.read_bytes(), 0
        damaged = [whole[:i] + bytes([whole[i] ^ 0x41]) + whole[i + 1 :] for i in range(len(whole))]
        for content in [*damaged, *(whole[:i] for i in range(0, len(whole), 7))]:
            path.write_bytes(content)
            try:
                assert sorted(ids(queue)) == list(range(8))
            except BackendError as error:
                assert "cannot be read again" in str(error)
                refused += 1
        assert refused > len(whole) / 2
        path.unlink()
        queue.take(4)
        queue.done()
        for _ in range(2):
            with pytest.raises(BackendError, match="cannot be read again"):
                queue.take(4)
        assert len(queue) == 4
        path.write_bytes(whole)
        assert queue.take(4)["id"].tolist() == [4, 5, 6, 7]


def test_a_file_with_other_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, path = spilled(tmp_path, monkeypatch)
    with queue:
        fewer = Queue(memory=5e-5)
        fewer.push(domains([8.0, 9.0], 8))
        (other,) = (file for file in tmp_path.glob("*/*.parts") if file != path)
        path.write_bytes(other.read_bytes())
        with fewer, pytest.raises(BackendError, match="1 parts instead of 4"):
            ids(queue)


@pytest.mark.parametrize("memory", [4e-4, 1.0])
def test_an_interrupt_at_any_line_loses_no_row(memory: float) -> None:
    """Parts are taken, two come of every other one, as in a search; what must be there is there wherever it ends."""
    line = 0
    while True:
        line += 1
        needed: set[int] = set()
        with Queue(memory) as queue:
            try:
                with interrupted_at(line, source.__file__):
                    needed = run(queue, needed)
                break
            except KeyboardInterrupt:
                assert needed <= set(ids(queue)), line
                assert all(block["path"].shape == block["beta"].shape for block in queue.blocks())
    assert line > 100


def run(queue: Queue, needed: set[int]) -> set[int]:
    """Changes `needed` to what must be in the queue: before that itself where rows go, after it where they come."""
    queue.push(domains([float(i) for i in range(6)], 0))
    needed |= set(range(6))
    for first in range(6, 14, 4):
        taken = queue.take(3)["id"].tolist()
        queue.push(domains([7.0 + first] * 4, first, first))
        needed |= set(range(first, first + 4))
        needed -= set(taken)
        queue.done()
    while len(queue):
        needed -= set(queue.take(3)["id"].tolist())
        queue.done()
    return needed


def test_where_the_disk_is_full_rows_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    with Queue(memory=4e-4) as queue:
        try:
            for first in range(0, 40, 8):
                queue.push(domains([float(i) for i in range(8)], first))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert sorted(ids(queue)) == list(range(40))
        assert list(tmp_path.glob("*/*")) == []


GROWING = """
import resource, torch
from pathlib import Path
from provenn.solvers.branch_and_bound.queue import Domains, Queue
queue, pushed = Queue(), 0
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
try:
    while True:
        rows = torch.arange(pushed, pushed + 64)
        queue.push(Domains({"id": rows, "margin": rows.float(), "row": rows[:, None].expand(64, 4096)}))
        pushed += 64
except (RuntimeError, MemoryError) as error:
    print(error)
found = [i for block in queue.blocks() for i in block["id"].tolist()]
assert len(queue) == pushed > 64 and found == list(range(pushed)), (len(queue), pushed, len(found))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="the system limits no memory")
def test_a_queue_whose_memory_runs_out_still_has_its_rows() -> None:
    ran = subprocess.run([sys.executable, "-c", GROWING], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "") and "memory" in ran.stdout
