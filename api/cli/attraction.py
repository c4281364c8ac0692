"""`provenn stability`, from the options to the exit code: read, search, keep, draw, say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.certification import Options
from provenn.api.cli import artifacts, outcome
from provenn.api.cli.answers import COLOURS, MEANING
from provenn.api.cli.certifying import CODES
from provenn.api.cli.chart import require_drawable
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import progress_bar
from provenn.api.files import read_file
from provenn.api.stability import StabilityResult, read_conditions, stability
from provenn.api.statements import at_least, at_most
from provenn.models.specification.lyapunov import at_levels
from provenn.solvers.base import Verdict

DOCUMENT = "stability.json"


@dataclass(frozen=True)
class Request:
    """The options as given."""

    controller: Path
    spec: Path
    tolerance: Fraction
    out: Path | None
    plot: Path | None


def require_share(tolerance: float) -> Fraction:
    """Raises: BadParameter."""
    if not 0 < tolerance < 1:
        raise BadParameter(f"{tolerance} is no share; give a number between 0 and 1", param_hint="--tolerance")
    return Fraction(tolerance)


def run(request: Request, options: Options, as_json: bool) -> int:
    """Prints the answer and returns the verdict's code; INTERNAL if something could not be written."""
    if request.plot is not None:
        require_drawable(request.plot)
        if request.plot.suffix.lower() != ".png":
            raise BadParameter(f"{request.plot}: regions are drawn as FILE.png", param_hint="--plot")
    trouble = artifacts.prepared(request.out)
    with progress_bar() as bar:
        found = stability(read_conditions(request.spec, read_file(request.controller)), options, bar, request.tolerance)
    kept: dict[str, str | None] = dict.fromkeys(("certificate", "document", "counterexample_file", "plot"))
    try:
        kept |= _kept(request, found) if trouble is None else {}
    except CannotWrite as error:
        trouble = error
    said = as_object(found) | kept | ({"error": outcome.described(trouble)} if trouble else {})
    outcome.show(said, view(found, kept), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    stopped = found.interrupted and found.verdict != Verdict.VERIFIED
    return ExitCode.INTERRUPTED if stopped else CODES[found.verdict]


def _kept(request: Request, found: StabilityResult) -> dict[str, str | None]:
    """Writes what was asked for.   Raises: CannotWrite."""
    kept: dict[str, str | None] = {}
    if request.out is not None:
        if found.item.certificate is not None and found.level is not None:
            kept["certificate"] = artifacts.keep_certificate(request.out, found.item.certificate)
        if found.level is not None and found.inner is not None:
            folder = os.path.relpath(request.spec.parent.resolve(), request.out.resolve())
            document = at_levels(found.conditions.document, found.level, found.inner, folder)
            text = json.dumps(document, indent=2) + "\n"
            kept["document"] = artifacts.write(request.out / DOCUMENT, text.encode())
        if found.item.counterexample is not None:
            values = np.array(found.item.counterexample.input, dtype=np.float32)
            kept["counterexample_file"] = artifacts.write_array(request.out / "counterexample.npy", values)
    if request.plot is not None:
        from provenn.api.cli.region_png import png

        kept["plot"] = artifacts.write(request.plot, png(found, request.spec.name))
    return kept


def as_object(found: StabilityResult) -> dict[str, Any]:
    """The JSON object of docs/cli.md, but for what was written."""
    item = found.item
    return {
        "verdict": found.verdict,
        "level": None if found.level is None else float(found.level),
        "inner": None if found.inner is None else float(found.inner),
        "limit": found.limit if np.isfinite(found.limit) else None,
        "proved": found.words or None,
        "assurance": item.assurance,
        "method": item.method,
        "reason": item.reason,
        "counterexample": None if item.counterexample is None else _state(found),
        "attempts": [{"level": a.level, "verdict": a.verdict, "seconds": a.seconds} for a in found.attempts],
        "seconds": found.seconds,
        "interrupted": found.interrupted,
        "stats": item.stats,
    }


def _state(found: StabilityResult) -> dict[str, list[float]]:
    """Where a condition fails: the state, disturbances and errors there; V, its change, and f."""
    assert found.item.counterexample is not None
    point, output = found.item.counterexample.input, found.item.counterexample.output
    count = found.conditions.loop.states
    return {"state": point[:count], "others": point[count:], "V": output[:1], "change": output[1:2],
            "f": output[2 : 2 + count]}  # fmt: skip


def view(found: StabilityResult, kept: Mapping[str, str | None]) -> RenderableType:
    """The same for people; kept: paths of what was written."""
    item, table = found.item, Table.grid(padding=(0, 3))
    table.add_row("verdict", Text(found.verdict, style=f"bold {COLOURS[found.verdict]}"))
    if found.level is not None and found.inner is not None:
        limit = f" (no proof can reach {at_most(found.limit)})" if np.isfinite(found.limit) else ""
        table.add_row("region", f"V <= {at_least(found.level)}{limit}")
        table.add_row("small region", f"V <= {at_most(found.inner)}")
        table.add_row("proved", Text(found.words))
    if item.counterexample is not None:
        for name, numbers in _state(found).items():
            table.add_row(f"fails at: {name}" if name == "state" else name, ", ".join(f"{v:.6g}" for v in numbers))
    if item.assurance:
        table.add_row("assurance", f"{item.assurance}: {MEANING[item.assurance]}")
    if item.reason:
        table.add_row("reason", Text(item.reason))
    table.add_row("seconds", f"{found.seconds:.1f}")
    for name in ("certificate", "document", "counterexample_file", "plot"):
        if kept.get(name):
            table.add_row(name.replace("_", " "), Text(str(kept[name])))
    tried = Table("level", "verdict", "seconds", box=None, pad_edge=False)
    for each in found.attempts:
        tried.add_row(f"{each.level:.6g}", Text(each.verdict, style=COLOURS[each.verdict]), f"{each.seconds:.1f}")
    return Group(table, Text(), tried)
