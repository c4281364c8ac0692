"""The JSON form of a specification, provenn-specification/1, read and written with exact numbers.

The format is described in docs/specifications.md. The writers read back what they wrote, so that a specification's
text and its cases cannot disagree.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from provenn.verifier.emptiness import PROGRAMS, proved_empty
from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import exact, hexadecimal, spoken, written
from provenn.verifier.spec import Ball, Case, Clause, Constraint, InputSet, Specification

FORMAT = "provenn-specification/1"
NORMS = ("inf", "2", "1")
DEPTH, CELLS = 16, 20_000_000
"""Limits: of nesting, of numbers in all clauses."""

Vector = tuple[Fraction, ...]
Number = str | float | Fraction

_MARK = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[][{}]', re.DOTALL)


def robustness(
    input: ArrayLike,
    *,
    label: int,
    epsilon: Number,
    outputs: int,
    norm: str = "inf",
    target: int | None = None,
    clip: tuple[Number, Number] | None = None,
) -> Specification:
    """No input within `epsilon` of `input` (in `norm`, inside `clip`) gets another class than `label` (only `target`).

    The input's floats are taken exactly; a float epsilon or clip end means its shortest decimal: 0.03 is 3/100.
    Raises: InvalidSpecification as `parse_json` does.
    """
    values = _finite(input).ravel().tolist()
    texts = {v: hexadecimal(v) for v in dict.fromkeys(values)}
    data = {
        "format": FORMAT,
        "kind": "robustness",
        "input": [texts[v] for v in values],
        "label": _whole(label, "label"),
        "outputs": _whole(outputs, "outputs"),
        "target": None if target is None else _whole(target, "target"),
        "epsilon": _spoken(epsilon, "epsilon"),
        "norm": norm,
        "clip": None if clip is None else [_spoken(end, "clip") for end in clip],
    }
    return parse_json(_text(data))


def from_cases(cases: Sequence[Case]) -> Specification:
    """The JSON form, kind "cases", of these very cases."""
    listed = [
        {
            "lower": [written(v) for v in case.inputs.exact_lower],
            "upper": [written(v) for v in case.inputs.exact_upper],
            **_written_ball(case.inputs.ball),
            **_written_constraints(case.inputs.constraints),
            "unsafe": [
                {"C": [[written(c) for c in row] for row in clause.matrix], "d": [written(d) for d in clause.bound]}
                for clause in case.clauses
            ],
        }
        for case in cases
    ]
    return parse_json(_text({"format": FORMAT, "kind": "cases", "cases": listed}))


def _written_ball(ball: Ball | None) -> dict[str, Any]:
    if ball is None:
        return {}
    centre = [written(x) for x in ball.centre]
    return {"ball": {"input": centre, "epsilon": written(ball.radius), "norm": str(int(ball.norm))}}


def _written_constraints(constraints: Sequence[Constraint]) -> dict[str, Any]:
    if not constraints:
        return {}
    rows = [[written(p) for p in c.row] for c in constraints]
    return {"constraints": {"P": rows, "q": [written(c.bound) for c in constraints]}}


def parse_json(text: bytes) -> Specification:
    """Reads kind "robustness", "box" or "cases".

    Raises: InvalidSpecification saying which member is wrong and what was expected; ResourceLimit.
    """
    limit_depth(text)
    try:
        content = text.decode("utf-8")
        data = json.loads(content, parse_float=exact, parse_int=exact, parse_constant=exact, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InvalidSpecification(f"not JSON: {error.msg} (column {error.colno})", error.lineno) from None
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise InvalidSpecification("not JSON: a byte is not UTF-8", line) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InvalidSpecification(f'a JSON specification is an object with "format": "{FORMAT}"')
    members = {name: value for name, value in data.items() if name not in ("format", "kind")}
    match data.get("kind"):
        case "robustness":
            return Specification((_robustness(members),), text, "json")
        case "box":
            return Specification(_consistent([_case(members, "")]), text, "json")
        case "cases":
            return Specification(_cases(members), text, "json")
        case other:
            raise InvalidSpecification(f'"kind" must be "robustness", "box" or "cases", not {_shown(other)}')


def _finite(values: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidSpecification(f'"input" must be an array of numbers: {error}') from None
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InvalidSpecification(f'"input"[{bad[0]}] is {array.flat[bad[0]]}: inputs must be finite numbers')
    return array


def _whole(value: int, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidSpecification(f'"{name}" is {value!r}: it must be a whole number') from None


def _spoken(value: Number, name: str) -> str:
    try:
        return written(spoken(value))
    except InvalidSpecification as error:
        raise InvalidSpecification(f'"{name}": {error}') from None


def _text(data: dict[str, Any]) -> bytes:
    """One member a line."""
    members = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in data.items())
    return ("{\n" + ",\n".join(members) + "\n}\n").encode()


def limit_depth(text: bytes) -> None:
    """Raises: ResourceLimit before the JSON parser recurses."""
    if text.count(b"[") + text.count(b"{") <= DEPTH:
        return
    depth = 0
    for match in _MARK.finditer(text):
        mark = match.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        if depth > DEPTH:
            raise ResourceLimit("the nesting depth of the specification", str(DEPTH))


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object.   Raises: InvalidSpecification if it has a key twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidSpecification(f"{_shown(name)} is given twice")
        found[name] = value
    return found


def _shown(value: object) -> str:
    return written(value)[:60] if isinstance(value, Fraction) else json.dumps(value, default=str)[:60]


def _require(data: Any, where: str, needed: Sequence[str], optional: Sequence[str] = ()) -> None:
    """`data` is an object with these members and no others."""
    if not isinstance(data, dict):
        raise InvalidSpecification(f"{where}an object with {', '.join(needed)} was expected, not {_shown(data)}")
    if missing := [name for name in needed if name not in data]:
        raise InvalidSpecification(f'{where}"{missing[0]}" is missing')
    if unknown := [name for name in data if name not in (*needed, *optional)]:
        known = ", ".join((*needed, *optional))
        raise InvalidSpecification(f"{where}{_shown(unknown[0])} is not known here; known: {known}")


def _number(value: Any, where: str) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if not isinstance(value, str):
        raise InvalidSpecification(f'{where} must be a number (or a string such as "1/255"), not {_shown(value)}')
    try:
        return exact(value)
    except InvalidSpecification as error:
        raise InvalidSpecification(f"{where}: {error}") from None


def _list(value: Any, where: str, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidSpecification(f"{where} must be a list of {what}, not {_shown(value)}")
    return value


def _vector(value: Any, where: str) -> Vector:
    """Numbers that are written alike become one object."""
    found: dict[str, Fraction] = {}
    for i, number in enumerate(_list(value, where, "numbers")):
        if isinstance(number, str) and number not in found:
            found[number] = _number(number, f"{where}[{i}]")
        elif not isinstance(number, str | Fraction):
            _number(number, f"{where}[{i}]")
    return tuple(found[number] if isinstance(number, str) else number for number in value)


def _index(value: Any, where: str, limit: int) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value < limit:
        raise InvalidSpecification(f"{where} is {_shown(value)}: it must be a whole number from 0 to {limit - 1}")
    return int(value)


def _case(data: Any, where: str, together: bool = True) -> Case:
    """{"lower": .., "upper": .., "unsafe": [{"C": .., "d": ..}, ..]}; "ball", "constraints": {"P": .., "q": ..} or not.

    The region is what lies in all of them.
    """
    _require(data, where, ("lower", "upper", "unsafe"), ("ball", "constraints"))
    lower, upper = _vector(data["lower"], f'{where}"lower"'), _vector(data["upper"], f'{where}"upper"')
    if len(lower) != len(upper) or not lower:
        raise InvalidSpecification(f'{where}"lower" has {len(lower)} numbers, "upper" {len(upper)}')
    unsafe = _list(data["unsafe"], f'{where}"unsafe"', "clauses")
    if not unsafe:
        raise InvalidSpecification(f'{where}"unsafe" is empty: there is nothing to prove')
    ball = _ball(data["ball"], f'{where}"ball": ', len(lower)) if data.get("ball") is not None else None
    constraints = _constraints(data, where, len(lower))
    try:
        inputs = InputSet(lower, upper, ball, constraints)
    except InvalidSpecification as error:
        raise InvalidSpecification(f"{where}empty region: {error}") from None
    if ball is not None and not _meet(ball, lower, upper):
        raise InvalidSpecification(f'{where}empty region: no point of the box is within "epsilon" of the "ball"')
    _require_possible(inputs, where, together)
    return Case(inputs, tuple(_clause(c, f'{where}"unsafe"[{k}]: ') for k, c in enumerate(unsafe)))


def _ball(data: Any, where: str, inputs: int) -> Ball:
    """{"input": .., "epsilon": .., "norm": "2" or "1"}."""
    _require(data, where, ("input", "epsilon", "norm"))
    centre = _vector(data["input"], f'{where}"input"')
    if len(centre) != inputs:
        raise InvalidSpecification(f'{where}"input" has {len(centre)} numbers for {inputs} inputs')
    if data["norm"] not in NORMS[1:]:
        raise InvalidSpecification(f'{where}"norm" must be one of the strings 2, 1, not {_shown(data["norm"])}')
    return Ball(centre, _radius(data["epsilon"], f'{where}"epsilon"'), float(data["norm"]))


def _radius(value: Any, where: str) -> Fraction:
    radius = _number(value, where)
    if radius < 0:
        raise InvalidSpecification(f"{where} is {_shown(radius)}: it must not be negative")
    return radius


def _constraints(data: Any, where: str, inputs: int) -> tuple[Constraint, ...]:
    """Those of the member "constraints", if it is there: P x <= q."""
    if data.get("constraints") is None:
        return ()
    where = f'{where}"constraints": '
    _require(data["constraints"], where, ("P", "q"))
    rows = _list(data["constraints"]["P"], f'{where}"P"', "rows")
    matrix = [_vector(row, f'{where}"P"[{i}]') for i, row in enumerate(rows)]
    bound = _vector(data["constraints"]["q"], f'{where}"q"')
    if len(matrix) != len(bound):
        raise InvalidSpecification(f'{where}"P" has {len(matrix)} rows, "q" {len(bound)} numbers')
    for i, row in enumerate(matrix):
        if len(row) != inputs:
            raise InvalidSpecification(f'{where}"P"[{i}] has {len(row)} numbers for {inputs} inputs')
        if not any(row):
            raise InvalidSpecification(f'{where}"P"[{i}] is zero: it constrains nothing')
    return tuple(map(Constraint, matrix, bound))


def _require_possible(inputs: InputSet, where: str, together: bool) -> None:
    if proved_empty(inputs, together):
        raise InvalidSpecification(f'{where}empty region: no point of the box satisfies the "constraints"')


def _clause(data: Any, where: str) -> Clause:
    _require(data, where, ("C", "d"))
    rows = _list(data["C"], f'{where}"C"', "rows")
    matrix = tuple(_vector(row, f'{where}"C"[{i}]') for i, row in enumerate(rows))
    bound = _vector(data["d"], f'{where}"d"')
    if len(matrix) != len(bound):
        raise InvalidSpecification(f'{where}"C" has {len(matrix)} rows, "d" {len(bound)} numbers')
    return Clause(matrix, bound)


def _cases(data: Any) -> tuple[Case, ...]:
    _require(data, "", ("cases",))
    listed = _list(data["cases"], '"cases"', "cases")
    if not listed:
        raise InvalidSpecification('"cases" is empty: there is nothing to prove')
    few = len(listed) <= PROGRAMS
    return _consistent([_case(case, f'"cases"[{k}]: ', few) for k, case in enumerate(listed)])


def _consistent(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Themselves.   Raises: InvalidSpecification if they differ in their number of inputs or outputs."""
    inputs = {len(case.inputs.exact_lower) for case in cases}
    outputs = {len(row) for case in cases for clause in case.clauses for row in clause.matrix}
    for what, found in (("inputs", inputs), ("outputs", outputs)):
        if len(found) > 1:
            raise InvalidSpecification(f"it speaks of {min(found)} and of {max(found)} {what}")
    if 0 in outputs:
        raise InvalidSpecification('a row of "C" is empty: it has one number an output')
    return tuple(cases)


def _robustness(data: Any) -> Case:
    _require(data, "", ("input", "label", "outputs", "epsilon", "norm"), ("target", "clip", "constraints"))
    centre = _vector(data["input"], '"input"')
    if not centre:
        raise InvalidSpecification('"input" is empty')
    radius = _radius(data["epsilon"], '"epsilon"')
    norm = data["norm"]
    if norm not in NORMS:
        raise InvalidSpecification(f'"norm" must be one of the strings {", ".join(NORMS)}, not {_shown(norm)}')
    ends = None if data.get("clip") is None else _ends(data["clip"])
    inputs = replace(around(centre, radius, norm, ends), constraints=_constraints(data, "", len(centre)))
    _require_possible(inputs, "", True)
    return Case(inputs, _rivals(data))


def around(centre: Vector, radius: Fraction, norm: str, clip: tuple[Fraction, Fraction] | None) -> InputSet:
    """The inputs within a radius of the centre, in a norm of NORMS, every coordinate in the clip range.

    Raises: InvalidSpecification where there are none.
    """
    lower, upper = _clipped(centre, radius, clip)
    ball = None if norm == "inf" else Ball(centre, radius, float(norm))
    if ball is not None and not _meet(ball, lower, upper):
        raise InvalidSpecification('empty region: "input" is further than "epsilon" from the "clip" range')
    return InputSet(lower, upper, ball)


def _clipped(centre: Vector, radius: Fraction, ends: tuple[Fraction, Fraction] | None) -> tuple[Vector, Vector]:
    """[x - radius, x + radius] cut by the clip range.   Raises: InvalidSpecification where that is empty."""
    distinct = {id(x): x for x in centre}
    reached = {key: _reached(x, radius, ends) for key, x in distinct.items()}
    for i, x in enumerate(centre):
        if reached[id(x)] is None:
            where = f'"input"[{i}] is {float(x)!r}'
            raise InvalidSpecification(f'empty region: {where}, further than "epsilon" from the "clip" range')
    lower, upper = zip(*(reached[id(x)] or () for x in centre), strict=True)
    return lower, upper


def _ends(clip: Any) -> tuple[Fraction, Fraction]:
    ends = _vector(clip, '"clip"')
    if len(ends) != 2 or ends[0] > ends[1]:
        raise InvalidSpecification(f'"clip" must be [lowest, highest], not {_shown([written(e) for e in ends])}')
    return ends[0], ends[1]


def _reached(x: Fraction, radius: Fraction, clip: tuple[Fraction, Fraction] | None) -> tuple[Fraction, Fraction] | None:
    """[x - radius, x + radius] cut by the clip range, None if that is empty: whole numbers over one denominator."""
    (top, bottom), (reach, unit) = x.as_integer_ratio(), radius.as_integer_ratio()
    low, high, scale = top * unit - reach * bottom, top * unit + reach * bottom, bottom * unit
    if clip is None:
        return Fraction(low, scale), Fraction(high, scale)
    (first, one), (last, other) = clip[0].as_integer_ratio(), clip[1].as_integer_ratio()
    if high * one < first * scale or low * other > last * scale:
        return None
    lower = clip[0] if low * one <= first * scale else Fraction(low, scale)
    return lower, clip[1] if high * other >= last * scale else Fraction(high, scale)


def _meet(ball: Ball, lower: Vector, upper: Vector) -> bool:
    """Whether the point of the box next to the centre is in the ball."""
    ends = zip(ball.centre, lower, upper, strict=True)
    outside = [low - x if _less(x, low) else x - high for x, low, high in ends if _less(x, low) or _less(high, x)]
    power = int(ball.norm)
    return sum((gap**power for gap in outside), Fraction(0)) <= ball.radius**power


def _less(left: Fraction, right: Fraction) -> bool:
    """What < says, in half the time."""
    (a, b), (c, d) = left.as_integer_ratio(), right.as_integer_ratio()
    return a * d < c * b


def _rivals(data: dict[str, Any]) -> tuple[Clause, ...]:
    """{y_j >= y_label} for the target, or for every j that is not the label."""
    outputs = _index(data["outputs"], '"outputs"', 1 << 20)
    label = _index(data["label"], '"label"', outputs)
    target = None if data.get("target") is None else _index(data["target"], '"target"', outputs)
    if target == label:
        raise InvalidSpecification(f'"target" and "label" are both {label}')
    rivals = [j for j in range(outputs) if j != label and target in (None, j)]
    if not rivals:
        raise InvalidSpecification(f'"outputs" is {outputs}: there is no other class than the label')
    if len(rivals) * outputs > CELLS:
        raise ResourceLimit('the size of the clauses for "outputs"', f"{CELLS} numbers")
    return tuple(_rival(j, label, outputs) for j in rivals)


def _rival(j: int, label: int, outputs: int) -> Clause:
    row = [Fraction(0)] * outputs
    row[j], row[label] = Fraction(1), Fraction(-1)
    return Clause((tuple(row),), (Fraction(0),))
