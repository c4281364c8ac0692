"""Einsum and its relatives: sums of products of one computed tensor with constant ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from string import ascii_letters, ascii_lowercase

import numpy as np

from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, Variable, tensor, whole
from provenn.models.tensors import Array
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.einsum import Einsum

Extents = dict[str, int]


def einsum(plan: Plan, node: Node) -> Sequence[Value]:
    """Sums of products by the letters of the axes, at most one factor computed from the input."""
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
    node.supported(len(computed) == 1, "several factors computed from the input")
    node.require(all(c.floating for c, _ in constants), "a computed tensor meets a constant of whole numbers")
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


def _product(factors: Sequence[tuple[str, Shape]], result: str) -> Callable[..., Array]:
    """Arrays -> their product, summed over the letters that the result lacks; axes of length 1 are dropped."""
    terms = ["".join(a for a, n in zip(term, shape, strict=True) if n > 1) for term, shape in factors]
    kept = "".join(a for a in result if any(a in term for term in terms))
    equation = f"{','.join(terms)}->{kept}"

    def compute(*arrays: Array) -> Array:
        squeezed = [a.reshape([n for n in a.shape if n > 1]) for a in arrays]
        return np.asarray(np.einsum(equation, *squeezed, optimize=True))

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
