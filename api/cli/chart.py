"""What `--plot` draws: axes with their ticks, lines, bands between two lines, and the same numbers as a table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from math import ceil, floor, log10
from pathlib import Path
from tempfile import TemporaryFile
from typing import TypeVar

from typer import BadParameter

PADDING = 0.05
"""Room at both ends of an axis, as a share of what it shows."""

DECADE = 10.0
"""From this quotient of the largest to the smallest number on an axis is logarithmic."""

TICKS = 6
"""About so many on a linear axis, and at most on a logarithmic one of whole decades."""

CHARACTER, GAP = 0.0115, 0.02
"""Width of a tick's character, and room between two ticks, as shares of the horizontal axis."""

Point = tuple[float, float | None]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Axis:
    """Numbers between low and high by their logarithms or linearly; ticks: where, and what is written there."""

    label: str
    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Of a number, as a share of the axis."""
        if self.log:
            return (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """Points joined in their order, but not across one without a value; hue: the number of its colour, 0 or 1.

    name: empty where the legend names another line like it; dashed: for what stands beside the main lines; marked:
    whether each point has a dot.
    """

    name: str
    points: Sequence[Point]
    hue: int = 0
    dashed: bool = False
    marked: bool = True


@dataclass(frozen=True)
class Band:
    """What lies between two values wherever both are there: (x, low, high)."""

    name: str
    rows: Sequence[tuple[float, float | None, float | None]]
    hue: int = 0


@dataclass(frozen=True)
class Chart:
    """description: for who does not see it; header, table: its numbers as text."""

    title: str
    description: str
    across: Axis
    up: Axis
    lines: Sequence[Line]
    bands: Sequence[Band]
    header: Sequence[str]
    table: Sequence[Sequence[str]]


def axis(label: str, values: Sequence[float], named: Sequence[str] | None = None) -> Axis:
    """An axis on which all these values are; logarithmic where they are above 0 and of different orders.

    named: what is written at the values, where ticks stand at them (a horizontal axis), as far as there is room.
    """
    least, most = min(values), max(values)
    log = least > 0 and most >= DECADE * least
    if log:
        room = 10.0 ** (PADDING * (log10(most) - log10(least)))
        low, high = least / room, most * room
    else:
        room = PADDING * ((most - least) or abs(most) or 1.0)
        low, high = (0.0 if least >= 0 and named is None else least - room), most + room
    if named is None:
        return Axis(label, low, high, log, tuple((tick, f"{tick:g}") for tick in _ticks(low, high, log)))
    bare = Axis(label, low, high, log, ())
    return Axis(label, low, high, log, tuple(_spaced(bare, list(zip(values, named, strict=True)))))


def runs(rows: Sequence[Row], there: Callable[[Row], bool]) -> list[list[Row]]:
    """The longest stretches of rows that are all there."""
    return [list(group) for present, group in groupby(rows, there) if present]


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers between low and high."""
    if log:
        decades = range(floor(log10(low)), ceil(log10(high)) + 1)
        every = -(-len(decades) // TICKS)
        steps = (1, 2, 5) if len(decades) <= TICKS // 2 + 1 else (1,)
        found = [digit * 10.0**power for power in decades if power % every == 0 for digit in steps]
    else:
        raw = (high - low) / TICKS
        power = 10.0 ** floor(log10(raw))
        step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw)
        found = [k * step for k in range(ceil(low / step), floor(high / step) + 1)]
    return [tick for tick in found if low <= tick <= high]


def _spaced(bare: Axis, ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The first tick, and each that does not touch the one before."""
    found, free = [], -1.0
    for value, text in ticks:
        place, half = bare.place(value), len(text) * CHARACTER / 2
        if place - half >= free:
            found.append((value, text))
            free = place + half + GAP
    return found


def require_drawable(path: Path) -> None:
    """Raises: BadParameter naming --plot if nothing can be drawn there; it is asked before hours of computation."""
    if path.suffix.lower() not in (".png", ".svg", ".html"):
        raise BadParameter(
            f"'{path}' does not say what to draw: give FILE.png, FILE.svg or FILE.html", param_hint="--plot"
        )
    if path.is_dir():
        raise BadParameter(f"{path} is a folder: give a file in a folder that can be written", param_hint="--plot")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = f"cannot write to {path.parent}{os.sep}: {error.strerror}; give a file in a folder that can be written"
        raise BadParameter(reason, param_hint="--plot") from None
    if path.suffix.lower() == ".png" and find_spec("matplotlib") is None:
        reason = "a PNG needs matplotlib, which is not installed: pip install 'provenn[demo]', or give FILE.html"
        raise BadParameter(reason, param_hint="--plot")


def drawn(chart: Chart, path: Path) -> bytes:
    """What is to be written there, by the path's suffix."""
    if path.suffix.lower() == ".png":
        from provenn.api.cli.chart_png import png

        return png(chart)
    if path.suffix.lower() == ".svg":
        from provenn.api.cli.chart_svg import svg

        return svg(chart)
    from provenn.api.cli.chart_html import html

    return html(chart)
