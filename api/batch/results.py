"""What a batch leaves in a folder: results.jsonl, results.parquet and summary.json, beside batch.zip (work.py)."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

from provenn.api.batch.question import Question
from provenn.api.batch.rows import Row
from provenn.api.batch.summary import Summary
from provenn.api.batch.writing import whole

RESULTS, TABLE, SUMMARY, BUNDLE = "results.jsonl", "results.parquet", "summary.json", "batch.zip"
GROUP = 1024
"""Rows of a Parquet file that are in memory together."""


class Rows(Sequence[Row]):
    """The rows of a results file, each read when it is asked for: counterexamples of many inputs need not fit."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._ends = [0]
        while (end := self._text.find(b"\n", self._ends[-1])) >= 0:
            self._ends.append(end + 1)

    def __len__(self) -> int:
        """How many."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """One, or a list of some."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return Row.from_json(self._text[self._ends[place] : self._ends[place + 1]])

    def __iter__(self) -> Iterator[Row]:
        """In their order."""
        return (self[place] for place in range(len(self)))


def write_rows(path: Path, rows: Iterable[Row]) -> Rows:
    """Writes them, a line each, and returns them as they are there.   Raises: OSError."""
    with whole(path) as file:
        for row in rows:
            file.write(row.line())
    return Rows(path)


def write_summary(path: Path, summary: Summary, question: Question, root: str | None, seconds: float) -> None:
    """Writes the summary as JSON.   Raises: OSError."""
    content = {"question": question.as_json(), "root": root, "seconds": seconds, **summary.as_json()}
    with whole(path) as file:
        file.write(json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def write_parquet(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows as a table, counterexamples as lists of float32; needs pyarrow.   Raises: OSError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words, reals = ("name", "verdict", "method"), ("epsilon", "margin", "seconds", "certified", "attacked")
    kinds = {name: pa.int64() for name in ("index", "label", "predicted")} | {name: pa.string() for name in words}
    kinds |= {name: pa.float64() for name in reals}
    kinds |= {name: pa.string() for name in ("assurance", "reason", "certificate", "input_sha256")}
    kinds["counterexample"] = pa.list_(pa.float32())
    schema = pa.schema([(name, kinds[name]) for name in Row.__dataclass_fields__])
    each = iter(rows)
    with whole(path) as file, pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(each, GROUP)):
            told = [row.as_json() | {"name": row.name.encode(errors="replace").decode()} for row in group]
            writer.write_table(pa.Table.from_pylist(told, schema=schema))
