"""`provenn certify`, from the request to the exit code: read, certify, keep, say."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from typer import BadParameter

from provenn.api.certification import ItemResult, LoadedModel, Options, load_model
from provenn.api.cli import answers, artifacts, outcome
from provenn.api.cli.answers import Answer
from provenn.api.cli.artifacts import Kept
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import progress_bar
from provenn.api.cli.questions import Questions, answer, from_options, from_stated
from provenn.api.cli.request import Request, Robustness
from provenn.api.cross_check import CrossCheck, cross_check, require_second_opinion
from provenn.api.files import read_file
from provenn.api.specifications import read_property
from provenn.models.parametrization import Parametrized
from provenn.models.specification.monotone import Monotone
from provenn.models.specification.stated import Stated
from provenn.solvers.branch_and_bound.kept import LETTERS
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
    stated = _stated(request)
    if isinstance(stated, Monotone):
        return _monotone(request, stated, as_json)
    trouble: ProvennError | None = artifacts.prepared(request.out)
    start = time.monotonic()
    with _terminable(request), progress_bar() as bar:
        model = _loaded(request, stated)
        questions = _questions(request, stated, model)
        wanted = (request.method, request.seconds, request.device, request.seed)
        options = Options(*wanted, semantics=request.semantics, state=request.save)
        results = answer(model, questions, options, bar)
        second = _compared(request, stated, model, results, options) if request.cross_check else None
    kept = [Kept()] * len(results)
    if request.out is not None and trouble is None:
        kept, trouble = _kept(request, results, model, stated)
    folder = None if request.out is None else str(request.out)
    words = "" if stated is None else stated.words
    words = questions.said[0] if len(questions.said) == len(results) == 1 else words
    found = Answer(questions.points, results, kept, folder, time.monotonic() - start, second, words, questions.said)
    trouble = trouble or (second.error if second is not None else None)
    outcome.warn(warning for result in results for warning in result.warnings)
    said = answers.as_json(found) | ({"error": outcome.described(trouble)} if trouble else {})
    outcome.show(said, answers.as_view(found), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    return CODES[found.verdict]


def _monotone(request: Request, stated: Monotone, as_json: bool) -> int:
    """A document about derivatives is answered as `provenn monotonicity` does.   Raises: BadParameter for an option."""
    from provenn.api.cli import monotonicity
    from provenn.api.monotonicity import Options as Limits

    assert isinstance(request.property, Path)
    for option, given in (("--semantics", request.semantics != "real"), ("--save", request.save is not None)):
        if given:
            raise BadParameter("a document of kind monotone does not go with it", param_hint=option)
    method = "bab" if request.method == "auto" else request.method
    asked = monotonicity.Stated(request.model, stated, request.property, request.out)
    return monotonicity.run(asked, Limits(method, request.seconds, request.seed), as_json)


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
    except (KeyboardInterrupt, SystemExit):
        if found := _searches(request.save):
            sys.stderr.write(f"the search is kept in {', '.join(found)}: the same command goes on from there\n")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _searches(path: Path) -> list[str]:
    """Files of searches at that path, and those beside it, one a case."""
    beside = sorted(path.parent.glob(f"{escape(path.name)}.{'?' * LETTERS}"))
    return [str(each) for each in (path, *beside) if each.is_file()]


def _stated(request: Request) -> Stated | Monotone | None:
    """What the file of --spec says of the network, if there is one."""
    if isinstance(request.property, Robustness):
        return None
    assert request.property is not None
    return read_property(request.property, read_file(request.model), request.semantics)


def _loaded(request: Request, stated: Stated | None) -> LoadedModel:
    """The network, or that which the file of --spec makes of it."""
    given = read_file(request.model)
    composed = stated is not None and stated.model != given
    return load_model(stated.model, given=given) if stated is not None and composed else load_model(given)


def _questions(request: Request, stated: Stated | None, model: LoadedModel) -> Questions:
    if isinstance(request.property, Robustness):
        return from_options(request.property, model)
    assert request.property is not None
    assert stated is not None
    return from_stated(request.property, stated, model)


def _compared(
    request: Request, stated: Stated | None, model: LoadedModel, results: list[ItemResult], options: Options
) -> CrossCheck:
    """The questions are made again: those that were answered are not kept."""
    return cross_check(model, _questions(request, stated, model).specifications, results, options)


def _kept(
    request: Request, results: list[ItemResult], model: LoadedModel, stated: Stated | None
) -> tuple[list[Kept], CannotWrite | None]:
    """A network that was composed is kept, too: it is what the certificate is about."""
    assert request.out is not None
    executor = model.executor
    shape = executor.network.input_shape if isinstance(executor, Parametrized) else executor.input_shape
    try:
        if stated is not None and stated.model != read_file(request.model):
            artifacts.write(request.out / artifacts.COMPOSED, stated.model)
        return artifacts.keep(request.out, results, shape), None
    except CannotWrite as trouble:
        return [Kept()] * len(results), trouble
