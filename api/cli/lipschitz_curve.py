"""The answer of `provenn lipschitz` for several radii or points: certificates as they come, table, object, plot."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from provenn.api.cli import artifacts, outcome
from provenn.api.cli.answers import COLOURS, MEANING
from provenn.api.cli.certifying import CODES
from provenn.api.cli.chart import drawn
from provenn.api.cli.lipschitz_plot import NONE, SPREAD, chart, lower_text, upper_text
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.lipschitz import LipschitzResult
from provenn.api.lipschitz_curve import CurveBound, LipschitzCurve
from provenn.api.statements import DISTANCE, named
from provenn.solvers.base import Verdict
from provenn.verifier.errors import ProvennError

PLACE = re.compile(r"point-\d{3,}/radius-\d+/certificate\.zip", re.ASCII)
SHOWN = 3


class Files:
    """What one run writes below `folder`: each certificate as soon as it is checked, then the curve.

    After the first file that cannot be written there are no more; `trouble` is why.
    """

    def __init__(self, folder: Path | None, trouble: ProvennError | None) -> None:
        self.folder, self.trouble = folder, trouble
        self.certificates: dict[tuple[int, int], str] = {}
        if folder is not None and trouble is None:
            self._clear(folder)

    def keep(self, point: int, radius: int, result: LipschitzResult) -> LipschitzResult:
        """Writes the certificate; returns the result without it, so that memory does not hold them all."""
        if self.folder is not None and result.certificate is not None and self.trouble is None:
            place = self.folder / f"point-{point:03d}" / f"radius-{radius}"
            try:
                artifacts.prepare(place)
                self.certificates[point, radius] = artifacts.keep_certificate(place, result.certificate)
            except CannotWrite as error:
                self.trouble = error
        return replace(result, certificate=None)

    def write(self, path: Path, data: bytes) -> str | None:
        """Where it was written."""
        if isinstance(self.trouble, CannotWrite) and self.folder in path.parents:
            return None
        try:
            return artifacts.write(path, data)
        except CannotWrite as error:
            self.trouble = self.trouble or error
            return None

    def _clear(self, folder: Path) -> None:
        """Removes what an earlier run left there under our names."""
        try:
            for path in [folder / "curve.json", *folder.glob("point-*/radius-*/certificate.zip")]:
                if path.name == "curve.json" or PLACE.fullmatch(path.relative_to(folder).as_posix()):
                    path.unlink(missing_ok=True)
        except OSError as error:
            self.trouble = CannotWrite(str(folder), error)


@dataclass(frozen=True, eq=False)
class Answer:
    """A curve, the rows of C that it is about, the network's file, and where it is to be drawn."""

    curve: LipschitzCurve
    rows: tuple[tuple[float, ...], ...]
    model: str
    plot: Path | None


def show(answer: Answer, files: Files, as_json: bool) -> int:
    """Writes curve and plot, prints the answer, returns the exit code: that of the verdict, unless Ctrl-C came first.

    INTERNAL if something could not be written.
    """
    curve = answer.curve
    said = _as_json(curve, files)
    kept: dict[str, str | None] = {"certificate": None, "curve_file": None, "plot": None}
    if files.folder is not None:
        kept["certificate"] = str(files.folder) if files.certificates else None
        text = json.dumps(said, indent=1, allow_nan=False).encode() + b"\n"
        kept["curve_file"] = files.write(files.folder / "curve.json", text)
    if answer.plot is not None:
        kept["plot"] = files.write(answer.plot, drawn(chart(curve, answer.model), answer.plot))
    said |= kept | ({"error": outcome.described(files.trouble)} if files.trouble else {})
    outcome.show(said, _as_view(answer, kept), as_json)
    if files.trouble is not None:
        outcome.complain(files.trouble, as_json=False)
        return ExitCode.INTERNAL
    if curve.interrupted and curve.verdict != Verdict.VERIFIED:
        return ExitCode.INTERRUPTED
    return CODES[curve.verdict]


def _as_json(curve: LipschitzCurve, files: Files) -> dict[str, Any]:
    """The object, every bound with the path of the certificate that proves it."""
    said = curve.as_json()
    flat = [found for row in curve.bounds for found in row]
    for entry, found in zip(said["bounds"], flat, strict=True):
        proof = None if found.proved_at is None else (found.point, found.proved_at)
        entry["certificate"] = None if proof is None else files.certificates.get(proof)
    return said


def _as_view(answer: Answer, kept: dict[str, str | None]) -> RenderableType:
    curve, table = answer.curve, Table.grid(padding=(0, 3))
    asked, balls = curve.question, curve.balls
    flat = [found for row in curve.bounds for found in row]
    table.add_row("verdict", Text(curve.verdict, style=f"bold {COLOURS[curve.verdict]}"))
    outward = "each by itself, the largest" if asked.outward == "each" else DISTANCE[asked.outward]
    table.add_row("question", Text(f"{named(answer.rows)}, {outward}, against {DISTANCE[asked.norm]} of the inputs"))
    points = f"{len(curve.bounds)} point" + "s" * (len(curve.bounds) > 1)
    clip = "" if balls.clip is None else f", values in [{balls.clip[0]:g}, {balls.clip[1]:g}]"
    table.add_row("regions", Text(f"{points}, radii in {DISTANCE[balls.norm]}{clip}"))
    if curve.finished < len(flat):
        table.add_row("finished", f"{curve.finished} of {len(flat)} bounds" + " (interrupted)" * curve.interrupted)
    table.add_row("seconds", f"{curve.seconds:.3f}")
    if curve.verdict == Verdict.VERIFIED:
        table.add_row("assurance", f"checked: {MEANING['checked']}")
    reasons = list(dict.fromkeys(found.result.reason for found in flat if found.result.reason))
    for number, reason in enumerate(reasons[:SHOWN]):
        table.add_row("" if number else "reason", Text(reason))
    for name, path in kept.items():
        if path is not None:
            table.add_row(name.replace("_", " "), Text(path))
    return Group(table, Text(), _of_one(curve) if len(curve.bounds) == 1 else _of_several(curve))


def _of_one(curve: LipschitzCurve) -> Table:
    """A line a radius."""
    table = Table("radius", "upper bound", "lower bound", "method", "seconds", box=None, pad_edge=False)
    for found in curve.bounds[0]:
        numbers = (upper_text(found.upper), lower_text(found.lower))
        seconds = f"{found.result.seconds:.3f}"
        table.add_row(str(curve.balls.radii[found.radius]), *numbers, Text(_method(curve, found)), seconds)
    return table


def _method(curve: LipschitzCurve, found: CurveBound) -> str:
    """With the radius that the certificate is about, where it is a larger one."""
    if found.proved_at in (None, found.radius):
        return curve.method(found)
    return f"{curve.method(found)}, proved at {curve.balls.radii[found.proved_at or 0]}"


def _of_several(curve: LipschitzCurve) -> Table:
    """A line a radius: quartiles of the upper bounds over the points."""
    table = Table("radius", *SPREAD, "median lower bound", NONE, box=None, pad_edge=False)
    for said, spread in zip(curve.balls.radii, curve.spread(), strict=True):
        uppers = [upper_text(value) for value in spread.upper]
        table.add_row(str(said), *uppers, lower_text(spread.lower[2]), str(spread.not_proved))
    return table
