"""VNN-LIB 1.0 text with exact decimals: assertions over X_i and Y_j in disjunctive normal form.

Strict inequalities are read as closed ones: the unsafe set grows. Each disjunct is a box over X and rows over Y;
disjuncts over one box are the clauses of one case.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from provenn.verifier.check.rejected import CertificateRejected, require
from provenn.verifier.check.specification import Case, Clause, number

DEPTH, DISJUNCTS, ATOMS = 64, 100_000, 10_000_000
"""Limits: of nesting, of disjuncts, of constraints in all disjuncts together."""

VARIABLE = re.compile(r"[XY]_(0|[1-9][0-9]{0,7})", re.ASCII)

Linear = dict[str, Fraction]
"""Coefficient of each variable; "" stands for the constant. An atom is a Linear that is to be >= 0."""
Limits = dict[tuple[int, int], Fraction]


def read_vnnlib(text: bytes) -> tuple[Case, ...]:
    """The cases of a VNN-LIB 1.0 file.   Raises: CertificateRejected for anything not understood."""
    try:
        content = text.decode("ascii")
    except UnicodeDecodeError as error:
        raise CertificateRejected("specification", f"it is not ASCII text: {error}") from error
    declared: dict[str, None] = {}
    common: list[Linear] = []
    varying: list[list[Linear]] = [[]]
    for command in _trees(re.sub(r";[^\n]*", "", content)):
        require(isinstance(command, list) and command, "specification", "text outside a command")
        if command[0] == "declare-const" and len(command) == 3 and command[2] == "Real":
            name = str(command[1])
            require(VARIABLE.fullmatch(name) and name not in declared, "specification", f"constant {name[:40]}")
            declared[name] = None
        elif command[0] == "assert" and len(command) == 2:
            formula = _disjuncts(command[1], declared)
            if len(formula) == 1:
                common += formula[0]
            else:
                varying = _product(varying, formula)
        else:
            raise CertificateRejected("specification", f"command {str(command[0])[:40]} is not understood")
    return _cases(declared, common, varying)


def _trees(text: str) -> list[Any]:
    """The parentheses as nested lists."""
    stack: list[list[Any]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", text):
        if token == "(":
            require(len(stack) < DEPTH, "specification", f"it is nested deeper than {DEPTH}")
            stack.append([])
        elif token == ")":
            require(len(stack) > 1, "specification", "a parenthesis is closed that was not opened")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    require(len(stack) == 1, "specification", "a parenthesis is not closed")
    return stack[0]


def _disjuncts(tree: Any, declared: dict[str, None]) -> list[list[Linear]]:
    """A formula in disjunctive normal form."""
    require(isinstance(tree, list) and len(tree) > 1, "specification", f"{str(tree)[:40]} is not a formula")
    if tree[0] == "or":
        return [disjunct for part in tree[1:] for disjunct in _disjuncts(part, declared)]
    if tree[0] == "and":
        result: list[list[Linear]] = [[]]
        for part in tree[1:]:
            result = _product(result, _disjuncts(part, declared))
        return result
    require(
        tree[0] in ("<=", "<", ">=", ">") and len(tree) == 3, "specification", f"{str(tree[0])[:40]} is not understood"
    )
    left, right = _linear(tree[1], declared), _linear(tree[2], declared)
    return [[_sum(left, right, -1) if tree[0] in (">=", ">") else _sum(right, left, -1)]]


def _product(left: list[list[Linear]], right: list[list[Linear]]) -> list[list[Linear]]:
    """(or left) and (or right)."""
    atoms = len(right) * sum(map(len, left)) + len(left) * sum(map(len, right))
    require(len(left) * len(right) <= DISJUNCTS and atoms <= ATOMS, "specification", "its normal form is too large")
    if len(left) == len(right) == 1:
        left[0].extend(right[0])
        return left
    return [a + b for a in left for b in right]


def _linear(tree: Any, declared: dict[str, None]) -> Linear:
    """A linear term."""
    if isinstance(tree, str):
        return {tree: Fraction(1)} if tree in declared else {"": number(tree)}
    require(len(tree) > 1 and tree[0] in ("+", "-", "*"), "specification", f"{str(tree)[:40]} is not a linear term")
    first, *rest = (_linear(part, declared) for part in tree[1:])
    if tree[0] == "-" and not rest:
        return _sum({}, first, -1)
    for term in rest:
        if tree[0] == "*":
            constant, other = (first, term) if first.keys() <= {""} else (term, first)
            require(constant.keys() <= {""}, "specification", "a product of variables is not linear")
            first = _sum({}, other, constant.get("", Fraction(0)))
        else:
            first = _sum(first, term, 1 if tree[0] == "+" else -1)
    return first


def _sum(left: Linear, right: Linear, factor: Fraction | int) -> Linear:
    """Left + factor right, without zeros."""
    result = dict(left)
    for name, value in right.items():
        result[name] = result.get(name, Fraction(0)) + factor * value
    return {name: value for name, value in result.items() if value}


def _cases(declared: dict[str, None], common: list[Linear], varying: list[list[Linear]]) -> tuple[Case, ...]:
    """Cases in the order in which their boxes first appear."""
    inputs, outputs = (sum(name[0] == letter for name in declared) for letter in "XY")
    whole = all(f"X_{i}" in declared for i in range(inputs)) and all(f"Y_{i}" in declared for i in range(outputs))
    require(inputs and outputs and whole, "specification", "X and Y must be declared without gaps")
    limits, rows = _limits(common, {})
    cases: dict[tuple[tuple[int, ...], ...], tuple[Limits, list[Clause]]] = {}
    for disjunct in varying:
        tighter, more = _limits(disjunct, limits)
        key = tuple(sorted((*side, x.numerator, x.denominator) for side, x in tighter.items()))
        cases.setdefault(key, (tighter, []))[1].append(_clause(rows + more, outputs))
    boxes = [(limits | tighter, tuple(clauses)) for tighter, clauses in cases.values()]
    bounded = all(len(box) == 2 * inputs for box, _ in boxes)
    require(bounded, "specification", "an input has no lower or no upper bound")
    return tuple(Case(*(tuple(box[i, s] for i in range(inputs)) for s in (1, -1)), clauses) for box, clauses in boxes)


def _limits(atoms: list[Linear], known: Limits) -> tuple[Limits, list[Linear]]:
    """Bounds by (input, 1 lower or -1 upper) that are tighter than the known ones, and the atoms over Y."""
    limits, rows = {}, []
    for atom in atoms:
        variables = [name for name in atom if name]
        if variables and all(name[0] == "Y" for name in variables):
            rows.append(atom)
            continue
        require(len(variables) == 1, "specification", "a constraint is neither a bound of one input nor over outputs")
        slope = atom[variables[0]]
        side, limit = (int(variables[0][2:]), 1 if slope > 0 else -1), -atom.get("", Fraction(0)) / slope
        old = limits.get(side, known.get(side))
        if old is None or side[1] * limit > side[1] * old:
            limits[side] = limit
    return limits, rows


def _clause(rows: list[Linear], outputs: int) -> Clause:
    """C y >= d from atoms c y + constant >= 0."""
    zero = Fraction(0)
    matrix = tuple(tuple(row.get(f"Y_{j}", zero) for j in range(outputs)) for row in rows)
    return Clause(matrix, tuple(-row.get("", zero) for row in rows))
