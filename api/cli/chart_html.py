"""A chart as one page of HTML: inline SVG and a table of the same numbers; no scripts, nothing from elsewhere."""

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
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d1d1f; --faint: #d5d5da;
  --hue0: #1f5fa8; --hue1: #b4530a; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181a; --ink: #e8e8ea; --faint: #3b3d42;
  --hue0: #7db3f0; --hue1: #f0a05a; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
figure { margin: 0; }
svg { width: 100%; height: auto; }
svg text { fill: var(--ink); font-size: 13px; }
.grid, .frame { stroke: var(--faint); fill: none; }
.line { fill: none; stroke-width: 2; }
.dashed { stroke-dasharray: 5 4; stroke-width: 1.2; }
.band { fill-opacity: 0.25; stroke: none; }
.hue0 { stroke: var(--hue0); } .hue1 { stroke: var(--hue1); }
.fill0 { fill: var(--hue0); } .fill1 { fill: var(--hue1); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--faint); padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; }
"""


def html(chart: Chart) -> bytes:
    """The page."""
    page = Element("html", lang="en")
    head = SubElement(page, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _text(head, "title", chart.title)
    _text(head, "style", STYLE)
    main = SubElement(SubElement(page, "body"), "main")
    _text(main, "h1", chart.title)
    figure = SubElement(main, "figure")
    _draw(figure, chart)
    _text(figure, "figcaption", chart.description)
    table = SubElement(SubElement(main, "div", {"class": "scroll"}), "table")
    row = SubElement(SubElement(table, "thead"), "tr")
    for cell in chart.header:
        _text(row, "th", cell, scope="col")
    body = SubElement(table, "tbody")
    for cells in chart.table:
        row = SubElement(body, "tr")
        for cell in cells:
            _text(row, "td", cell)
    text: str = tostring(page, encoding="unicode", method="html")
    return f"<!doctype html>\n{text}\n".encode()


def _draw(figure: Element, chart: Chart) -> None:
    named = {"role": "img", "aria-labelledby": "title description"}
    svg = SubElement(figure, "svg", named)
    _text(svg, "title", chart.title, id="title")
    _text(svg, "desc", chart.description, id="description")
    _axes(svg, chart.across, chart.up)
    for band in chart.bands:
        _band(svg, chart, band)
    for line in chart.lines:
        _line(svg, chart, line)
    svg.set("viewBox", f"0 0 {WIDTH} {_legend(svg, chart)}")


def _axes(svg: Element, across: Axis, up: Axis) -> None:
    for value, said in across.ticks:
        x = _x(across, value)
        SubElement(svg, "path", {"class": "grid", "d": f"M{x} {TOP}V{BOTTOM}"})
        _text(svg, "text", said, x=x, y=str(BOTTOM + 18), **{"text-anchor": "middle"})
    for value, said in up.ticks:
        y = _y(up, value)
        SubElement(svg, "path", {"class": "grid", "d": f"M{LEFT} {y}H{RIGHT}"})
        _text(svg, "text", said, x=str(LEFT - 8), y=y, **{"text-anchor": "end", "dominant-baseline": "middle"})
    SubElement(svg, "path", {"class": "frame", "d": f"M{LEFT} {TOP}H{RIGHT}V{BOTTOM}H{LEFT}Z"})
    centre = {"text-anchor": "middle"}
    _text(svg, "text", across.label, x=str((LEFT + RIGHT) // 2), y=str(LABEL), **centre)
    middle = (TOP + BOTTOM) // 2
    _text(svg, "text", up.label, x="18", y=str(middle), transform=f"rotate(-90 18 {middle})", **centre)


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
        _text(svg, "text", name, x=str(x + 34), y=str(y))
    return LEGEND + rows * LINE


def _x(axis: Axis, value: float) -> str:
    return f"{LEFT + (RIGHT - LEFT) * axis.place(value):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{BOTTOM + (TOP - BOTTOM) * axis.place(value):.1f}"


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
