"""What `provenn certify` was asked for, checked as far as that needs neither file nor network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from typer import BadParameter

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import exact

LARGEST_RADIUS = 1e30


@dataclass(frozen=True)
class Robustness:
    """The options as given; labels, epsilons: text ("3", "7,2,1", a file; "0.03", "8/255"); clip: (lowest, highest).

    top: how many of the largest outputs keep the labels that the network has at the input, in place of a label.
    Raises: BadParameter for an option that is missing or no sensible number.
    """

    inputs: Path
    labels: str | None
    epsilons: Sequence[str]
    norm: str
    clip: tuple[float, float] | None
    target: int | None
    top: int | None = None
    ordered: bool = True

    def __post_init__(self) -> None:
        if self.top is not None:
            self._require_top_alone()
        elif not self.ordered:
            raise BadParameter("belongs to --top-k", param_hint="--unordered")
        elif self.labels is None:
            raise BadParameter("is missing: --input needs the class that must win", param_hint="--label")
        if not self.epsilons:
            raise BadParameter("is missing: --input needs a radius", param_hint="--eps")
        for epsilon in self.epsilons:
            _require_radius(epsilon)
        if self.clip is not None and not -math.inf < self.clip[0] < self.clip[1] < math.inf:
            reason = f"{self.clip[0]} {self.clip[1]} is not a range; give finite LO HI with LO below HI"
            raise BadParameter(reason, param_hint="--clip")

    def _require_top_alone(self) -> None:
        """What else may be given with --top-k."""
        for option, given in (("--label", self.labels is not None), ("--target", self.target is not None)):
            if given:
                raise BadParameter("does not go with --top-k, whose labels are the network's own", param_hint=option)


def _require_radius(text: str) -> None:
    try:
        radius = exact(text)
    except InvalidSpecification as error:
        raise BadParameter(f"{error}; give a radius such as 0.03 or 8/255", param_hint="--eps") from None
    if not 0 <= radius <= LARGEST_RADIUS:
        raise BadParameter(f"{text} is not a radius from 0 to {LARGEST_RADIUS:g}", param_hint="--eps")


@dataclass(frozen=True)
class Request:
    """One run: a property file or robustness questions about a model, and what it may use.

    Raises: BadParameter unless there is exactly one of the two, and a time above zero.
    """

    model: Path
    property: Path | Robustness | None
    method: str
    seconds: float
    device: str
    seed: int
    out: Path | None
    cross_check: bool = False
    semantics: Literal["real", "float32"] = "real"
    save: Path | None = None

    def __post_init__(self) -> None:
        if self.property is None:
            raise BadParameter("give --spec FILE, or --input FILE.npy with --label and --eps", param_hint="--spec")
        if self.method == "lipschitz":
            self._require_robustness()
        if not 0 < self.seconds < math.inf:
            raise BadParameter(f"{self.seconds} is not a time; give seconds above 0", param_hint="--timeout")

    def _require_robustness(self) -> None:
        """What method lipschitz takes."""
        if not isinstance(self.property, Robustness):
            raise BadParameter("lipschitz answers questions with --input, --label and --eps", param_hint="--method")
        if self.property.top is not None:
            raise BadParameter("method lipschitz compares one label with the others", param_hint="--top-k")
        if self.property.norm == "1":
            raise BadParameter("method lipschitz measures radii in the norms 2 and inf", param_hint="--norm")
        if self.semantics != "real":
            raise BadParameter("method lipschitz proves real arithmetic only", param_hint="--semantics")
        if self.save is not None:
            raise BadParameter("method lipschitz keeps no search", param_hint="--save")
