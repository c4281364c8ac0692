"""What was reached once, in a JSON file under version control, and checks that it has not become worse since."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provenn.api.files import read_file
from provenn.api.gate import checks
from provenn.api.gate.config import Config
from provenn.api.gate.found import Item, canonical, sha256
from provenn.api.gate.plan import Check, Planned, constant_title, percent, planned, within
from provenn.api.gate.questions import Question, sample_digest
from provenn.verifier.errors import ProvennError

HOW = "run provenn gate --update-baseline, look at what has changed, and commit it"
Count = Annotated[int, Field(strict=True, ge=0)]


class InvalidBaseline(ProvennError):
    """The baseline cannot be compared with: `path` is its file, and the message says what to do."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = str(path)
        super().__init__(f"{path}: {reason}: {HOW}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AtRadius(_Part):
    """Of `total` inputs: how many were certified, and how many had no counterexample."""

    norm: str
    radius: str
    certified: Count
    attacked: Count


class Bounded(_Part):
    """A proved Lipschitz constant."""

    norm: str
    to: str | None
    rows: str
    upper: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Reached(_Part):
    """What a model reached; data: digest of the inputs and labels that it was measured with, inside clip.

    preprocessing: digest of what was put before the network.
    """

    data: str | None = None
    clip: tuple[float, float] | None = None
    preprocessing: str | None = None
    total: Count = 0
    clean: Count = 0
    radii: tuple[AtRadius, ...] = ()
    lipschitz: tuple[Bounded, ...] = ()


class Baseline(_Part):
    """What all models reached."""

    format: Literal["provenn-baseline/1"] = "provenn-baseline/1"
    models: dict[str, Reached] = {}


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file.   Raises: InvalidBaseline if it is missing or none."""
    if not path.exists():
        raise InvalidBaseline(path, "there is no baseline")
    try:
        return Baseline.model_validate_json(read_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidBaseline(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def recorded(config: Config, found: Mapping[Question, Sequence[Item]]) -> Baseline:
    """What was found of the models that are checked for regressions."""
    return Baseline(
        models={each.name: _reached(each, found) for each in planned(config) if each.regression is not None}
    )


def _reached(each: Planned, found: Mapping[Question, Sequence[Item]]) -> Reached:
    asked = each.robustnesses
    plain = [item for item in found[asked[0]] if item.radius is None] if asked else []
    radii = []
    for question in asked:
        for radius in question.radii:
            here = [item for item in found[question] if item.radius == radius]
            safe = sum(not item.refuted for item in here)
            proved = sum(item.proved and not item.refuted for item in here)
            radii.append(AtRadius(norm=question.norm, radius=radius, certified=proved, attacked=safe))
    constants = []
    for check in each.model.checks.lipschitz:
        (item,) = found[each.constant(check)]
        if item.proved and item.upper is not None:
            constants.append(Bounded(norm=check.norm, to=check.to, rows=check.rows, upper=item.upper))
    return Reached(
        data=_data(each),
        clip=_clip(each),
        preprocessing=_preprocessing(each),
        total=len(plain),
        clean=sum(item.predicted == item.label for item in plain),
        radii=tuple(radii),
        lipschitz=tuple(constants),
    )


def _data(each: Planned) -> str | None:
    return sample_digest(each.sample) if each.robustnesses else None


def _clip(each: Planned) -> tuple[float, float] | None:
    return each.model.clip if each.robustnesses else None


def _preprocessing(each: Planned) -> str | None:
    how = each.model.preprocessing
    return None if how is None else sha256(canonical(how.model_dump()))


def regressions(config: Config, baseline: Baseline, path: Path) -> Iterator[Check]:
    """A check a number that a model reached.   Raises: InvalidBaseline for another model, data, ..., or radii."""
    for each in planned(config):
        if (tolerance := each.regression) is None:
            continue
        if each.name not in baseline.models:
            raise InvalidBaseline(path, f"there is no model {each.name} in it")
        reached = baseline.models[each.name]
        _require_comparable(each, reached, path)
        if each.robustnesses:
            yield from _accuracies(each, tolerance, reached)
        yield from _constants(each, tolerance, reached, path)


def _require_comparable(each: Planned, reached: Reached, path: Path) -> None:
    """Raises: InvalidBaseline unless the model was measured with the same data, range, preprocessing and radii."""
    pairs = {
        "data": (reached.data, _data(each)),
        "clip": (reached.clip, _clip(each)),
        "preprocessing": (reached.preprocessing, _preprocessing(each)),
    }
    other = next((name for name, (then, now) in pairs.items() if then != now), None)
    if other is not None or (each.robustnesses and not reached.total):
        raise InvalidBaseline(path, f"model {each.name} was measured with other {other or 'data'}")
    known = [(at.norm, at.radius) for at in reached.radii]
    asked = [(str(question.norm), radius) for question in each.robustnesses for radius in question.radii]
    for norm, radius in asked:
        if (norm, radius) not in known:
            raise InvalidBaseline(path, f"model {each.name} was not measured {within(radius, norm)}")
    for norm, radius in known:
        if (norm, radius) not in asked:
            raise InvalidBaseline(path, f"model {each.name} is no longer measured {within(radius, norm)}")


def _accuracies(each: Planned, tolerance: Fraction, reached: Reached) -> Iterator[Check]:
    asked = each.robustnesses
    known = {(at.norm, at.radius): at for at in reached.radii}
    least, needed = _least(reached.clean, reached.total, tolerance)
    yield _check(each, "clean accuracy", needed, asked[0], partial(checks.clean, least=least))
    for question in asked:
        for radius in question.radii:
            at, where = known[question.norm, radius], within(radius, question.norm)
            least, needed = _least(at.certified, reached.total, tolerance)
            judge = partial(checks.certified, least=least, radius=radius)
            yield _check(each, f"certified accuracy {where}", needed, question, judge)
            if each.model.checks.attacked_accuracy:
                least, needed = _least(at.attacked, reached.total, tolerance)
                judge = partial(checks.attacked, least=least, radius=radius)
                yield _check(each, f"attacked accuracy {where}", needed, question, judge)


def _constants(each: Planned, tolerance: Fraction, reached: Reached, path: Path) -> Iterator[Check]:
    known = {(one.norm, one.to, one.rows): one for one in reached.lipschitz}
    for check in each.model.checks.lipschitz:
        one, title = known.get((check.norm, check.to, check.rows)), constant_title(check)
        if one is None:
            raise InvalidBaseline(path, f"it has no {title} of model {each.name}")
        most = Fraction(one.upper) * (1 + tolerance)
        needed = f"at most {float(most):.6g} ({one.upper:.6g} in the baseline)"
        yield _check(each, title, needed, each.constant(check), partial(checks.lipschitz, most=most))


def _least(count: int, total: int, tolerance: Fraction) -> tuple[Fraction, str]:
    least = max(Fraction(count, total) - tolerance, Fraction(0))
    return least, f"at least {percent(least)} ({percent(Fraction(count, total))} in the baseline)"


def _check(each: Planned, title: str, needed: str, question: Question, judge: partial[checks.Judged]) -> Check:
    return Check(each.name, "no_regression", f"no regression: {title}", needed, question, judge)


def as_text(baseline: Baseline) -> bytes:
    """The file: sorted, a line a number, so that a difference can be read."""
    return json.dumps(baseline.model_dump(mode="json"), indent=1, sort_keys=True).encode() + b"\n"
