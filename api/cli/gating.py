"""`provenn gate`, from the options to the exit code: read, run, write the reports, say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from provenn.api.cli import outcome
from provenn.api.cli.outcome import CannotWrite
from provenn.api.cli.progress import Bar, progress_bar
from provenn.api.cli.served import REFUSED
from provenn.api.client.errors import JobFailed, RequestRefused, ServiceUnreachable, UnexpectedAnswer
from provenn.api.gate.as_json import as_json as told
from provenn.api.gate.config import Config, find_config, read_config
from provenn.api.gate.extra import require_writer
from provenn.api.gate.junit import as_junit
from provenn.api.gate.markdown import as_markdown
from provenn.api.gate.report import WORDS, GateCode, Line, Report
from provenn.api.gate.run import How, Measurer
from provenn.api.gate.run import run as run_gate
from provenn.api.gate.sarif import as_sarif
from provenn.api.gate.thresholds import Outcome
from provenn.api.gate.writing import write
from provenn.verifier.errors import ResourceLimit

if TYPE_CHECKING:
    from provenn.api.client import Client

SUMMARY = "GITHUB_STEP_SUMMARY"
COLOURS = {Outcome.PASSED: "green", Outcome.FAILED: "red", Outcome.UNKNOWN: "yellow"}


@dataclass(frozen=True)
class Request:
    """The options as given."""

    config: Path | None
    update_baseline: bool
    recheck: bool
    junit: Path | None
    sarif: Path | None
    markdown: Path | None
    server: str | None


def run(request: Request, as_json: bool) -> int:
    """Prints the report and returns its code.   Raises: ProvennError for bad input, which is usage."""
    sys.excepthook = partial(_crashed, as_json)
    try:
        if request.junit is not None:
            require_writer("junitparser")
        if request.sarif is not None:
            require_writer("sarif_pydantic")
        config = read_config(request.config or find_config(Path()))
        with progress_bar() as bar, _measurer(request, config, bar) as measurer:
            how = How(request.update_baseline, request.recheck, request.server)
            report = run_gate(config, how, measurer)
    except (ServiceUnreachable, JobFailed, UnexpectedAnswer, CannotWrite) as failure:
        outcome.complain(failure, as_json)
        return GateCode.INFRASTRUCTURE
    except MemoryError:
        outcome.complain(ResourceLimit("memory", "this machine"), as_json)
        return GateCode.INFRASTRUCTURE
    except RequestRefused as refused:
        if refused.status not in REFUSED and refused.status < 500:
            raise
        outcome.complain(refused, as_json)
        return GateCode.INFRASTRUCTURE
    trouble = _written(request, report)
    said = told(report) | ({"error": outcome.described(trouble)} if trouble else {})
    outcome.show(said, _view(report), as_json)
    if trouble is None:
        return report.code
    outcome.complain(trouble, as_json=False)
    return GateCode.INFRASTRUCTURE


@contextmanager
def _measurer(request: Request, config: Config, bar: Bar) -> Iterator[Callable[[], Measurer]]:
    """Measures here, or by a service; loaded when a question has to be measured."""
    seed = config.gate.seed
    if request.server is None:
        yield lambda: _local(seed, bar)
        return
    from provenn.api.client import Client

    with Client(request.server) as client:
        yield lambda: _remote(client, seed, bar)


def _local(seed: int, bar: Bar) -> Measurer:
    from provenn.api.gate.local import Local

    return Local(seed, bar)


def _remote(client: Client, seed: int, bar: Bar) -> Measurer:
    from provenn.api.gate.remote import Remote

    return Remote(client, seed, bar)


def _written(request: Request, report: Report) -> CannotWrite | None:
    """Writes every report that is asked for: what could not be written."""
    formats = ((request.junit, as_junit), (request.sarif, as_sarif), (request.markdown, _markdown))
    try:
        for path, made in formats:
            if path is not None:
                write(path, made(report))
        summary = os.environ.get(SUMMARY)
        if summary:
            _append(Path(summary), _markdown(report))
    except CannotWrite as trouble:
        return trouble
    return None


def _markdown(report: Report) -> bytes:
    return as_markdown(report).encode()


def _append(path: Path, text: bytes) -> None:
    """Raises: CannotWrite."""
    try:
        with path.open("ab") as file:
            file.write(text)
    except OSError as error:
        raise CannotWrite(str(path), error) from error


def _view(report: Report) -> RenderableType:
    table = Table("", "model", "check", "needed", "measured", box=None, pad_edge=False)
    for line in report.lines:
        cells = (line.model, line.title, line.needed, line.measured)
        table.add_row(Text(WORDS[line.outcome], style=COLOURS[line.outcome]), *map(Text, cells))
    details = [text for line, parts in report.details for text in _details(line, parts)]
    notes = [Text(f"note: {note}") for note in report.notes]
    end = Text(f"{report.summary} ({report.seconds:.1f} s)", style=f"bold {COLOURS[report.outcome]}")
    return Group(table, Text(), *details, *notes, end)


def _details(line: Line, parts: Sequence[str]) -> list[Text]:
    return [Text(f"{line.model}: {line.title}"), *(Text(f"  {part}") for part in parts), Text()]


def _crashed(as_json: bool, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A sys.excepthook: our own mistake, or the machine's, is not a threshold that is not met."""
    outcome.internal(as_json, kind, error, trace)
    raise SystemExit(int(GateCode.INFRASTRUCTURE))
