"""A chart as SVG: axes, lines, bands and a legend, named for who does not see them; no scripts."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

from provenn.api.cli.chart import Axis, Band, Chart, Line, runs

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760, 86, 744, 16, 414
"""Of the drawing and of its axes, in its units."""

LABEL, LEGEND, LINE = BOTTOM + 42, BOTTOM + 72, 20
"""Where the axis is named; where the legend begins; between two lines of it."""

RADIUS, BAR = 3.5, 12
"""Of a dot; of a band that is there at one place only."""

STYLE = """
:root { --ink: #1d1d1f; --faint: #d5d5da; --hue0: #1f5fa8; --hue1: #b4530a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --faint: #3b3d42; --hue0: #7db3f0; --hue1: #f0a05a; } }
svg text { fill: var(--ink); font-size: 13px; }
.grid, .frame { stroke: var(--faint); fill: none; }
.line { fill: none; stroke-width: 2; }
.dashed { stroke-dasharray: 5 4; stroke-width: 1.2; }
.band { fill-opacity: 0.25; stroke: none; }
.hue0 { stroke: var(--hue0); } .hue1 { stroke: var(--hue1); }
.fill0 { fill: var(--hue0); } .fill1 { fill: var(--hue1); }
"""
"""Of what is drawn, on a paper of either kind."""


def svg(chart: Chart) -> bytes:
    """The picture as a file of its own, in the colours of light or dark paper as the viewer has it."""
    found = drawing(chart)
    found.set("xmlns", "http://www.w3.org/2000/svg")
    found.set("font-family", "system-ui, sans-serif")
    style = Element("style")
    style.text = STYLE
    found.insert(0, style)
    told: str = tostring(found, encoding="unicode", method="xml")
    return f"{told}\n".encode()


def drawing(chart: Chart) -> Element:
    """The element svg, without its style."""
    svg = Element("svg", {"role": "img", "aria-labelledby": "title description"})
    text(svg, "title", chart.title, id="title")
    text(svg, "desc", chart.description, id="description")
    _axes(svg, chart.across, chart.up)
    for band in chart.bands:
        _band(svg, chart, band)
    for line in chart.lines:
        _line(svg, chart, line)
    svg.set("viewBox", f"0 0 {WIDTH} {_legend(svg, chart)}")
    return svg


def _axes(svg: Element, across: Axis, up: Axis) -> None:
    for value, said in across.ticks:
        x = _x(across, value)
        SubElement(svg, "path", {"class": "grid", "d": f"M{x} {TOP}V{BOTTOM}"})
        text(svg, "text", said, x=x, y=str(BOTTOM + 18), **{"text-anchor": "middle"})
    for value, said in up.ticks:
        y = _y(up, value)
        SubElement(svg, "path", {"class": "grid", "d": f"M{LEFT} {y}H{RIGHT}"})
        text(svg, "text", said, x=str(LEFT - 8), y=y, **{"text-anchor": "end", "dominant-baseline": "middle"})
    SubElement(svg, "path", {"class": "frame", "d": f"M{LEFT} {TOP}H{RIGHT}V{BOTTOM}H{LEFT}Z"})
    centre = {"text-anchor": "middle"}
    text(svg, "text", across.label, x=str((LEFT + RIGHT) // 2), y=str(LABEL), **centre)
    middle = (TOP + BOTTOM) // 2
    text(svg, "text", up.label, x="18", y=str(middle), transform=f"rotate(-90 18 {middle})", **centre)


def _band(svg: Element, chart: Chart, band: Band) -> None:
    there = [(x, low, high) for x, low, high in band.rows]
    for run in runs(there, lambda row: None not in row):
        lower = [f"{_x(chart.across, x)} {_y(chart.up, low)}" for x, low, _ in run if low is not None]
        upper = [f"{_x(chart.across, x)} {_y(chart.up, high)}" for x, _, high in run if high is not None]
        if len(run) > 1:
            path, style = "M" + "L".join([*lower, *reversed(upper)]) + "Z", f"band fill{band.hue}"
            SubElement(svg, "path", {"class": style, "d": path})
        else:
            thick = {"class": f"hue{band.hue}", "stroke-width": str(BAR), "stroke-opacity": "0.25"}
            SubElement(svg, "path", {**thick, "d": f"M{lower[0]}L{upper[0]}"})


def _line(svg: Element, chart: Chart, line: Line) -> None:
    style = f"line hue{line.hue}" + (" dashed" if line.dashed else "")
    for run in runs(line.points, lambda point: point[1] is not None):
        places = [(_x(chart.across, x), _y(chart.up, y)) for x, y in run if y is not None]
        SubElement(svg, "path", {"class": style, "d": "M" + "L".join(f"{x} {y}" for x, y in places)})
        for x, y in places if line.marked else ():
            size = RADIUS / 2 if line.dashed else RADIUS
            SubElement(svg, "circle", {"class": f"fill{line.hue}", "cx": x, "cy": y, "r": f"{size}"})


def _legend(svg: Element, chart: Chart) -> int:
    """Below the axes, in two columns, where there is more than one line; returns where the drawing ends."""
    lines = [line for line in chart.lines if line.name]
    if len(lines) < 2:
        return LABEL + LINE
    entries = [(line.name, f"line hue{line.hue}" + (" dashed" if line.dashed else "")) for line in lines]
    entries += [(band.name, f"band fill{band.hue}") for band in chart.bands]
    rows = -(-len(entries) // 2)
    for number, (name, style) in enumerate(entries):
        x, y = LEFT + number // rows * (RIGHT - LEFT) // 2, LEGEND + number % rows * LINE
        shape = f"M{x} {y - 10}h26v11h-26Z" if style.startswith("band") else f"M{x} {y - 4}h26"
        SubElement(svg, "path", {"class": style, "d": shape})
        text(svg, "text", name, x=str(x + 34), y=str(y))
    return LEGEND + rows * LINE


def _x(axis: Axis, value: float) -> str:
    return f"{LEFT + (RIGHT - LEFT) * axis.place(value):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{BOTTOM + (TOP - BOTTOM) * axis.place(value):.1f}"


def text(parent: Element, tag: str, words: str, **attributes: str) -> None:
    """One more element, with text in it."""
    SubElement(parent, tag, attributes).text = words
