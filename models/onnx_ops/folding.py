"""Constants computed within the model: in float64, and never a step away from what float32 makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from provenn.models.live_array import LiveArray
from provenn.models.tensors import Array
from provenn.verifier.errors import InvalidModel, UnsupportedOp
from provenn.verifier.ops.base import Shape

Compute = Callable[..., Array]

STEPS = frozenset({"Ceil", "Floor", "Mod", "Round", "Sign"})
"""Operators from floats to floats that jump."""

ALIKE = (
    STEPS
    | {"Abs", "Add", "Cast", "Div", "Mul", "Neg", "Range", "Reciprocal", "Sqrt", "Sub"}
    | {"Clip", "Max", "Min", "ReduceMax", "ReduceMin", "Relu", "TopK", "Where"}
    | {"Concat", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose"}
    | {"DepthToSpace", "GatherElements", "GatherND", "SpaceToDepth", "Trilu", "Unsqueeze"}
)
"""Operators whose floats all runtimes round alike: moved, chosen, or the nearest ones to the exact results."""

JUMPS = (
    "float32, in which runtimes compute its input, rounds it across a step: the network that runs would not be the one "
    "that is verified"
)


@dataclass(frozen=True, eq=False)
class Fold:
    """A constant to be computed from earlier ones; stepping: where theirs are rounded, it may change by a whole step.

    sources: the folds that it is computed from, by their places; operator: none for numbers that are stored.
    """

    name: str
    operator: str
    sources: tuple[int, ...]
    compute: Compute
    shape: Shape
    floating: bool
    stepping: bool

    def run(self, *arrays: Array) -> Array:
        """The numbers: float64, or int64.   Raises: InvalidModel if they are not finite or cannot be computed."""
        with blamed(self.name, "its constant value cannot be computed"):
            array = self.compute(*arrays)
        if array.shape != self.shape:
            raise InvalidModel(f"its constant value has shape {array.shape}, not {self.shape}", self.name)
        if self.floating and not np.isfinite(array).all():
            raise InvalidModel("its constant value is nan or infinite", self.name)
        return array


class Folding:
    """The folds of a plan, in order."""

    def __init__(self) -> None:
        self._folds: list[Fold] = []
        self._singles: dict[int, Array] = {}

    def add(self, fold: Fold) -> int:
        """The fold's place."""
        self._folds.append(fold)
        return len(self._folds) - 1

    def run(self, place: int, arrays: Sequence[Array]) -> Array:
        """A fold's numbers, out of its sources'.   Raises: UnsupportedOp if float32 would take them a step away."""
        fold = self._folds[place]
        numbers = fold.run(*arrays)
        if fold.stepping and not np.array_equal(numbers, fold.run(*map(self.single, fold.sources))):
            raise UnsupportedOp(fold.name, fold.operator, JUMPS)
        return numbers

    def arrays(self, places: Iterable[int], given: Mapping[int, Array] | None = None) -> dict[int, Array]:
        """The numbers of folds and of their sources, float64 or int64, every fold run once and in order.

        given: numbers that some folds are to have instead of their own.
        """
        needed, arrays = set(places), dict(given or {})
        for place in range(len(self._folds) - 1, -1, -1):
            if place in needed and place not in arrays:
                needed.update(self._folds[place].sources)
        for place in sorted(needed - arrays.keys()):
            arrays[place] = widened(self.run(place, [arrays[s] for s in self._folds[place].sources]))
        return arrays

    def stored(self) -> dict[str, int]:
        """The places of the numbers that are stored, by name; of several of one name the first."""
        return {f.name: place for place, f in reversed([*enumerate(self._folds)]) if not f.operator and not f.sources}

    def single(self, place: int) -> Array:
        """A fold's numbers where every fold on the way to them is rounded to float32; kept for the next to ask.

        Raises: UnsupportedOp for an operator on the way whose roundings are the runtime's own: sums, exponentials, ..
        """
        waiting = [place]
        while waiting:
            fold = self._folds[waiting[-1]]
            before = [s for s in fold.sources if s not in self._singles]
            waiting += before
            if not before:
                sources = [self._singles[s] for s in fold.sources]
                self._singles[waiting.pop()] = _narrow(fold, fold.run(*map(widened, sources)), sources)
        return widened(self._singles[place])


def _narrow(fold: Fold, numbers: Array, sources: Sequence[Array]) -> Array:
    """Floats in float32, unless they are stored as doubles, cast to them, or computed from doubles alone."""
    kinds = {a.dtype for a in sources if a.dtype.kind == "f"}
    if fold.floating and kinds and fold.operator not in ALIKE:
        reason = "constants that runtimes round in ways of their own, where a rounding may change a step"
        raise UnsupportedOp(fold.name, fold.operator, reason)
    if fold.operator in ("", "Cast"):
        kinds = {numbers.dtype}
    return numbers if not fold.floating or kinds == {np.dtype(np.float64)} else numbers.astype(np.float32, copy=False)


def widened(array: Array) -> Array:
    """A copy in float64 or int64: every number of a narrower type is kept exactly; live numbers as they are."""
    if isinstance(array, LiveArray):
        return array
    return np.array(array, dtype=np.float64 if array.dtype.kind == "f" else np.int64, order="C")


def whole(array: Array) -> Array:
    """The array; whole numbers only where 32 and 64 bits agree, since runtimes wrap int32.   Raises: OverflowError."""
    if array.dtype.kind == "i" and array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise OverflowError("a whole number that does not fit 32 bits")
    return array


@contextmanager
def blamed(name: str, what: str) -> Iterator[None]:
    """What numpy, torch or an op refuse within is InvalidModel of the node `name`; overflow is looked for later."""
    try:
        with np.errstate(all="ignore"):
            yield
    except InvalidModel as error:
        if error.node is not None:
            raise
        raise InvalidModel(str(error), name) from error
    except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        raise InvalidModel(f"{what}: {error}", name) from error
