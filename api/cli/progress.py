"""A progress bar on stderr for what takes longer than two seconds; nothing in a log or a pipe."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from provenn.api.cli.outcome import console

PATIENCE_SECONDS = 2.0


class Bar:
    """Callable as provenn.solvers.base.Progress: bar(done, total, phase)."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading the model", total=None)
        self.offset, self.total = 0, 0

    def __call__(self, done: int, total: int, phase: str) -> None:
        """Moves the bar; where the work is done in parts, `offset` items came before and `total` is over all."""
        self._progress.update(self._task, completed=self.offset + done, total=max(self.total, total), description=phase)


@contextmanager
def progress_bar(remaining: bool = False) -> Iterator[Bar]:
    """A bar that appears after PATIENCE_SECONDS, and only on a terminal; remaining: with the time that is left."""
    screen = console(stderr=True)
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    columns += [TextColumn("left"), TimeRemainingColumn()] if remaining else []
    progress = Progress(*columns, console=screen, transient=True)
    timer = threading.Timer(PATIENCE_SECONDS, progress.start)
    timer.daemon = True
    if screen.is_terminal:
        timer.start()
    try:
        yield Bar(progress)
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        if progress.live.is_started:
            progress.stop()
