"""Results as a notebook shows them: one self-contained piece of HTML, from plain data.

Nothing is loaded from anywhere, there is no script, and every text is escaped. Colours are those of the surroundings,
dark or light; what has a colour of its own has contrast to both.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

COLOURS = {"verified": "#1a7f37", "falsified": "#c0262d"}
UNDECIDED = "#6b6b6b"
"""Behind the white word of any other verdict."""
RISE, FALL = (224, 102, 20), (40, 120, 220)
"""Of values that are larger, and smaller, than they were."""
SIDE = 112
"""Pixels that the longer side of a picture takes, or more."""
ROWS = 20
"""Bars or spans that are drawn."""
LEFT, WIDTH, RIGHT, HEIGHT = 64, 220, 180, 16
"""Of a drawing: room for names, for bars, for numbers, and a row's height."""
FAINT = "border:1px solid rgba(127,127,127,.45)"

Numbers: TypeAlias = NDArray[np.float64]


def short(value: float | None) -> str:
    """Six digits, as text."""
    return "none" if value is None else f"{value:.6g}"


@dataclass(frozen=True, eq=False)
class Picture:
    """Values [height, width, 1 or 3], black at `low`, white at `high`; without these a change, transparent at 0."""

    name: str
    values: Numbers
    low: float | None
    high: float | None

    def html(self) -> str:
        """An image of the page itself, each value a square."""
        height, width = self.values.shape[:2]
        scale = max(1, SIDE // max(height, width))
        source = base64.b64encode(png(self._pixels())).decode()
        style = f"width:{width * scale}px;height:{height * scale}px;image-rendering:pixelated;{FAINT}"
        alt = escape(f"{self.name}, {width} by {height} pixels{self._most()}")
        image = f'<img alt="{alt}" style="{style}" src="data:image/png;base64,{source}">'
        caption = f"<figcaption>{escape(self.name)}{escape(self._most())}</figcaption>"
        return f'<figure style="display:inline-block;margin:0 12px 8px 0">{image}{caption}</figure>'

    def _most(self) -> str:
        return "" if self.low is not None else f", at most {short(float(np.abs(self.values).max()))}"

    def _pixels(self) -> NDArray[np.uint8]:
        if self.low is not None and self.high is not None:
            share = (self.values - self.low) / ((self.high - self.low) or 1.0)
            return (255 * share.clip(0, 1)).round().astype(np.uint8)
        largest = np.take_along_axis(self.values, np.abs(self.values).argmax(axis=2)[:, :, None], axis=2)
        alpha = 255 * np.abs(largest) / (np.abs(largest).max() or 1.0)
        colour = np.where(largest > 0, np.array(RISE), np.array(FALL))
        return np.concatenate([colour, alpha.round()], axis=2).astype(np.uint8)


@dataclass(frozen=True)
class Bars:
    """One number an output, and the output that should be the largest."""

    name: str
    values: Sequence[float]
    label: int

    def html(self) -> str:
        """Bars from 0, the largest outputs if there are many, and always the label's."""
        order = sorted(range(len(self.values)), key=lambda i: -self.values[i])[:ROWS]
        shown = sorted({*order, *({self.label} & {*range(len(self.values))})})
        ends = [0.0, *(self.values[i] for i in shown)]
        rows = []
        for row, i in enumerate(shown):
            start, end = sorted((_place(0.0, ends), _place(self.values[i], ends)))
            text = short(self.values[i]) + (" (label)" if i == self.label else "")
            style = 'fill="currentColor"' if i == self.label else f'fill="rgb{FALL}"'
            rows.append(_row(row, str(i), f'<rect x="{start}" width="{end - start}" height="8" {style}/>', text))
        return _drawing(self.name, rows)


@dataclass(frozen=True)
class Intervals:
    """Pairs (from, to), one a row; names of the rows, or their numbers."""

    name: str
    spans: Sequence[tuple[float, float]]
    names: Sequence[str] = ()

    def html(self) -> str:
        """Spans over one axis, the first if there are many."""
        shown = self.spans[:ROWS]
        ends = [0.0, *(end for span in shown for end in span if np.isfinite(end))]
        rows = []
        for row, (low, high) in enumerate(shown):
            start, end = _place(low, ends), _place(high, ends)
            span = f'<rect x="{start}" width="{max(2, end - start)}" height="8" fill="rgb{FALL}"/>'
            name = self.names[row] if row < len(self.names) else str(row)
            rows.append(_row(row, name, span, f"{short(low)} to {short(high)}"))
        more = f", {len(shown)} of {len(self.spans)}" if len(self.spans) > len(shown) else ""
        return _drawing(self.name + more, rows)


@dataclass(frozen=True)
class Table:
    """Rows of texts."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self) -> str:
        """With a caption."""
        head = "".join(f'<th scope="col" style="text-align:left">{escape(text)}</th>' for text in self.header)
        body = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{escape(text)}</td>' for text in row) + "</tr>"
            for row in self.rows
        )
        caption = f'<caption style="text-align:left">{escape(self.name)}</caption>'
        return f'<table style="margin:4px 0 8px">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


Figure: TypeAlias = Picture | Bars | Intervals | Table


@dataclass(frozen=True)
class Card:
    """A result: what kind, its verdict, facts by name, figures, and what else is to be said."""

    title: str
    verdict: str
    facts: Sequence[tuple[str, str]]
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()

    def html(self) -> str:
        """All of it, in a box."""
        colour = COLOURS.get(self.verdict, UNDECIDED)
        badge = f"background:{colour};color:#fff;border-radius:3px;padding:1px 7px;margin-left:8px"
        head = f'<div><b>{escape(self.title)}</b><span style="{badge}">{escape(self.verdict)}</span></div>'
        facts = "".join(
            f'<dt style="opacity:.75">{escape(name)}</dt>'
            f'<dd style="margin:0;overflow-wrap:anywhere">{escape(value)}</dd>'
            for name, value in self.facts
        )
        grid = "display:grid;grid-template-columns:max-content 1fr;gap:1px 12px;margin:6px 0"
        notes = "".join(f"<p style='margin:4px 0'>{escape(text)}</p>" for text in self.notes)
        figures = "".join(figure.html() for figure in self.figures)
        box = f"{FAINT};border-radius:5px;padding:8px 12px;max-width:760px;color:inherit;background:transparent"
        return f'<div style="{box}">{head}<dl style="{grid}">{facts}</dl>{notes}<div>{figures}</div></div>'


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of [height, width, channels]: 1 grey, 3 colours, 4 with how opaque they are.   Source: RFC 2083."""
    height, width, channels = pixels.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # filter 0
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _place(value: float, ends: Sequence[float]) -> int:
    """Where a value lies on an axis from the least to the greatest; what is infinite lies at its end."""
    low, high = min(ends), max(ends)
    share = (value - low) / ((high - low) or 1.0)
    return LEFT + round(WIDTH * min(1.0, max(0.0, share)))


def _row(row: int, name: str, mark: str, text: str) -> str:
    style = 'fill="currentColor" font-size="11" dominant-baseline="middle"'
    left = f'<text x="{LEFT - 6}" y="4" text-anchor="end" {style}>{escape(name)}</text>'
    right = f'<text x="{LEFT + WIDTH + 6}" y="4" {style}>{escape(text)}</text>'
    return f'<g transform="translate(0,{row * HEIGHT + 4})">{left}{mark}{right}</g>'


def _drawing(name: str, rows: Sequence[str]) -> str:
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{len(rows) * HEIGHT}"'
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(name)}" {size}>'
    caption = f"<figcaption>{escape(name)}</figcaption>"
    return f'<figure style="margin:0 0 8px;display:block">{caption}{drawing}{"".join(rows)}</svg></figure>'
