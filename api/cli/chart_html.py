"""A chart as one page of HTML: inline SVG and a table of the same numbers; no scripts, nothing from elsewhere."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

from provenn.api.cli import chart_svg
from provenn.api.cli.chart import Chart
from provenn.api.cli.chart_svg import drawing, text

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181a; } }
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
figure { margin: 0; }
svg { width: 100%; height: auto; }
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
    text(head, "title", chart.title)
    text(head, "style", STYLE + chart_svg.STYLE)
    main = SubElement(SubElement(page, "body"), "main")
    text(main, "h1", chart.title)
    figure = SubElement(main, "figure")
    figure.append(drawing(chart))
    text(figure, "figcaption", chart.description)
    table = SubElement(SubElement(main, "div", {"class": "scroll"}), "table")
    row = SubElement(SubElement(table, "thead"), "tr")
    for cell in chart.header:
        text(row, "th", cell, scope="col")
    body = SubElement(table, "tbody")
    for cells in chart.table:
        row = SubElement(body, "tr")
        for cell in cells:
            text(row, "td", cell)
    told: str = tostring(page, encoding="unicode", method="html")
    return f"<!doctype html>\n{told}\n".encode()
