"""Trees from the search's form to chunks: what is bounded again, what is refused, how much memory 10^5 leaves take."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "check"))
from check_kit import Random, box_specification, forward, model, specification
from onnx import helper
from tree_kit import Search, hard

from provenn.verifier.certificate.bundle import load, to_zip, write
from provenn.verifier.certificate.emit import emit
from provenn.verifier.certificate.slopes import CaseSlopes, NeuronBound
from provenn.verifier.certificate.tree import EMPTY, INPUT, LEAF, Tree
from provenn.verifier.certificate.trees import LeavesUnproved, ProofTooLarge, Trees
from provenn.verifier.check import CertificateRejected, check, read_network
from provenn.verifier.check.trees import CONTINUED, read_chunk

Array = np.ndarray


def chunks(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [dict(read_chunk(data)) for name, data in files.items() if name.startswith("tree-")]


def emitted(search: Search, tree: Tree, **options: Any) -> dict[str, bytes]:
    own = {"halvings": 0} | {name: options.pop(name) for name in ("budget", "halvings") if name in options}
    return emit(
        search.network, search.specification, "branch-and-bound", {}, trees=Trees({0: [tree]}, **own), **options
    )


def two_branches() -> bytes:
    """Two ReLUs beside each other, one of them read twice, then a third layer."""
    generator = np.random.default_rng(0)
    normal = lambda *shape: generator.normal(size=shape).astype(np.float32) / 2  # noqa: E731
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["z0"]),
        helper.make_node("Relu", ["z0"], ["a0"]),
        helper.make_node("Gemm", ["x", "w2", "b2"], ["z1"]),
        helper.make_node("Relu", ["z1"], ["a1"]),
        helper.make_node("Tanh", ["z1"], ["a2"]),
        helper.make_node("Concat", ["a0", "a1", "a2", "x"], ["k"], axis=1),
        helper.make_node("Gemm", ["k", "w3", "b3"], ["z3"]),
        helper.make_node("Relu", ["z3"], ["a3"]),
        helper.make_node("Gemm", ["a3", "w4", "b4"], ["y"]),
    ]
    constants = {"w1": normal(2, 5), "w2": normal(2, 4), "w3": normal(15, 6), "w4": normal(6, 3)}
    constants |= {"b1": normal(5), "b2": normal(4), "b3": normal(6), "b4": normal(3)}
    return model(nodes, [1, 2], constants)


class File:
    """A network's file in the place of check_kit's random ones."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def file(self) -> bytes:
        return self.data


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("kinds", [["relu", "relu"], ["residual", "relu"], ["leaky", "relu"], ["tanh", "sigmoid"], []])
def test_hard_specifications_are_proved_by_splitting(kinds: list[str], share: float) -> None:
    random: Any = Random(3, [3, *(8 for _ in kinds), 3], kinds) if kinds else File(two_branches())
    slack = 0.1 if "tanh" in kinds else 0.25
    search = Search(*hard(random, 3 if kinds else 2, 1.0, slack), seed=1, share=share)
    files = search.run(60)
    report = check(files, search.network)
    assert 0 < report.margin <= min(float(clause.bound[0]) + 10 for clause in search.case.clauses)
    assert sum(len(chunk["step"]) for chunk in chunks(files)) >= 3
    generator = np.random.default_rng(0)
    for _ in range(200):
        x = generator.uniform(-1, 1, len(search.case.lower))
        y = np.array([float(v) for v in exact(search, x)])
        for margin, clause in zip(report.margins[0], search.case.clauses, strict=True):
            gaps = [float(d) - np.array(row, float) @ y for row, d in zip(*clause, strict=True)]
            assert margin <= max(gaps) + 1e-12


def exact(search: Search, x: Array) -> Array:
    return forward(search.network, x)


def test_parts_are_bounded_again_only_where_that_is_needed() -> None:
    search = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=1, share=0.0)
    chunk = chunks(search.run())[0]
    assert chunk["bounded"].sum() > 0
    assert np.isin(chunk["step"][chunk["bounded"] == 1], (LEAF, CONTINUED)).all()
    everywhere = replace(search.last, bounded=np.ones(len(search.last.step), bool))
    assert chunks(emitted(search, everywhere))[0]["bounded"].sum() == chunk["bounded"].sum()
    easy = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0, 9.0), seed=1, share=0.0)
    easy.divide(easy.root)
    assert chunks(easy.run())[0]["bounded"].sum() == 0


def test_unproved_parts_are_named() -> None:
    search = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=1, share=0.0)
    with pytest.raises(LeavesUnproved, match="proofs at 1 nodes of a tree of case 0") as refusal:
        emitted(search, search.tree())
    assert refusal.value.place == (0, 0)
    assert refusal.value.nodes.tolist() == [0]
    search.run()
    nodes = search.last.node
    wrong = nodes[5]
    loose = replace(search.last, weights=np.where((nodes == wrong)[:, None], 0, search.last.weights).astype(np.float32))
    with pytest.raises(LeavesUnproved) as refusal:
        emitted(search, loose)
    assert set(refusal.value.nodes.tolist()) == {int(wrong)}


@pytest.mark.parametrize("seed", range(3))
def test_unproved_leaves_are_halved_until_they_are_proved(seed: int) -> None:
    search = Search(*hard(Random(seed, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=seed, share=0.0)
    with pytest.raises(LeavesUnproved):
        emitted(search, search.tree())
    files = emitted(search, search.tree(), halvings=12)
    assert check(files, search.network).margin > 0
    assert sum((chunk["step"] == INPUT).sum() for chunk in chunks(files)) > 0


def test_several_trees_prove_the_clauses_of_a_case_between_them() -> None:
    search = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=1, share=0.0)
    search.run()
    whole, count = search.last, len(search.case.clauses)
    assert count > 1
    trees = [replace(whole, asked=(k,)) for k in range(count)]

    def made(some: list[Tree]) -> dict[str, bytes]:
        own = Trees({0: some}, halvings=0)
        return emit(search.network, search.specification, "branch-and-bound", {}, trees=own)

    together = check(made(trees), search.network)
    assert together.margins == check(made([whole]), search.network).margins
    for wrong in (trees[1:], [*trees, trees[0]], [replace(whole, asked=())], [replace(whole, asked=(count,))]):
        with pytest.raises(CertificateRejected):
            check(made(wrong), search.network)


def test_a_clause_that_is_not_excluded_somewhere_is_refused() -> None:
    search = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=1, share=0.0)
    search.run()
    tree = search.last
    kept = np.arange(len(tree.node)) != 3
    missing = replace(tree, node=tree.node[kept], clause=tree.clause[kept], weights=tree.weights[kept])
    with pytest.raises(CertificateRejected, match="not excluded"):
        emitted(search, missing)


def test_a_proof_above_the_budget_is_refused_and_says_so() -> None:
    search = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=1, share=0.0)
    size = sum(len(data) for name, data in search.run().items() if name.startswith("tree-"))
    assert emitted(search, search.last, budget=size)
    with pytest.raises(ProofTooLarge, match=f"{size - 1} bytes") as refusal:
        emitted(search, search.last, budget=size - 1)
    assert refusal.value.budget == size - 1


@pytest.mark.parametrize("broken", ["short", "long", "betas"])
def test_what_is_not_a_tree_is_an_error(broken: str) -> None:
    search = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=1, share=0.3)
    search.run()
    tree = search.last
    if broken == "betas":
        tree = replace(tree, betas=np.append(tree.betas, np.float32(0)))
    else:
        some = slice(None, -1) if broken == "short" else np.append(np.arange(len(tree.step)), len(tree.step) - 1)
        arrays = {name: getattr(tree, name)[some] for name in ("step", "neuron", "threshold", "bounded")}
        tree = replace(tree, **arrays)
    with pytest.raises(ValueError, match=r"tree in preorder|multipliers"):
        emitted(search, tree)


def test_parts_without_inputs_need_no_clause() -> None:
    """x <= 0.5 and x >= 0.75 leave nothing; at a neuron, a value beyond its interval."""
    network = read_network(Random(3, [1, 4, 2], ["relu"]).file())
    specification = box_specification([-1], [1], [([[1, 0]], [1000]), ([[0, 1]], [1000])])
    step = np.array([INPUT, INPUT, LEAF, LEAF, 1, LEAF, LEAF], np.int32)
    threshold = np.array([0.5, 0.75, 0, 0, 1e6, 0, 0], np.float32)
    node, clause = np.array([0, 0, 3, 6], np.int32), np.array([0, 1, EMPTY, EMPTY], np.int32)
    names = tuple(s.name for s in network.steps if s.name == "a0")
    zero = np.zeros(7, np.int32)
    weights, betas = np.array([[1], [1], [0], [0]], np.float32), np.zeros(1, np.float32)
    tree = Tree(names, step, zero, threshold, zero.astype(bool), node, clause, weights, betas)
    assert check(emit(network, specification, "branch-and-bound", {}, trees=Trees({0: [tree]})), network).margin > 900
    wrong = replace(tree, clause=np.array([0, EMPTY, 1, EMPTY], np.int32))
    with pytest.raises(LeavesUnproved) as refusal:
        emit(network, specification, "branch-and-bound", {}, trees=Trees({0: [wrong]}, halvings=0))
    assert refusal.value.nodes.tolist() == [0]


def test_cases_with_and_without_trees_share_a_certificate() -> None:
    search = Search(*hard(Random(3, [3, 8, 8, 3], ["relu", "relu"]), 3, 1.0), seed=1, share=0.0)
    search.run()
    case = json.loads(search.specification.text)
    case.pop("format"), case.pop("kind")
    easy = {**case, "lower": ["0"] * 3, "upper": ["0.001"] * 3}
    both = specification({"format": "provenn-specification/1", "kind": "cases", "cases": [easy, case]})
    files = emit(search.network, both, "branch-and-bound", {}, trees=Trees({1: [search.last]}))
    assert [name for name in files if name.startswith("tree-")] == ["tree-1-0-0.safetensors.z"]
    report = check(files, search.network)
    assert len(report.margins) == 2
    assert report.margin > 0


def test_bundles_of_trees_survive_folders_zips_and_the_command(tmp_path: Path) -> None:
    random = Random(3, [3, 8, 8, 3], ["relu", "relu"])
    search = Search(*hard(random, 3, 1.0), seed=1, share=0.0)
    files = search.run()
    write(files, tmp_path / "bundle")
    assert load(tmp_path / "bundle") == files
    (tmp_path / "bundle.zip").write_bytes(to_zip(files))
    (tmp_path / "model.onnx").write_bytes(random.file())
    command = [sys.executable, "-m", "provenn.verifier.check"]
    for name in ("bundle", "bundle.zip"):
        given = [*command, str(tmp_path / name), "--model", str(tmp_path / "model.onnx")]
        assert "accepted" in subprocess.run(given, capture_output=True, text=True, check=True).stdout
    (tmp_path / "bundle" / "tree-0-0-0.safetensors.z").write_bytes(b"x")
    done = subprocess.run(
        [*command, str(tmp_path / "bundle"), *given[-2:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 13
    assert "sha256" in done.stdout


@pytest.mark.slow
def test_a_hundred_thousand_leaves_are_written_and_checked_in_bounded_memory() -> None:
    network = read_network(Random(3, [2, 6, 2], ["relu"]).file())
    specification = box_specification([-1, -1], [1, 1], [([[1, 0]], [1000])])
    depth = 17
    count = 2 ** (depth + 1) - 1
    step, neuron, threshold = np.full(count, LEAF, np.int32), np.zeros(count, np.int32), np.zeros(count, np.float32)
    waiting, position = [(0, 0.0, 1.0, 0.0, 1.0)], 0
    while waiting:
        level, *limits = waiting.pop()
        if level < depth:
            axis = level % 2
            low, high = limits[2 * axis : 2 * axis + 2]
            step[position], neuron[position], threshold[position] = INPUT, axis, low + high - 1
            left, right = list(limits), list(limits)
            left[2 * axis + 1] = right[2 * axis] = (low + high) / 2
            waiting += [(level + 1, *right), (level + 1, *left)]
        position += 1
    node = np.flatnonzero(step == LEAF).astype(np.int32)
    assert len(node) > 100_000
    weights = np.ones((len(node), 1), np.float32)
    none = np.zeros(0, np.float32)
    bounded = np.zeros(count, bool)
    tree = Tree(("a0",), step, neuron, threshold, bounded, node, np.zeros(len(node), np.int32), weights, none)
    files = emit(network, specification, "branch-and-bound", {}, trees=Trees({0: [tree]}))
    pieces = [data for name, data in files.items() if name.startswith("tree-")]
    assert len(pieces) > 50
    raw = sum(len(zlib.decompress(data)) for data in pieces)
    assert sum(map(len, pieces)) < raw / 2
    tracemalloc.start()
    report = check(files, network)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.margin > 900
    assert peak < 24 * 2**20
    assert peak < 5 * raw


def test_bounds_with_slopes_of_their_own_share_one_claim() -> None:
    network, specification = hard(Random(3, [4, 12, 12, 12, 3], ["relu", "relu", "relu"]), 4, 0.15, 3.0)
    generator = np.random.default_rng(0)
    names = [step.name for step in network.steps if step.name.startswith("a")]
    wanted = {
        name: [
            NeuronBound(j, sign, {n: generator.integers(0, 256, 12).astype(np.uint8) for n in names[:i]})
            for j in range(12)
            for sign in (1, -1)
        ]
        for i, name in enumerate(names)
        if i
    }
    files = emit(network, specification, "alpha-crown", {}, [CaseSlopes(wanted)])
    claims = json.loads(files["manifest.json"])["claims"]
    assert [claim["node"] for claim in claims if claim["kind"] == "interval"] == ["z0", "z1", "z2"]
    own = [claim for claim in claims if "rows" in claim]
    assert own
    report = check(files, network)
    plain = check(emit(network, specification, "crown", {}), network)
    assert report.margin >= plain.margin
    assert Fraction(report.margin) > 0
