"""The JSON form of a specification, provenn-specification/1: read and written with exact numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import exact
from provenn.verifier.spec import Ball, Case, Clause, InputSet, Specification

FORMAT = "provenn-specification/1"
NORMS = ("inf", "2", "1")
DEPTH = 16


def parse_json(text: bytes) -> Specification:
    """Reads kind "robustness", "box" or "cases" (docs/specifications.md).

    Raises: InvalidSpecification saying which member is wrong and what was expected.
    """
    _limit_depth(text)
    try:
        data = json.loads(
            text, parse_float=exact, parse_int=exact, parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        raise InvalidSpecification(f"not JSON: {error.msg} (column {error.colno})", error.lineno) from error
    except UnicodeDecodeError as error:
        raise InvalidSpecification(f"not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InvalidSpecification(f'a JSON specification is an object with "format": "{FORMAT}"')
    readers = {"robustness": _robustness, "box": _box, "cases": _cases}
    kind = data.get("kind")
    if kind not in readers:
        raise InvalidSpecification(f'"kind" must be one of {", ".join(readers)}, not {_shown(kind)}')
    cases = readers[kind]({k: v for k, v in data.items() if k not in ("format", "kind")})
    return Specification(cases, text, "json")


def robustness(
    input: ArrayLike,
    *,
    label: int,
    epsilon: str | float | Fraction,
    outputs: int,
    norm: str = "inf",
    target: int | None = None,
    clip: tuple[float | str | Fraction, float | str | Fraction] | None = None,
) -> Specification:
    """No input within `epsilon` of `input` (in `norm`, inside `clip`) gets another class than `label` (only `target`).

    A float epsilon means its shortest decimal: 0.03 is exactly 3/100. The input's floats are taken exactly.
    Raises: InvalidSpecification as `parse_json` does.
    """
    values = np.asarray(input, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidSpecification(f'"input"[{at}] is {values[at]}: inputs must be finite numbers')
    data = {
        "format": FORMAT,
        "kind": "robustness",
        "input": [v.hex() for v in values.tolist()],
        "label": int(label),
        "outputs": int(outputs),
        "target": None if target is None else int(target),
        "epsilon": _decimal(epsilon),
        "norm": norm,
        "clip": None if clip is None else [_decimal(c) for c in clip],
    }
    return parse_json(json.dumps(data).encode())


def from_cases(cases: Sequence[Case]) -> Specification:
    """The JSON form, kind "cases", of cases without balls."""
    listed = [
        {
            "lower": [str(v) for v in case.inputs.exact_lower],
            "upper": [str(v) for v in case.inputs.exact_upper],
            "unsafe": [
                {"C": [[str(c) for c in row] for row in clause.matrix], "d": [str(d) for d in clause.bound]}
                for clause in case.clauses
            ],
        }
        for case in cases
    ]
    return parse_json(json.dumps({"format": FORMAT, "kind": "cases", "cases": listed}).encode())


def _decimal(value: float | str | Fraction) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, Fraction) else repr(float(value))


def _limit_depth(text: bytes) -> None:
    depth = deepest = 0
    for byte in text:
        depth += (byte in b"[{") - (byte in b"]}")
        deepest = max(deepest, depth)
    if deepest > DEPTH:
        raise InvalidSpecification(f"nested {deepest} deep; at most {DEPTH} are read")


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidSpecification(f"{name} is not a finite number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidSpecification(f'"{name}" is given twice')
        found[name] = value
    return found


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Fraction) else repr(value)[:60]


def _members(data: Any, where: str, needed: Sequence[str], optional: Sequence[str] = ()) -> None:
    if not isinstance(data, dict):
        raise InvalidSpecification(f"{where} must be an object with {', '.join(needed)}, not {_shown(data)}")
    missing = [n for n in needed if n not in data]
    unknown = [n for n in data if n not in (*needed, *optional)]
    if missing:
        raise InvalidSpecification(f'{where} lacks "{missing[0]}"')
    if unknown:
        raise InvalidSpecification(
            f'{where} has an unknown member "{unknown[0]}"; known: {", ".join((*needed, *optional))}'
        )


def _number(value: Any, where: str) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, str):
        try:
            return exact(value)
        except InvalidSpecification as error:
            raise InvalidSpecification(f"{where}: {error}") from error
    raise InvalidSpecification(f'{where} must be a number (or a string such as "1/255"), not {_shown(value)}')


def _vector(value: Any, where: str) -> tuple[Fraction, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidSpecification(f"{where} must be a list of numbers, not {_shown(value)}")
    return tuple(_number(v, f"{where}[{i}]") for i, v in enumerate(value))


def _index(value: Any, where: str, limit: int) -> int:
    whole = isinstance(value, Fraction) and value.denominator == 1
    if not whole or not 0 <= value < limit:
        raise InvalidSpecification(f"{where} is {_shown(value)}: it must be a whole number from 0 to {limit - 1}")
    return int(value)


def _box(data: Any, where: str = "the specification") -> tuple[Case, ...]:
    _members(data, where, ("lower", "upper", "unsafe"))
    lower, upper = _vector(data["lower"], f'{where}: "lower"'), _vector(data["upper"], f'{where}: "upper"')
    if len(lower) != len(upper):
        raise InvalidSpecification(f'{where}: "lower" has {len(lower)} numbers and "upper" {len(upper)}')
    if not isinstance(data["unsafe"], list):
        raise InvalidSpecification(f'{where}: "unsafe" must be a list of clauses {{"C": [[..]], "d": [..]}}')
    clauses = tuple(_clause(c, f'{where}: "unsafe"[{k}]') for k, c in enumerate(data["unsafe"]))
    return (Case(InputSet(lower, upper), clauses),)


def _clause(data: Any, where: str) -> Clause:
    _members(data, where, ("C", "d"))
    if not isinstance(data["C"], list):
        raise InvalidSpecification(f'{where}: "C" must be a list of rows')
    matrix = tuple(_vector(row, f'{where}: "C"[{i}]') for i, row in enumerate(data["C"]))
    bound = _vector(data["d"], f'{where}: "d"') if data["d"] != [] else ()
    if len(matrix) != len(bound):
        raise InvalidSpecification(f'{where}: "C" has {len(matrix)} rows and "d" {len(bound)} numbers')
    return Clause(matrix, bound)


def _cases(data: Any) -> tuple[Case, ...]:
    _members(data, "the specification", ("cases",))
    if not isinstance(data["cases"], list) or not data["cases"]:
        raise InvalidSpecification('"cases" must be a list of at least one {"lower", "upper", "unsafe"}')
    cases = tuple(case for k, c in enumerate(data["cases"]) for case in _box(c, f'"cases"[{k}]'))
    sizes = {len(c.inputs.exact_lower) for c in cases}
    widths = {len(row) for c in cases for clause in c.clauses for row in clause.matrix}
    if len(sizes) > 1 or len(widths) > 1:
        raise InvalidSpecification('the "cases" differ in their number of inputs or outputs')
    return cases


def _robustness(data: Any) -> tuple[Case, ...]:
    needed = ("input", "label", "outputs", "epsilon")
    _members(data, "the specification", needed, ("target", "norm", "clip"))
    centre = _vector(data["input"], '"input"')
    outputs = _index(data["outputs"], '"outputs"', 1 << 20)
    label = _index(data["label"], '"label"', outputs)
    target = None if data.get("target") is None else _index(data["target"], '"target"', outputs)
    if target == label:
        raise InvalidSpecification(f'"target" and "label" are both {label}')
    radius = _number(data["epsilon"], '"epsilon"')
    if radius < 0:
        raise InvalidSpecification(f'"epsilon" is {_shown(float(radius))}: it must not be negative')
    norm = data.get("norm", "inf")
    if norm not in NORMS:
        raise InvalidSpecification(f'"norm" must be one of {", ".join(NORMS)} (a string), not {_shown(norm)}')
    lower, upper = _clipped(centre, radius, data.get("clip"))
    ball = None if norm == "inf" else Ball(centre, radius, float(norm))
    rivals = [j for j in range(outputs) if j != label and target in (None, j)]
    clauses = tuple(_rival(j, label, outputs) for j in rivals)
    return (Case(InputSet(lower, upper, ball), clauses),)


def _clipped(
    centre: tuple[Fraction, ...], radius: Fraction, clip: Any
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    lower, upper = tuple(v - radius for v in centre), tuple(v + radius for v in centre)
    if clip is None:
        return lower, upper
    ends = _vector(clip, '"clip"')
    if len(ends) != 2 or ends[0] > ends[1]:
        raise InvalidSpecification('"clip" must be [lowest, highest]')
    return tuple(max(v, ends[0]) for v in lower), tuple(min(v, ends[1]) for v in upper)


def _rival(j: int, label: int, outputs: int) -> Clause:
    """y_j >= y_label."""
    one, zero = Fraction(1), Fraction(0)
    return Clause((tuple(one if k == j else -one if k == label else zero for k in range(outputs)),), (zero,))
