"""A chart as PNG, by matplotlib."""

from __future__ import annotations

import io
from typing import Any

from provenn.api.cli.chart import Axis, Chart, runs

COLOURS = ("#1f5fa8", "#b4530a")
BAR = 8.0
"""Width of a band that is there at one place only, in points."""


def png(chart: Chart) -> bytes:
    """The picture, on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    _scale(axes.xaxis, axes.set_xscale, axes.set_xlim, chart.across)
    _scale(axes.yaxis, axes.set_yscale, axes.set_ylim, chart.up)
    axes.set_title(chart.title, fontsize="medium", wrap=True, parse_math=False)
    for band in chart.bands:
        label: str | None = band.name
        for run in runs(band.rows, lambda row: None not in row):
            x, low, high = zip(*run, strict=True)
            style = {"color": COLOURS[band.hue], "alpha": 0.25, "label": label}
            if len(run) > 1:
                axes.fill_between(x, low, high, linewidth=0, **style)
            else:
                axes.vlines(x, low, high, linewidth=BAR, **style)
            label = None
    for line in chart.lines:
        x, y = zip(*line.points, strict=True)
        values = [float("nan") if value is None else value for value in y]
        style = {"linestyle": "--", "linewidth": 0.8} if line.dashed else {"linestyle": "-", "linewidth": 1.6}
        marker = ("_" if line.dashed else "o") if line.marked else None
        axes.plot(
            x, values, color=COLOURS[line.hue], marker=marker, markersize=4, label=line.name or "_nolegend_", **style
        )
    axes.grid(alpha=0.3)
    if len(chart.lines) > 1:
        axes.legend(fontsize="small")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _scale(ruler: Any, scale: Any, limits: Any, axis: Axis) -> None:
    """Makes one of matplotlib's axes like ours."""
    scale("log" if axis.log else "linear")
    limits(axis.low, axis.high)
    ruler.set_ticks([value for value, _ in axis.ticks], labels=[text for _, text in axis.ticks])
    ruler.set_ticks([], minor=True)
    ruler.set_label_text(axis.label)
