"""Trees of splits: no margin or interval of a part is above an exact value there; every corruption is rejected."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from check_kit import Random, box_specification, rationals, repacked, resealed
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_kit import Search, exact_values, hard, settled, within

from provenn.verifier.certificate.emit import emit
from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.certificate.trees import Trees, Writer
from provenn.verifier.check import CertificateRejected, check, read_network
from provenn.verifier.check.claims import cut_by_rows
from provenn.verifier.check.functions import RELU
from provenn.verifier.check.network import Affine
from provenn.verifier.check.rows import Ball, Bounds, Box, Semantics
from provenn.verifier.check.trees import LARGEST, Tree, read_chunk

Array = np.ndarray
KINDS = ["relu", "leaky", "clip", "tanh", "sigmoid", "residual"]
SLACK = Fraction(1, 10**40)


def grown_at_random(
    network: Any, specification: Any, seed: int, count: int, share: float, semantics: Semantics = "real"
) -> tuple[Search, Any, Any]:
    """A random tree of so many splits with random multipliers and slopes, as one chunk; its nodes in the kernel."""
    search = Search(network, specification, seed, share, slopes=True, semantics=semantics)
    for _ in range(count):
        leaves = [node for node in search.nodes() if not node.halves]
        search.divide(leaves[search.generator.integers(len(leaves))])
    for node in search.nodes():
        node.bounded = bool(search.generator.random() < 0.4)
    tree = search.tree()
    betas = 10 * search.generator.random(len(tree.betas)) * (search.generator.random(len(tree.betas)) < 0.3)
    writer = Writer(replace(tree, betas=betas.astype(np.float32)), search.bounds, 0)
    nodes, step = next(writer.pieces())
    kernel = Tree(search.bounds, tree.steps, search.case.clauses, range(len(search.case.clauses)))
    return search, kernel, writer.chunk(nodes, step, kernel.width)


nets = st.tuples(st.integers(0, 10**6), st.integers(1, 3), st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))


@settings(max_examples=30, deadline=None)
@given(nets, st.integers(0, 12), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.01, 0.5, 3.0]))
def test_margins_and_intervals_of_parts_hold_at_points_of_them(net, count, share, radius) -> None:  # type: ignore[no-untyped-def]
    seed, inputs, kinds = net
    random = Random(seed, [inputs, *(4 for _ in kinds), 2], kinds)
    network, specification = hard(random, inputs, radius, seed=seed)
    with np.errstate(all="ignore"):
        search, kernel, chunk = grown_at_random(network, specification, seed, count, share)
        nodes = kernel.grown(chunk)
        margins = kernel.margins(nodes, chunk)
    generator = np.random.default_rng(seed)
    box, found = search.bounds.boxes[0], 0
    points = [np.where(generator.random(inputs) < 0.5, *box) for _ in range(2)]
    points += [box.lower + generator.random(inputs) * (box.upper - box.lower) for _ in range(6)]
    for x in points:
        exact = [Fraction(float(v)) for v in np.clip(x, *box)]
        values = exact_values(random, network, exact, kinds)
        inside = [within(nodes, i, values) for i in range(len(nodes.depth))]
        assert inside[0]
        for i in np.flatnonzero(inside):
            for step, boxes in nodes.boxes.items():
                row = nodes.parts.table[i] if step else nodes.parts.inputs[i]
                low, high = (rationals(side[row]) for side in boxes)
                assert (low - SLACK <= values[step]).all()
                assert (values[step] <= high + SLACK).all()
        for node, clause, w, margin in zip(
            chunk["node"], chunk["clause"], chunk["weights"].reshape(-1, kernel.width), margins, strict=True
        ):
            if inside[node] and np.isfinite(margin):
                rows, w = search.case.clauses[clause], [Fraction(float(v)) for v in w]
                y = values[network.output]
                gaps = [d - sum(c * v for c, v in zip(row, y, strict=True)) for row, d in zip(*rows, strict=True)]
                value = sum(v * gap for v, gap in zip(w, gaps, strict=False)) / sum(w)
                assert Fraction(float(margin)) <= value + SLACK * (1 + abs(value))
                found += 1
            assert not (inside[node] and margin == np.inf)
    assert found


def turning_points(network: Any, low: Fraction, high: Fraction, values: Callable[[Fraction], list[Array]]) -> list[Any]:
    """Where some ReLU of a network of one input turns, exactly: it is linear in between."""
    points = [low, high]
    for step in network.steps:
        if getattr(step, "function", None) is not RELU:
            continue
        more = []
        for a, b in pairwise(points):
            left, right = (values(x)[step.sources[0]] for x in (a, b))
            more += [a + (b - a) * p / (p - q) for p, q in zip(left, right, strict=True) if p * q < 0]
        points = sorted({*points, *more})
    return points


@pytest.mark.parametrize("kinds", [["relu"], ["relu", "relu"], ["residual", "relu"]])
@pytest.mark.parametrize("seed", range(4))
def test_margins_are_below_the_exact_minimum_of_a_part(kinds: list[str], seed: int) -> None:
    random = Random(seed, [1, *(5 for _ in kinds), 2], kinds)
    network, specification = hard(random, 1, 2.0, seed=seed)
    search, kernel, chunk = grown_at_random(network, specification, seed, 8, 0.4)
    nodes = kernel.grown(chunk)
    margins = kernel.margins(nodes, chunk)
    values = cache(lambda x: exact_values(random, network, [x], kinds))
    low, high = (Fraction(float(side[0])) for side in search.bounds.boxes[0])
    points = turning_points(network, low, high, values)
    tight = 0
    for node, clause, w, margin in zip(
        chunk["node"], chunk["clause"], chunk["weights"].reshape(-1, kernel.width), margins, strict=True
    ):
        path = nodes.parts.path[node][: nodes.depth[node]]
        cuts = {Fraction(float(side[nodes.parts.inputs[node], 0])) for side in nodes.boxes[0]}
        for a, b in pairwise(points):
            for s in path:
                p, q = (values(x)[s["value"]][s["neuron"]] - Fraction(float(s["threshold"])) for x in (a, b))
                cuts |= {a + (b - a) * p / (p - q)} if p * q < 0 else set()
        ends = sorted({*points, *cuts})
        inside = [values(x) for x in ends if within(nodes, node, values(x))]
        rows, w = search.case.clauses[clause], [Fraction(float(v)) for v in w]
        exact = [
            sum(
                v * (d - sum(c * y for c, y in zip(row, at[network.output], strict=True)))
                for v, row, d in zip(w, *rows, strict=False)
            )
            / sum(w)
            for at in inside
        ]
        if exact:
            assert Fraction(float(margin)) <= min(exact)
            tight += min(exact) - Fraction(float(margin)) < 1
    assert tight


@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_trees_prove_both_semantics(semantics: Semantics) -> None:
    random = Random(2, [3, 8, 8, 3], ["relu", "relu"])
    network, specification = hard(random, 3, 1.0)
    search = Search(network, specification, 1, share=0.0)
    report = check(search.run(semantics=semantics), network)
    assert report.semantics == semantics
    assert report.margin > 0


@pytest.mark.parametrize("kinds", [["relu", "relu"], ["residual", "relu"], ["leaky", "clip"]])
def test_values_that_are_executed_in_float32_lie_within_the_intervals_of_their_parts(kinds: list[str]) -> None:
    network, specification = hard(Random(4, [2, 40, 40, 3], kinds), 2, 1.0)
    search, kernel, chunk = grown_at_random(network, specification, 1, 12, 0.6, "float32")
    nodes = kernel.grown(chunk)
    margins = kernel.margins(nodes, chunk)
    generator = np.random.default_rng(0)
    seen = 0
    for x in generator.uniform(-1, 1, (60, 2)):
        values = executed(network, x.astype(np.float32), generator)
        exact = [rationals(value) for value in values]
        inside = [within(nodes, i, exact) for i in range(len(nodes.depth))]
        assert any(inside)
        for i in np.flatnonzero(inside):
            for step, boxes in nodes.boxes.items():
                lower, upper = (side[nodes.parts.table[i] if step else nodes.parts.inputs[i]] for side in boxes)
                assert (lower <= values[step]).all()
                assert (values[step] <= upper).all()
                seen += 1
        for node, clause, w, margin in zip(
            chunk["node"], chunk["clause"], chunk["weights"].reshape(-1, kernel.width), margins, strict=True
        ):
            if inside[node]:
                matrix, bound = search.case.clauses[clause]
                gaps = [
                    d - sum(c * y for c, y in zip(r, exact[network.output], strict=True))
                    for r, d in zip(matrix, bound, strict=True)
                ]
                weights = [Fraction(float(v)) for v in w]
                value = sum(v * gap for v, gap in zip(weights, gaps, strict=False)) / sum(weights)
                assert Fraction(float(margin)) <= value
    assert seen > 100


def executed(network: Any, x: Array, generator: np.random.Generator) -> list[Array]:
    """Every step's value in float32, sums in a random order."""
    values = [x]
    for step in network.steps[1:]:
        inputs = np.concatenate([values[i] for i in step.sources])
        if isinstance(step, Affine):
            dense = step.matrix if isinstance(step.matrix, np.ndarray) else step.matrix.toarray()
            order = generator.permutation(dense.shape[1])
            total = np.zeros(len(dense), np.float32)
            for j in order:
                total = total + dense[:, j].astype(np.float32) * inputs[j]
            values.append(total + step.bias.astype(np.float32))
        else:
            exact = step.function(inputs.astype(np.float64), inputs.astype(np.float64)).values[0]
            values.append(exact.astype(np.float32))
    return values


def test_float32_margins_are_smaller() -> None:
    random = Random(2, [3, 8, 8, 3], ["relu", "relu"])
    network, specification = hard(random, 3, 1.0)
    search = Search(network, specification, 1, share=0.0)
    search.run(semantics="float32")
    trees = Trees({0: [search.last]})
    margins = {
        s: check(emit(network, specification, "branch-and-bound", {}, semantics=s, trees=trees), network).margin  # type: ignore[arg-type]
        for s in ("real", "float32")
    }
    assert 0 < margins["float32"] < margins["real"]


@pytest.mark.parametrize("norm", [1, 2])
def test_parts_of_a_ball_are_bounded_over_the_ball_too(norm: int) -> None:
    network = read_network(Random(5, [4, 8, 2], ["relu"]).file())
    box = Box(np.full(4, -1.0), np.full(4, 1.0))
    found = []
    for ball in (None, Ball(np.zeros(4), 1.0, norm)):
        bounds = settled(Bounds(network, box, ball))
        case = box_specification([-1] * 4, [1] * 4, [([[1, 0]], [0])])
        search = Search(network, case)
        tree = Tree(bounds, (), search.case.clauses, range(len(search.case.clauses)))
        chunk = Writer(search.tree(), bounds, 0).chunk(np.zeros(1, int), np.array([-1], np.int32), 1)
        found.append(tree.margins(tree.grown(chunk), chunk)[0])
    assert found[1] > found[0]


def test_rows_with_slopes_of_their_own_hold_and_bad_ones_are_refused() -> None:
    random = Random(1, [3, 6, 6, 2], ["relu", "relu"])
    network = read_network(random.file())
    bounds = Bounds(network, Box(np.full(3, -0.5), np.full(3, 0.5)))
    first, second = network.bounded.values()
    bounds.accept(first, bounds.box(first))
    rows = np.array([1, -1, 4, -6, 4], np.int32)
    generator = np.random.default_rng(0)
    name = next(s.name for s in network.steps if s.sources == (first,))
    own = generator.integers(0, 256, 5 * 6).astype(np.uint8)
    cut, plain = cut_by_rows(bounds, second, rows, {name: own}), bounds.box(second)
    assert (cut.lower >= plain.lower).all()
    assert (cut.upper <= plain.upper).all()
    assert (cut.upper - cut.lower < plain.upper - plain.lower).any()
    for _ in range(50):
        x = [Fraction(float(v)) for v in generator.uniform(-0.5, 0.5, 3)]
        value = exact_values(random, network, x, ["relu", "relu"])[second]
        assert (rationals(cut.lower) <= value).all()
        assert (value <= rationals(cut.upper)).all()
    for bad, slopes in (
        (np.array([0] * 5, np.int32), {name: own}),
        (np.array([7] * 5, np.int32), {name: own}),
        (np.array([-(2**31)] * 5, np.int32), {name: own}),
        (rows.astype(np.float32), {name: own}),
        (rows, {name: own[1:]}),
        (rows, {"y": own}),
        (rows, {name: own.astype(np.float32)}),
    ):
        with pytest.raises(CertificateRejected):
            cut_by_rows(bounds, second, bad, slopes)


SEARCH = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), 4, share=0.3)
FILES = SEARCH.run()
NETWORK = SEARCH.network
CHUNK = "tree-0-0-0.safetensors.z"


def with_chunks(
    chunks: list[tuple[str, bytes]], change: Callable[[Any], None] = lambda claim: None
) -> dict[str, bytes]:
    """The certificate with other chunks, all digests right."""
    files = {name: data for name, data in FILES.items() if not name.startswith("tree-")} | dict(chunks)

    def update(content: dict[str, Any]) -> None:
        claim = content["claims"][-1]
        claim["chunks"] = [[name, hashlib.sha256(data).hexdigest()] for name, data in chunks]
        change(claim)

    return resealed(files, update)


def changed(**arrays: Any) -> dict[str, bytes]:
    """The certificate with other arrays in its chunk; None removes one."""
    chunk = {name: array.copy() for name, array in read_chunk(FILES[CHUNK]).items()} | arrays
    data = zlib.compress(write_payload({name: array for name, array in chunk.items() if array is not None}))
    return with_chunks([(CHUNK, data)])


def refused(files: dict[str, bytes], reason: str | None = None) -> None:
    with pytest.raises(CertificateRejected, match=reason) as refusal:
        check(files, NETWORK)
    assert refusal.value.reason


def original(name: str) -> Array:
    return read_chunk(FILES[CHUNK])[name].copy()


def put(name: str, place: int, value: Any) -> dict[str, bytes]:
    array = original(name)
    array[place] = value
    return changed(**{name: array})


def test_the_tree_itself_is_accepted() -> None:
    report = check(changed(), NETWORK)
    assert report.margin == check(FILES, NETWORK).margin > 0
    assert len(original("step")) > 20
    assert len(original("betas")) > 0
    assert (original("bounded") == 1).any()
    assert json.loads(json.dumps(report.as_dict()))["margins"] == [list(report.margins[0])]


def test_pruned_grafted_and_rewired_trees_are_refused() -> None:
    step, neuron, threshold = (original(name) for name in ("step", "neuron", "threshold"))
    inner = np.flatnonzero(step >= 0)
    leaf = int(np.flatnonzero(step == -1)[-1])
    refused(changed(step=step[:-1], bounded=original("bounded")[:-1]), "not complete")
    refused(changed(step=step[:-2], bounded=original("bounded")[:-2]), "waits|wait|not complete")
    refused(changed(step=np.append(step, [-1, -1]).astype(np.int32)), "not complete|not there")
    refused(put("step", leaf, 0))
    refused(put("step", int(inner[-1]), -1))
    refused(put("step", int(inner[0]), -1))
    refused(put("step", leaf, -2), "missing")
    refused(put("step", leaf, -3), "not there")
    refused(put("step", int(inner[-1]), 99), "not there")
    refused(changed(step=np.roll(step, 1)))
    refused(changed(step=step[::-1].copy()))
    refused(changed(neuron=neuron[:-1]))
    refused(changed(threshold=np.append(threshold, np.float32(0))))
    refused(put("neuron", 0, 99), "not there")
    refused(put("neuron", 0, -1), "not there")


def test_numbers_that_are_none_or_negative_are_refused() -> None:
    for name in ("threshold", "betas", "weights"):
        for value in (np.nan, np.inf):
            refused(put(name, 0, value), "not finite")
    refused(put("betas", 0, -0.5), "negative")
    refused(put("weights", 0, -0.5), "negative")
    refused(changed(betas=original("betas")[1:]), "as many")
    refused(changed(weights=original("weights")[1:]), "as many")
    refused(changed(weights=np.zeros_like(original("weights"))), "does not hold")


def test_proofs_of_something_else_are_refused() -> None:
    node, clause = original("node"), original("clause")
    refused(put("node", 0, len(original("step"))), "not there")
    refused(put("node", 0, -1), "not there")
    refused(put("clause", 0, 2), "not there")
    refused(put("clause", 0, -2), "not there")
    refused(put("clause", 0, 1 - clause[0]), "not excluded")
    refused(put("clause", 0, -1), "does not hold")
    refused(put("node", 0, node[-1] if node[-1] != node[0] else node[2]))
    one = {"node": node[1:], "clause": clause[1:], "weights": original("weights")[2:]}
    first = {"betas": original("betas")[len(original("betas")) - betas_after(1) :]}
    refused(changed(**one, **first), "not excluded")


def betas_after(proof: int) -> int:
    """How many multipliers the proofs from this one on have."""
    with np.errstate(all="ignore"):
        kernel = Tree(
            SEARCH.bounds, tuple(s.name for s in SEARCH.steps), SEARCH.case.clauses, range(len(SEARCH.case.clauses))
        )
        depth = kernel.grown(read_chunk(FILES[CHUNK])).depth
    return int(depth[original("node")[proof:]].sum())


def test_parts_without_their_own_bounds_or_another_threshold_prove_less() -> None:
    refused(changed(bounded=np.zeros_like(original("bounded"))), "does not hold")
    refused(changed(threshold=original("threshold") + np.float32(0.7)))


def test_chunks_dropped_swapped_repeated_or_broken_are_refused() -> None:
    pieces = cut(SEARCH, 16)
    assert len(pieces) > 3
    assert check(with_chunks(pieces), NETWORK).margin == pytest.approx(check(FILES, NETWORK).margin)
    for other in (pieces[:-1], pieces[1:], [pieces[1], pieces[0], *pieces[2:]], [*pieces[:-2], pieces[-1], pieces[-2]]):
        refused(with_chunks(other))
    again = ("tree-0-0-99.safetensors.z", pieces[-1][1])
    refused(with_chunks([*pieces, again]), "wait")
    refused(with_chunks([*pieces, pieces[-1]]), "other files|holds")
    data = FILES[CHUNK]
    refused(with_chunks([(CHUNK, data[:-3])]), "truncated|zlib")
    refused(with_chunks([(CHUNK, data + b"x")]), "truncated")
    refused(with_chunks([(CHUNK, b"x" + data)]), "zlib")
    refused(with_chunks([(CHUNK, b"")]))
    refused(with_chunks([(CHUNK, zlib.compress(bytes(LARGEST + 1)))]), "larger")
    refused({**FILES, CHUNK: data + b"x"}, "sha256")
    refused({name: d for name, d in FILES.items() if name != CHUNK}, "other files")


def cut(search: Search, most: int) -> list[tuple[str, bytes]]:
    """The accepted tree in pieces of so many nodes."""
    writer = Writer(replace(search.last, bounded=flags(search)), search.bounds, 0)
    writer.most = most
    found = []
    for nodes, step in writer.pieces():
        data = zlib.compress(write_payload(writer.chunk(nodes, step, 2)))
        found.append((f"tree-0-0-{len(found)}.safetensors.z", data))
    return found


def flags(search: Search) -> Array:
    """Which nodes, in preorder, the accepted chunk bounds again."""
    nodes, _ = next(Writer(search.last, search.bounds, 0).pieces())
    found = np.empty(len(nodes), bool)
    found[nodes] = original("bounded")
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"steps": ["y"]},
        {"steps": ["x"]},
        {"steps": []},
        {"chunks": []},
        {"chunks": [["a"]]},
        {"chunks": "a"},
        {"case": 1},
        {"uses": []},
        {"kind": "margin"},
        {"more": 1},
    ],
)
def test_every_field_of_the_claim_matters(change: dict[str, Any]) -> None:
    refused(resealed(FILES, lambda content: content["claims"][-1].update(change)))


def test_a_margin_claim_beside_the_tree_is_refused() -> None:
    def add(content: dict[str, Any]) -> None:
        tree = content["claims"][-1]
        extra = {"id": len(content["claims"]), "kind": "margin", "case": 0, "clause": 0, "row": 0, "method": "crown"}
        content["claims"].append({**extra, "above": "0x0.0p+0", "uses": tree["uses"]})

    refused(resealed(FILES, add), "claimed twice")


def test_a_changed_slope_is_refused_or_leaves_a_proof() -> None:
    random = Random(3, [3, 8, 8, 3], ["relu", "relu"])
    search = Search(*hard(random, 3, 1.0, 0.6), 4, share=0.3, slopes=True)
    files = search.run()
    chunk = {name: array.copy() for name, array in read_chunk(files[CHUNK]).items()}
    names = [name for name in chunk if name.startswith("slopes:") and len(chunk[name])]
    assert names
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(40):
        name = names[generator.integers(len(names))]
        array = chunk[name].copy()
        array[generator.integers(len(array))] = generator.integers(256)
        data = zlib.compress(write_payload({**chunk, name: array}))

        def update(content: dict[str, Any], data: bytes = data) -> None:
            content["claims"][-1]["chunks"] = [[CHUNK, hashlib.sha256(data).hexdigest()]]

        try:
            report = check(resealed({**files, CHUNK: data}, update), search.network)
        except CertificateRejected as refusal:
            assert "does not hold" in refusal.reason
            outcomes.add("refused")
            continue
        outcomes.add("accepted")
        for _ in range(20):
            x = [Fraction(float(v)) for v in generator.uniform(-1, 1, 3)]
            y = random.exact(x)
            for margin, clause in zip(report.margins[0], search.case.clauses, strict=True):
                gaps = [d - sum(c * v for c, v in zip(row, y, strict=True)) for row, d in zip(*clause, strict=True)]
                assert Fraction(margin) <= max(gaps)
    assert "accepted" in outcomes
    columns = next(name for name in chunk if name.startswith("open:") and len(chunk[name]))
    for bad in (
        {columns: chunk[columns] + np.int32(99)},
        {columns: chunk[columns][1:]},
        {columns: None},
        {"slopes:y": chunk[names[0]]},
        {"extra": np.zeros(1, np.float32)},
    ):
        arrays = {name: array for name, array in {**chunk, **bad}.items() if array is not None}
        data = zlib.compress(write_payload(arrays))

        def update(content: dict[str, Any], data: bytes = data) -> None:
            content["claims"][-1]["chunks"] = [[CHUNK, hashlib.sha256(data).hexdigest()]]

        with pytest.raises(CertificateRejected):
            check(resealed({**files, CHUNK: data}, update), search.network)


def test_tightened_intervals_below_a_tree_are_refused() -> None:
    def tighten(tensors: dict[str, Array]) -> None:
        for name in tensors:
            if name.endswith(".lower"):
                tensors[name] = tensors[name] + np.float32(0.5)
            if name.endswith(".upper"):
                tensors[name] = tensors[name] - np.float32(0.1)

    with pytest.raises(CertificateRejected):
        check(repacked(FILES, tighten), NETWORK)
