"""What the client believes of a service's batch: nothing about another question, other data, or other rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from batch_kit import LABELS, POINTS, ROOMY, data, put_together, taken_apart

from provenn.api.batch.question import Question
from provenn.api.batch.run import certify_batch
from provenn.api.certification import Options, load_model
from provenn.api.cli.served import asking
from provenn.api.client import RequestRefused, ServiceUnreachable, UnexpectedAnswer
from provenn.api.client.batches import Asked, Judge, requested
from provenn.api.results import Origin
from provenn.verifier.check import CertificateRejected

ASKED = Question(("0.1", 0.4), clip=(0, 1))
ORIGIN = Origin("http://service", "job", "model")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a service would have left."""
    folder = tmp_path_factory.mktemp("service")
    certify_batch(load_model(ROOMY), data(), ASKED, Options(seconds=30), folder)
    return folder


def test_what_holds_is_kept(made: Path, tmp_path: Path) -> None:
    bundle, lines = (made / "batch.zip").read_bytes(), (made / "results.jsonl").read_bytes()
    ticks: list[tuple[int, int]] = []
    judge = Judge(ROOMY, data(), ASKED, "real", tmp_path / "new")
    found = judge.judged(bundle, lines, ORIGIN, lambda k, n: ticks.append((k, n)))
    assert (found.report.certificates, found.report.replayed, found.root) == (6, 6, found.report.root)
    assert found.summary.at(0.1).certified.count == 4
    assert b"".join(row.line() for row in found.rows) == lines == (tmp_path / "new" / "results.jsonl").read_bytes()
    assert (tmp_path / "new" / "batch.zip").read_bytes() == bundle
    assert ticks[-1] == (11, 12)


def test_what_does_not_hold_is_neither_believed_nor_kept(made: Path, tmp_path: Path) -> None:
    bundle, lines = (made / "batch.zip").read_bytes(), (made / "results.jsonl").read_bytes()
    judge = Judge(ROOMY, data(), ASKED, "real", tmp_path / "new")
    longer = data([*POINTS, [0.0, 1.0]], [*LABELS, 1])
    for other in (
        replace(judge, question=replace(ASKED, epsilons=("0.1", "0.3"))),
        replace(judge, question=replace(ASKED, clip=None)),
        replace(judge, semantics="float32"),
    ):
        with pytest.raises(UnexpectedAnswer, match="another question"):
            other.judged(bundle, lines, ORIGIN, None)
    with pytest.raises(CertificateRejected, match="data"):
        replace(judge, data=data(POINTS, reversed(LABELS))).judged(bundle, lines, ORIGIN, None)
    with pytest.raises(UnexpectedAnswer, match="a part of the data"):
        replace(judge, data=longer).judged(bundle, lines, ORIGIN, None)
    for wrong in (lines[:-10], lines.replace(b"verified", b"unknown!"), b"", lines * 2, lines.replace(b"0.1", b"0.2")):
        with pytest.raises(UnexpectedAnswer, match="rows"):
            judge.judged(bundle, wrong, ORIGIN, None)
    manifest, rows, kept = taken_apart(made / "batch.zip")
    rows[0]["margin"] *= 2
    false = put_together(tmp_path / "false.zip", manifest, rows, kept).read_bytes()
    with pytest.raises(CertificateRejected, match="row 0"):
        judge.judged(false, lines, ORIGIN, None)
    assert not (tmp_path / "new").exists()


def test_a_question_travels_as_it_is() -> None:
    for asked in (ASKED, Question(("8/255", 0.1), norm="2"), Question(largest=0.3, tolerance=0.2, clip=(0, 1))):
        assert requested(asked, "0" * 64).question().as_json() == asked.as_json()
    assert Asked().timeout == 600


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ServiceUnreachable("http://service", "no route"), 1),
        (UnexpectedAnswer("of another question"), 1),
        (RequestRefused(503, {"detail": "not now"}, None), 1),
        (RequestRefused(401, {"detail": "no key"}, None), 1),
        (CertificateRejected("row 0", "it has another sha256"), 13),
    ],
)
def test_exit_codes_say_whose_fault_it_is(failure: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        raise failure

    assert asking(command, True) == code
    assert str(failure) in capsys.readouterr().err
    with pytest.raises(RequestRefused):
        asking(refused, False)


def refused() -> int:
    raise RequestRefused(422, {"detail": "two radii are the same"}, None)
