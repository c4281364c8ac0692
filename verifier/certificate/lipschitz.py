"""Lipschitz certificates: multipliers found by any solver, and the least number that the kernel proves with them.

The kernel's own code builds the quadratic form and decides; what a solver said its bound was is only where the search
for the number begins. A multiplier of a wrong neuron, or a loose one, costs tightness, never truth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf, nextafter, sqrt
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.verifier.bounds.quadratic import Program
from provenn.verifier.certificate.emit import Draft, intervals
from provenn.verifier.certificate.slopes import CaseSlopes, function_names
from provenn.verifier.check.bordered import Bordered
from provenn.verifier.check.lipschitz import Units, metric
from provenn.verifier.check.network import Elementwise, Implicit, Network, Step
from provenn.verifier.check.quadratic import Quadratic
from provenn.verifier.check.rounding import Array, CertificateRejected, float_below
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Lipschitz, Vector, read_lipschitz
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval

FIRST, GROWTH, LAST = 2.0**-36, 4.0, 0.5
"""The share by which the solver's number is enlarged at first, its factor from trial to trial, where to give up."""

FALLBACK = 1e3
"""Multiplier, relative to its layer's largest, of a neuron that the solver took for linear and the kernel does not."""

Method = Literal["crown", "recurjac", "interval"]
"""How intervals inside a Jacobian are found: by backward passes where they matter, the same with products of unknown
sign by their ranges, or by interval arithmetic alone. The last bound is one backward pass in all.
"""

SMALLEST = 2.0**-290
"""Multipliers are enlarged to it, for the kernel takes 2^-300 to 2^300: those of units that the rows do not read."""


@dataclass(frozen=True)
class Statement:
    """What is to be bounded: |C (f(x) - f(y))|_output <= upper |scale * (x - y)|_norm, over a region or everywhere.

    rows: C [rows, outputs], integers or floats, exactly; norm: "2" or "inf"; output: "2", "inf", "1" or "each";
    region: as JSON, {"lower", "upper"} or {"input", "epsilon", "norm", "clip"}.
    """

    rows: tuple[tuple[float, ...], ...]
    norm: str = "2"
    output: str = "2"
    scale: tuple[float, ...] | None = None
    region: Mapping[str, Any] | None = None

    @property
    def groups(self) -> list[list[int]]:
        """The rows that are proved together: all for the output norm l2, else each by itself."""
        rows = list(range(len(self.rows)))
        return [rows] if self.output == "2" else [[i] for i in rows]

    def text(self, uppers: Sequence[float]) -> bytes:
        """The specification file, with the numbers that are claimed: one, or one a row for "each"."""
        source: dict[str, Any] = {"norm": self.norm}
        source |= {"scale": [s.hex() for s in self.scale]} if self.scale is not None else {}
        rows = [[float(c).hex() for c in row] for row in self.rows]
        content = {"format": "provenn-specification/1", "kind": "lipschitz", "input": source, "outputs": rows}
        content |= {"output_norm": self.output, "upper": [u.hex() for u in uppers]}
        content |= {"region": self.region} if self.region is not None else {}
        return json.dumps(content, separators=(",", ":")).encode()


@dataclass(frozen=True, eq=False)
class Channels:
    """What verifier.check.torus proves a number from: `maps` and `torus` as its claim has them; by the kernel's steps
    the multipliers of rows (channel, phase) or, beyond the convolutions, of units; cut: d by rows of the last map.
    """

    maps: Mapping[str, list[int]]
    torus: tuple[int, ...]
    multipliers: Mapping[int, Array]
    cut: Array


@dataclass(frozen=True, eq=False)
class Leaves:
    """How rows of a Jacobian are bounded, and over which parts: all of the region, or the leaves
    of a tree that splits these steps, in chunks.
    """

    method: Method = "crown"
    steps: tuple[str, ...] = ()
    chunks: tuple[bytes, ...] = ()

    def claim(self, prefix: str, files: dict[str, bytes]) -> dict[str, Any]:
        """What a claim says of it, its chunks put into `files`."""
        names = [f"{prefix}-{number}.safetensors.z" for number in range(len(self.chunks))]
        files |= dict(zip(names, self.chunks, strict=True))
        digests = [[name, hashlib.sha256(files[name]).hexdigest()] for name in names]
        return {"method": self.method, "steps": list(self.steps), "chunks": digests}


@dataclass(frozen=True, eq=False)
class Proved:
    """|C_rows (f(x) - f(y))|_2 <= upper |scale * (x - y)|, by these multipliers, and for l_inf this metric [inputs].

    channels: where the proof is one frequency by frequency; jacobian: where it is one by bounds of the Jacobian, then
    `upper` is in the statement's norms.
    """

    rows: tuple[int, ...]
    upper: float
    multipliers: Mapping[str, Array]
    metric: Array | None
    channels: Channels | None = None
    jacobian: Leaves | None = None


class Prover:
    """The kernel's reading of a network for one statement, from which all of its claims are proved.

    own: slopes for bounds of the network's neurons, where some were optimised.

    Raises: CertificateRejected where the kernel does not read the region.
    """

    def __init__(
        self,
        network: Network,
        statement: Statement,
        tick: Callable[[], object] = lambda: None,
        own: CaseSlopes | None = None,
    ) -> None:
        self.network, self.statement, self.draft, self.tick = network, statement, Draft(), tick
        sizes = network.steps[0].length, network.steps[network.output].length
        count = len(statement.rows) if statement.output == "each" else 1
        self.stated = read_lipschitz(statement.text([0.0] * count), *sizes)
        self.uses, self.bounds = list[int](), None
        with np.errstate(all="ignore"):
            if self.stated.region is not None:
                self.bounds = Bounds(network, *self.stated.region.region(), "real")
                self.bounds.tick = tick
                self.uses = intervals(self.draft, self.bounds, 0, "crown", own or CaseSlopes())
            self.units = Units(network, self.bounds)

    @property
    def well_posed(self) -> bool:
        """Whether there are implicit layers: what is proved then includes that they have one fixed point everywhere."""
        return any(isinstance(step, Implicit) for step in self.network.steps)

    def boxes(self, graph: Graph) -> dict[int, Interval]:
        """Proved enclosures of what elementwise nodes of the graph read, by node; empty without a region.

        Left out where the kernel knows no more of the slopes there than everywhere.
        """
        found: dict[int, Interval] = {}
        if self.bounds is None:
            return found
        places = {step.name: i for i, step in enumerate(self.network.steps)}
        for node, name in function_names(graph, self.network).items():
            source, step = graph.nodes[node].inputs[0], self.network.steps[places[name]]
            box = self.bounds.box(step.sources[0])
            if not _narrower(step, box):
                continue
            shape = (1, *graph.nodes[source].shape)
            found[source] = Interval(*(torch.as_tensor(end).reshape(shape) for end in (box.lower, box.upper)))
        return found

    def multipliers(self, program: Program, values: Sequence[float]) -> dict[str, Array]:
        """The program's multipliers by the kernel's steps.   Raises: CertificateRejected where the readings differ."""
        layers = {units.stage: (units, part) for units, part in _parts(program, values)}
        found, stage = dict[str, Array](), 0
        for name, steps in self.units.steps.items():
            parts = []
            for step in steps:
                length = self.units.network.steps[step].length
                units, part = layers.pop(stage, (None, np.zeros(0)))
                part = np.clip(part, SMALLEST, 1 / SMALLEST)
                if units is not None and units.length != length:
                    raise CertificateRejected("model", f"{name}: the two readings of the network differ")
                whole = np.full(length, FALLBACK * (part.max() if len(part) else 1.0))
                if units is not None:
                    whole[units.places.numpy()] = part
                parts.append(whole)
                stage += 1
            found[name] = np.concatenate(parts)
        if layers:
            raise CertificateRejected("model", "the two readings of the network differ: it has other nonlinear steps")
        return found

    def least(
        self, rows: Sequence[int], program: Program, point: tuple[NDArray[np.float64], NDArray[np.float64]]
    ) -> Proved | None:
        """The least number, nearly, that the kernel proves for these rows; None if it proves none.

        point: metric [inputs], for scale * dx, and multipliers [units] of the program.
        """
        given, values = point
        with np.errstate(all="ignore"):
            multipliers = self.multipliers(program, values.tolist())
            quadratic = self.units.quadratic([self.stated.rows[i] for i in rows], multipliers)
            share = FIRST
            while share < LAST:
                self.tick()
                upper, D = self._enlarged(given, share)
                if np.isfinite(upper) and _proves(self, quadratic, upper, D):
                    return Proved(tuple(rows), upper, multipliers, D)
                share *= GROWTH
        return None

    def least_by_frequency(self, rows: Sequence[int], channels: Channels, bound: float) -> Proved | None:
        """As `least`, for the l2 norm; bound: the square of the solver's number.

        Raises: CertificateRejected where the kernel does not find these convolutions.
        """
        steps, given = self.units.network.steps, channels.multipliers
        multipliers = {
            name: np.concatenate([given.get(j, np.zeros(steps[j].length)) for j in each])
            for name, each in self.units.steps.items()
        }
        claim = {"id": "maps", "maps": channels.maps, "torus": list(channels.torus)}
        with np.errstate(all="ignore"):
            torus = self.units.torus([self.stated.rows[i] for i in rows], multipliers, claim)
            share = FIRST
            while share < LAST:
                upper, _ = self._enlarged(np.array([bound]), share)
                D = metric(Fraction(upper), self.stated.scale, self.network.steps[0].length)
                if np.isfinite(upper) and torus.proves(D, channels.cut, self.tick):
                    return Proved(tuple(rows), upper, multipliers, None, channels)
                share *= GROWTH
        return None

    def _enlarged(self, given: NDArray[np.float64], share: float) -> tuple[float, Array | None]:
        """The number, and for l_inf the metric over dx, after the metric was enlarged by a share."""
        if self.statement.norm != "inf":
            return sqrt(max(float(given[0]), 0.0)) * (1 + share / 2) + 2.0**-200, None
        scale = np.array(self.statement.scale) if self.statement.scale is not None else np.ones(len(given))
        D = given * scale**2 * (1 + share)
        total = sum(Fraction(d) / Fraction(s) ** 2 for d, s in zip(D.tolist(), scale.tolist(), strict=True))
        total = total * (1 + Fraction(1, 2**48))  # the kernel rounds every quotient up
        return _root(total), D

    def uppers(self, proved: Sequence[Proved]) -> list[float]:
        """The numbers of the statement: from claims of its groups, or of every row alone, in order."""
        each, output = [claim.upper for claim in proved], self.statement.output
        if len(each) > 1 and output in ("1", "2"):
            total = sum((Fraction(upper) ** (1 if output == "1" else 2) for upper in each), Fraction(0))
            return [-float_below(-total) if output == "1" else _root(total)]
        return each if output == "each" else [max(each)]

    def bundle(self, proved: Sequence[Proved], produced_by: Mapping[str, str]) -> dict[str, bytes]:
        """The certificate's files, for one claim a group."""
        draft, chunks = self.draft.copy(), dict[str, bytes]()
        for number, claim in enumerate(proved):
            content: dict[str, Any] = {"kind": "lipschitz-jacobian"}
            if claim.jacobian is None:
                content = _written(claim, f"l{number}", draft.tensors)
            else:
                content |= claim.jacobian.claim(f"tree-{number}", chunks)
            content |= {"case": 0, "rows": list(claim.rows)}
            draft.add(**content, upper=claim.upper.hex(), uses=list(self.uses))
        text = self.statement.text(self.uppers(proved))
        return draft.bundle(self.network, ("lipschitz", text), "real", produced_by) | chunks


def _root(square: Fraction) -> float:
    """The square root, rounded up."""
    root = sqrt(float(square))
    while Fraction(root) ** 2 < square:
        root = nextafter(root, inf)
    return root


def _written(claim: Proved, prefix: str, tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """A claim's kind and what belongs to it, its arrays put into `tensors`."""
    content: dict[str, Any] = {"kind": "lipschitz"}
    content["multipliers"] = {step: f"{prefix}.{number}" for number, step in enumerate(claim.multipliers)}
    tensors |= {entry: claim.multipliers[step] for step, entry in content["multipliers"].items()}
    if claim.channels is not None:
        maps = {step: list(numbers) for step, numbers in claim.channels.maps.items()}
        content |= {"kind": "lipschitz-torus", "maps": maps, "torus": list(claim.channels.torus)}
        content["cut"] = f"{prefix}.cut"
        tensors[content["cut"]] = claim.channels.cut
    if claim.metric is not None:
        content["metric"] = f"{prefix}.metric"
        tensors[content["metric"]] = claim.metric
    return content


def _narrower(step: Step, box: Box) -> bool:
    """Whether the kernel's slopes over a box are other ones than everywhere."""
    if not isinstance(step, Elementwise):
        return False
    everywhere = np.full(step.length, np.inf)
    with np.errstate(all="ignore"):
        pairs = zip(step.function.slopes(*box), step.function.slopes(-everywhere, everywhere), strict=True)
        return any(not np.array_equal(a, b) for a, b in pairs)


def _proves(prover: Prover, quadratic: Quadratic | Bordered, upper: float, given: Array | None) -> bool:
    stated: Lipschitz = prover.stated
    scale: Vector = stated.scale
    D = metric(Fraction(upper), scale, prover.network.steps[0].length) if given is None else given
    return quadratic.proves(D)


def _parts(program: Program, values: Sequence[float]) -> list[tuple[Any, NDArray[np.float64]]]:
    """Every layer of units with its multipliers."""
    if not program.units:
        return []
    ends = np.cumsum(program.sizes[1:])[:-1]
    return list(zip(program.units, np.split(np.array(values, np.float64), ends), strict=True))
