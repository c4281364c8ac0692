"""What is to be proved, read from the bundle's file with exact rationals: two forms, one normal form.

A clause {y : C y >= d} is closed and unsafe. It is excluded over a case's inputs when for some row i the margin, the
minimum of d_i - C_i y, is above 0.
"""

import re
from fractions import Fraction
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from provenn.verifier.check.manifest import parsed
from provenn.verifier.check.rounding import CertificateRejected, float_below, require
from provenn.verifier.check.rows import Ball, Box

Vector = tuple[Fraction, ...]

DECIMAL = re.compile(r"[+-]?([0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})([eE][+-]?[0-9]{1,3})?")
RATIONAL = re.compile(r"-?[0-9]{1,400}/0*[1-9][0-9]{0,400}")
VARIABLE = re.compile(r"[XY]_(0|[1-9][0-9]{0,7})")
HEXADECIMAL = re.compile(r"(-?)0x([01])(?:\.([0-9a-f]{0,13}))?p([+-]?[0-9]{1,4})")

DEPTH, DISJUNCTS, ATOMS = 64, 100_000, 10_000_000  # limits of nesting, disjuncts, constraints in all of them

ZERO, ONE = Fraction(0), Fraction(1)
Linear = dict[str, Fraction]  # coefficients by variable; "" stands for the constant. An atom is one that is >= 0
Limits = dict[tuple[int, int], Fraction]  # bounds by (input, 1 lower or -1 upper)


class Clause(NamedTuple):
    """{y : C y >= d}: rows of C, and d."""

    matrix: tuple[Vector, ...]
    bound: Vector


class Case(NamedTuple):
    """lower <= x <= upper, and |x - centre|_norm <= radius if ball = (centre, radius, norm); clauses to exclude."""

    lower: Vector
    upper: Vector
    clauses: tuple[Clause, ...]
    ball: tuple[Vector, Fraction, int] | None = None

    def region(self) -> tuple[Box, Ball | None]:
        """The inputs in float64, rounded outward (the ball's centre down: Ball allows for it)."""
        lower, upper = [float_below(x) for x in self.lower], [float_below(-x) for x in self.upper]
        box = Box(np.array(lower), -np.array(upper))
        centre, radius, norm = self.ball or ((), ZERO, 0)
        require(all(abs(c) < 2**1000 for c in centre), "specification", "the centre of a ball is out of range")
        return box, Ball(np.array([float_below(c) for c in centre]), -float_below(-radius), norm) if norm else None


def number(text: str) -> Fraction:
    """A decimal, rational or hexadecimal float, exactly.   Raises: CertificateRejected for anything else."""
    if match := HEXADECIMAL.fullmatch(text):
        sign, whole, part, exponent = match.groups(default="")
        return int(f"{sign}{whole}{part}", 16) * Fraction(2) ** (int(exponent) - 4 * len(part))
    known = DECIMAL.fullmatch(text) or RATIONAL.fullmatch(text)
    require(known, "specification", f"{text[:40]!r} is not a number that is read here")
    return Fraction(text)


def read_json(text: bytes) -> tuple[Case, ...]:
    """The cases of a provenn-specification/1.   Raises: CertificateRejected for anything not understood."""
    content = parsed("specification", text, number)
    form, kind = content.pop("format", None), content.pop("kind", None)
    require(form == "provenn-specification/1", "specification", f"format {form!r} is not understood")
    if kind == "robustness":
        return (_robustness(content),)
    require(kind in ("box", "cases"), "specification", f"kind {kind!r} is not understood")
    return tuple(_box(case) for case in ([content] if kind == "box" else _list(*_only(content, "cases"))))


def _only(content: Any, *names: str) -> list[Any]:
    """The values of these keys (None where absent), and no others."""
    known = isinstance(content, dict) and content.keys() <= set(names)
    require(known, "specification", f"an object may have {', '.join(names)} only")
    return [content.get(name) for name in names]


def _list(value: Any) -> list[Any]:
    require(isinstance(value, list) and value, "specification", "a list is missing or empty")
    return list(value)


def _vector(*values: Any) -> Vector:
    return tuple(x if isinstance(x, Fraction) else number(str(x)) for x in values)


def _box(content: Any) -> Case:
    given, *parts = _only(content, "ball", "lower", "upper", "unsafe")
    ball, (lower, upper, unsafe) = None if given is None else _ball(given), map(_list, parts)
    pairs = [[_list(part) for part in _only(clause, "C", "d")] for clause in unsafe]
    clauses = tuple(Clause(tuple(_vector(*_list(row)) for row in c), _vector(*d)) for c, d in pairs)
    return Case(_vector(*lower), _vector(*upper), clauses, ball)


def _ball(content: Any) -> tuple[Vector, Fraction, int]:
    given, epsilon, norm = _only(content, "input", "epsilon", "norm")
    (radius,) = _vector(epsilon)
    require(radius >= 0 and norm in ("2", "1"), "specification", "epsilon or norm of a ball is out of range")
    return _vector(*_list(given)), radius, int(norm)


def _robustness(content: Any) -> Case:
    """Box and ball of radius epsilon around the input, within the clip range; clauses y_j - y_label >= 0."""
    names = ("input", "clip", "norm", "target", "label", "outputs", "epsilon")
    given, clip, norm, target, *rest = _only(content, *names)
    centre, (label, outputs, radius, goal) = _vector(*_list(given)), _vector(*rest, -1 if target is None else target)
    whole = label.denominator == outputs.denominator == goal.denominator == 1 and outputs <= 2**11
    inside = 0 <= label < outputs and -1 <= goal < outputs and goal != label and (target is None or goal >= 0)
    require(whole and inside, "specification", "label, target or outputs is out of range")
    lower, upper, ball = _around(centre, radius, norm, clip)
    others = [j for j in range(int(outputs)) if j != label and goal in (-1, j)]
    rows = [tuple(Fraction((i == j) - (i == label)) for i in range(int(outputs))) for j in others]
    clauses = tuple(Clause((row,), (ZERO,)) for row in rows)
    return Case(lower, upper, clauses, ball)


def _around(centre: Vector, radius: Fraction, norm: Any, clip: Any) -> tuple[Vector, Vector, Any]:
    """The box around a ball within the clip range, and the ball where it is no box."""
    require(radius >= 0 and norm in ("inf", "2", "1"), "specification", "epsilon or norm is out of range")
    limits = (min(centre) - radius, max(centre) + radius) if clip is None else _vector(*_list(clip))
    require(len(limits) == 2, "specification", "the clip range must have two ends")
    lower, upper = tuple(max(x - radius, limits[0]) for x in centre), tuple(min(x + radius, limits[1]) for x in centre)
    return lower, upper, (centre, radius, int(norm)) if norm != "inf" else None


class Lipschitz(NamedTuple):
    """|C (f(x) - f(y))|_out <= upper |s * (x - y)|_in for all x, y (of the region, if there is one).

    outward "each": for every row of C with a number of its own. scale: s, one number an input, or none: all 1.
    """

    inward: str
    scale: Vector
    rows: tuple[Vector, ...]
    outward: str
    upper: Vector
    region: Case | None


def read_lipschitz(text: bytes, inputs: int, outputs: int) -> Lipschitz:
    """The statement.   Raises: CertificateRejected for anything not understood, or if it does not fit the network."""
    names = ("format", "kind", "input", "outputs", "output_norm", "upper", "region")
    form, kind, source, rows, outward, upper, region = _only(parsed("specification", text, number), *names)
    known = form == "provenn-specification/1" and kind == "lipschitz" and outward in ("2", "inf", "1", "each")
    require(known, "specification", f"format {form!r}, kind {kind!r} or output norm {outward!r} is not understood")
    inward, scale = _only(source, "norm", "scale")
    matrix = tuple(_vector(*_list(row)) for row in _list(rows))
    weights = () if scale is None else _vector(*_list(scale))
    stated = Lipschitz(inward, weights, matrix, outward, _vector(*_list(upper)), None)
    fits = inward in ("1", "2", "inf") and len(stated.scale) in (0, inputs) and all(s > 0 for s in stated.scale)
    fits = fits and {outputs}.issuperset(map(len, matrix)) and all(0 <= number <= 2**300 for number in stated.upper)
    fits = fits and len(stated.upper) == (len(matrix) if outward == "each" else 1)
    sizes = [abs(c) for v in (*matrix, stated.scale) for c in v if c]
    fits = fits and all(Fraction(2) ** -300 <= c <= 2**300 for c in sizes)
    require(fits, "specification", "its norm, scale, rows or numbers are out of range, or do not fit the network")
    return stated._replace(region=None if region is None else _region(region, inputs))


class Entry(NamedTuple):
    """lower <= (C J)_row,column <= upper; None: no such bound."""

    row: int
    column: int
    lower: Fraction | None
    upper: Fraction | None


class Jacobian(NamedTuple):
    """t lower <= c (f(x + t e_j) - f(x)) <= t upper for entries (c, j), t >= 0, x and x + t e_j of one of the regions.

    So wherever f is differentiable inside a region, and for all of Clarke's generalized Jacobian there.
    """

    rows: tuple[Vector, ...]
    entries: tuple[Entry, ...]
    regions: tuple[Case, ...]


def read_jacobian(text: bytes, inputs: int, outputs: int) -> Jacobian:
    """The statement.   Raises: CertificateRejected for anything not understood, or if it does not fit the network."""
    parts = _only(parsed("specification", text, number), "format", "kind", "outputs", "entries", "regions")
    form, kind, rows, given, regions = parts
    known = form == "provenn-specification/1" and kind == "jacobian"
    require(known, "specification", f"format {form!r} or kind {kind!r} is not understood")
    matrix = tuple(_vector(*_list(row)) for row in _list(rows))
    sizes = [abs(c) for row in matrix for c in row if c]
    fits = {outputs}.issuperset(map(len, matrix)) and all(Fraction(2) ** -300 <= c <= 2**300 for c in sizes)
    listed = [_list(entry) for entry in _list(given)]
    fits = fits and all(len(e) == 4 and type(e[0]) is type(e[1]) is int for e in listed)
    fits = fits and all(0 <= e[0] < len(matrix) and 0 <= e[1] < inputs for e in listed)
    require(fits, "specification", "its rows or entries are out of range, or do not fit the network")
    ends = [[None if end is None else _vector(end)[0] for end in entry[2:]] for entry in listed]
    entries = tuple(Entry(e[0], e[1], *end) for e, end in zip(listed, ends, strict=True))
    return Jacobian(matrix, entries, tuple(_region(region, inputs) for region in _list(regions)))


def _region(content: Any, inputs: int) -> Case:
    """A box, a ball within a clip range, or what lies in both."""
    names = ("lower", "upper", "input", "epsilon", "norm", "clip")
    lower, upper, given, radius, norm, clip = _only(content, *names)
    sides: list[tuple[Vector, Vector]] = []
    ball = None
    if given is None or lower is not None or upper is not None:
        sides.append((_vector(*_list(lower)), _vector(*_list(upper))))
    if given is not None or radius is not None or norm is not None or clip is not None:
        *side, ball = _around(_vector(*_list(given)), _vector(radius)[0], norm, clip)
        sides.append((side[0], side[1]))
    fits = all(len(side) == inputs for pair in sides for side in pair)
    require(fits, "specification", f"its region does not have {inputs} inputs")
    least = tuple(max(each) for each in zip(*(low for low, _ in sides), strict=True))
    most = tuple(min(each) for each in zip(*(high for _, high in sides), strict=True))
    ordered = all(a <= b for a, b in zip(least, most, strict=True))
    require(ordered, "specification", "a lower bound of an input is above the upper bound")
    return Case(least, most, (), ball)


def read_vnnlib(text: bytes) -> tuple[Case, ...]:
    """The cases of a VNN-LIB 1.0 file: assertions over X_i and Y_j, as a box over X and rows over Y a disjunct.

    Strict inequalities are read as closed ones: the unsafe set grows. The disjuncts of one box are the clauses of one
    case. Raises: CertificateRejected for anything not understood.
    """
    declared: set[str] = set()
    common: list[Linear] = []
    varying: list[list[Linear]] = [[]]
    require(text.isascii(), "specification", "it is not ASCII text")
    for command in _trees(re.sub(r";[^\n]*", "", text.decode("ascii"))):
        match command:
            case ["declare-const", str(name), "Real"] if VARIABLE.fullmatch(name) and name not in declared:
                declared.add(name)
            case ["assert", tree]:
                formula = _disjuncts(tree, declared)
                common += formula[0] if len(formula) == 1 else []
                varying = _product(varying, formula) if len(formula) > 1 else varying
            case _:
                raise CertificateRejected("specification", f"command {str(command)[:60]} is not understood")
    return _cases(declared, common, varying)


def _trees(text: str) -> list[Any]:
    """The parentheses as nested lists."""
    stack: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", text):
        if token == "(":
            stack.append([])
            require(len(stack) <= DEPTH, "specification", f"it is nested deeper than {DEPTH}")
        else:
            done = stack.pop() if token == ")" else token
            require(stack, "specification", "a parenthesis is closed that was not opened")
            stack[-1].append(done)
    require(len(stack) == 1, "specification", "a parenthesis is not closed")
    return stack[0]


def _disjuncts(tree: Any, declared: set[str]) -> list[list[Linear]]:
    """A formula in disjunctive normal form."""
    match tree:
        case ["or", _, *_]:
            return [disjunct for part in tree[1:] for disjunct in _disjuncts(part, declared)]
        case ["and", _, *_]:
            return reduce(_product, (_disjuncts(part, declared) for part in tree[1:]))
        case ["<=" | "<", less, more] | [">=" | ">", more, less]:
            return [[_sum(_linear(more, declared), _linear(less, declared), -1)]]
    raise CertificateRejected("specification", f"formula {str(tree)[:60]} is not understood")


def _product(left: list[list[Linear]], right: list[list[Linear]]) -> list[list[Linear]]:
    """(or left) and (or right)."""
    atoms = len(right) * sum(map(len, left)) + len(left) * sum(map(len, right))
    require(len(left) * len(right) <= DISJUNCTS and atoms <= ATOMS, "specification", "its normal form is too large")
    return [a + b for a in left for b in right]


def _linear(tree: Any, declared: set[str]) -> Linear:
    """A linear term."""
    match tree:
        case str():
            return {tree: ONE} if tree in declared else {"": number(tree)}
        case ["-", only]:
            return _sum({}, _linear(only, declared), -1)
        case ["+" | "-", _, *_]:
            sign = 1 if tree[0] == "+" else -1
            return reduce(lambda a, b: _sum(a, b, sign), (_linear(part, declared) for part in tree[1:]))
        case ["*", _, *_]:
            terms = [_linear(part, declared) for part in tree[1:]]
            *numbers, term = sorted(terms, key=lambda part: len(part.keys() - {""}))
            require(all(part.keys() <= {""} for part in numbers), "specification", "a product of variables")
            return _sum({}, term, prod(part.get("", ZERO) for part in numbers))
    raise CertificateRejected("specification", f"term {str(tree)[:60]} is not understood")


def _sum(left: Linear, right: Linear, factor: Fraction | int) -> Linear:
    """Left + factor right, without zeros."""
    total = dict(left)
    for name, value in right.items():
        term = -value if factor == -1 else factor * value
        total[name] = total[name] + term if name in total else term
    return {name: value for name, value in total.items() if value}


def _cases(declared: set[str], common: list[Linear], varying: list[list[Linear]]) -> tuple[Case, ...]:
    """Cases in the order in which their boxes first appear, without empty boxes."""
    inputs, outputs = (sum(name[0] == letter for name in declared) for letter in "XY")
    whole = {f"X_{i}" for i in range(inputs)} | {f"Y_{j}" for j in range(outputs)} == declared
    require(inputs and outputs and whole, "specification", "X and Y must be declared without gaps")
    limits, rows = _limits(common, {})
    found: dict[tuple[tuple[int, ...], ...], tuple[Limits, list[Clause]]] = {}
    for disjunct in varying:
        tighter, more = _limits(disjunct, limits)
        key = tuple(sorted((*side, x.numerator, x.denominator) for side, x in tighter.items()))
        matrix = tuple(tuple(row.get(f"Y_{j}", ZERO) for j in range(outputs)) for row in rows + more)
        bound = tuple(-row.get("", ZERO) for row in rows + more)
        found.setdefault(key, (limits | tighter, []))[1].append(Clause(matrix, bound))
    cases = []
    for box, clauses in found.values():
        require(len(box) == 2 * inputs, "specification", "an input has no lower or no upper bound")
        lower, upper = (tuple(box[i, side] for i in range(inputs)) for side in (1, -1))
        if all(low <= high for low, high in zip(lower, upper, strict=True)):
            cases.append(Case(lower, upper, tuple(clauses)))
    return tuple(cases)


def _limits(atoms: list[Linear], known: Limits) -> tuple[Limits, list[Linear]]:
    """Bounds that are tighter than the known ones, and the atoms over Y."""
    limits: Limits = {}
    rows = []
    for atom in atoms:
        variables = [name for name in atom if name]
        if variables and all(name[0] == "Y" for name in variables):
            rows.append(atom)
            continue
        require(len(variables) == 1, "specification", "a constraint is neither a bound of one input nor over outputs")
        slope, constant = atom[variables[0]], atom.get("", ZERO)
        side, limit = (int(variables[0][2:]), 1 if slope > 0 else -1), -constant if slope == 1 else -constant / slope
        old = limits.get(side, known.get(side))
        if old is None or side[1] * limit > side[1] * old:
            limits[side] = limit
    return limits, rows
