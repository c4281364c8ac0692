"""Einsum and its relatives: sums of products of computed and constant tensors.

With one computed factor they are one affine node. Several are multiplied two at a time, from the left: constants meet
the first computed factor with which they share a letter, then the factors meet, each pair as one elementwise or matrix
product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from string import ascii_letters, ascii_lowercase

import numpy as np

from provenn.models.live_array import as_array
from provenn.models.onnx_ops.folding import whole
from provenn.models.onnx_ops.movement import transposed
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, Variable, tensor
from provenn.models.tensors import Array
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.einsum import Einsum
from provenn.verifier.ops.matmul import MatMul
from provenn.verifier.ops.power import Pow
from provenn.verifier.ops.product import Multiply

Extents = dict[str, int]

Factor = tuple[Value, str]
"""A factor and the letters of its axes."""


def einsum(plan: Plan, node: Node) -> Sequence[Value]:
    """Sums of products by the letters of the axes."""
    given = node.attribute("equation")
    node.require(isinstance(given, str) and given, "it has no equation")
    operands = [node.input(i) for i in range(len(node.inputs))]
    terms, result = _letters(node, str(given), [v.shape for v in operands])
    return [contracted(plan, node, operands, terms, result)]


def cumulative_sum(plan: Plan, node: Node) -> Sequence[Value]:
    """Sums of all elements up to each along one axis: the product with a triangle of ones."""
    x, exclusive, backwards = node.input(0), node.flag("exclusive"), node.flag("reverse")
    listed = node.integers(1, "the axis")
    node.require(len(listed) == 1, "the axis must be one number")
    axis = node.axis(listed[0], len(x.shape))
    length = x.shape[axis]

    def triangle() -> Array:
        ones = np.tri(length, k=-1 if exclusive else 0)
        return ones.T if backwards else ones

    return [along(plan, node, x, axis, (length, length), triangle)]


def along(plan: Plan, node: Node, x: Value, axis: int, shape: Shape, matrix: Callable[[], Array]) -> Value:
    """The matrix of `shape` [out, in], which is made when it is needed, applied along one axis."""
    letters = ascii_lowercase[: len(x.shape)]
    floating = x.floating if isinstance(x, Constant) else True

    def numbers() -> Array:
        array = matrix()
        if not floating and not np.array_equal(array, np.rint(array)):
            raise ValueError("fractions of whole numbers")
        return array if floating else array.astype(np.int64)

    factor = plan.fold(node, [], numbers, shape, floating)
    kept = letters[:axis] + "z" + letters[axis + 1 :]
    node.supported(len(letters) < len(ascii_lowercase), "so many axes")
    return contracted(plan, node, [x, factor], [letters, "z" + letters[axis]], kept)


def contracted(plan: Plan, node: Node, operands: Sequence[Value], terms: Sequence[str], result: str) -> Value:
    """Sum over the letters that `result` lacks of the product of the operands, whose axes `terms` name.

    Axes of length 1 carry nothing: they are dropped first (which drops the batch) and put back at the end.
    """
    extents = _extents(node, operands, terms)
    node.require(set(result) <= set(extents) and len(set(result)) == len(result), f"'{result}' is not a result")
    shape = tuple(extents[letter] for letter in result)
    plan.limits.require_elements(shape, f"node '{node.name}' ({node.operator}): its result")
    constants = [(v, t) for v, t in zip(operands, terms, strict=True) if isinstance(v, Constant)]
    computed = [(v, t) for v, t in zip(operands, terms, strict=True) if isinstance(v, Variable)]
    if not computed:
        node.require(len({c.floating for c, _ in constants}) == 1, "its constants have different types")
        product = _product([(t, c.shape) for c, t in constants], result)

        def compute(*arrays: Array) -> Array:
            return whole(product(*arrays).reshape(shape))

        return plan.fold(node, [c for c, _ in constants], compute, shape, constants[0][0].floating)
    node.require(all(c.floating for c, _ in constants), "a computed tensor meets a constant of whole numbers")
    if len(computed) > 1:
        value, term = _multiplied(plan, node, computed, constants, result)
        order = tuple(term.index(letter) for letter in result if letter in term)
        return plan.view(node, transposed(plan, node, value, (0, *(i + 1 for i in order))), shape)
    x, term = computed[0]
    source = "".join(letter for letter, n in zip(term, x.shape, strict=True) if n > 1)
    kept = "".join(letter for letter in result if extents[letter] > 1)
    factor = "".join(sorted({a for c, t in constants for a, n in zip(t, c.shape, strict=True) if n > 1}))
    factor = "".join(a for a in factor if a in source + kept)
    combined = tuple(extents[a] for a in factor)
    plan.limits.require_elements(combined, f"node '{node.name}' ({node.operator}): its constant factor")
    product = _product([(t, c.shape) for c, t in constants], factor)

    def make(*arrays: Array) -> Op:
        constant = product(*arrays) if arrays else np.ones(())
        return Einsum(tensor(constant), source, factor, kept)

    squeezed = plan.view(node, x, (1, *(n for n in x.shape if n > 1)))
    squeezed = plan.held(node, squeezed, True)
    emitted = plan.emit(node, make, [squeezed], (1, *(extents[a] for a in kept)), True, [c for c, _ in constants])
    return plan.view(node, emitted, shape)


def _multiplied(plan: Plan, node: Node, computed: Sequence[Factor], constants: Sequence[Factor], result: str) -> Factor:
    """The sum of products as a value [1, ..] with the letters of the other axes, those of the result in any order."""
    waiting: list[list[Factor]] = [[factor] for factor in computed]
    for value, term in constants:
        sharing = (group for group in waiting if set(group[0][1]) & set(term))
        next(sharing, waiting[0]).append((value, term))
    product: Factor | None = None
    for index, group in enumerate(waiting):
        needed = result + "".join(term for later in waiting[index + 1 :] for _, term in later)
        alone = _summed(plan, node, group, needed + (product[1] if product else ""))
        product = _pair(plan, node, product, alone, needed) if product else alone
    assert product is not None
    return product


def _summed(plan: Plan, node: Node, factors: Sequence[Factor], needed: str) -> Factor:
    """One computed factor with its constants: [1, ..], an axis for every letter that is needed and longer than 1."""
    values, terms = [v for v, _ in factors], [t for _, t in factors]
    extents = _extents(node, values, terms)
    kept = "".join(letter for letter, n in extents.items() if n > 1 and letter in needed)
    x, shape = values[0], tuple(extents[letter] for letter in kept)
    complete = len(factors) == 1 and "".join(a for a, n in zip(terms[0], x.shape, strict=True) if n > 1) == kept
    value = x if complete else contracted(plan, node, values, terms, kept)
    return plan.held(node, plan.view(node, value, (1, *shape)), True), kept


def _pair(plan: Plan, node: Node, first: Factor, second: Factor, needed: str) -> Factor:
    """The product of two computed factors, summed over the letters that are not needed.

    Without a sum it is elementwise; with one, a product of matrices, a stack of them over the letters that stay.
    """
    (x, term), (y, other) = first, second
    extents = dict(zip(term + other, (*x.shape[1:], *y.shape[1:]), strict=True))
    stack = "".join(letter for letter in term if letter in other and letter in needed)
    inner = "".join(letter for letter in term if letter in other and letter not in needed)
    rows, columns = _without(term, other), _without(other, term)
    count, m, k, n = (prod(extents[letter] for letter in part) for part in (stack, rows, inner, columns))
    if isinstance(x, Variable) and isinstance(y, Variable) and x.step == y.step and term == other:
        product, kept = plan.emit(node, Pow(2.0), [x], x.shape, True), term
    else:
        left = plan.view(node, _ordered(plan, node, first, stack + rows + inner), (1, count, m, k))
        right = plan.view(node, _ordered(plan, node, second, stack + inner + columns), (1, count, k, n))
        op, kept = MatMul() if inner else Multiply(), stack + rows + columns
        product = plan.emit(node, op, [left, right], (1, count, m, n), True)
    # Left over: letters that a square keeps, and those of which one factor has an axis of length 1.
    product = plan.view(node, product, tuple(extents[letter] for letter in kept))
    return _summed(plan, node, [(product, kept)], needed)


def _ordered(plan: Plan, node: Node, factor: Factor, letters: str) -> Value:
    """The value with its axes, beside the batch, in the order of the letters."""
    value, term = factor
    return transposed(plan, node, value, (0, *(1 + term.index(letter) for letter in letters)))


def _without(letters: str, others: str) -> str:
    return "".join(letter for letter in letters if letter not in others)


def _product(factors: Sequence[tuple[str, Shape]], result: str) -> Callable[..., Array]:
    """Arrays -> their product, summed over the letters that the result lacks; axes of length 1 are dropped."""
    terms = ["".join(a for a, n in zip(term, shape, strict=True) if n > 1) for term, shape in factors]
    kept = "".join(a for a in result if any(a in term for term in terms))
    equation = f"{','.join(terms)}->{kept}"

    def compute(*arrays: Array) -> Array:
        squeezed = [a.reshape([n for n in a.shape if n > 1]) for a in arrays]
        return as_array(np.einsum(equation, *squeezed, optimize=True))

    return compute


def _extents(node: Node, operands: Sequence[Value], terms: Sequence[str]) -> Extents:
    """The length of every letter's axis: axes of length 1 are repeated to it."""
    extents: Extents = {}
    for value, term in zip(operands, terms, strict=True):
        node.require(len(value.shape) == len(term), f"'{term}' does not name the axes of shape {list(value.shape)}")
        for letter, n in zip(term, value.shape, strict=True):
            known = extents.get(letter, 1)
            node.require(1 in (n, known) or n == known, f"letter '{letter}' names axes of lengths {known} and {n}")
            extents[letter] = max(n, known)
    return extents


def _letters(node: Node, equation: str, shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """The axes of every operand and of the result as lower-case letters; "..." stands for the axes left over."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    node.require(len(terms) == len(shapes), f"equation '{equation}' does not name {len(shapes)} operands")
    plain = [term.replace("...", "") for term in terms]
    node.require(
        all(not t or (t.isascii() and t.isalpha()) for t in [*plain, right.replace("...", "")]),
        f"equation '{equation}' cannot be read",
    )
    pairs = zip(terms, plain, shapes, strict=True)
    widths = [len(shape) - len(letters) if "..." in term else 0 for term, letters, shape in pairs]
    node.require(min(widths) >= 0, f"equation '{equation}' names more axes than its operands have")
    unused = "".join(a for a in ascii_letters if a not in equation)
    rest = unused[: max(widths)]
    if not arrow:
        counts = Counter("".join(plain))
        right = "..." + "".join(sorted(a for a, n in counts.items() if n == 1))
    terms = [t.replace("...", rest[len(rest) - w :]) for t, w in zip(terms, widths, strict=True)]
    right = right.replace("...", rest)
    order = dict.fromkeys("".join(terms))
    node.supported(len(order) <= len(ascii_lowercase), f"equation '{equation}' of so many axes")
    node.require(set(right) <= set(order), f"equation '{equation}' has a result of letters that no operand has")
    rename = str.maketrans(dict(zip(order, ascii_lowercase, strict=False)))
    return [t.translate(rename) for t in terms], right.translate(rename)
