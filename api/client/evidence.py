"""What is believed of a service's answer: nothing but what is proved, or executed, here, on the model's own bytes.

Whoever runs the service, or sits between it and us, can withhold an answer; it cannot make one true. A certificate has
to be about the file that was asked about and the very question, and the trusted kernel has to accept it; a
counterexample has to be one in the local executor. Verdict, numbers and assurance are those found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.results import Asked, Counterexample, ItemResult, LipschitzResult, Origin
from provenn.api.schemas import Item
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.claims import MANIFEST
from provenn.verifier.check.manifest import read_manifest
from provenn.verifier.check.network import Implicit
from provenn.verifier.check.rows import Semantics
from provenn.verifier.check.specification import read_lipschitz
from provenn.verifier.spec import Specification

if TYPE_CHECKING:
    from provenn.api.lipschitz_question import Question

VERIFIED, FALSIFIED, UNDECIDED = "verified", "falsified", ("unknown", "timeout")
UNPROVED = "the service calls this verified without a certificate, so nothing was checked here"
TAKE = f"{UNPROVED}; accept_computed=True takes its word for it"
NOT_REPLAYED = "the service's counterexample is none in the onnxruntime that is installed here"


@dataclass(frozen=True, eq=False)
class Answer:
    """A job's one item, its certificate's files if there are any, the model's file, where all of it comes from."""

    item: Item
    files: dict[str, bytes] | None
    model: bytes
    origin: Origin

    @property
    def undecided(self) -> str:
        """The verdict where nothing is proved or shown here.   Raises: UnexpectedAnswer for a word that is none."""
        verdict = self.item.verdict
        if verdict not in (VERIFIED, FALSIFIED, *UNDECIDED):
            raise UnexpectedAnswer(f"the service's verdict is {verdict!r}")
        return verdict if verdict in UNDECIDED else UNDECIDED[0]


@dataclass(frozen=True, eq=False)
class Robust:
    """A question about cases. accept_computed: whether the service's word is enough where it has no proof.

    asked: the one input, if it is about one; given: the network that the question's begins with a layer of parameters
    of, if it does.
    """

    specification: Specification
    asked: Asked | None
    semantics: Semantics
    accept_computed: bool
    given: bytes | None = None

    def judged(self, answer: Answer) -> ItemResult:
        """Raises: CertificateRejected for a certificate that is none of this; UnexpectedAnswer; InvalidModel."""
        item = answer.item
        known = ItemResult(answer.undecided, item.method, item.margin, item.seconds, None, item.reason)
        known = replace(known, semantics=self.semantics, warnings=tuple(item.warnings))
        known = replace(known, asked=self.asked, origin=answer.origin)
        match answer.item.verdict:
            case "verified":
                return self._verified(answer, known)
            case "falsified":
                return self._falsified(answer, known)
        return known

    def _verified(self, answer: Answer, known: ItemResult) -> ItemResult:
        if answer.files is not None:
            report = check(answer.files, answer.model, self.specification.text)
            if report.semantics != self.semantics:
                asked = f"{self.semantics} was asked for"
                raise CertificateRejected("manifest", f"it is about {report.semantics} arithmetic, but {asked}")
            proved = replace(known, verdict=VERIFIED, margin=report.margin, assurance=report.assurance)
            return replace(proved, certificate=answer.files)
        if answer.item.assurance != "computed":
            return replace(known, reason=UNPROVED)
        if self.accept_computed and self.semantics == "real":
            return replace(known, verdict=VERIFIED, assurance="computed")
        reason = f"{TAKE}: {known.reason}" if known.reason else TAKE
        return replace(known, assurance="computed", reason=reason)

    def _falsified(self, answer: Answer, known: ItemResult) -> ItemResult:
        found = answer.item.counterexample
        shown = None if found is None else self._replayed(answer.model, found.input)
        if shown is None:
            return replace(known, reason=NOT_REPLAYED)
        return replace(known, verdict=FALSIFIED, assurance="replayed", counterexample=shown)

    def _replayed(self, model: bytes, values: list[float]) -> Counterexample | None:
        from provenn.models.parametrization import Parametrized
        from provenn.models.reading import executor
        from provenn.solvers.attack import replay

        composed = Parametrized.of(model, self.given)
        run = composed or executor(model)
        point = single(values, run.input_shape)
        if point is None:
            return None
        hits = (replay(run, case, point[None]) for case in self.specification.cases)
        hit = next((each for each in hits if each is not None), None)
        if hit is None:
            return None
        original = None if composed is None else composed.image(point[None]).ravel().tolist()
        return Counterexample(hit.witness.ravel().tolist(), hit.output.ravel().tolist(), original)


@dataclass(frozen=True, eq=False)
class Constant:
    """A question about a Lipschitz constant."""

    question: Question

    def judged(self, answer: Answer) -> LipschitzResult:
        """Raises: CertificateRejected for a certificate that is none of this; UnexpectedAnswer."""
        item, found = answer.item, answer.item.lipschitz
        if found is None:
            raise UnexpectedAnswer("the service's answer says nothing of a Lipschitz constant")
        asked, stated = self.question, (item.method, self.question.norm, self.question.outward, self.question.rows)
        known = LipschitzResult(answer.undecided, *stated, item.seconds, reason=item.reason, origin=answer.origin)
        if item.verdict != VERIFIED or answer.files is None:
            reason = UNPROVED if item.verdict == VERIFIED else item.reason
            return replace(known, reason=reason, well_posed=False if found.well_posed is False else None)
        network = read_network(answer.model, slopes=True)
        uppers = list(check(answer.files, network).uppers)
        self._require_asked(answer.files, network, uppers)
        each = asked.outward == "each"
        posed = True if any(isinstance(step, Implicit) for step in network.steps) else None
        said = {"lower": found.lower, "gap": found.gap, "well_posed": posed, "certificate": answer.files}
        bound = uppers if each else uppers[0]
        return replace(known, verdict=VERIFIED, upper=bound, assurance="checked", **said)  # type: ignore[arg-type]

    def _require_asked(self, files: Mapping[str, bytes], network: Network, uppers: list[float]) -> None:
        """Raises: CertificateRejected unless what was proved is what was asked, whatever the number."""
        sizes = network.steps[0].length, network.steps[network.output].length
        wanted = read_lipschitz(self.question.statement(*sizes).text(uppers), *sizes)
        stated = read_lipschitz(statement(files), *sizes)
        require_same(stated._replace(upper=()) == wanted._replace(upper=()))


def statement(files: Mapping[str, bytes]) -> bytes:
    """What a certificate is about, as its manifest names it.   Raises: CertificateRejected."""
    return files[read_manifest(files[MANIFEST])["specification"]["file"]]


def require_same(same: bool) -> None:
    """Raises: CertificateRejected unless a statement is the one that was asked for."""
    if not same:
        raise CertificateRejected("specification", "the certificate is about another question")


def single(values: list[float], shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """The numbers as an input of the network; None if they are none."""
    if len(values) != np.prod(shape):
        return None
    with np.errstate(over="ignore"):
        point = np.array(values, np.float64).astype(np.float32)
    return point.reshape(shape) if np.isfinite(point).all() else None
