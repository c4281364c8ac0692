"""Inputs and classes out of a .csv file: a row an input, a column a coordinate, one column of classes."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import isfinite, nan, prod
from pathlib import Path

import numpy as np

from provenn.api.batch.numbers import require_numbers
from provenn.api.files import InvalidFile, read_file

LABEL = "label"
Row = list[str]


@dataclass(frozen=True)
class _Columns:
    """How many columns of inputs there are, and which one holds the classes, if one does."""

    path: Path
    inputs: int
    label: int | None

    def require_count(self, row: Row, line: int) -> None:
        """Raises: InvalidFile unless the row has as many cells as there are columns."""
        if len(row) != self.inputs + (self.label is not None):
            classes = "" if self.label is None else " and one of classes"
            message = f"has {len(row)} columns; {self.inputs} of inputs{classes} are needed, separated by commas"
            raise _wrong(self.path, line, message)

    def parts(self, row: Row, line: int) -> tuple[list[float], int]:
        """(the coordinates, the class or 0 where no column has it).   Raises: InvalidFile naming the cell."""
        self.require_count(row, line)
        texts = row if self.label is None else row[: self.label] + row[self.label + 1 :]
        try:
            numbers = list(map(float, texts))
        except ValueError:
            numbers = [nan]
        if not all(map(isfinite, numbers)) or "_" in "".join(texts):
            cell = next(i for i, text in enumerate(row) if i != self.label and _number(text) is None)
            raise _wrong(self.path, line, f"column {cell + 1} must be a finite number, not '{row[cell][:40]}'")
        return numbers, 0 if self.label is None else self._class(row[self.label], self.label + 1, line)

    def _class(self, text: str, column: int, line: int) -> int:
        number = _number(text)
        if number is None or not number.is_integer():
            raise _wrong(self.path, line, f"column {column} must be the number of a class, not '{text[:40]}'")
        return int(number)


def read_csv(path: Path, shape: tuple[int, ...], labelled: bool) -> tuple[np.ndarray, list[int] | None]:
    """([n, inputs] in float64, the classes; None unless `labelled`).

    The first line is a header if a cell of it is `label`, or none is a number. The classes are in the column `label`,
    or in the last one.   Raises: InvalidFile naming line and column; ResourceLimit.
    """
    rows = _rows(path)
    start, first = next(rows, (0, []))
    names = [cell.strip().lower() for cell in first]
    header = LABEL in names or all(_number(cell) is None for cell in first)
    if LABEL in names and not labelled:
        raise InvalidFile(path, "has a column 'label' with the class of every input; leave the labels out")
    label = names.index(LABEL) if LABEL in names else len(first) - 1
    columns = _Columns(path, prod(shape), label if labelled else None)
    numbers, labels = array("d"), []
    if first:
        columns.require_count(first, start)
    for line, row in rows if header else chain([(start, first)], rows):
        coordinates, found = columns.parts(row, line)
        numbers.extend(coordinates)
        labels.append(found)
        require_numbers(path, len(numbers))
    if not labels:
        raise InvalidFile(path, "holds no rows of numbers")
    return np.frombuffer(numbers).reshape(len(labels), -1), labels if labelled else None


def _wrong(path: Path, line: int, message: str) -> InvalidFile:
    return InvalidFile(path, f"line {line}: {message}")


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line, cells) of every row that is not blank."""
    text = io.TextIOWrapper(io.BytesIO(read_file(path)), encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise _wrong(path, reader.line_num, f"not a table with commas: {error}") from error
    except UnicodeDecodeError as error:
        raise _wrong(path, reader.line_num + 1, "here or soon after a byte is not UTF-8") from error


def _number(text: str) -> float | None:
    """The finite number that is written there, if one is."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and "_" not in text else None
