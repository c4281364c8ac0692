"""A network as the kernel sees it: steps over flat float64 vectors, at batch 1.

Every number is the exact real value of the file's float. A step's vector holds an ONNX tensor's entries in C order.
How a float32 runtime executes the steps, and what each then errs by, is in single.py.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from provenn.verifier.check.functions import Function
from provenn.verifier.check.rounding import Array

Matrix: TypeAlias = "Array | scipy.sparse.csr_array"
Index = NDArray[np.int64]


def dense(block: Any) -> Array:
    """Any matrix as an array."""
    return np.asarray(block.toarray() if scipy.sparse.issparse(block) else block)


@dataclass(frozen=True, eq=False)
class Step:
    """One value: its name in the file, its length, the earlier steps it reads. Step 0 is the input."""

    name: str
    length: int
    sources: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Affine(Step):
    """y = W x + b, x all sources in a row; W within 8 u |W| of `matrix`, b within 8 u bias_size; bias_size >= |bias|

    singles: roundings in float32 that a term passes besides the additions of its row; 0 for copies.
    """

    matrix: Matrix
    bias: Array
    bias_size: Array
    singles: int = 3

    @cached_property
    def magnitude(self) -> Matrix:
        """|W|."""
        return abs(self.matrix)

    @cached_property
    def signs(self) -> Matrix:
        """-1, 0 or 1 for every entry: sums of them are exact."""
        return np.sign(self.matrix) if isinstance(self.matrix, np.ndarray) else self.matrix.sign()

    @cached_property
    def widest(self) -> tuple[int, float]:
        """The most nonzero entries in a row of W, and the largest sum of a row of |W|."""
        counts = (self.matrix != 0).sum(axis=1)
        return int(counts.max(initial=0)), float(self.magnitude.sum(axis=1).max(initial=0.0))


@dataclass(frozen=True, eq=False)
class Elementwise(Step):
    """y_i = phi(x_i); singles: roundings of it in float32."""

    function: Function
    singles: int = 0


@dataclass(frozen=True, eq=False)
class MaxPool(Step):
    """y_i = max of x[windows_i], windows [length, window]; -1 stands for no entry, every window has one."""

    windows: Index


@dataclass(frozen=True, eq=False)
class Implicit(Step):
    """y = phi(W y + x), a fixed point; W [n, n] exact. Lipschitz claims alone meet it, and prove that y is unique."""

    function: Function
    matrix: Array

    @cached_property
    def magnitude(self) -> Array:
        """|W|."""
        return np.abs(self.matrix)


@dataclass(frozen=True, eq=False)
class Network:
    """Steps in topological order, which of them is the output, and the sha256 of the (uncompressed) file.

    doubts: why nothing is proved of float32 executions, if there are reasons.
    """

    steps: tuple[Step, ...]
    output: int
    sha256: str
    doubts: tuple[str, ...] = ()

    @cached_property
    def bounded(self) -> dict[str, int]:
        """The steps that nonlinear steps read, in order, by name: a certificate must claim an interval for each."""
        read = {step.sources[0] for step in self.steps if isinstance(step, Elementwise | MaxPool)}
        return {self.steps[i].name: i for i in sorted(read)}

    @cached_property
    def roundings(self) -> int:
        """N of every error bound: above the roundings that any number undergoes within one row (see rows)."""
        widths = [sum(self.steps[source].length for source in step.sources) for step in self.steps]
        return 2 * max(*widths, *(step.length for step in self.steps)) + 4 * len(self.steps) + 64
