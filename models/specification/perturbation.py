"""Kind "perturbation": an image x_0 changed by few numbers, x = clip(x_0 + M p), p in a box.

The map is put before the network, so that a certificate is about p -> f(x). A column of M a parameter:

    brightness   b in its range                1 (of the channels it names)
    contrast     c - 1, c in its range         x_0 - about
    linear       p_k in its range              the direction itself
    patch        the values in a rectangle     1 at an entry, x_0 being 0 there; or one value for all entries

What lies in a patch is the patch alone: other perturbations do not reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from provenn.models.admission import admitted
from provenn.models.parametrization import Map, parametrized
from provenn.models.specification.fields import Number, Range, Table, Vector, Whole, validated
from provenn.models.specification.image import Image, Layout
from provenn.models.specification.outputs import Goal
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import written
from provenn.verifier.spec import Case, InputSet
from provenn.verifier.spec_json import from_cases

CELLS = 20_000_000
"""Numbers in M, at most."""
Extent = Annotated[Whole, Field(ge=1)]


class Brightness(Table):
    """Every entry is raised by one number."""

    type: Literal["brightness"]
    range: Range


class Contrast(Table):
    """Every entry's distance from `about` is multiplied by one factor."""

    type: Literal["contrast"]
    range: Range = Field(description="of the factor; 1 changes nothing")
    about: Number = Field(Fraction(0), description="the value that stays as it is, such as the mean of all entries")


class Patch(Table):
    """A rectangle of the image, in all channels, that may have any values of a range."""

    type: Literal["patch"]
    top: Whole = Field(description="its first row, from 0")
    left: Whole = Field(description="its first column, from 0")
    height: Extent
    width: Extent
    range: Range = Field(description="of its values")
    uniform: bool = Field(
        False, strict=True, description="whether all of its entries have one value: one parameter, not one each"
    )


class Linear(Table):
    """Directions that are added, each times a number of its own in the range."""

    type: Literal["linear"]
    directions: Annotated[tuple[Vector, ...], Field(min_length=1)] = Field(description="each flat, as the input")
    range: Range


Perturbation = Annotated[Brightness | Contrast | Patch | Linear, Field(discriminator="type")]


class Document(Goal):
    """An input, how it may be perturbed, and what must not come out."""

    kind: Literal["perturbation"]
    input: Vector = Field(description="flat, in C order")
    perturbations: Annotated[tuple[Perturbation, ...], Field(min_length=1)]
    clip: Range | None = Field(None, description="the range that every entry is cut to, such as [0, 1]")
    shape: tuple[Extent, ...] = Field((), description="of the image, for patches; empty: that of the network's inputs")
    layout: Layout = "chw"


@dataclass
class Parameters:
    """What perturbations add up to: the base image, directions with the ends of their parameters, and words.

    free: entries of the image that no patch covers, yet.
    """

    base: NDArray[np.float64]
    free: NDArray[np.bool_]
    directions: list[NDArray[np.float64]] = field(default_factory=list)
    ends: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def add(self, direction: NDArray[np.float64], ends: tuple[Fraction, Fraction]) -> None:
        """One more parameter.   Raises: ResourceLimit."""
        self.directions.append(direction)
        self.ends.append(ends)
        if len(self.directions) * self.base.size > CELLS:
            raise ResourceLimit("parameters times inputs of a perturbation", str(CELLS))


def stated(document: Mapping[str, Any], model: bytes, files: Callable[[str], bytes]) -> Stated:
    """The network behind the map, and the box of its parameters.

    Raises: InvalidSpecification naming the key; ResourceLimit; InvalidModel, UnsupportedOp as for any network.
    """
    asked = validated(Document, document)
    network = admitted(model)
    inputs, outputs = network.input.held_shape, int(np.prod(network.output.held_shape))
    size = int(np.prod(inputs))
    if len(asked.input) != size:
        raise InvalidSpecification(f'"input" has {len(asked.input)} numbers, but the network has {size} inputs')
    excluded = asked.excluded(outputs)
    _require_held(asked, network.input_type)
    if asked.shape:
        Image.of(asked.shape, inputs, asked.layout)
    found = parameters(asked, inputs)
    clip = None if asked.clip is None else (float(asked.clip[0]), float(asked.clip[1]))
    composed = parametrized(model, Map(found.base, np.array(found.directions), clip))
    lower, upper = zip(*found.ends, strict=True)
    box = InputSet(tuple(lower), tuple(upper))
    words = f"{asked.wins} for {' and '.join(found.words)}{_manner(asked, found, network.input_type)}"
    return Stated(composed, from_cases([Case(box, excluded)]), words)


def _require_held(asked: Document, kind: np.dtype[np.floating]) -> None:
    """Raises: InvalidSpecification naming where a number is that `kind`, in which the network computes, has not."""
    named: list[tuple[str, Iterable[Fraction]]] = [('"input"', asked.input), ('"clip"', asked.clip or ())]
    for number, each in enumerate(asked.perturbations):
        where = f'"perturbations"[{number}]'
        if isinstance(each, Contrast):
            named.append((f'{where}."about"', [x - each.about for x in asked.input]))
        elif isinstance(each, Linear):
            named += [(f'{where}."directions"[{place}]', row) for place, row in enumerate(each.directions)]
    most = Fraction(float(np.finfo(kind).max))
    for where, numbers in named:
        if any(abs(x) > most for x in numbers):
            raise InvalidSpecification(f"{where}: a number is too large for {kind}, in which the network computes")


def _manner(asked: Document, found: Parameters, kind: np.dtype[np.floating]) -> str:
    """What else there is to know of the map."""
    said = [", their changes added up"] if len(found.words) > 1 else []
    said += [] if asked.clip is None else [f", cut to [{written(asked.clip[0])}, {written(asked.clip[1])}]"]
    moved = (x for row in _rows(asked) for x, free in zip(row, found.free.tolist(), strict=True) if free)
    exact = all(Fraction(float(kind.type(float(x)))) == x for x in chain(moved, asked.clip or ()))
    return "".join(said if exact else [*said, f" (numbers of the map rounded to {kind})"])


def _rows(asked: Document) -> Iterator[Iterable[Fraction]]:
    """The numbers of the map as they are written, an entry of the image each."""
    yield asked.input
    for each in asked.perturbations:
        if isinstance(each, Contrast):
            yield (x - each.about for x in asked.input)
        elif isinstance(each, Linear):
            yield from each.directions


def parameters(asked: Document, inputs: tuple[int, ...]) -> Parameters:
    """Those of all perturbations in order, for inputs of this shape.   Raises: InvalidSpecification, ResourceLimit."""
    base = np.array([float(x) for x in asked.input])
    found = Parameters(base, np.ones(len(base), bool))
    patches = [(number, p) for number, p in enumerate(asked.perturbations) if isinstance(p, Patch)]
    areas = {number: _covered(found, asked, number, patch, inputs) for number, patch in patches}
    for number, each in enumerate(asked.perturbations):
        low, high = each.range
        shift = 1 if isinstance(each, Contrast) else 0
        rows = _patched(each, areas[number]) if isinstance(each, Patch) else _moving(each, number, asked.input)
        for row in rows:
            found.add(row if isinstance(each, Patch) else np.where(found.free, row, 0.0), (low - shift, high - shift))
        found.words.append(_worded(each, f"in [{written(low)}, {written(high)}]"))
    return found


def _patched(patch: Patch, area: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """1 in all of it, or at one entry after the other."""
    entries = np.flatnonzero(area)
    for chosen in [entries] if patch.uniform else entries[:, None]:
        direction = np.zeros(area.size)
        direction[chosen] = 1.0
        yield direction


def _moving(each: Brightness | Contrast | Linear, number: int, exact: Vector) -> Iterator[NDArray[np.float64]]:
    """Where one parameter after the other moves the entries to."""
    if isinstance(each, Brightness):
        yield np.ones(len(exact))
    elif isinstance(each, Contrast):
        yield np.array([float(x - each.about) for x in exact])
    else:
        for place, direction in enumerate(each.directions):
            if len(direction) != len(exact):
                where = f'"perturbations"[{number}]."directions"[{place}]'
                raise InvalidSpecification(f"{where} has {len(direction)} numbers for {len(exact)} inputs")
            yield np.array([float(x) for x in direction])


def _worded(each: Perturbation, within: str) -> str:
    match each:
        case Brightness():
            return f"every brightness {within} that is added"
        case Contrast():
            return f"every factor {within} of contrast"
        case Linear():
            return f"all multiples {within} of {len(each.directions)} directions"
        case Patch():
            values = "every single value" if each.uniform else "all values"
            return f"{values} {within} of a patch of {each.height} x {each.width}"


def _covered(
    found: Parameters, asked: Document, number: int, patch: Patch, inputs: tuple[int, ...]
) -> NDArray[np.bool_]:
    """The patch's entries, which are 0 in the base from now on.   Raises: InvalidSpecification."""
    image = Image.of(asked.shape, inputs, asked.layout)
    try:
        area = image.rectangle(patch.top, patch.left, patch.height, patch.width)
    except InvalidSpecification as error:
        raise InvalidSpecification(f'"perturbations"[{number}]: {error}') from None
    if not found.free[area].all():
        raise InvalidSpecification(f'"perturbations"[{number}]: it overlaps with another patch')
    found.free[area], found.base[area] = False, 0.0
    return area
