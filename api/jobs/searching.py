"""Branch and bound in parts: what a search has left open is dealt out to jobs of their own, then joined and proved.

The first attempt searches for a while by itself; the parts go on, each with its share of the open subdomains; the last
attempt joins what they have done, and makes and checks the certificate as of any search. Of a budget the beginning
gets about FIRST at most, each part THEN, the end the rest. Nothing that a part says is believed but a counterexample,
which onnxruntime has run.
"""

from __future__ import annotations

import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from provenn.api.certification import ItemResult, LoadedModel, Options, certify, combined, require_device
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.loading import loaded
from provenn.api.jobs.narrowing import Narrowing
from provenn.api.jobs.progressing import told
from provenn.api.jobs.results import answered, stored
from provenn.api.jobs.tasks import BeginSearch, Conclude, GoOn
from provenn.api.jobs.workspace import Outbox
from provenn.api.report import Point, report
from provenn.api.schemas import JobRequest, JobResult
from provenn.solvers.base import Budget, Phase, Problem, Progress, Verdict
from provenn.solvers.branch_and_bound.kept import key_of, network_of
from provenn.solvers.branch_and_bound.parts import divide, join
from provenn.solvers.branch_and_bound.state import names
from provenn.solvers.portfolio import backend
from provenn.verifier.spec_reader import read_specification

FIRST, THEN = 0.25, 0.5
METHOD = "branch-and-bound"
NAME = "search"
"""Of the file of a search; several cases have one each beside it."""


class Enough(Exception):
    """The search has gone on alone for long enough."""


def begun(task: BeginSearch, reporter: Reporter) -> dict[str, Any]:
    """The answer; or the parts, each with the search it goes on with, and `start`, the one that was dealt out."""
    began, out, states = time.monotonic(), Outbox(task.folder), _made(task.folder / "states")
    request = JobRequest.model_validate_json(task.request.read_bytes())
    until = began + min(task.seconds, FIRST * request.budget.seconds)
    model, cases = loaded(task.model), read_specification(request.specification_text()).cases
    report = told(reporter, 0, 1, Narrowing.of(model.graph, cases, began))
    alone = len(cases) != 1

    def progress(done: int, total: int, phase: str) -> None:
        report(done, total, phase)
        if not alone and isinstance(phase, Phase) and phase.divisible and time.monotonic() >= until:
            raise Enough

    try:
        means = (request.budget.seconds, task.device, states)
        return _answer(out, _certified(model, request, means, progress), began)
    except Enough:
        return _dealt(task, out, states)


def _dealt(task: BeginSearch, out: Outbox, states: Path) -> dict[str, Any]:
    (search,) = states.iterdir()
    shares = [_made(task.folder / f"share{number}") for number in range(task.parts)]
    opened = divide(search, [share / search.name for share in shares])
    same = {"request": out.put(task.request.read_bytes()), "items": 1}
    parts = [same | {"start": out.put(_packed(share))} for share in shares[: max(1, opened)]]
    return {"parts": parts, "start": out.put(_packed(states))}


def gone_on(task: GoOn, reporter: Reporter) -> dict[str, Any]:
    """A result that counts where it is a counterexample, and `start`, the searches as far as they got."""
    began, out = time.monotonic(), Outbox(task.folder)
    request = JobRequest.model_validate_json(task.request.read_bytes())
    states = _unpacked(task.start, task.folder / "states")
    model, device = loaded(task.model), require_device(task.device)
    problem = Problem(model.graph, [], device=device)
    network = network_of(model.graph.to(device, problem.dtype), problem.dtype)
    keys = {names(path)[1] for path in states.iterdir()}
    cases = [c for c in read_specification(request.specification_text()).cases if key_of(network, c) in keys]
    problem = Problem(model.graph, cases, model.executor, device, seed=request.seed, state=states / NAME, part=True)
    budget = Budget(THEN * request.budget.seconds, began)
    found = backend(METHOD).solve(problem, budget, told(reporter, 0, len(cases)))
    item = combined(found.outcomes)
    return _answer(out, item, began) | {"reusable": False, "start": out.put(_packed(states))}


def concluded(task: Conclude, reporter: Reporter) -> dict[str, Any]:
    """The answer of the whole job."""
    began, out = time.monotonic(), Outbox(task.folder)
    for part in task.parts:
        if part.verdict == Verdict.FALSIFIED and part.result is not None:
            return answered(out, JobResult.model_validate_json(part.result.read_bytes()))
    request = JobRequest.model_validate_json(task.request.read_bytes())
    whole = _unpacked(task.start, task.folder / "whole")
    grown = [_unpacked(part.start, task.folder / f"part{k}") for k, part in enumerate(task.parts)]
    states = _made(task.folder / "states")
    for search in whole.iterdir():
        join(search, [folder / search.name for folder in grown], states / search.name)
    seconds = (1 - FIRST - THEN) * request.budget.seconds
    result = _certified(loaded(task.model), request, (seconds, task.device, states), told(reporter, 0, 1))
    return _answer(out, result, began)


def _certified(
    model: LoadedModel, request: JobRequest, means: tuple[float, str, Path], progress: Progress
) -> ItemResult:
    """means: seconds, device, and the folder in which searches are kept."""
    seconds, device, states = means
    wanted = (request.method, seconds, device, request.seed, request.certificates, request.semantics)
    options = Options(*wanted, state=states / NAME)
    specification = read_specification(request.specification_text())
    (result,) = certify(model, [specification], options, progress)
    return result


def _answer(out: Outbox, result: ItemResult, began: float) -> dict[str, Any]:
    stats = {"seconds": time.monotonic() - began}
    return answered(out, report([Point(None, None)], [result], stored(out, [result]), stats))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _packed(folder: Path) -> bytes:
    """The files of a folder in one, as they are: they are compressed already."""
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return data.getvalue()


def _unpacked(packed: Path, folder: Path) -> Path:
    """The folder again."""
    folder.mkdir()
    with zipfile.ZipFile(packed) as archive:
        for name in archive.namelist():
            (folder / Path(name).name).write_bytes(archive.read(name))
    return folder
