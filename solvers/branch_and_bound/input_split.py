"""Splitting the input: for few inputs. Every part gets CROWN's bounds again, within those of the part it came from."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from provenn.solvers.branch_and_bound.clauses import Clauses
from provenn.solvers.branch_and_bound.influence import influence
from provenn.solvers.branch_and_bound.proof import CaseProof
from provenn.solvers.branch_and_bound.queue import Domains
from provenn.solvers.branch_and_bound.record import WHOLE, Proved, Record, Splits
from provenn.solvers.branch_and_bound.space import Expanded, Over
from provenn.solvers.packing import Packed
from provenn.verifier.bounds.backward import Relaxed, crown, crown_ibp
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.region import Region

CANDIDATES, NEARLY = 3, 0.75
"""Coordinates that are looked ahead at: the best few, if their score is this share of the best one's (measured: far
lower ones gain at once and never again)."""

ELEMENTS = 1 << 18
"""Values of all nodes together for the parts of one batch."""


class InputSplit:
    """Boxes of inputs, halved where that promises most.

    Fields of a domain: lower, upper [*input]; share (of the region's volume, as a power of two); proved [clauses]; and
    for every node that a nonlinear op reads the bounds of the part it came from.
    Time: one CROWN pass a part, for the neurons still open, one of interval arithmetic an input, and two rows for every
    coordinate looked ahead at.
    """

    def __init__(self, graph: Graph, packed: Packed, record: Record) -> None:
        self.graph, self.region, self.record = graph, packed.region, record
        self.clauses = Clauses.of(packed)
        readers = [node for node in graph.nodes if node.op is not None and not node.op.affine]
        self.kept = sorted({i for node in readers for i in node.inputs} - {0})
        size = sum(torch.Size(node.shape).numel() for node in graph.nodes)
        self.batch = max(1, min(512, ELEMENTS // size))
        self.least = float("inf")

    def start(self, over: Over) -> Expanded:
        """The region itself, its bounds not known yet."""
        box = self.region.box
        fields = {
            "id": torch.from_numpy(self.record.new(1)).to(box.lower.device),
            "margin": box.lower.new_full((1,), -torch.inf),
        }
        fields |= {"lower": box.lower, "upper": box.upper, "share": box.lower.new_ones(1)}
        fields["proved"] = torch.zeros((1, len(self.clauses.rows)), dtype=torch.bool, device=box.lower.device)
        for i in self.kept:
            shape = (1, *self.graph.nodes[i].shape)
            fields |= {f"lower{i}": box.lower.new_full(shape, -torch.inf)}
            fields |= {f"upper{i}": box.lower.new_full(shape, torch.inf)}
        return Expanded(Domains(fields), (box.lower + box.upper) / 2, box)

    def expand(self, domains: Domains, over: Over) -> Expanded:
        """CROWN's bounds of every part; those still open are halved."""
        relaxed = self._bounded(domains)
        region, ids = relaxed.region, domains["id"].cpu().numpy()
        self.record.bound(ids)
        margins, forms, slopes = self._judged(relaxed, domains)
        worst = margins.amin(0)
        open_ = torch.nonzero(~(worst > 0))[:, 0]
        closed = float(domains["share"].sum() - domains["share"][open_].sum())
        if not len(open_):
            return Expanded(None, region.box.lower[:0], Interval(region.box.lower[:0], region.box.upper[:0]), closed)
        left = domains.select(open_).replaced(margin=worst[open_], proved=(margins > 0).T[open_])
        relaxed, margins, forms = _selected(relaxed, open_), margins[:, open_], forms[:, open_]
        lower, upper = left["lower"], left["upper"]
        nearest = forms.gather(0, margins.argmin(0)[None, :, None].expand(1, -1, forms.shape[2]))[0]
        corner = torch.where(nearest.reshape(lower.shape) > 0, lower, upper)
        slopes = (slopes[:, open_] * (margins <= 0).unsqueeze(2)).sum(0)
        children, stuck = self._halved(left, relaxed, slopes)
        both = float(children["share"].sum()) if children is not None else 0.0
        share = closed + float(left["share"].sum()) - both
        return Expanded(children, corner, Interval(lower, upper), share, stuck)

    def decided(self, closed: float) -> bool:
        """Whether in every leaf every clause is proved."""
        every = range(len(self.clauses.rows))
        return self.record.covered({0: every}) if self.record.complete else closed > 1 - WHOLE

    def proof(self) -> CaseProof:
        """One tree, with no slopes of its own: the checker chooses them."""
        return CaseProof(self.graph, self.record, [(0, None)])

    def _bounded(self, domains: Domains) -> Relaxed:
        """CROWN over the parts, within the bounds they came with.   Raises: Unbounded."""
        known = {i: Interval(domains[f"lower{i}"], domains[f"upper{i}"]) for i in self.kept}
        return crown(self.graph, self._part(domains["lower"], domains["upper"]), within=known)

    def _part(self, lower: Tensor, upper: Tensor) -> Region:
        """The region within boxes."""
        same = torch.zeros(len(lower), dtype=torch.long, device=lower.device)
        return replace(self.region.select(same), box=Interval(lower, upper))

    def _judged(self, relaxed: Relaxed, domains: Domains) -> tuple[Tensor, Tensor, Tensor]:
        """Margins by clause, infinite where proved, the coefficients that give them, and the rows' together.

        New proofs are recorded.
        """
        rows, lower = self._rows(relaxed)
        margins, forms, weights = self.clauses.combined(rows, lower, relaxed.region)
        margins = margins.masked_fill(domains["proved"].T, torch.inf)
        self._prove(domains["id"], margins, weights)
        return margins, forms, self.clauses.slopes(rows)

    def _rows(self, relaxed: Relaxed) -> tuple[Tensor, Tensor]:
        """For every row the coefficients over the input of a function below it, [spec, batch, n], and its minimum."""
        batch = relaxed.region.batch
        rows = self.clauses.matrix.unsqueeze(1).expand(-1, batch, -1)
        last = len(self.graph.nodes) - 1
        forms, lower = relaxed.form(last, rows.reshape(*rows.shape[:2], *self.graph.output_shape))
        return forms.flatten(2), lower

    def _prove(self, ids: Tensor, margins: Tensor, weights: list[Tensor]) -> None:
        """Records the parts whose margin for a clause is positive and finite."""
        for k, (margin, w) in enumerate(zip(margins, weights, strict=True)):
            some = torch.nonzero((margin > 0) & margin.isfinite())[:, 0]
            self.least = min([self.least, *margin[some].tolist()])
            betas = w.new_zeros((len(some), 0)).numpy(force=True)
            self.record.prove(Proved(ids[some].numpy(force=True), k, w[:, some].T.numpy(force=True), {}, betas))

    def _halved(self, domains: Domains, relaxed: Relaxed, slopes: Tensor) -> tuple[Domains | None, int]:
        """Both halves of every part that can be halved, less what looking ahead proves; how many cannot be."""
        lower, upper = domains["lower"].flatten(1), domains["upper"].flatten(1)
        middle = lower / 2 + upper / 2
        score = influence(
            self.graph, Interval(domains["lower"], domains["upper"]), slopes, self.clauses.matrix, ELEMENTS
        )
        score = score.masked_fill((middle <= lower) | (middle >= upper), -1.0)
        able = torch.nonzero(score.amax(1) >= 0)[:, 0]
        stuck = len(domains) - len(able)
        if stuck:
            if not len(able):
                return None, stuck
            domains, relaxed, score = domains.select(able), _selected(relaxed, able), score[able]
        top = score.topk(min(CANDIDATES, score.shape[1]), 1)
        near = (top.values >= NEARLY * top.values[:, :1]) & (top.values >= 0)
        part, place = torch.nonzero(near, as_tuple=True)
        halves = self._cut(domains.select(part), top.indices[part, place])
        margins, weights = self._ahead(halves, relaxed, part)
        gain = torch.full_like(top.values, -torch.inf)
        gain[part, place] = margins.clamp(max=0).amin(0).reshape(2, -1).sum(0)
        chosen = torch.nonzero(place == gain.argmax(1)[part])[:, 0]
        both = torch.cat([chosen, chosen + len(part)])
        return self._children(domains, halves.select(both), relaxed, (margins[:, both], weights, both)), stuck

    def _cut(self, domains: Domains, coordinate: Tensor) -> Domains:
        """The lower halves of the parts, then the upper ones."""
        lower, upper, at = domains["lower"].flatten(1), domains["upper"].flatten(1), coordinate.unsqueeze(1)
        middle = (lower / 2 + upper / 2).gather(1, at)
        ends = torch.cat([lower, lower.scatter(1, at, middle)]), torch.cat([upper.scatter(1, at, middle), upper])
        twice = {name: torch.cat([domains[name]] * 2) for name in ("margin", "share", "proved")}
        shape = (-1, *self.graph.input_shape)
        at = torch.cat([coordinate, coordinate])
        own = {"lower": ends[0].reshape(shape), "upper": ends[1].reshape(shape), "at": at}
        return Domains({"id": at, **own, **twice, "middle": torch.cat([middle, middle])[:, 0]})

    def _ahead(self, halves: Domains, relaxed: Relaxed, part: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Margins by clause from the bounds of the part they came from and interval arithmetic: one row a clause."""
        source = torch.cat([part, part])
        known = {i: Interval(relaxed.bounds[i].lower[source], relaxed.bounds[i].upper[source]) for i in self.kept}
        inherited = crown_ibp(self.graph, self._part(halves["lower"], halves["upper"]), within=known)
        margins, _, weights = self.clauses.combined(*self._rows(inherited), inherited.region)
        return margins.masked_fill(halves["proved"].T, torch.inf), weights

    def _children(
        self, domains: Domains, halves: Domains, relaxed: Relaxed, ahead: tuple[Tensor, list[Tensor], Tensor]
    ) -> Domains | None:
        """The halves that are still open, as domains; splits and proofs are recorded."""
        margins, weights, places = ahead
        count, ids = len(domains), torch.from_numpy(self.record.new(2 * len(domains)))
        parent, at = domains["id"].numpy(force=True), halves["at"][:count].numpy(force=True)
        left, right = ids[:count].numpy(), ids[count:].numpy()
        middle = halves["middle"][:count].numpy(force=True)
        self.record.split(Splits(parent, left, right, 0 * at, at, middle))
        ids = ids.to(margins.device)
        self._prove(ids, margins, [w[:, places] for w in weights])
        open_ = torch.nonzero(~(margins.amin(0) > 0))[:, 0]
        if not len(open_):
            return None
        source, proved = open_ % count, halves["proved"] | (margins > 0).T
        own = {name: halves[name][open_] for name in ("lower", "upper")}
        fields = {"id": ids[open_], "margin": torch.maximum(margins.amin(0), halves["margin"])[open_], **own}
        fields |= {"share": halves["share"][open_] / 2, "proved": proved[open_]}
        for i in self.kept:
            fields |= {f"lower{i}": relaxed.bounds[i].lower[source], f"upper{i}": relaxed.bounds[i].upper[source]}
        return Domains(fields)


def _selected(relaxed: Relaxed, index: Tensor) -> Relaxed:
    """The bounds for some of the batch, those of nodes that are kept."""
    bounds = [Interval(b.lower[index], b.upper[index]) for b in relaxed.bounds]
    return replace(relaxed, region=relaxed.region.select(index), bounds=bounds)
