"""What is believed of a batch that a service has certified: what its bundle proves here, about these very data.

Every certificate is proved again, every predicted class and every counterexample run. Rows without either, and what
methods and seconds are, are the service's word.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from provenn.api.batch.bundle import opened
from provenn.api.batch.checking import BatchReport, Given, check_batch
from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.results import BUNDLE, RESULTS, write_rows
from provenn.api.batch.rows import Row
from provenn.api.batch.summary import Summary, summarize
from provenn.api.batch.writing import whole
from provenn.api.batch_schemas import BatchRequest
from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.results import Origin

Tick = Callable[[int, int], object]


class HowBatch(TypedDict, total=False):
    """What `Client.batch` takes besides network, data and question, by name; the defaults are those of `Asked`."""

    method: str
    timeout: float
    seed: int
    semantics: Literal["real", "float32"]


@dataclass(frozen=True)
class Asked:
    """How a batch is to be answered."""

    method: str = "auto"
    timeout: float = 600.0
    seed: int = 0
    semantics: Literal["real", "float32"] = "real"


@dataclass(frozen=True, eq=False)
class CheckedBatch:
    """A batch that was checked here: its rows; accuracies, computed here of the rows; the report of the check."""

    rows: Sequence[Row]
    summary: Summary
    report: BatchReport
    origin: Origin

    @property
    def root(self) -> str:
        """That binds network, data, question and rows."""
        return self.report.root


def requested(question: Question, dataset: str) -> BatchRequest:
    """The question as a service takes it."""
    return BatchRequest.model_validate(
        {
            "dataset": dataset,
            "epsilons": list(question.epsilons),
            "largest": question.largest,
            "tolerance": question.tolerance,
            "norm": question.norm,
            "clip": question.clip,
        }
    )


@dataclass(frozen=True, eq=False)
class Judge:
    """Knows the network's file, the data and the question; folder: gets batch.zip and results.jsonl once they hold."""

    model: bytes
    data: Data
    question: Question
    semantics: str
    folder: Path | None

    def judged(self, bundle: bytes, lines: bytes, origin: Origin, tick: Tick | None) -> CheckedBatch:
        """What is known, by what was checked here.

        Raises: CertificateRejected where a proof does not hold; UnexpectedAnswer for another question's answer.
        """
        with tempfile.TemporaryDirectory(prefix="provenn-") as kept:
            path = Path(kept) / BUNDLE
            path.write_bytes(bundle)
            report = check_batch(path, self.model, self._given(), tick=tick)
            rows = self._rows(path, lines)
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                with whole(self.folder / BUNDLE) as file:
                    file.write(bundle)
                write_rows(self.folder / RESULTS, rows)
        return CheckedBatch(rows, summarize(rows, self.question), report, origin)

    def _given(self) -> Given:
        from provenn.models.reading import executor

        runs = executor(self.model)
        return Given(self.data, runs, runs.input_shape)

    def _rows(self, path: Path, lines: bytes) -> list[Row]:
        """Those of the bundle, with the seconds that the service says."""
        with opened(path) as bundle:
            manifest, leaves = bundle.manifest, list(bundle.leaves())
        stated: tuple[Any, ...] = manifest.question.as_json(), manifest.semantics, manifest.inputs
        if stated != (self.question.as_json(), self.semantics, len(self.data)):
            raise UnexpectedAnswer("the service's bundle is about another question, or about a part of the data")
        try:
            rows = list(map(Row.from_json, lines.splitlines()))
        except ValueError as error:
            raise UnexpectedAnswer(f"the service's rows are none: {error}") from error
        if [row.leaf() for row in rows] != leaves:
            raise UnexpectedAnswer("the service's rows are not those of its bundle")
        return rows
