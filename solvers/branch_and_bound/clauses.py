"""The clauses of one case: which combination of a clause's rows proves it best, given a linear function below each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.solvers.packing import Packed
from provenn.verifier.interval import Interval
from provenn.verifier.region import Region

ROUNDS = 8
"""Steps of the search for weights."""

SLACK = 2.0**-18
"""Share of its terms that a margin is lowered by, so that what is proved here is proved by the checker too."""

RATE = 2.0
"""Length of the first step, in units of the clause's best row."""


@dataclass(frozen=True, eq=False)
class Clauses:
    """{y : C y >= d} for every clause of one case.

    matrix: -C, [spec, outputs]; bound: d, [spec]; rows: for every clause the positions of its rows.
    """

    matrix: Tensor
    bound: Tensor
    rows: list[Tensor]

    @classmethod
    def of(cls, packed: Packed) -> Clauses:
        """From a batch of one case."""
        count = int(packed.clauses[0])
        rows = [torch.nonzero(packed.clause[:, 0] == k)[:, 0] for k in range(count)]
        return cls(-packed.matrix[:, 0], packed.bound[:, 0], rows)

    def slopes(self, forms: Tensor) -> Tensor:
        """For every clause the sum over its rows of their absolute coefficients: [clauses, batch, n]."""
        return torch.stack([forms[rows].abs().sum(0) for rows in self.rows])

    def combined(self, forms: Tensor, lower: Tensor, region: Region) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Margins [clauses, batch], coefficients over the input of what has them [clauses, batch, n], and weights.

        forms [spec, batch, n]: for every row a linear function below -C y, whose minimum over the region is `lower`
        [spec, batch]. Weights [rows of the clause, batch] >= 0 with sum 1: of the functions' combination the minimum is
        the margin, and no single row's is larger. Where the region is not a box, the best row alone.
        """
        box = region.box
        margins, coefficients, weights = [], [], []
        for rows in self.rows:
            if not len(rows):  # nothing excludes it
                margins.append(lower.new_full(lower.shape[1:], -torch.inf))
                coefficients.append(forms.new_zeros(forms.shape[1:]))
                weights.append(lower.new_zeros((0, lower.shape[1])))
                continue
            value = lower[rows] + self.bound[rows].unsqueeze(1)
            w = _weights(forms[rows], value, box, ROUNDS if region.is_box else 0)
            one = torch.einsum("rb,rbn->bn", w, forms[rows])
            middle = (w * (value + _reach(forms[rows], box))).sum(0)
            least = middle - _reach(one, box) if region.is_box else value.amax(0)
            size = (w * (lower[rows].abs() + self.bound[rows].abs().unsqueeze(1) + 2 * _reach(forms[rows], box))).sum(0)
            sure = torch.maximum(least, value.amax(0)) - SLACK * size
            margins.append(sure.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf))
            coefficients.append(one)
            weights.append(w)
        return torch.stack(margins), torch.stack(coefficients), weights


def _reach(forms: Tensor, box: Interval) -> Tensor:
    """How far a linear function goes from its value at the box's centre: [.., batch]."""
    return (forms.abs() * ((box.upper - box.lower) / 2).flatten(1)).sum(-1)


def _weights(forms: Tensor, value: Tensor, box: Interval, rounds: int) -> Tensor:
    """Weights whose combination has nearly the largest minimum: [rows, batch].

    The minimum is concave in the weights. Multiplicative steps up its supergradient from equal ones; the best kept,
    beside the best single row. Rows whose function is nowhere above 0 are left out, where not all are such: whatever
    has them proves no more without them, in no part; else those whose function is constant.
    Source: Arora, Hazan, Kale 2012.
    """
    reach = _reach(forms, box)
    useful = value + 2 * reach > 0
    useful = useful | (~useful.any(0) & (reach > 0))
    useful = useful | ~useful.any(0)
    alone = torch.where(useful, value, -torch.inf)
    single = torch.zeros_like(value).scatter(0, alone.argmax(0, keepdim=True), 1.0)
    if len(value) == 1:
        return single
    best, highest = single, alone.amax(0)
    radius = ((box.upper - box.lower) / 2).flatten(1)
    middle, scale = value + reach, value.abs().amax(0).clamp(min=torch.finfo(value.dtype).tiny)
    w = useful.to(value.dtype) / useful.sum(0)
    for round_ in range(1, rounds + 1):
        both = torch.einsum("rb,rbn->bn", w, forms)
        reached = (w * middle).sum(0) - (both.abs() * radius).sum(1)
        better = reached > highest
        best, highest = torch.where(better, w, best), torch.where(better, reached, highest)
        slope = middle - (forms * (both.sign() * radius)).sum(2)
        w = w * torch.exp((slope - slope.amax(0)) / scale * (RATE / round_**0.5))
        w = w / w.sum(0)
    return best
