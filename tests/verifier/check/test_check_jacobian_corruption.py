"""Corruptions of a tree under a Jacobian claim: refused, or harmless."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from check_kit import Random, rationals, resealed
from jacobian_kit import EMPTY, LEAF_ONLY, claiming, exact, number_of, packed
from lipschitz_kit import box
from tree_kit import within

from provenn.verifier.certificate.lipschitz import Leaves, Prover, Statement
from provenn.verifier.certificate.parts import ANYTHING, Partition, Split
from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.check import CertificateRejected, check, read_network
from provenn.verifier.check.trees import Tree, read_chunk

Array = np.ndarray
NETWORK = read_network(Random(4, [2, 6, 6, 2], ["relu", "relu"]).file())
FIRST, SECOND = "tree-0-0.safetensors.z", "tree-0-1.safetensors.z"


@cache
def grown() -> tuple[tuple[bytes, ...], tuple[str, ...], int]:
    """A tree of NETWORK over a box: its chunks, two of them, what it splits, how many parts splits show to be empty."""
    prover = over_a_box("each")
    assert prover.bounds is not None
    partition, empty = Partition(prover.bounds), 0
    steps = {step.name: step.sources[0] for step in NETWORK.steps if step.name in partition.steps}
    waiting = [partition.root]
    while partition.parts < 24:
        part = waiting.pop(0)
        assert part.bounds is not None
        boxes = [part.bounds.box(steps[name]) for name in partition.steps]
        unstable = [np.minimum(-b.lower, b.upper) for b in boxes]
        kind = int(np.argmax([each.max() for each in unstable]))
        if unstable[kind].max() <= 0:
            continue
        split = Split(1 + kind, int(unstable[kind].argmax()), 0.0)
        ((first, second),) = partition.halves([part], [split])
        partition.divide(part, split, (first, second))
        for half in (first, second):
            waiting += [] if partition.emptied(half) else [half]
            empty += half.betas is not None
    return tuple(cut_in_two(read_chunk(partition.written()[0]))), partition.steps, empty


def cut_in_two(chunk: Any) -> list[bytes]:
    """The same tree, two of its leaves and what they halve in a chunk of their own."""
    step, place = chunk["step"], 1 + 2 * np.arange(len(chunk["neuron"]))
    inner, proved = np.flatnonzero(step >= 0), np.isin(np.arange(len(step)), chunk["node"])
    fits = (step[place] == -1) & (step[place + 1] == -1) & ~proved[place] & ~proved[place + 1]
    k = int(np.flatnonzero(fits)[0])
    some, halves = np.array([inner[k], place[k], place[k] + 1]), [place[k], place[k] + 1]
    own = {"step": step[some], "bounded": chunk["bounded"][some] * np.array([0, 1, 1], np.uint8)}
    own |= {name: chunk[name][[k]] for name in ("neuron", "threshold")}
    waiting = np.where(np.arange(len(step)) == inner[k], -2, step).astype(np.int32)
    rest = {**chunk, "step": np.delete(waiting, halves), "bounded": np.delete(chunk["bounded"], halves)}
    rest |= {name: np.delete(chunk[name], k) for name in ("neuron", "threshold")}
    rest["node"] = np.where(chunk["node"] > place[k], chunk["node"] - 2, chunk["node"]).astype(np.int32)
    return list(packed([rest, own | EMPTY]))


def over_a_box(outward: str, inward: str = "inf") -> Prover:
    return Prover(NETWORK, Statement(((1.0, 0.0), (0.0, 1.0)), inward, outward, None, box([-1, -1], [1, 1])))


@cache
def accepted() -> tuple[float, dict[str, bytes]]:
    chunks, steps, _ = grown()
    prover, leaves = over_a_box("inf"), Leaves("crown", steps, chunks)
    number = number_of(prover, leaves, (0, 1))
    return number, claiming(prover, [((0, 1), number)], leaves, number)


def changed(name: str = FIRST, **arrays: Any) -> dict[str, bytes]:
    """The certificate with other arrays in a chunk; None removes one."""
    _, files = accepted()
    chunk = {**read_chunk(files[name]), **arrays}
    data = zlib.compress(write_payload({key: array for key, array in chunk.items() if array is not None}))
    return claimed({**files, name: data})


def claimed(files: dict[str, bytes], chunks: Sequence[str] = (FIRST, SECOND), **more: Any) -> dict[str, bytes]:
    """With these chunks, their digests right, and other fields of the claim."""

    def change(content: dict[str, Any]) -> None:
        digests = [[name, hashlib.sha256(files[name]).hexdigest()] for name in chunks if name in files]
        content["claims"][-1] |= {"chunks": digests, **more}

    return resealed(files, change)


def refused(files: dict[str, bytes], reason: str | None = None) -> None:
    with pytest.raises(CertificateRejected, match=reason) as refusal:
        check(files, NETWORK)
    assert refusal.value.reason


def original(name: str) -> Array:
    return read_chunk(accepted()[1][FIRST])[name].copy()


def put(name: str, place: int, value: Any) -> dict[str, bytes]:
    array = original(name)
    array[place] = value
    return changed(**{name: array})


def test_the_tree_proves_more_than_the_whole_and_something_of_it_is_empty() -> None:
    number, files = accepted()
    assert check(files, NETWORK).uppers == check(changed(), NETWORK).uppers == (number,)
    assert grown()[2] > 3
    assert (original("clause") == -1).all()
    assert number < 0.99 * number_of(over_a_box("inf"), Leaves("crown", (), packed([LEAF_ONLY])), (0, 1))
    refused(
        resealed(files, lambda content: content["claims"][-1].update(upper=(number * (1 - 1e-6)).hex())), "not proved"
    )


def test_missing_parts_are_refused() -> None:
    number, files = accepted()
    only = {name: data for name, data in files.items() if name != SECOND}
    refused(claimed(only), "parts of its tree are missing")
    refused(claimed({name: data for name, data in files.items() if name != FIRST}))
    refused(claimed(files, (SECOND, FIRST)))
    refused(claimed(files, (FIRST, SECOND, SECOND)), "holds other files")
    again = {**files, "more": files[SECOND]}
    refused(claimed(again, (FIRST, SECOND, "more")), "below parts that wait")
    refused(claimed(only, steps=[]), "not there|missing")
    empty = changed(SECOND, step=np.zeros(0, np.int32), bounded=np.zeros(0, np.uint8), neuron=np.zeros(0, np.int32))
    refused(empty, "below parts that wait|not there")
    step = original("step")
    leaf, inner = int(np.flatnonzero(step == -1)[-1]), int(np.flatnonzero(step >= 0)[-1])
    for place, value in ((leaf, -2), (leaf, 0), (inner, -1), (inner, -2), (0, -1), (0, -2), (leaf, -3), (inner, 99)):
        refused(put("step", place, value))
    refused(claiming(over_a_box("inf"), [((0, 1), number)], Leaves("crown", grown()[1]), number), "is not proved")


MULTIPLIERS = {"none": 0.0, "small": 3e-39, "large": 1e30, "largest": 3e38, "one": 1.0}


@pytest.mark.parametrize("name", MULTIPLIERS)
def test_a_part_is_not_empty_by_wrong_multipliers(name: str) -> None:
    """Of the worst leaf, and of every one where points are seen to lie."""
    step, betas = original("step"), original("betas")
    refused(changed(betas=np.full_like(betas, MULTIPLIERS[name])), "not proved to be empty")
    refused(changed(betas=-betas), "negative")
    for node in inhabited():
        generator, depth = np.random.default_rng(node), depths()[node]
        for zeros in (0.0, 0.5):
            some = (generator.random(depth) * MULTIPLIERS[name] * (generator.random(depth) >= zeros)).astype(np.float32)
            for clause in (-1, 0):
                proofs = {"node": np.append(original("node"), node), "clause": np.append(original("clause"), clause)}
                proofs = {key: array.astype(np.int32) for key, array in proofs.items()}
                weights = np.append(original("weights"), np.float32(MULTIPLIERS[name]))
                refused(changed(**proofs, weights=weights, betas=np.append(betas, some)), "not proved to be empty")
    assert len(inhabited()) > 3
    assert (step[inhabited()] == -1).all()


@cache
def nodes() -> Any:
    """What the kernel knows of the first chunk's parts."""
    bounds = over_a_box("inf").bounds
    assert bounds is not None
    with np.errstate(all="ignore"):
        return Tree(bounds, grown()[1], ANYTHING, (0,)).grown(read_chunk(accepted()[1][FIRST]))


def depths() -> Array:
    return np.asarray(nodes().depth)


@cache
def inhabited() -> list[int]:
    """Leaves of the first chunk where a point lies."""
    scalars = {name: lambda v: max(v, Fraction(0)) for name in grown()[1]}
    found, leaves = set[int](), np.flatnonzero(original("step") == -1)
    for x in np.random.default_rng(0).uniform(-1, 1, (60, 2)):
        values = exact(NETWORK, scalars, list(rationals(x)))
        found |= {int(i) for i in leaves if within(nodes(), i, values)}
    return sorted(found)


def test_proofs_that_were_moved_are_refused() -> None:
    """To a node of another part, or above: what they then exclude is not empty."""
    node, leaves = original("node"), inhabited()
    for proof in range(len(node)):
        for other in (leaves[0], leaves[-1], 0):
            moved = node.copy()
            moved[proof] = other
            refused(changed(node=moved))
    for proof in range(3):
        refused(put("clause", proof, 0), "not proved to be empty")
    refused(put("clause", 0, 1), "not there")
    refused(put("node", 0, len(original("step"))), "not there")


def fields() -> dict[str, Any]:
    """Of the claim: values that it must not have."""
    ids, names = [[], [0, 0], [2], [-1], [True, 1], [[0]], [{}], ["0"], [None], [10**40]], [["y"], ["x"], [0], ["?"]]
    values: dict[str, list[Any]] = {"rows": ids, "steps": [*names, list(reversed(grown()[1])), []]}
    values |= {"method": ["", "guess", "interval", 1], "upper": ["-1", "nan", "inf", "1/0", "", "0", "1e999", 1]}
    values |= {"chunks": [[], [[]], [["a"]], [[0, 1]], [["a", "b", "c"]], "a", None, [{}]]}
    values |= {"uses": [[], [0], [1, 0], [[0]], ["0"]], "case": [-1, 1, True, "0"], "kind": ["tree", "entries", "", 0]}
    return values


@pytest.mark.parametrize("key", ["rows", "steps", "method", "upper", "chunks", "uses", "case", "kind"])
def test_a_changed_field_is_refused(key: str) -> None:
    _, files = accepted()
    for value in fields()[key]:
        refused(resealed(files, lambda content, value=value: content["claims"][-1].update({key: value})))
    for other in (key, "more"):
        refused(resealed(files, lambda content, other=other: without(content["claims"][-1], other)))


def without(claim: dict[str, Any], key: str) -> None:
    if claim.pop(key, None) is None:
        claim[key] = "more"


@pytest.mark.parametrize("name", ["step", "neuron", "threshold", "bounded", "node", "clause", "weights", "betas"])
def test_a_changed_array_of_a_chunk_is_refused_or_harmless(name: str) -> None:
    """Nothing but a refusal may come of it, or the number that was true before."""
    array, generator = original(name), np.random.default_rng(len(name))
    wrong: dict[str, list[Any]] = {"f": [-1.0, 0.0, 1e30, np.nan, np.inf, 3e-39], "u": [0, 2, 255]}
    wrong["i"] = [-3, -2, -1, 0, 1, 7, 2**31 - 1, -(2**31)]
    refused(changed(**{name: None}), "of the right types")
    refused(changed(**{name: array.astype(np.float64 if array.dtype.kind == "f" else np.float32)}), "right types")
    refused(changed(**{name: array[:-1]}))
    refused(changed(**{name: np.append(array, array[-1:])}))
    for value in wrong[array.dtype.kind]:
        for place in generator.choice(len(array), 4, replace=False):
            harmless(put(name, int(place), value))
    harmless(changed(**{name: array[::-1].copy()}))


def harmless(files: dict[str, bytes]) -> None:
    try:
        assert check(files, NETWORK).uppers == (accepted()[0],)
    except CertificateRejected as refusal:
        assert refusal.reason
