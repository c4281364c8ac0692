"""Over which inputs derivatives are asked about: around one input, or over the domain of a tabular model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from typer import BadParameter

from provenn.api.domain import Domain, Place, read_domain
from provenn.api.files import InvalidFile, read_file, read_inputs
from provenn.api.lipschitz_question import Around
from provenn.verifier.errors import InvalidSpecification, in_file


@dataclass(frozen=True)
class Where:
    """The options as given.   Raises: BadParameter for one that is missing or makes no sense.

    fixed: features of the domain that are held, as NAME=VALUE.
    """

    domain: Path | None
    fixed: tuple[str, ...]
    at: Path | None
    eps: str | None
    norm: str
    clip: tuple[float, float] | None

    def __post_init__(self) -> None:
        if (self.domain is None) == (self.at is None and self.eps is None):
            reason = "give either --region with a domain file, or --at with --eps"
            raise BadParameter(reason, param_hint="--region")
        if (self.at is None) != (self.eps is None):
            missing, given = ("--at", "--eps") if self.at is None else ("--eps", "--at")
            raise BadParameter(f"is missing: {given} needs it, for the region is both", param_hint=missing)
        if self.domain is not None and (self.clip is not None or self.norm != "inf"):
            raise BadParameter("--region-norm and --clip belong to --at with --eps", param_hint="--at")
        if self.domain is None and self.fixed:
            raise BadParameter("it holds features of a domain file: give --region", param_hint="--fix")
        if self.clip is not None and not -math.inf < self.clip[0] < self.clip[1] < math.inf:
            reason = f"{self.clip[0]} {self.clip[1]} is not a range; give finite LO HI with LO below HI"
            raise BadParameter(reason, param_hint="--clip")
        if self.eps is not None and "," in self.eps:
            raise BadParameter("give one radius", param_hint="--eps")
        for held in self.fixed:
            if "=" not in held:
                raise BadParameter(f"'{held}' does not hold a feature: give NAME=VALUE", param_hint="--fix")

    def read(self, inputs: int) -> Domain | None:
        """The domain, some of its features held; None around an input.

        Raises: InvalidFile; InvalidSpecification naming the file; BadParameter.
        """
        if self.domain is None:
            return None
        try:
            found = read_domain(read_file(self.domain), inputs)
        except InvalidSpecification as error:
            raise in_file(self.domain, error) from None
        pairs = [held.rpartition("=") for held in self.fixed]
        values = {name.strip(): value.strip() for name, _, value in pairs}
        try:
            if len({found.feature(name.strip()).name for name, _, _ in pairs}) < len(pairs):
                raise InvalidSpecification("a feature is held twice")
            return found.fixed(values)
        except InvalidSpecification as error:
            raise BadParameter(str(error), param_hint="--fix") from None

    def ball(self, shape: tuple[int, ...]) -> Place:
        """Around the input.   Raises: InvalidFile; InvalidSpecification."""
        assert self.at is not None
        assert self.eps is not None
        centres = read_inputs(self.at, shape)
        if len(centres) > 1:
            raise InvalidFile(self.at, f"holds {len(centres)} inputs; give one")
        return Place.around(Around(centres[0].tolist(), self.eps, self.norm, self.clip))
