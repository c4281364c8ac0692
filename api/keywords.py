"""What `provenn.verify` and its like take by name, here or of a service, with defaults, and the questions they become.

A TypedDict and the dataclass behind it say the same, once for type checkers and once for the program; a test holds them
together. Refused is what does not go together, before anything is read or sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import numpy as np

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import robustness

if TYPE_CHECKING:
    from torch import nn

    from provenn.api.domain import Domain, Place
    from provenn.api.lipschitz_question import Question
    from provenn.api.tightness import Question as TightnessQuestion

Shape: TypeAlias = tuple[int, ...]
Given: TypeAlias = str | Path | bytes
"""A file, or its bytes."""
TOGETHER = "a region has a centre and a radius: give both at and eps"


class HowAsked(TypedDict, total=False):
    """What `Client.verify` takes besides the question, by name; the defaults are those of `Robustness`."""

    norm: str
    clip: tuple[float, float] | None
    target: int | None
    method: str
    timeout: float
    seed: int
    semantics: Literal["real", "float32"]


class How(HowAsked, total=False):
    """What `verify` takes besides the question, by name; the defaults are those of `RobustnessHere`."""

    device: str


@dataclass(frozen=True)
class Robustness:
    """Of one input; see `provenn.verify`."""

    norm: str = "inf"
    clip: tuple[float, float] | None = None
    target: int | None = None
    method: str = "auto"
    timeout: float = 60.0
    seed: int = 0
    semantics: Literal["real", "float32"] = "real"

    def specification(self, x: np.ndarray, label: int, eps: float | str, sizes: tuple[Shape, Shape]) -> Specification:
        """For a network with these shapes of input and output.   Raises: InvalidSpecification if it does not fit."""
        if x.shape != sizes[0]:
            wanted, given = list(sizes[0]), list(x.shape)
            reason = f"the input has shape {given}, but the network takes {wanted}, without a batch axis"
            raise InvalidSpecification(reason)
        asked = {"label": label, "epsilon": eps, "norm": self.norm, "clip": self.clip, "target": self.target}
        return robustness(x.ravel().tolist(), outputs=prod(sizes[1]), **asked)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RobustnessHere(Robustness):
    """The same, and where to compute."""

    device: str = "cpu"


class HowProvedThere(TypedDict, total=False):
    """What `Client.prove` takes besides the question, by name; the defaults are those of `Proving`."""

    method: str
    timeout: float
    seed: int
    semantics: Literal["real", "float32"]


class HowProved(HowProvedThere, total=False):
    """What `prove` takes besides the question, by name; the defaults are those of `ProvingHere`."""

    device: str


@dataclass(frozen=True)
class Proving:
    """Of a specification; see `provenn.prove`."""

    method: str = "auto"
    timeout: float = 60.0
    seed: int = 0
    semantics: Literal["real", "float32"] = "real"

    def derivatives(self) -> tuple[str, float, int]:
        """Method, seconds and seed, of a document of kind monotone.   Raises: InvalidSpecification for float32."""
        if self.semantics != "real":
            raise InvalidSpecification("kind monotone is about real arithmetic: leave out semantics float32")
        return "bab" if self.method == "auto" else self.method, self.timeout, self.seed


@dataclass(frozen=True)
class ProvingHere(Proving):
    """The same, and where to compute."""

    device: str = "cpu"


class HowCurve(TypedDict, total=False):
    """What `lipschitz_curve` takes besides network and regions, by name; the defaults are those of `Constants`."""

    norm: Literal["2", "inf", "1"]
    to: Literal["2", "inf", "1", "each"] | None
    rows: str
    scale: np.ndarray | None
    region_norm: Literal["inf", "2", "1"]
    clip: tuple[float, float] | None
    method: str
    solver: str | None
    timeout: float
    seed: int


class HowLipschitz(HowCurve, total=False):
    """What `lipschitz` takes besides the network, by name; the defaults are those of `Constant`."""

    at: np.ndarray | None
    eps: float | str | None


@dataclass(frozen=True)
class Constants:
    """Lipschitz constants, of which the regions are said elsewhere; see `provenn.lipschitz`."""

    norm: str = "2"
    to: str | None = None
    rows: str = "all"
    scale: np.ndarray | None = None
    region_norm: str = "inf"
    clip: tuple[float, float] | None = None
    method: str = "auto"
    solver: str | None = None
    timeout: float = 60.0
    seed: int = 0

    def question(self, shape: Shape) -> Question:
        """Everywhere, for inputs of this shape.   Raises: InvalidSpecification if the scale does not fit."""
        from provenn.api.lipschitz_question import Question

        scale = None if self.scale is None else _flat("scale", self.scale, shape)
        return Question(self.norm, self.to, self.rows, scale)


@dataclass(frozen=True)
class Constant(Constants):
    """One Lipschitz constant, everywhere or within `eps` of `at`.   Raises: InvalidSpecification for one of the two."""

    at: np.ndarray | None = None
    eps: float | str | None = None

    def __post_init__(self) -> None:
        if (self.at is None) != (self.eps is None):
            raise InvalidSpecification(TOGETHER)

    def question(self, shape: Shape) -> Question:
        """With its region.   Raises: InvalidSpecification if scale or centre does not fit."""
        from provenn.api.lipschitz_question import Around

        found = super().question(shape)
        if self.at is None or self.eps is None:
            return found
        return replace(found, region=Around(_flat("at", self.at, shape), self.eps, self.region_norm, self.clip))


class HowTightness(TypedDict, total=False):
    """What `tightness` takes besides network and inputs, by name; the defaults are those of `Measuring`."""

    labels: Sequence[int] | np.ndarray | None
    eps: float
    clip: tuple[float, float] | None
    layers: bool


@dataclass(frozen=True)
class Measuring:
    """At inputs; see `provenn.tightness`."""

    labels: Sequence[int] | np.ndarray | None = None
    eps: float = 0.1
    clip: tuple[float, float] | None = None
    layers: bool = True

    def question(self, x: np.ndarray, shape: Shape) -> TightnessQuestion:
        """For inputs of this shape.   Raises: InvalidSpecification if they do not fit, or make no sense."""
        from provenn.api.tightness import Question, batch

        labels = None if self.labels is None else np.atleast_1d(np.asarray(self.labels, np.int64))
        return Question(batch(x, shape), labels, float(self.eps), self.clip, self.layers)


class HowDerivatives(TypedDict, total=False):
    """What `monotonicity` and `jacobian` take besides, by name; the defaults are those of `Derivatives`."""

    domain: str | Path | bytes | Mapping[str, Any] | None
    fixed: Mapping[str, str | float]
    at: np.ndarray | None
    eps: float | str | None
    region_norm: Literal["inf", "2", "1"]
    clip: tuple[float, float] | None
    rows: str
    method: Literal["bab", "crown", "alpha-crown", "recurjac", "ibp"]
    timeout: float
    seed: int


@dataclass(frozen=True)
class Derivatives:
    """Of rows of outputs, over a domain or around `at`.   Raises: InvalidSpecification unless it is one of the two."""

    domain: str | Path | bytes | Mapping[str, Any] | None = None
    fixed: Mapping[str, str | float] = field(default_factory=dict)
    at: np.ndarray | None = None
    eps: float | str | None = None
    region_norm: str = "inf"
    clip: tuple[float, float] | None = None
    rows: str = "all"
    method: str = "bab"
    timeout: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.at is None) != (self.eps is None):
            raise InvalidSpecification(TOGETHER)
        if (self.domain is None) == (self.at is None):
            raise InvalidSpecification("give either domain, or at and eps")
        if self.domain is None and self.fixed:
            raise InvalidSpecification("fixed holds features of a domain: give domain")

    def domain_text(self) -> bytes | None:
        """The domain as the bytes of a file, if that is where."""
        if self.domain is None:
            return None
        return json.dumps(self.domain).encode() if isinstance(self.domain, Mapping) else content(self.domain)

    @property
    def held(self) -> dict[str, str]:
        """What features are held at."""
        return {name: str(value) for name, value in self.fixed.items()}

    def over(self, shape: Shape) -> Domain | None:
        """The domain, if that is where, for inputs of this shape.   Raises: InvalidSpecification if it does not fit."""
        from provenn.api.domain import read_domain

        text = self.domain_text()
        return None if text is None else read_domain(text, prod(shape)).fixed(self.held)

    def places(self, domain: Domain | None, shape: Shape, columns: Sequence[int]) -> Sequence[Place]:
        """The regions.   Raises: InvalidSpecification; ResourceLimit."""
        from provenn.api.domain import Place
        from provenn.api.lipschitz_question import Around

        if domain is not None:
            return domain.places(columns)
        assert self.at is not None
        assert self.eps is not None
        return [Place.around(Around(_flat("at", self.at, shape), self.eps, self.region_norm, self.clip))]

    def one_place(self, domain: Domain | None, shape: Shape) -> Place:
        """The region.   Raises: InvalidSpecification if there are several."""
        places = self.places(domain, shape, ())
        if len(places) > 1:
            many = f"the domain has {len(places)} combinations of categories"
            raise InvalidSpecification(f"{many}, but a Jacobian is bounded over one region: hold features with fixed")
        return places[0]


def named(features: str | Sequence[str | int]) -> list[str]:
    """Features as a list of texts."""
    return features.split(",") if isinstance(features, str) else list(map(str, features))


def content(source: Given) -> bytes:
    """A file's bytes."""
    return source if isinstance(source, bytes) else Path(source).read_bytes()


def network(model: Given | nn.Module, shape: Shape | None) -> bytes:
    """A network's file; a torch module is exported, for inputs of this shape.

    Raises: InvalidSpecification for a module without a shape; InvalidModel; OSError.
    """
    if isinstance(model, str | Path | bytes):
        return content(model)
    if shape is None:
        raise InvalidSpecification("a torch module does not say what it takes: give the shape of its input")
    from provenn.models.torch_export import export

    return export(model, shape)


def _flat(name: str, values: np.ndarray, shape: Shape) -> list[float]:
    """Raises: InvalidSpecification unless the values have the input's shape."""
    given = np.shape(values)
    if given != shape:
        raise InvalidSpecification(f"{name} has shape {list(given)}, but the network takes {list(shape)}")
    return list(np.asarray(values, float).ravel().tolist())
