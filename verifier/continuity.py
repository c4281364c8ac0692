"""Whether a network is a continuous function of its input, wherever it is defined: by the ops that it is made of."""

from __future__ import annotations

from math import inf

from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.exponential import Softplus
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.larger import Either, Larger
from provenn.verifier.ops.normalization import Normalize
from provenn.verifier.ops.steps import Ceil, Floor, Round, Sign
from provenn.verifier.ops.table import OPS

JUMPING: frozenset[type[Op]] = frozenset({Sign, Floor, Ceil, Round, Gate})
"""Ops that jump; all others of the table have one value, which bounded inputs nearby change by as little as one likes.

Functions with poles are continuous between them, and bounds refuse boxes that reach one."""

CONTINUOUS: frozenset[type[Op]] = (frozenset(OPS) - JUMPING) | {Either, Larger, Normalize}
"""What is in neither set is not believed to be continuous."""


def jump(graph: Graph) -> Node | None:
    """The first node that is not known to be continuous, if there is one."""
    return next((node for node in graph.nodes if node.op is not None and not _continuous(node.op)), None)


def _continuous(op: Op) -> bool:
    """Torch's softplus falls at its threshold, from log(1 + exp(z)) to z."""
    return type(op) in CONTINUOUS and (not isinstance(op, Softplus) or op.threshold == inf)
