"""provenn.toml, or [tool.provenn] of pyproject.toml: the models of a gate and what has to hold of each."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from provenn.api.files import InvalidFile
from provenn.verifier.errors import InvalidSpecification, ProvennError
from provenn.verifier.numbers import spoken, written

NAMES = ("provenn.toml", "pyproject.toml")
TOOL = ("tool", "provenn")
LARGEST_RADIUS = 10**30

_HEADER = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?")


class InvalidConfig(ProvennError):
    """The gate's configuration makes no sense: `path` is the file, `table` and `key` say where in it."""

    def __init__(self, path: Path, table: str, key: str, reason: str) -> None:
        self.path, self.table, self.key = str(path), table, key
        where = " ".join(part for part in (f"[{table}]" if table else "", key) if part)
        super().__init__(f"{path}: {where}: {reason}" if where else f"{path}: {reason}")


def _listed(given: Any) -> Any:
    """One stands for a list of one."""
    return given if isinstance(given, list) else [given]


def _least(given: Any) -> Any:
    """A number alone is `min`."""
    return [{"min": each} if isinstance(each, int | float) else each for each in _listed(given)]


def _most(given: Any) -> Any:
    """A number alone is `max`."""
    return [{"max": each} if isinstance(each, int | float) else each for each in _listed(given)]


def _radius(given: str | float) -> str | float:
    try:
        radius = spoken(given)
    except InvalidSpecification as error:
        raise PydanticCustomError(
            "radius", "{why}; give a radius such as 0.03 or '8/255'", {"why": str(error)}
        ) from None
    if not 0 <= radius <= LARGEST_RADIUS:
        raise PydanticCustomError("radius", "{given} is not a radius from 0 to 1e30", {"given": written(radius)})
    return given


def _ordered(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] >= given[1]:
        raise PydanticCustomError("range", "its first end must be below its second")
    return given


def _fails(message: str, key: str = "", **context: str) -> PydanticCustomError:
    """An error of the table that is being read, at this key of it."""
    return PydanticCustomError("table", message, {"key": key, **context})


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Whole = Annotated[int, Field(strict=True, ge=0, lt=1 << 32)]
Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Radius = Annotated[Annotated[float, Field(strict=True)] | Text, AfterValidator(_radius)]
Range = Annotated[tuple[Number, Number], AfterValidator(_ordered)]
Norm = Literal["inf", "2", "1"]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]


class Table(BaseModel):
    """A table: keys that it does not have are refused, with the nearest one that it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            raise _fails("a table is expected here, with {known}", known=", ".join(cls.model_fields))
        for key in given:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(key, cls.model_fields, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(cls.model_fields)}"
                raise _fails("this key is not known; {hint}", key, hint=hint)
        return given


class Accuracy(Table):
    """The least share of the inputs; radius, norm: where, instead of at all of the model's."""

    min: Share
    radius: Radius | None = None
    norm: Norm | None = None


class Lipschitz(Table):
    """The largest Lipschitz constant; norm, to, rows: as of `provenn lipschitz`."""

    max: Annotated[Number, Field(ge=0)]
    norm: Norm = "2"
    to: Norm | Literal["each"] | None = None
    rows: Text = "all"


class Monotone(Table):
    """Which features of a domain file the rows of outputs only rise, or only fall, with."""

    features: Texts
    domain: Text
    expect: Literal["increasing", "decreasing"]
    rows: Text = "all"


class Region(Table):
    """A box of inputs: lower <= x_i <= upper for every value, or all within a radius of every input of the data."""

    box: Range | None = None
    radius: Radius | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.box is None) == (self.radius is None):
            raise _fails("give either box = [lower, upper] or radius")
        return self


class Equivalence(Table):
    """Every output differs by less than delta from the other network's, for every input of the region."""

    other: Text
    delta: Annotated[Number, Field(gt=0)]
    region: Region


class Checks(Table):
    """What has to hold of a model."""

    clean_accuracy: Share | None = None
    certified_accuracy: Annotated[tuple[Accuracy, ...], BeforeValidator(_least)] = ()
    attacked_accuracy: Annotated[tuple[Accuracy, ...], BeforeValidator(_least)] = ()
    lipschitz: Annotated[tuple[Lipschitz, ...], BeforeValidator(_most)] = ()
    no_regression: Share | None = None
    monotone: Annotated[tuple[Monotone, ...], BeforeValidator(_listed)] = ()
    properties: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = ()
    equivalence: Annotated[tuple[Equivalence, ...], BeforeValidator(_listed)] = ()

    @property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """Certified ones, then attacked ones."""
        return self.certified_accuracy + self.attacked_accuracy

    @property
    def nothing(self) -> bool:
        """Whether no threshold is given; an empty list is none."""
        return all(value in (None, ()) for _, value in self)


class Preprocessing(Table):
    """y = (x / divide - mean) / std by channels, which come last in x if layout is hwc; a part of the model."""

    divide: Annotated[Number, Field(gt=0)] = 1.0
    mean: Annotated[tuple[Number, ...], Field(min_length=1)] = (0.0,)
    std: Annotated[tuple[Annotated[Number, Field(gt=0)], ...], Field(min_length=1)] = (1.0,)
    layout: Literal["chw", "hwc"] = "chw"


class Model(Table):
    """A network, its data, the radii and norms at which it is measured, and what has to hold of it."""

    file: Text
    preprocessing: Preprocessing | None = None
    data: Text | None = None
    labels: Text | None = None
    clip: Range | None = None
    norms: Annotated[tuple[Norm, ...], BeforeValidator(_listed), Field(min_length=1)] = ("inf",)
    radii: Annotated[tuple[Radius, ...], BeforeValidator(_listed)] = ()
    checks: Checks

    @model_validator(mode="after")
    def _enough(self) -> Self:
        checks = self.checks
        around = any(each.region.radius is not None for each in checks.equivalence)
        if checks.nothing:
            raise _fails("there is nothing to check; give thresholds, such as certified_accuracy", "checks")
        if self.data is None and (checks.accuracies or checks.clean_accuracy is not None or around):
            raise _fails("is missing: the checks of this model are about inputs", "data")
        if self.data is None and (self.labels is not None or self.radii):
            raise _fails("is missing: labels and radii belong to inputs", "data")
        if not self.radii and any(each.radius is None for each in checks.accuracies):
            raise _fails("is missing: at which radii? Give radii here, or radius in the check itself", "radii")
        if checks.no_regression is not None and not (self.data is not None or checks.lipschitz):
            raise _fails("no_regression is about accuracies or Lipschitz constants: give data, or lipschitz", "checks")
        return self

    def radii_in(self, norm: str) -> tuple[str | float, ...]:
        """At which it is measured in this norm: the model's, and those of its checks, each once, ascending."""
        found: dict[Fraction, str | float] = {}
        for radius in self.radii if norm in self.norms else ():
            found.setdefault(spoken(radius), radius)
        for check in self.checks.accuracies:
            if check.radius is not None and norm in ((check.norm,) if check.norm else self.norms):
                found.setdefault(spoken(check.radius), check.radius)
        if any(check.norm == norm and check.radius is None for check in self.checks.accuracies):
            found = {spoken(radius): radius for radius in self.radii} | found
        return tuple(found[value] for value in sorted(found))

    @property
    def measured(self) -> tuple[Norm, ...]:
        """The norms in which something is measured, each once."""
        named = [check.norm for check in self.checks.accuracies if check.norm is not None]
        return tuple(norm for norm in dict.fromkeys([*self.norms, *named]) if self.radii_in(norm))


class Gate(Table):
    """All of it; budget: seconds for everything; on_unknown: what an undecided check is; baseline: of no_regression."""

    budget: Annotated[Number, Field(gt=0)] = 300.0
    on_unknown: Literal["fail", "pass"] = "fail"
    seed: Whole = 0
    baseline: Text | None = None
    models: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$")], Model], Field(min_length=1)
    ]

    @model_validator(mode="after")
    def _with_baseline(self) -> Self:
        asking = [name for name, model in self.models.items() if model.checks.no_regression is not None]
        if asking and self.baseline is None:
            raise _fails("is missing: model {name} asks for no_regression against it", "baseline", name=asking[0])
        return self


@dataclass(frozen=True)
class Config:
    """A gate and the file that it is from; table: of the file, that holds it; text: of the file."""

    path: Path
    table: tuple[str, ...]
    text: str
    gate: Gate

    @property
    def root(self) -> Path:
        """The folder that names of files are relative to."""
        return self.path.parent

    def line(self, model: str, key: str) -> int:
        """Where the threshold of a model stands in the file, from 1; or the model, or the file's first line."""
        lines = self.text.splitlines()
        own = ".".join([*self.table, "models", model])
        found, inside = 1, False
        for number, text in enumerate(lines, start=1):
            if header := _HEADER.match(text):
                name = header[1].replace('"', "").replace("'", "").replace(" ", "")
                inside = name == own.replace(" ", "") or name.startswith(own.replace(" ", "") + ".")
                found = number if inside and found == 1 else found
                if inside and name.endswith(f".checks.{key}"):
                    return number
            elif inside and re.match(rf"\s*(checks\s*\.\s*)?{key}\s*[.=]", text):
                return number
        return found


def find_config(folder: Path) -> Path:
    """provenn.toml in a folder, or a pyproject.toml with [tool.provenn].   Raises: InvalidFile if neither is there."""
    for name in NAMES:
        path = folder / name
        if path.is_file() and (name == NAMES[0] or TOOL[1] in _parsed(path, _text(path)).get(TOOL[0], {})):
            return path
    reason = "is not there, and no pyproject.toml with [tool.provenn] either: write one, or give --config FILE"
    raise InvalidFile(folder / NAMES[0], reason)


def read_config(path: Path) -> Config:
    """The gate in a file.   Raises: InvalidFile; InvalidConfig naming file, table and key."""
    text = _text(path)
    content = _parsed(path, text)
    table = TOOL if path.name == NAMES[1] else ()
    for name in table:
        content = content.get(name, {})
    if not content:
        raise InvalidConfig(path, ".".join(table), "", "there is nothing here; docs/gate.md says what a gate is")
    try:
        return Config(path, table, text, Gate.model_validate(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = [*first["loc"], *([key] if (key := first.get("ctx", {}).get("key")) else [])]
        raise InvalidConfig(path, *_place(content, table, where), _said(first)) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidFile(path, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidFile(path, f"is not UTF-8 at byte {error.start}, as TOML has to be") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(path, "", "", f"is not TOML: {error}") from None


def _said(error: Mapping[str, Any]) -> str:
    """In our words where pydantic's say less than they could."""
    given = str(error["input"])[:60]
    match error["type"]:
        case "missing":
            return "is missing"
        case "literal_error":
            return f"{given!r} is not one of {error['ctx']['expected'].replace(' or ', ', ')}"
        case "table" | "radius" | "range":
            return str(error["msg"])
        case "string_pattern_mismatch":
            return f"{given!r} has characters that do not belong there"
    message = str(error["msg"])
    return f"{message[0].lower()}{message[1:]}, not {given!r}"


def _place(content: Any, table: Sequence[str], where: Sequence[str | int]) -> tuple[str, str]:
    """(table, key): the longest row of names that are tables with headers of their own, and what is left.

    Positions in lists that only pydantic sees, and the names of its alternatives, are left out.
    """
    names, key = list(table), ""
    for part in (part for part in where if part != "[key]"):
        below = content.get(part) if isinstance(content, dict) else None
        if isinstance(part, int):
            if isinstance(content, list):
                content, key = content[part] if part < len(content) else None, f"{key}[{part}]"
            continue
        if isinstance(content, dict) and isinstance(below, dict) and not key and len(names) - len(table) < 3:
            names, content = [*names, str(part)], below
        elif isinstance(content, dict):
            key, content = f"{key}.{part}" if key else str(part), below
    return ".".join(names), key
