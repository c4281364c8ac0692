"""Splitting arguments of nonlinear ops: beta-CROWN over parts where values lie on known sides of thresholds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from provenn.solvers.branch_and_bound.branching import losses
from provenn.solvers.branch_and_bound.clauses import SLACK, Clauses
from provenn.solvers.branch_and_bound.proof import CaseProof
from provenn.solvers.branch_and_bound.queue import Domains
from provenn.solvers.branch_and_bound.record import WHOLE, Proved, Record, Splits
from provenn.solvers.branch_and_bound.rooted import Root, in_bytes
from provenn.solvers.branch_and_bound.space import Expanded, Over
from provenn.solvers.packing import Packed
from provenn.verifier.bounds.backward import Relaxed
from provenn.verifier.bounds.beta import LEVELS, Arguments, Cuts, Found, beta_crown, cut
from provenn.verifier.bounds.slopes import ITERATIONS
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise

ROUNDS = 10
"""Iterations of a part's own multipliers and slopes, which begin with those of the part it came from."""

CANDIDATES = 4
"""Values looked ahead at: those with the largest losses."""

ATTACKED = 4
"""Parts of a batch, the worst ones, from which the attack begins."""

LAST = 100
"""Iterations for parts in which the network is linear: nothing is left to split, and the multipliers decide."""

ELEMENTS = 1 << 17
"""Values of all nodes together for the parts of one batch."""

Ints = Mapping[int, Tensor]


class NeuronSplit:
    """Parts where values of nonlinear ops' arguments lie on one side of a threshold; one tree for every clause.

    Fields of a domain: clause; row (weights of its clause's rows); index, sign, threshold, beta [splits]; at and place:
    the value to split next and where; share; and slopes of every node that has some, uint8.
    Time: about 3 ROUNDS backward passes of one row a part; memory: a byte a slope, 20 bytes a split.
    """

    def __init__(self, graph: Graph, packed: Packed, record: Record, root: Root) -> None:
        self.graph, self.packed, self.record, self.root = graph, packed, record, root
        self.clauses, self.arguments = Clauses.of(packed), Arguments.of(graph)
        size = sum(torch.Size(node.shape).numel() for node in graph.nodes)
        self.batch = max(2, min(256, ELEMENTS // size))
        self.least = float("inf")
        # Where a split does not make an op linear, its lines must be found anew: none are worth looking at before.
        functions = [node.op for node in graph.nodes if node.op is not None and not node.op.affine]
        self.ahead = all(isinstance(op, Elementwise) and op.kink is not None for op in functions)

    def start(self, over: Over) -> Expanded:
        """One part a clause, the whole region, its own slopes optimised; proved ones are recorded."""
        relaxed, like = self.root.relaxed, self.packed.bound
        count = len(self.clauses.rows)
        rows = [self._row(relaxed, k) for k in range(count)]
        ids = torch.from_numpy(self.record.new(count)).to(like.device)
        none = like.new_zeros((count, 0))
        fields = {"id": ids, "margin": like.new_full((count,), -torch.inf), "row": torch.stack(rows)}
        fields |= {"clause": torch.arange(count, device=like.device), "share": like.new_full((count,), 1 / count)}
        fields |= {"index": none.long(), "sign": none, "threshold": none, "beta": none}
        return self._bounded(Domains(fields), {}, ITERATIONS, over)

    def expand(self, domains: Domains, over: Over) -> Expanded:
        """Both sides of every part's chosen value, bounded; those still open choose their next value."""
        count = len(domains)
        ids = self.record.new(2 * count)
        node, neuron = self.arguments.located(domains["at"])
        parts = (ids[count:], ids[:count])  # left is value <= threshold: the half with sign -1
        numbers = [x.numpy(force=True) for x in (domains["id"], node, neuron, domains["place"])]
        self.record.split(Splits(numbers[0], parts[0], parts[1], numbers[1], numbers[2], numbers[3]))
        one = torch.ones_like(domains["margin"])
        both = {name: torch.cat([values, values]) for name, values in domains.fields.items()}
        both["id"], both["share"] = torch.from_numpy(ids).to(one.device), both["share"] / 2
        new = {
            "index": both["at"],
            "sign": torch.cat([one, -one]),
            "threshold": both["place"],
            "beta": 0 * both["place"],
        }
        both |= _appended({name: both[name] for name in new}, new)
        slopes = {int(n[5:]): values for n, values in both.items() if n.startswith("slope")}
        children = Domains({n: v for n, v in both.items() if not n.startswith("slope")})
        return self._bounded(children, slopes, ROUNDS, over)

    def decided(self, closed: float) -> bool:
        """Whether in every leaf of every clause's tree the clause is proved."""
        roots = {k: [k] for k in range(len(self.clauses.rows))}
        return self.record.covered(roots) if self.record.complete else closed > 1 - WHOLE

    def proof(self) -> CaseProof:
        """One tree a clause, whose first part has its number, and the slopes of the whole region's bounds."""
        roots = [(k, (k,)) for k in range(len(self.clauses.rows))]
        return CaseProof(self.graph, self.record, roots, self.root.rows, self.root.open)

    def _bounded(self, domains: Domains, slopes: Ints, rounds: int, over: Over) -> Expanded:
        """The parts' bounds, proofs of what they prove, and what is left, with what it splits next."""
        row = self._rows(domains)
        enough = self._slack(domains) - self._limits(domains)
        cuts = Cuts(domains["index"], domains["sign"], domains["threshold"])
        start = {i: s.unsqueeze(0).to(row.dtype) / LEVELS for i, s in slopes.items()}
        found = beta_crown(
            cut(self.root.relaxed, self.arguments, cuts),
            row,
            (start, domains["beta"].unsqueeze(0)),
            rounds,
            lambda lower: over() or bool((lower > enough).all()),
        )
        margin = torch.maximum(found.lower + self._limits(domains) - self._slack(domains), domains["margin"])
        proved = margin > 0
        self.least = min([self.least, *margin[proved].tolist()])
        self._prove(domains, found, torch.nonzero(proved)[:, 0])
        closed, open_ = float(domains["share"][proved].sum()), torch.nonzero(~proved)[:, 0]
        points, box = self._nearest(found, margin)
        if not len(open_):
            return Expanded(None, points[:0], Interval(box.lower[:0], box.upper[:0]), closed)
        left = domains.replaced(margin=margin, beta=found.betas[0]).select(open_)
        found = _selected(found, open_)
        branched, stuck = self._branched(left, found, over)
        return Expanded(branched, points, box, closed, stuck)

    def _branched(self, domains: Domains, found: Found, over: Over) -> tuple[Domains | None, int]:
        """The parts with the value that each should split next; how many have none."""
        cuts = Cuts(domains["index"], domains["sign"], domains["threshold"])
        score, place = losses(cut(self.root.relaxed, self.arguments, cuts), found.seen, found.slopes)
        top = score.topk(min(CANDIDATES, score.shape[1]), 1)
        splits = top.values[:, 0] >= 0
        able, last = torch.nonzero(splits)[:, 0], torch.nonzero(~splits)[:, 0]
        stuck = self._settled(domains.select(last), _selected(found, last), over) if len(last) else 0
        if not len(able):
            return None, stuck
        domains, found = domains.select(able), _selected(found, able)
        top_values, index, place = top.values[able], top.indices[able], place[able]
        if index.shape[1] > 1 and self.ahead and not over():
            gain = self._ahead(domains, found, index, place.gather(1, index)).masked_fill(top_values < 0, -torch.inf)
            index = index.gather(1, gain.argmax(1, keepdim=True))
        chosen = {"at": index[:, 0], "place": place.gather(1, index[:, :1])[:, 0]}
        slopes = {f"slope{i}": in_bytes(p[0]) for i, p in found.slopes.items()}
        return Domains({**domains.fields, **chosen, **slopes}), stuck

    def _settled(self, domains: Domains, found: Found, over: Over) -> int:
        """How many parts without anything left to split are not proved by more iterations either."""
        cuts = Cuts(domains["index"], domains["sign"], domains["threshold"])
        relaxed, start = cut(self.root.relaxed, self.arguments, cuts), (found.slopes, found.betas)
        enough = self._slack(domains) - self._limits(domains)
        done = beta_crown(
            relaxed, self._rows(domains), start, LAST, lambda lower: over() or bool((lower > enough).all())
        )
        proved = torch.nonzero(done.lower > enough)[:, 0]
        self.least = min([self.least, *(done.lower - enough)[proved].tolist()])
        self._prove(domains, done, proved)
        return len(domains) - len(proved)

    def _ahead(self, domains: Domains, found: Found, index: Tensor, place: Tensor) -> Tensor:
        """For every candidate the sum of both sides' margins, nothing optimised, none counted above 0."""
        parts, many = index.shape
        source = torch.arange(parts, device=index.device).repeat_interleave(2 * many)
        sides = place.new_tensor([1.0, -1.0]).repeat(parts * many)
        twice = [x.flatten().repeat_interleave(2) for x in (index, place)]
        some = domains.select(source)
        cuts = Cuts(
            torch.cat([some["index"], twice[0].unsqueeze(1)], 1),
            torch.cat([some["sign"], sides.unsqueeze(1)], 1),
            torch.cat([some["threshold"], twice[1].unsqueeze(1)], 1),
        )
        betas = torch.cat([found.betas[:, source], found.betas.new_zeros((1, len(source), 1))], 2)
        start = {i: p[:, source] for i, p in found.slopes.items()}
        with torch.no_grad():
            ahead = beta_crown(cut(self.root.relaxed, self.arguments, cuts), self._rows(some), (start, betas), 1)
        margins = (ahead.lower + self._limits(some)).clamp(max=0)
        return margins.reshape(parts, many, 2).sum(2)

    def _row(self, relaxed: Relaxed, clause: int) -> Tensor:
        """Weights, over all rows, of the clause's best combination as the whole region's relaxation sees it."""
        rows = self.clauses.matrix.unsqueeze(1)
        with torch.no_grad():
            forms, lower = relaxed.form(len(self.graph.nodes) - 1, rows.reshape(-1, 1, *self.graph.output_shape))
            weights = self.clauses.combined(forms.flatten(2), lower, relaxed.region)[2][clause]
        return torch.zeros_like(self.clauses.bound).index_copy(0, self.clauses.rows[clause], weights[:, 0])

    def _rows(self, domains: Domains) -> Tensor:
        """Their combined rows: [1, parts, outputs]."""
        return (domains["row"] @ self.clauses.matrix).unsqueeze(0)

    def _limits(self, domains: Domains) -> Tensor:
        return domains["row"] @ self.clauses.bound

    def _slack(self, domains: Domains) -> Tensor:
        """What a bound must exceed: rounding's share of the outputs' size."""
        output = self.root.relaxed.bounds[-1]
        size = torch.maximum(output.lower.abs(), output.upper.abs()).flatten(1)[0]
        return SLACK * ((domains["row"] @ self.clauses.matrix).abs() @ size + self._limits(domains).abs())

    def _prove(self, domains: Domains, found: Found, some: Tensor) -> None:
        """Records what is proved, clause by clause."""
        for k in sorted(set(domains["clause"][some].tolist())):
            mine = some[domains["clause"][some] == k]
            weights = domains["row"][mine][:, self.clauses.rows[k]]
            slopes = {i: in_bytes(p[0, mine]).numpy(force=True) for i, p in found.slopes.items()}
            betas = found.betas[0, mine].numpy(force=True)
            ids = domains["id"][mine].numpy(force=True)
            self.record.prove(Proved(ids, k, weights.numpy(force=True), slopes, betas))

    def _nearest(self, found: Found, margin: Tensor) -> tuple[Tensor, Interval]:
        """Where the linear bounds of the worst parts are smallest, and the box of all."""
        box = self.packed.region.box
        worst = margin.argsort()[:ATTACKED]
        same = torch.zeros(len(worst), dtype=torch.long, device=margin.device)
        points = box.lower[same] / 2 + box.upper[same] / 2
        if 0 in found.seen:
            points = self.packed.region.select(same).minimizer(found.seen[0][:, worst])[0]
        return points, Interval(box.lower[same], box.upper[same])


def _selected(found: Found, index: Tensor) -> Found:
    slopes, seen = ({i: x[:, index] for i, x in some.items()} for some in (found.slopes, found.seen))
    return Found(found.lower[index], slopes, found.betas[:, index], seen)


def _appended(path: Mapping[str, Tensor], last: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fields [parts, splits] with one more split a part, root first and without gaps, in as few columns as hold all."""
    longer = {name: torch.cat([path[name], values.unsqueeze(1)], 1) for name, values in last.items()}
    missing = longer["index"] < 0
    order = torch.sort(missing.to(torch.uint8), dim=1, stable=True).indices
    width = int((~missing).sum(1).max())
    return {name: values.gather(1, order)[:, :width] for name, values in longer.items()}
