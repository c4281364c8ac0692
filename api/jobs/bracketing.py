"""Jobs about the largest radius: question after question, each proved or refuted by itself, until the time is up."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any

from provenn.api.activation_patterns import Bracket, Search, follower_in
from provenn.api.certification import ItemResult, LoadedModel, Options, certify
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.loading import loaded
from provenn.api.jobs.progressing import told
from provenn.api.jobs.results import kept
from provenn.api.jobs.tasks import Certify
from provenn.api.jobs.workspace import Outbox
from provenn.api.pattern_schemas import Radius
from provenn.api.radius_question import specification
from provenn.api.report import radius_report
from provenn.api.schemas import JobRequest
from provenn.solvers.base import Budget, Phase, Progress, Verdict
from provenn.verifier.numbers import spoken
from provenn.verifier.spec import Specification

SHARE = 4
"""A question gets one part in so many of the time that is left."""
LAST = 20
"""No question is asked any more in the last part in so many of the budget."""


def answered(task: Certify, out: Outbox, request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """What the supervisor needs to know.   Raises: as `certify`."""
    start = time.monotonic()
    model = loaded(task.model)
    stats = {"load_seconds": time.monotonic() - start}
    search = Searching(model, request, task.device, Budget(request.budget.seconds, start), told(reporter, 0, 1))
    found = search.bracket()
    radius = Radius(
        verified=found.verified,
        falsified=found.falsified,
        counterexample=None if found.counterexample is None else found.counterexample.input,
        whole=found.whole,
        inhabited=search.inhabited(found.verified) or None,
    )
    item = replace(found.item or search.undecided(), seconds=time.monotonic() - start)
    stats |= {"questions": search.questions, "seconds": item.seconds}
    return kept(out, request, item.certificate, lambda name: radius_report(item, radius, name, stats))


@dataclass(eq=False)
class Searching:
    """A job's questions, so many up to now. model: the network, or the one that is restricted to the pattern."""

    model: LoadedModel
    request: JobRequest
    device: str
    budget: Budget
    progress: Progress
    questions: int = 0

    def bracket(self) -> Bracket:
        """As good as it gets in the time; one question is asked in any case."""
        assert self.request.radius is not None
        return Search(largest=spoken(self.request.radius.largest)).bracket(self.ask, more=lambda: self.goes_on)

    @property
    def goes_on(self) -> bool:
        """Whether there is time for another question."""
        return self.budget.left > self.budget.seconds / LAST

    def ask(self, radius: Fraction) -> ItemResult:
        """The answer at a radius."""

        def progress(done: int, total: int, phase: str) -> None:
            said = phase if isinstance(phase, Phase) else Phase(phase)
            self.progress(0, 1, Phase(f"radius {float(radius):g}: {phase}", said.bound, said.domains))

        self.questions += 1
        options = Options(
            method=self.request.method,
            seconds=max(0.0, self.budget.left / SHARE),
            device=self.device,
            seed=self.request.seed,
            certificates=self.request.certificates,
            semantics=self.request.semantics,
        )
        (item,) = certify(self.model, [self.about(radius)], options, progress)
        return item

    def about(self, radius: Fraction) -> Specification:
        """The question at a radius; V is the last output of a restricted network."""
        asked = self.request.radius
        assert asked is not None
        return specification(asked, radius, prod(self.model.graph.output_shape) - (asked.pattern is not None))

    def inhabited(self, verified: float) -> bool:
        """Whether an input within the radius was found that follows the pattern."""
        asked = self.request.radius
        if asked is None or asked.pattern is None or not verified:
            return False
        return follower_in(self.model, self.about(spoken(verified)).cases[0].inputs, self.request.seed) is not None

    def undecided(self) -> ItemResult:
        """In place of an answer where no radius is proved."""
        verdict = Verdict.UNKNOWN if self.goes_on else Verdict.TIMEOUT
        reason = f"nothing was proved at any of {self.questions} radii"
        return ItemResult(str(verdict), self.request.method, None, 0.0, reason=reason, semantics=self.request.semantics)
