"""What certificates prove in words, from their files. Nothing here loads torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from typing import Any

DISTANCE = {"2": "l2", "inf": "l-infinity", "1": "l1"}
DIGITS, SHOWN = 8, 6


def stated(files: Mapping[str, bytes]) -> str:
    """What an accepted certificate proves, in a sentence; `files` have been checked."""
    name = json.loads(files["manifest.json"])["specification"]["file"]
    what = json.loads(files[name], parse_float=str, parse_int=str) if name.endswith(".json") else {}
    if what.get("kind") == "lipschitz":
        return lipschitz(what, name)
    if what.get("kind") == "jacobian":
        return jacobian(what, name)
    if what.get("kind") != "robustness":
        return f"no input of the sets in its {name} has an unsafe output"
    within = f" with values in [{', '.join(what['clip'])}]" if what.get("clip") else ""
    norm = DISTANCE[what.get("norm", "inf")]
    wins = f"class {what['label']} wins" + (f" over class {what['target']}" if what.get("target") else "")
    return f"{wins} for every input within {norm} distance {what['epsilon']} of the one in its {name}{within}"


def lipschitz(what: Mapping[str, Any], name: str) -> str:
    """What a statement says, in a sentence; `what`: its JSON, numbers as text; name: its file's."""
    source, norm = what["input"], what["output_norm"]
    inputs = ("weighted " if source.get("scale") else "") + DISTANCE[source["norm"]]
    rows = [[_number(c) for c in row] for row in what["outputs"]]
    uppers = _listed([at_most(float(_number(u))) for u in what["upper"]])
    of = f"the {inputs} distance of the inputs, for all inputs{_within(what.get('region'), name)}"
    if norm == "each":
        return f"{named(rows)} change by at most {uppers} times {of}"
    if len(rows) == 1:
        return f"{named(rows)} changes by at most {uppers} times {of}"
    return f"the {DISTANCE[norm]} distance of {named(rows)} is at most {uppers} times {of}"


def jacobian(what: Mapping[str, Any], name: str) -> str:
    """What a statement about entries of Jacobians says, likewise."""
    rows = [named([[_number(c) for c in row]]) for row in what["outputs"]]
    known: dict[tuple[int, int], tuple[list[float], list[float]]] = {}
    for row, column, *both in what["entries"]:
        for end, ends in zip(both, known.setdefault((int(row), int(column)), ([], [])), strict=True):
            ends += [] if end is None else [float(_number(end))]
    said: dict[str, list[str]] = {}
    for (number, place), (lowers, uppers) in known.items():
        slope = _slope(rows[number], max(lowers, default=None), min(uppers, default=None))
        said.setdefault(slope, []).append(str(place))
    parts = [
        sentence.format("inputs " + _listed(columns) if len(columns) > 1 else f"input {columns[0]}")
        for sentence, columns in said.items()
    ]
    regions = what["regions"]
    where = _within(regions[0], name) if len(regions) == 1 else f" in any of the {len(regions)} regions in its {name}"
    return f"{_listed(parts, '; ')}: between any two inputs{where} that differ in one value alone"


def _slope(output: str, lower: float | None, upper: float | None) -> str:
    """What bounds of a derivative mean; {}: the input."""
    match (lower, upper):
        case (0, 0):
            return f"{output} does not change with {{}}"
        case (0, None):
            return f"{output} never falls with {{}}"
        case (None, 0):
            return f"{output} never rises with {{}}"
    ends = [f"at least {at_least(lower)}"] if lower is not None else []
    ends += [f"at most {at_most(upper)}"] if upper is not None else []
    return f"{output} changes by {' and '.join(ends)} per unit of {{}}"


def named(rows: Sequence[Sequence[float | Fraction]]) -> str:
    """The rows of C in words: "output 3", "outputs 0 to 9", "outputs 3 - 0, 3 - 1", or how many there are."""
    names = [_row(row) for row in rows]
    if None in names:
        return f"{len(rows)} combinations of outputs" if len(rows) > 1 else "a combination of outputs"
    texts = [text for text in names if text is not None]
    if len(texts) > 2 and texts == [str(int(texts[0]) + k) if texts[0].isdigit() else "" for k in range(len(texts))]:
        return f"outputs {texts[0]} to {texts[-1]}"
    return f"output{'s' if len(texts) > 1 else ''} {_listed(texts)}"


def at_most(value: float | Fraction) -> str:
    """A few digits, rounded up."""
    return _rounded(value, ROUND_CEILING)


def at_least(value: float | Fraction) -> str:
    """A few digits, rounded down."""
    return _rounded(value, ROUND_FLOOR)


def _rounded(value: float | Fraction, rounding: str) -> str:
    context = Context(prec=DIGITS, rounding=rounding)
    if isinstance(value, Fraction):
        return f"{context.divide(Decimal(value.numerator), Decimal(value.denominator)):g}"
    return f"{context.create_decimal(Decimal(value)):g}"


def _row(row: Sequence[float | Fraction]) -> str | None:
    places = {float(c): i for i, c in enumerate(row) if c}
    count = sum(1 for c in row if c)
    if count == 1 and 1.0 in places:
        return str(places[1.0])
    return f"{places[1.0]} - {places[-1.0]}" if count == 2 and {1.0, -1.0} == places.keys() else None


def _number(text: object) -> Fraction:
    """Of a decimal, a quotient, or a hexadecimal float."""
    said = str(text)
    return Fraction(float.fromhex(said)) if "0x" in said else Fraction(said)


def _within(region: Mapping[str, Any] | None, name: str) -> str:
    if region is None:
        return ""
    if "input" not in region:
        return f" in the box in its {name}"
    clip = f" with values in [{', '.join(map(str, region['clip']))}]" if region.get("clip") else ""
    return f" within {DISTANCE[region['norm']]} distance {region['epsilon']} of the one in its {name}{clip}"


def _listed(texts: Sequence[str], between: str = ", ") -> str:
    more = f"{between}... ({len(texts)} in all)" if len(texts) > SHOWN else ""
    return between.join(texts[:SHOWN]) + more
