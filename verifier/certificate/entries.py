"""Statements about entries of Jacobians: what the kernel proves of them over several regions, and the certificate."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.certificate.emit import Draft, intervals
from provenn.verifier.certificate.jacobian import SLACK
from provenn.verifier.certificate.lipschitz import Leaves, Method
from provenn.verifier.certificate.slopes import CaseSlopes
from provenn.verifier.check.jacobian import entries, row_bounds
from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.network import Network
from provenn.verifier.check.rows import Bounds
from provenn.verifier.check.specification import read_jacobian

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Entry:
    """lower <= (C J)_row,column <= upper; None: nothing is said."""

    row: int
    column: int
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class EntryClaim:
    """Entries of one row, by their numbers in the statement, proved over the region `case`."""

    case: int
    row: int
    entries: tuple[int, ...]
    leaves: Leaves = Leaves()  # noqa: RUF009 (frozen)


@dataclass(frozen=True, eq=False)
class Region:
    """A region as the kernel knows it; uses: its interval claims."""

    bounds: Bounds
    units: Units
    uses: tuple[int, ...]


class EntriesProver:
    """The kernel's reading of a network for rows C over regions.

    rows: integers or floats, exactly; regions: as JSON, {"lower", "upper"} or {"input", "epsilon", "norm", "clip"}.
    Raises: CertificateRejected where the kernel does not read a region, or an operator has no slopes there.
    """

    def __init__(
        self,
        network: Network,
        rows: Sequence[Sequence[float]],
        regions: Sequence[Mapping[str, Any]],
        tick: Callable[[], object] = lambda: None,
        own: Sequence[CaseSlopes] = (),
    ) -> None:
        self.network, self.rows, self._given, self.tick = network, rows, regions, tick
        self.draft = Draft()
        sizes = network.steps[0].length, network.steps[network.output].length
        self.stated = read_jacobian(self._text([Entry(0, 0)]), *sizes)
        self.regions: list[Region] = []
        with np.errstate(all="ignore"):
            for number, region in enumerate(self.stated.regions):
                bounds = Bounds(network, *region.region(), "real")
                bounds.tick = tick
                slopes = own[number] if own else CaseSlopes()
                uses = intervals(self.draft, bounds, number, "crown", slopes)
                self.regions.append(Region(bounds, Units(network, bounds), tuple(uses)))

    def intervals(
        self, case: int, row: int, columns: Sequence[int], method: Method = "crown"
    ) -> tuple[Numbers, Numbers]:
        """Proved ends of entries over a region as a whole, to be claimed; infinite where there are none."""
        units = self.regions[case].units
        with np.errstate(all="ignore"):
            network = units.adjoint.over(units.slopes, method)
            found = row_bounds(network, self.stated.rows[row], method, self.tick)
            box = entries(found, np.array(columns, np.int64))
        return -loosened(-box.lower), loosened(box.upper)

    def bundle(
        self, stated: Sequence[Entry], claims: Sequence[EntryClaim], produced_by: Mapping[str, str]
    ) -> dict[str, bytes]:
        """The certificate's files; every entry needs a claim in every region."""
        draft, chunks = self.draft.copy(), dict[str, bytes]()
        for number, claim in enumerate(claims):
            content: dict[str, Any] = {"kind": "entries", "case": claim.case, "rows": [claim.row]}
            content |= {"entries": list(claim.entries), "uses": list(self.regions[claim.case].uses)}
            draft.add(**content, **claim.leaves.claim(f"tree-{number}", chunks))
        return draft.bundle(self.network, ("jacobian", self._text(stated)), "real", produced_by) | chunks

    def _text(self, stated: Sequence[Entry]) -> bytes:
        ends = [[None if end is None else float(end).hex() for end in (e.lower, e.upper)] for e in stated]
        content: dict[str, Any] = {"format": "provenn-specification/1", "kind": "jacobian"}
        content |= {"outputs": [[float(c).hex() for c in row] for row in self.rows]}
        content |= {"entries": [[e.row, e.column, *end] for e, end in zip(stated, ends, strict=True)]}
        return json.dumps(content | {"regions": list(self._given)}, separators=(",", ":")).encode()


def loosened(upper: Numbers) -> Numbers:
    """Upper bounds to claim of what these were found for, so that they are proved where products are rounded otherwise.

    Of one sign what was: a bound 0 stays.
    """
    return np.where(
        upper == 0, 0.0, upper + SLACK * np.abs(upper) + np.where(upper > 0, np.finfo(np.float32).tiny, 0.0)
    )
