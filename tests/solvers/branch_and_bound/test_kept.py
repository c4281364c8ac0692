"""A search that ends undecided, however it ends, goes on from its file as if it had never ended."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import GraphExecutor, convolutional, mlp
from search_kit import box, interrupted, interrupted_at, threshold

from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.branch_and_bound import BranchAndBound, kept
from provenn.solvers.branch_and_bound import __file__ as package
from provenn.solvers.branch_and_bound.input_split import InputSplit
from provenn.solvers.branch_and_bound.kept import EVERY, SHARE, Pace, key_of, network_of
from provenn.solvers.branch_and_bound.neuron_split import NeuronSplit
from provenn.solvers.branch_and_bound.proof import CaseProof
from provenn.solvers.branch_and_bound.queue import Queue
from provenn.solvers.branch_and_bound.state import State
from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.slopes import alpha_crown
from provenn.verifier.certificate.tree import LEAF
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.exponential import Log
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region
from provenn.verifier.spec import Case, Clause

NAMES = {2: "relu0", 4: "relu1"}
SPLITS = {"input": InputSplit, "neuron": NeuronSplit}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches are saved after every step."""
    monkeypatch.setattr(kept, "EVERY", 0.0)
    monkeypatch.setattr(kept, "SHARE", float("inf"))


def provable(share: Fraction = Fraction(1, 40)) -> Problem:
    """One case that is true, and takes some hundred parts."""
    graph = mlp([3, 12, 12, 2], 7)
    return Problem(graph, [threshold(graph, box(graph, Fraction(1, 2)), (1, -1), share)], GraphExecutor(graph))


def hard(*shares: int) -> Problem:
    """Cases that are true, and that no test waits for."""
    graph = mlp([8, 80, 80, 2], 3)
    inputs = box(graph, Fraction(1))
    return Problem(graph, [threshold(graph, inputs, (1, -1), Fraction(1, share)) for share in shares])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kept_in(path: Path, problem: Problem, case: int = 0) -> State:
    """The state of a case in a file."""
    network = network_of(problem.graph.to("cpu", problem.dtype), problem.dtype)
    return State.load(path, network, key_of(network, problem.cases[case]))


def resumed(problem: Problem, split: str, path: Path) -> float:
    """The domains of a search that goes on from its file to its end, which is what it would have been."""
    found = BranchAndBound(split=split).solve(replace(problem, state=path), Budget(60))
    assert found.outcomes[0].verdict == Verdict.VERIFIED
    assert not path.exists(), "the file of a decided search is removed"
    proof = found.outcomes[0].proof
    assert isinstance(proof, CaseProof) and proof.complete
    for tree in proof.trees(NAMES, NAMES):
        assert (tree.step == LEAF).sum() == (tree.step != LEAF).sum() + 1
    return found.stats["branch-and-bound_domains"]


@pytest.mark.parametrize("split", ["input", "neuron"])
def test_an_interrupted_search_goes_on_from_its_file_to_the_same_end(split: str, tmp_path: Path) -> None:
    whole = provable()
    problem = replace(whole, state=tmp_path / "search.state")
    way = BranchAndBound(split=split)
    for _ in range(3):
        with pytest.raises(InterruptedError):
            way.solve(problem, Budget(60), interrupted)
        assert files(tmp_path) == ["search.state"]
    found, fresh = way.solve(problem, Budget(60)), way.solve(whole, Budget(60))
    assert found.outcomes[0].verdict == fresh.outcomes[0].verdict == Verdict.VERIFIED
    assert found.stats["branch-and-bound_domains"] == fresh.stats["branch-and-bound_domains"]
    assert files(tmp_path) == [], "the file of a decided search is removed"
    first, second = found.outcomes[0].proof, fresh.outcomes[0].proof
    assert isinstance(first, CaseProof) and isinstance(second, CaseProof)
    for a, b in zip(first.trees(NAMES, NAMES), second.trees(NAMES, NAMES), strict=True):
        assert all(
            np.array_equal(getattr(a, n), getattr(b, n)) for n in ("step", "neuron", "threshold", "betas", "bounded")
        )
        for ours, theirs in zip(proofs(a), proofs(b), strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(ours, theirs, strict=True))


def proofs(tree: Any) -> list[tuple[Any, ...]]:
    """Node, clause, weights and slopes of every proof, in an order of its own."""
    rows = zip(tree.node.tolist(), tree.clause.tolist(), tree.weights, *tree.slopes.values(), strict=True)
    return sorted(rows, key=lambda row: row[:2])


def test_a_convolutional_network_has_the_same_key_after_it_has_run(tmp_path: Path) -> None:
    graph = convolutional(0, True)
    case = threshold(graph, box(graph, Fraction(1, 2)), (1, -1, 0), Fraction(1, 20))
    problem = Problem(graph, [case], state=tmp_path / "search.state")
    for _ in range(2):
        with pytest.raises(InterruptedError):
            BranchAndBound().solve(problem, Budget(60), interrupted)
    before = network_of(graph, torch.float32)
    graph.forward(torch.zeros(1, *graph.input_shape, dtype=torch.float64))
    crown(graph, Region.of([case.inputs], graph.input_shape, "cpu", torch.float64))
    assert network_of(graph, torch.float32) == before


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("split", ["input", "neuron"])
def test_a_search_is_kept_while_it_runs(split: str, tmp_path: Path) -> None:
    """What would be there if the process were killed."""
    problem, path, copy = provable(), tmp_path / "search.state", tmp_path / "copy.state"
    seen: list[bytes] = []

    def look(*_: object) -> None:
        seen.append(path.read_bytes() if path.exists() else b"")

    plain = BranchAndBound(split=split).solve(problem, Budget(60)).stats["branch-and-bound_domains"]
    BranchAndBound(split=split).solve(replace(problem, state=path), Budget(60), look)
    assert len(seen) > 4 and len(set(seen[:-1])) == len(seen[:-1]), "saved after every step"
    for content in seen[1 : len(seen) - 1 : len(seen) // 3]:
        copy.write_bytes(content)
        assert resumed(problem, split, copy) == plain


def test_savings_take_a_small_share_of_the_time() -> None:
    for cost in (0.01, 1.0, 50.0, 500.0):
        pace, now, spent, savings = Pace(100.0), 100.0, 0.0, 0
        while now < 100_000:
            now += 0.5
            if pace.due(now):
                pace.saved(now, now + cost)
                now, spent, savings = now + cost, spent + cost, savings + 1
        assert spent <= SHARE * (now - 100) + cost
        assert savings >= min(99_000 / (EVERY + 1 + cost), 0.9 * SHARE * 99_000 / cost)
        assert savings <= 99_900 / EVERY + 1


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("split", "share", "tried"), [("input", 15, 5), ("neuron", 40, 2)])
def test_an_interrupt_at_any_line_leaves_a_search_to_go_on_from(
    split: str, share: int, tried: int, tmp_path: Path
) -> None:
    """As Ctrl-C does, at some of the lines that this package runs, saving included."""
    problem, path = provable(Fraction(1, share)), tmp_path / "search.state"
    way, kept_problem, folder = BranchAndBound(split=split), replace(problem, state=path), str(Path(package).parent)
    with pytest.raises(InterruptedError):
        way.solve(kept_problem, Budget(60), interrupted)
    begun = path.read_bytes()
    with interrupted_at(-1, folder) as lines:
        way.solve(kept_problem, Budget(60))
    for line in range(1, lines(), lines() // tried):
        path.write_bytes(begun)
        with pytest.raises(KeyboardInterrupt), interrupted_at(line, folder):
            way.solve(kept_problem, Budget(60))
        if path.exists():  # else it was decided already
            resumed(problem, split, path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"{}"])
def test_a_broken_file_of_a_search_is_refused_and_stays(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "search.state"
    path.write_bytes(content)
    with pytest.raises(BackendError, match="holds no state"):
        BranchAndBound().solve(replace(provable(), state=path), Budget(60))
    assert path.read_bytes() == content


def test_no_damage_of_a_file_goes_unnoticed(tmp_path: Path) -> None:
    """Bytes in turn: the search is refused, and the file stays; or what was changed does not matter."""
    problem, path = replace(provable(), state=tmp_path / "search.state"), tmp_path / "search.state"
    with pytest.raises(InterruptedError):
        BranchAndBound(split="input").solve(problem, Budget(60), interrupted)
    whole = path.read_bytes()
    rows = [block["id"].tolist() for block in kept_in(path, problem).open]
    refused, tried = 0, range(0, len(whole), 11)
    for i in tried:
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x41]) + whole[i + 1 :])
        try:
            assert [block["id"].tolist() for block in kept_in(path, problem).open] == rows
        except BackendError:
            refused += 1
        assert path.exists()
    assert refused > len(tried) / 2


def test_the_file_of_another_network_is_refused_and_stays(tmp_path: Path) -> None:
    problem, path = provable(), tmp_path / "search.state"
    others = (mlp([3, 12, 12, 2], 7, Tanh()), mlp([3, 12, 12, 2], 8))
    with pytest.raises(InterruptedError):
        BranchAndBound(split="input").solve(replace(problem, state=path), Budget(60), interrupted)
    content = path.read_bytes()
    for other in (*(replace(problem, graph=graph) for graph in others), replace(problem, dtype=torch.float64)):
        with pytest.raises(BackendError, match="another network"):
            BranchAndBound(split="input").solve(replace(other, state=path), Budget(60))
    assert path.read_bytes() == content


def domains(path: Path, problem: Problem, case: int) -> int:
    return kept_in(path, problem, case).tally.domains


def test_every_case_has_its_file_whichever_are_open_in_a_run(tmp_path: Path) -> None:
    """Several and then one of them, one and then several, in another order: each goes on from its own."""
    problem = replace(hard(100, 200, 300), state=tmp_path / "search.state")
    network = network_of(problem.graph.to("cpu", torch.float32), torch.float32)
    paths = [tmp_path / f"search.state.{key_of(network, case)[: kept.LETTERS]}" for case in problem.cases]

    def run(*cases: int) -> list[str]:
        part = replace(problem, cases=[problem.cases[case] for case in cases])
        found = BranchAndBound(split="input").solve(part, Budget(0.5 * len(cases)))
        assert {outcome.verdict for outcome in found.outcomes} == {Verdict.TIMEOUT}
        return files(tmp_path)

    assert run(1, 2) == sorted([paths[1].name, paths[2].name])
    before = domains(paths[2], problem, 2)
    assert run(2) == sorted([paths[1].name, paths[2].name])
    assert domains(paths[2], problem, 2) > before > 0
    paths[1].unlink()
    paths[2].unlink()

    assert run(0) == ["search.state"]
    before = domains(tmp_path / "search.state", problem, 0)
    assert run(1, 0) == sorted(["search.state", paths[1].name])
    assert domains(tmp_path / "search.state", problem, 0) > before > 0
    before = domains(paths[1], problem, 1)
    assert run(1) == sorted(["search.state", paths[1].name]), "another property's file is left alone"
    assert domains(paths[1], problem, 1) > before > 0


@pytest.mark.parametrize(
    ("split", "failing"),
    [("input", "expand"), ("neuron", "expand"), ("input", "take"), ("neuron", "push"), ("input", "_stored")],
)
def test_memory_that_runs_out_anywhere_loses_nothing(
    split: str, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, path = provable(), tmp_path / "search.state"
    plain = BranchAndBound(split=split).solve(problem, Budget(60)).stats["branch-and-bound_domains"]
    space: Any = SPLITS[split] if failing == "expand" else Queue
    broken = failing_at(4, getattr(space, failing))
    monkeypatch.setattr(space, failing, broken)
    outcome = BranchAndBound(split=split).solve(replace(problem, state=path), Budget(60)).outcomes[0]
    monkeypatch.undo()
    assert outcome.verdict == Verdict.UNKNOWN and outcome.reason == "the memory ran out: MemoryError"
    assert outcome.margin <= 0
    # Where the parts that had been made were in the queue already, those they came from are too, and are split again.
    assert resumed(problem, split, path) == plain or failing == "push"


def failing_at(call: int, plain: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but for one call, which does its work and then has no memory for the result."""
    calls = 0

    def broken(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        found = plain(*given, **named)
        if calls == call:
            raise MemoryError
        return found

    return broken


LIMITED = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import torch
from networks import mlp
from search_kit import box, threshold
from provenn.solvers.base import Budget, Problem
from provenn.solvers.branch_and_bound import BranchAndBound

torch.set_num_threads(1)
split, steps = sys.argv[1], 0
graph = mlp([6, 400, 400, 2] if split == "input" else [40, 300, 300, 2], 1)
case = threshold(graph, box(graph, Fraction(1)), (1, -1), Fraction(1, 20))
problem = Problem(graph, [case], state=Path("kept.state"))

def limit(done, total, phase):
    global steps
    steps += 1
    if steps == 4:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), -1))

first = BranchAndBound(split=split).solve(problem, Budget(60), limit)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
second = BranchAndBound(split=split).solve(problem, Budget(0.0))
for found in (first, second):
    print(found.outcomes[0].verdict, found.stats["branch-and-bound_domains"], found.outcomes[0].reason)
"""


@pytest.mark.parametrize("split", ["input", "neuron"])
def test_a_process_whose_memory_runs_out_keeps_its_search(split: str, tmp_path: Path) -> None:
    """The system refuses memory in the middle of a step."""
    script = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}\n{LIMITED}"
    command = [sys.executable, "-c", script, split]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    first, second = (line.split(maxsplit=2) for line in ran.stdout.splitlines())
    assert first[0] == "unknown" and first[2].startswith("the memory ran out: ") and "allocate" in first[2]
    assert second == ["timeout", first[1], "None"] and float(first[1]) > 0, "it goes on with what had been done"


@pytest.mark.usefixtures("always")
def test_a_search_that_cannot_be_kept_says_so_and_keeps_its_answer(tmp_path: Path) -> None:
    """The system refuses to write the file any further: the old one stays."""
    problem, path = provable(), tmp_path / "search.state"
    with pytest.raises(BackendError, match="no folder"):
        BranchAndBound().solve(replace(problem, state=tmp_path / "none" / "search.state"), Budget(60))
    with pytest.raises(InterruptedError):
        BranchAndBound(split="input").solve(replace(problem, state=path), Budget(60), interrupted)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        late = BranchAndBound(split="input").solve(replace(problem, state=path), Budget(0)).outcomes[0]
        found = BranchAndBound(split="input").solve(replace(hard(10), state=tmp_path / "hard.state"), Budget(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for outcome in (late, found.outcomes[0]):
        assert outcome.verdict == Verdict.TIMEOUT and outcome.reason is not None
        assert "could not be kept" in outcome.reason and "File too large" in outcome.reason
    assert found.stats["branch-and-bound_domains"] > 0, "it goes on without"
    assert files(tmp_path) == ["search.state"] and path.read_bytes() == before


def test_a_way_of_splitting_that_is_unbounded_gives_way_to_the_next(tmp_path: Path) -> None:
    """log(z) where CROWN's bound of z over the region is negative, and alpha-CROWN's positive."""
    graph, inputs = logarithm()
    case = Case(inputs, (Clause(((Fraction(1),),), (Fraction(50),)),))
    assert BranchAndBound(split="input").solve(Problem(graph, [case]), Budget(20)).outcomes[0].reason is not None
    path = tmp_path / "search.state"
    outcome = BranchAndBound().solve(Problem(graph, [case], state=path), Budget(20)).outcomes[0]
    assert (outcome.verdict, outcome.reason) == (Verdict.VERIFIED, None)
    BranchAndBound(split="input").solve(Problem(graph, [case], state=path), Budget(20))
    assert kept_in(path, Problem(graph, [case])).way == "input", "what is open is kept, and its way tried first"
    outcome = BranchAndBound().solve(Problem(graph, [case], state=path), Budget(20)).outcomes[0]
    assert outcome.verdict == Verdict.VERIFIED


def logarithm() -> tuple[Graph, Any]:
    for seed in range(20):
        inner = mlp([3, 12, 12, 1], seed)
        inputs = box(inner, Fraction(1, 2))
        region = Region.of([inputs], inner.input_shape, "cpu", torch.float64)
        row = torch.ones(1, 1, 1, dtype=torch.float64)
        with torch.no_grad():
            low, high = (float(bounds(inner, region).output_lower(row)) for bounds in (crown, alpha_crown))
        if high > low + 0.05:
            break
    shift = torch.tensor([-(0.75 * high + 0.25 * low)], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return sequential((3,), [*(node.op for node in inner.nodes[1:] if node.op), Scale(one, shift), Log()]), inputs
