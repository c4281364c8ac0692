"""The picture of local Lipschitz constants against the radius: of one point both bounds, of several their quartiles."""

from __future__ import annotations

from itertools import product

from provenn.api.cli.chart import Axis, Band, Chart, Line, axis
from provenn.api.lipschitz_curve import LipschitzCurve
from provenn.api.statements import DISTANCE, at_least, at_most

NONE = "not proved"
SIDES = ("upper bound (proved)", "lower bound (pairs of inputs)")
SPREAD = ("minimum", "25 %", "median", "75 %", "maximum")
MEDIAN = 2


def chart(curve: LipschitzCurve, model: str) -> Chart:
    """Of a curve of the network in the file `model`."""
    asked, balls = curve.question, curve.balls
    outward = asked.outward if asked.outward != "each" else "inf"
    weighted = "" if asked.scale is None else "weighted "
    label = f"local Lipschitz constant ({weighted}{DISTANCE[asked.norm]} to {DISTANCE[outward]})"
    across = axis(f"radius ({DISTANCE[balls.norm]})", balls.values, [str(said) for said in balls.radii])
    count = len(curve.bounds)
    title = f"{model}: {label}" + (f", {count} points" if count > 1 else "")
    return _of_one(curve, title, across, label) if count == 1 else _of_several(curve, title, across, label)


def upper_text(value: float | None) -> str:
    """Rounded up."""
    return NONE if value is None else at_most(value)


def lower_text(value: float | None) -> str:
    """Rounded down."""
    return "-" if value is None else at_least(value)


def _of_one(curve: LipschitzCurve, title: str, across: Axis, label: str) -> Chart:
    radii, found = curve.balls.values, curve.bounds[0]
    values = [value for item in found for value in (item.upper, item.lower) if value is not None]
    described = (
        "The least upper bound that is proved, and the largest lower bound that a pair of inputs shows, at every "
        "radius around one point. The constant lies between the two; lines between two radii only join them."
    )
    uppers = [(x, item.upper) for x, item in zip(radii, found, strict=True)]
    lowers = [(x, item.lower) for x, item in zip(radii, found, strict=True)]
    said = curve.balls.radii
    return Chart(
        title,
        described,
        across,
        axis(label, values or [1.0]),
        [Line(SIDES[0], uppers, 0), Line(SIDES[1], lowers, 1)],
        [],
        ("radius", *SIDES, "method"),
        [
            (str(said[item.radius]), upper_text(item.upper), lower_text(item.lower), curve.method(item))
            for item in found
        ],
    )


def _of_several(curve: LipschitzCurve, title: str, across: Axis, label: str) -> Chart:
    radii, spreads = curve.balls.values, curve.spread()
    sides: list[list[tuple[float | None, ...]]] = [
        [spread.upper for spread in spreads],
        [spread.lower for spread in spreads],
    ]
    values = [value for side in sides for row in side for value in row if value is not None]
    lines, bands = [], []
    for hue, (side, name) in enumerate(zip(sides, SIDES, strict=True)):
        low, high = MEDIAN - 1, MEDIAN + 1
        bands.append(Band(f"{name}: quartiles", [(x, r[low], r[high]) for x, r in zip(radii, side, strict=True)], hue))
        lines.append(Line(f"{name}: median", [(x, row[MEDIAN]) for x, row in zip(radii, side, strict=True)], hue))
        for end, said in ((0, f"{name}: minimum, maximum"), (-1, "")):
            points = [(x, row[end]) for x, row in zip(radii, side, strict=True)]
            lines.append(Line(said, points, hue, dashed=True))
    described = (
        f"Bounds around {len(curve.bounds)} points at every radius, by order statistics: the upper and the lower bound "
        f"of a rank enclose the constant of that rank. Bounds that are not proved count as infinite above, 0 below."
    )
    header = [f"{side}: {name}" for side, name in product(("upper bounds", "lower bounds"), SPREAD)]
    rows = [
        (
            str(said),
            *(upper_text(value) for value in spread.upper),
            *(lower_text(value) for value in spread.lower),
            str(spread.not_proved),
        )
        for said, spread in zip(curve.balls.radii, spreads, strict=True)
    ]
    return Chart(title, described, across, axis(label, values or [1.0]), lines, bands, ("radius", *header, NONE), rows)
