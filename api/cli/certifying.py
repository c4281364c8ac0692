"""`provenn certify`, from the request to the exit code: read, certify, keep, say."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from typer import BadParameter

from provenn.api.certification import ItemResult, LoadedModel, Options, load_model
from provenn.api.cli import answers, artifacts, outcome
from provenn.api.cli.answers import Answer
from provenn.api.cli.artifacts import Kept
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import progress_bar
from provenn.api.cli.questions import Questions, answer, from_file, from_options
from provenn.api.cli.request import Request, Robustness
from provenn.api.cross_check import CrossCheck, cross_check, require_second_opinion
from provenn.api.files import read_file
from provenn.verifier.errors import ProvennError

CODES = {
    "verified": ExitCode.VERIFIED,
    "falsified": ExitCode.FALSIFIED,
    "unknown": ExitCode.UNKNOWN,
    "timeout": ExitCode.TIMEOUT,
}


def run(request: Request, as_json: bool) -> int:
    """Prints the answer and returns the verdict's code; INTERNAL if --out could not be written, or if bounds clash."""
    if request.cross_check:
        require_second_opinion()
    trouble: ProvennError | None = artifacts.prepared(request.out)
    start = time.monotonic()
    with _terminable(request), progress_bar() as bar:
        model = load_model(read_file(request.model))
        questions = _questions(request, model)
        wanted = (request.method, request.seconds, request.device, request.seed)
        options = Options(*wanted, semantics=request.semantics, state=request.save)
        results = answer(model, questions, options, bar)
        second = _compared(request, model, results, options)
    kept = [Kept()] * len(results)
    if request.out is not None and trouble is None:
        kept, trouble = _kept(request, results, model)
    folder = None if request.out is None else str(request.out)
    found = Answer(questions.points, results, kept, folder, time.monotonic() - start, second)
    trouble = trouble or (second.error if second is not None else None)
    outcome.warn(warning for result in results for warning in result.warnings)
    said = answers.as_json(found) | ({"error": outcome.described(trouble)} if trouble else {})
    outcome.show(said, answers.as_view(found), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    return CODES[found.verdict]


@contextmanager
def _terminable(request: Request) -> Iterator[None]:
    """While a search is kept SIGTERM ends the command as Ctrl-C does, from within: what is open is saved first.

    Raises: BadParameter if it cannot be kept where it should be.
    """
    if request.save is None:
        yield
        return
    if not request.save.parent.is_dir():
        raise BadParameter(f"there is no folder {request.save.parent}", param_hint="--save")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _questions(request: Request, model: LoadedModel) -> Questions:
    if isinstance(request.property, Robustness):
        return from_options(request.property, model)
    assert request.property is not None
    return from_file(request.property, model)


def _compared(request: Request, model: LoadedModel, results: list[ItemResult], options: Options) -> CrossCheck | None:
    """The questions are read again: those that were answered are not kept."""
    return (
        cross_check(model, _questions(request, model).specifications, results, options) if request.cross_check else None
    )


def _kept(request: Request, results: list[ItemResult], model: LoadedModel) -> tuple[list[Kept], CannotWrite | None]:
    assert request.out is not None
    try:
        return artifacts.keep(request.out, results, model.graph.input_shape), None
    except CannotWrite as trouble:
        return [Kept()] * len(results), trouble
