"""Branch and bound: split what cannot be decided whole, until every part is."""

from provenn.solvers.branch_and_bound.search import BranchAndBound

__all__ = ["BranchAndBound"]
