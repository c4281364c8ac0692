"""Activation patterns of a network: mined, measured on other data, and verified; every verdict is `certify`'s.

What a certificate proves is about the restricted network that `models.pattern_network` makes of network and pattern;
that it means what is said here is the lemma in that file, and the same composition of the same files gives the same
bytes again, whose digest the certificate names.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor, nextafter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.api.certification import ItemResult, LoadedModel, Options, certify, load_model
from provenn.api.pattern_schemas import LEAST
from provenn.api.results import Counterexample
from provenn.models.activation_pattern import Labels, Mined, Pattern
from provenn.models.executor import OnnxExecutor
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.models.pattern_network import chosen, exposed
from provenn.models.specification.activation_pattern import KIND, stated
from provenn.models.specification.stated import Stated
from provenn.solvers.base import Budget, Progress, Verdict, silent
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import hexadecimal, spoken, written
from provenn.verifier.spec import InputSet
from provenn.verifier.spec_json import FORMAT, robustness

STARTS, STEPS = 8, 60
"""Points from which an input that follows a pattern is looked for, and steps from each."""

VALUES = 1 << 24
"""Pre-activations that are held at a time."""

COARSE = 2
"""By what a radius is multiplied, or divided, while only one end of its bracket is known."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs [n, inputs] and, where they are known, their labels [n]."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None

    def split(self, share: Fraction, seed: int) -> tuple[Samples, Samples]:
        """The samples but for those that are held out, and these: of n of a class floor(share n), drawn at random.

        Raises: InvalidSpecification without labels, or if these are none.
        """
        if self.labels is None:
            raise InvalidSpecification("the data has no labels: of every class a share is held out")
        generator, out = np.random.default_rng(seed), np.zeros(len(self.labels), bool)
        for label in np.unique(self.labels):
            mine_ = np.flatnonzero(self.labels == label)
            out[generator.permutation(mine_)[: floor(share * len(mine_))]] = True
        if not out.any():
            raise InvalidSpecification(f"no class has so many samples that {written(share)} of them is one")
        return self._only(~out), self._only(out)

    def _only(self, which: NDArray[np.bool_]) -> Samples:
        return Samples(self.inputs[which], None if self.labels is None else self.labels[which])


def activations(model: bytes, inputs: NDArray[np.float32], names: Sequence[str] | None = None) -> Activations:
    """Pre-activations of ReLUs, all or those named, and the classes, as onnxruntime computes them.

    Raises: InvalidSpecification for a ReLU that is not there; InvalidModel.
    """
    return Watched(model, names).activations(inputs)


class Watched:
    """A network, and another that shows its pre-activations.   Raises: as `activations`."""

    def __init__(self, model: bytes, names: Sequence[str] | None = None) -> None:
        layers = chosen(model, names)
        self.names, self._sizes = [layer.name for layer in layers], [layer.neurons for layer in layers]
        self.network, self._whole = OnnxExecutor(model), OnnxExecutor(exposed(model, layers))

    @property
    def neurons(self) -> int:
        """Of all its layers."""
        return sum(self._sizes)

    def activations(self, inputs: NDArray[np.float32]) -> Activations:
        """At inputs [n, ...]."""
        shaped = inputs.reshape(-1, *self.network.input_shape)
        values = self._whole.run(shaped).reshape(len(shaped), -1)
        classes = self.network.run(shaped).reshape(len(shaped), -1).argmax(axis=1)
        return Activations(self.names, np.split(values, np.cumsum(self._sizes)[:-1], axis=1), classes.astype(np.int64))

    def parts(self, samples: Samples, progress: Progress, phase: str) -> Iterator[tuple[Samples, Activations]]:
        """Some samples after the other: as many as have VALUES pre-activations."""
        size = max(1, VALUES // self.neurons)
        for first in range(0, len(samples.inputs), size):
            progress(first, len(samples.inputs), phase)
            labels = None if samples.labels is None else samples.labels[first : first + size]
            some = Samples(samples.inputs[first : first + size], labels)
            yield some, self.activations(some.inputs)


@dataclass(frozen=True, eq=False)
class Activations:
    """By layer: its name, pre-activations [samples, neurons]; and the class that the network gives a sample."""

    names: list[str]
    values: list[NDArray[np.float32]]
    predicted: NDArray[np.int64]

    def of(self, pattern: Pattern) -> list[NDArray[np.float32]]:
        """In the order of a pattern's layers.   Raises: InvalidSpecification if it has others, or other sizes."""
        known = dict(zip(self.names, self.values, strict=True))
        for layer in pattern.layers:
            if layer.relu not in known or known[layer.relu].shape[1] != layer.neurons:
                raise InvalidSpecification(f"the network has no ReLU {layer.relu!r} of {layer.neurons} neurons")
        return [known[layer.relu] for layer in pattern.layers]


@dataclass(frozen=True)
class Mining:
    """How: delta, of which classes (None: all that occur), over which ReLUs (None: all), by whose labels.

    wrong: whether samples count that the network gives another class than the data.
    """

    delta: Fraction = Fraction(1)
    classes: tuple[int, ...] | None = None
    layers: tuple[str, ...] | None = None
    labels: Labels = "dataset"
    wrong: bool = False


def mine(model: bytes, samples: Samples, how: Mining, progress: Progress = silent) -> list[Pattern]:
    """The pattern of every class.   Raises: InvalidSpecification if a class has no samples, or labels are missing."""
    if how.labels == "dataset" and samples.labels is None:
        raise InvalidSpecification("the data has no labels: give some, or count by what the network predicts")
    watched = Watched(model, how.layers)
    mined = Mined(digest(model), watched.names, how.labels)
    for some, found in watched.parts(samples, progress, "counting active neurons"):
        labels = found.predicted if how.labels == "predicted" or some.labels is None else some.labels
        counted = np.ones(len(labels), bool) if how.wrong else labels == found.predicted
        mined.add([z[counted] for z in found.values], labels[counted])
    classes = sorted(mined.samples) if how.classes is None else how.classes
    return [mined.pattern(label, how.delta) for label in classes]


def digest(model: bytes) -> str:
    """By which patterns and certificates name a network."""
    return hashlib.sha256(decompressed(model, Limits())).hexdigest()


@dataclass(frozen=True)
class Coverage:
    """How one pattern does on data: samples of its class, how many of them follow it, and how many samples do in all.

    right: of those that follow it and are of its class, how many the network classifies so.
    """

    label: int
    samples: int
    followed: int
    all_followed: int
    right: int

    @property
    def recall(self) -> float | None:
        """Share of the class that follows the pattern; None without samples."""
        return self.followed / self.samples if self.samples else None

    @property
    def precision(self) -> float | None:
        """Share of what follows the pattern that is of its class; None where nothing does."""
        return self.followed / self.all_followed if self.all_followed else None

    def __add__(self, other: Coverage) -> Coverage:
        """Of the data of both."""
        ours, theirs = ((c.samples, c.followed, c.all_followed, c.right) for c in (self, other))
        return Coverage(self.label, *(a + b for a, b in zip(ours, theirs, strict=True)))


def coverage(
    model: bytes, patterns: Sequence[Pattern], samples: Samples, progress: Progress = silent
) -> list[Coverage]:
    """On data; without labels by what the network predicts.   Raises: InvalidSpecification; InvalidModel."""
    for pattern in patterns:
        if pattern.model != digest(model):
            raise InvalidSpecification(f"the pattern of class {pattern.label} is about another network: mine it again")
    rows = [Coverage(pattern.label, 0, 0, 0, 0) for pattern in patterns]
    for some, found in Watched(model).parts(samples, progress, "measuring coverage"):
        rows = [row + _covered(pattern, some, found) for row, pattern in zip(rows, patterns, strict=True)]
    return rows


def _covered(pattern: Pattern, samples: Samples, found: Activations) -> Coverage:
    labels = found.predicted if samples.labels is None else samples.labels
    follows, mine_ = pattern.followed(found.of(pattern)), labels == pattern.label
    both = follows & mine_
    right = both & (found.predicted == pattern.label)
    return Coverage(pattern.label, *(int(some.sum()) for some in (mine_, both, follows, right)))


@dataclass(frozen=True, eq=False)
class Answered:
    """A verdict, what it is about, and whether some input of the region was seen to follow the pattern.

    follower: such an input, as onnxruntime computed it, or None: then the statement may hold for want of inputs.
    """

    item: ItemResult
    stated: Stated
    follower: NDArray[np.float32] | None
    excludes: bool = False

    @property
    def inhabited(self) -> bool | None:
        """True where a follower is known; None: unknown."""
        return True if self.follower is not None else None


def verify(
    model: bytes,
    document: dict[str, Any],
    options: Options,
    files: Callable[[str], bytes],
    progress: Progress = silent,
) -> Answered:
    """The answer to a document of kind "activation-pattern".   Raises: InvalidSpecification, InvalidModel."""
    budget = Budget(options.seconds)
    found = stated({"format": FORMAT, "kind": KIND, **document}, model, files)
    network = load_model(found.model)
    box = found.specification.cases[0].inputs
    apart = "excludes" in document
    follower = None if apart else follower_in(network, box, options.seed)
    left = replace(options, seconds=max(0.0, budget.left))
    (item,) = certify(network, [found.specification], left, progress)
    if item.counterexample is not None:
        follower = np.array(item.counterexample.input, np.float32)
        item = item if apart else _replayed(model, found, item, follower)
    return Answered(item, found, follower, apart)


def _replayed(model: bytes, found: Stated, item: ItemResult, x: NDArray[np.float32]) -> ItemResult:
    """The item if the network itself, in onnxruntime, gives another class at least the label's output."""
    network = OnnxExecutor(model)
    output = network.run(x.reshape(1, *network.input_shape)).ravel()
    values = [Fraction(v) for v in (*output.tolist(), 0.0)]
    if any(clause.holds(values) for clause in found.specification.cases[0].clauses):
        return item
    reason = "the restricted network, executed in float32, breaks it at a point where the network itself does not"
    return replace(item, verdict=str(Verdict.UNKNOWN), assurance=None, counterexample=None, reason=reason)


def follower_in(network: LoadedModel, box: InputSet, seed: int) -> NDArray[np.float32] | None:
    """An input of the box for which the restricted network, in onnxruntime, says V = 0: by descent of V."""
    lower, upper = (torch.from_numpy(side).float() for side in box.inner)
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand((STARTS, len(lower)), generator=generator)
    unit[0] = 0.5
    x = lower + unit * (upper - lower)
    graph = network.graph.to("cpu", torch.float32)
    best, value = x.clone(), torch.full((STARTS,), torch.inf)
    for step in range(STEPS):
        x = x.detach().requires_grad_()
        broken = graph.forward(x.reshape(-1, *graph.input_shape)).flatten(1)[:, -1]
        better = broken.detach() < value
        best[better], value = x.detach()[better], torch.minimum(value, broken.detach())
        if float(value.min()) <= 0:
            break
        (slope,) = torch.autograd.grad(broken.sum(), x)
        reach = slope.abs().amax(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        x = x.detach() - 0.5 * 0.95**step * (upper - lower) * (slope / reach)
        x = torch.minimum(torch.maximum(x, lower), upper)
    for point in best[value.argsort()[:2]].numpy():
        if network.executor.run(point.reshape(1, *graph.input_shape)).ravel()[-1] <= 0 and box.contains(point):
            return np.asarray(point)
    return None


@dataclass(frozen=True, eq=False)
class Bracket:
    """The largest radius with a proof, 0 if there is none; the smallest with a counterexample, None without one.

    item: the answer at the former; whole: the proof is at the largest radius that was asked; counterexample: at the
    latter.
    """

    verified: float
    falsified: float | None
    item: ItemResult | None
    whole: bool = False
    counterexample: Counterexample | None = None


@dataclass(frozen=True)
class Search:
    """Where radii are looked for: from `start`, up to `largest`, until the ends differ by the factor `ratio`.

    Of an answer that is neither only the verdict counts: the search goes on below, so there may be proofs above.
    """

    start: Fraction = Fraction(1, 64)
    largest: Fraction = Fraction(1)
    least: Fraction = LEAST
    ratio: float = 1.1

    def bracket(
        self,
        ask: Callable[[Fraction], ItemResult],
        known: Bracket | None = None,
        more: Callable[[], bool] = lambda: True,
    ) -> Bracket:
        """By doubling or halving, then by bisection in the logarithm; ask: the answer at a radius.

        known: of a statement that implies this one: what is verified there is verified here. more: whether there is
        time for another question after the first.
        """
        best: tuple[Fraction, ItemResult] | None = None
        broken: tuple[Fraction, ItemResult] | None = None
        open_, at = None, min(self.start, self.largest)
        if known is not None and known.item is not None:
            if known.whole:
                return replace(known, falsified=None, counterexample=None)
            best = (Fraction(str(known.verified)), known.item)
            at = min(COARSE * best[0], self.largest)
        while True:
            item = ask(at)
            if item.verdict == Verdict.VERIFIED:
                best = (at, item)
            else:
                open_ = at
                broken = (at, item) if item.verdict == Verdict.FALSIFIED else broken
            following = self._next(best[0] if best else None, open_)
            if following is None or not more():
                break
            at = following
        shown = (None, None) if broken is None else (float(broken[0]), broken[1].counterexample)
        if best is None:
            return Bracket(0.0, shown[0], None, counterexample=shown[1])
        return Bracket(_at_most(best[0]), shown[0], best[1], best[0] == self.largest, shown[1])

    def _next(self, low: Fraction | None, high: Fraction | None) -> Fraction | None:
        if high is None:
            assert low is not None
            return None if low >= self.largest else min(_short(COARSE * low), self.largest)
        if low is None:
            return None if high / COARSE < self.least else _short(high / COARSE)
        if high <= low * Fraction(self.ratio):
            return None
        return Fraction(f"{float(low) ** 0.5 * float(high) ** 0.5:.6g}")


def _short(radius: Fraction) -> Fraction:
    """About this radius, in 12 digits: a float stands for it, as JSON has it."""
    return Fraction(f"{float(radius):.12g}")


def _at_most(radius: Fraction) -> float:
    """The radius as the number whose shortest decimal it is, or a smaller one."""
    found = float(radius)
    return found if spoken(found) <= radius else nextafter(found, 0)


@dataclass(frozen=True, eq=False)
class Radii:
    """Of one input: without the pattern, and with it; follows: whether the input itself follows the pattern.

    inhabited: whether an input that follows it was found within the radius with the pattern; seconds: of everything.
    """

    without: Bracket
    within: Bracket
    follows: bool
    inhabited: bool
    seconds: float

    @property
    def gain(self) -> float | None:
        """By what factor the pattern's radius is larger; None where nothing is verified without it."""
        return self.within.verified / self.without.verified if self.without.verified else None


def radii(
    model: bytes,
    pattern: Pattern,
    x: NDArray[np.float32],
    clip: tuple[float, float] | None,
    options: Options,
    search: Search,
    known: Bracket | None = None,
) -> Radii:
    """The largest radius around an input in which it gets the pattern's class, everywhere or where the pattern holds.

    options.seconds: of each question; known: the bracket without a pattern, where it is.
    Raises: InvalidSpecification; InvalidModel.
    """
    began, given = time.monotonic(), x.astype(np.float64).ravel().tolist()
    plain = load_model(model)
    outputs = int(np.prod(plain.graph.output_shape))
    followers: dict[Fraction, bool] = {}

    def without(radius: Fraction) -> ItemResult:
        asked = robustness(given, label=pattern.label, epsilon=radius, outputs=outputs, clip=clip)
        return certify(plain, [asked], options)[0]

    def within(radius: Fraction) -> ItemResult:
        around = {"input": [hexadecimal(v) for v in given], "epsilon": written(radius)}
        cut = {} if clip is None else {"clip": list(clip)}
        found = verify(model, {"pattern": pattern, **around, **cut}, options, no_files)
        followers[radius] = found.follower is not None
        return found.item

    first = known or search.bracket(without)
    second = search.bracket(within, first)
    seen = activations(model, x.astype(np.float32).reshape(1, -1))
    follows = bool(pattern.followed(seen.of(pattern))[0])
    inhabited = (
        follows
        or followers.get(Fraction(second.verified), False)
        or any(there for radius, there in followers.items() if radius <= second.verified)
    )
    return Radii(first, second, follows, inhabited, time.monotonic() - began)


def no_files(name: str) -> bytes:
    """Raises: InvalidSpecification: a document names a file where there is none."""
    raise InvalidSpecification(f"{name!r}: there are no other files here")
