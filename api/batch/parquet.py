"""Inputs and classes out of a .parquet file: one list column, or one column a coordinate, and the column `label`."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from provenn.api.batch.numbers import Array, floats, require_numbers
from provenn.api.files import InvalidFile
from provenn.verifier.errors import BackendError

LABEL = "label"
ROWS = 1024
"""That are read at a time."""
WIDTH = 8
"""Bytes of the widest number."""


def read_parquet(path: Path, shape: tuple[int, ...]) -> tuple[Array, list[int] | None]:
    """([n, inputs] in the columns' type, the classes; None if no column is named `label`).

    The inputs are the one other column, of lists of numbers, or all other columns in their order, of numbers.
    Raises: InvalidFile naming column and row; ResourceLimit by what the file declares; BackendError without pyarrow.
    """
    try:
        import pyarrow as arrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        advice = "pyarrow, which reads .parquet files, is not installed: pip install 'provenn[batch]'"
        raise BackendError("pyarrow", advice) from error
    try:
        with ParquetFile(path) as file:
            _require_size(path, file.metadata)
            table = arrow.Table.from_batches(_batches(path, file), file.schema_arrow)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidFile(path, f"is not a complete .parquet file: {str(error).splitlines()[0][:200]}") from error
    inputs = _inputs(path, table, prod(shape))
    require_numbers(path, inputs.size)
    return inputs, _labels(path, table)


def _require_size(path: Path, metadata: Any) -> None:
    """By what the file declares; its columns are not asked, since pyarrow 26 may abort the process on broken ones."""
    require_numbers(path, metadata.num_rows * metadata.num_columns)
    groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
    require_numbers(path, sum(group.total_byte_size for group in groups) // WIDTH)


def _batches(path: Path, file: Any) -> list[Any]:
    """The rows, as long as they are not larger than declared."""
    batches: list[Any] = []
    held = 0
    for batch in file.iter_batches(ROWS, use_threads=False):
        held += batch.nbytes
        require_numbers(path, held // WIDTH)
        batches.append(batch)
    return batches


def _inputs(path: Path, table: Any, size: int) -> Array:
    from pyarrow import types

    names = [name for name in table.column_names if name != LABEL]
    if not table.num_rows:
        raise InvalidFile(path, "holds no rows")
    if len(names) == 1 and (types.is_list(kind := table.schema.field(names[0]).type) or _other_list(kind)):
        return _lists(path, table, names[0], size)
    if len(names) != size:
        raise InvalidFile(
            path,
            f"has {len(names)} columns beside '{LABEL}'; the network takes {size} inputs: give one column each "
            "(without an index), or one column of lists",
        )
    columns = zip(table.column_names, table.columns, strict=True)
    return np.stack([_column(path, column, name) for name, column in columns if name != LABEL], axis=1)


def _other_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _lists(path: Path, table: Any, name: str, size: int) -> Array:
    """[n, size] of a column of lists."""
    from pyarrow import compute

    column = table.column(name)
    _require_whole(path, column, name)
    lengths = compute.list_value_length(column).to_numpy()
    other = np.flatnonzero(lengths != size)
    if len(other):
        row = int(other[0])
        raise InvalidFile(path, f"row {row} of column '{name}' has {lengths[row]} numbers; the network takes {size}")
    return _column(path, compute.list_flatten(column), f"{name}, flattened").reshape(-1, size)


def _column(path: Path, column: Any, name: str) -> Array:
    """The finite numbers of a column, as floats."""
    from pyarrow import types

    kind = column.type
    if not (types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)):
        raise InvalidFile(path, f"column '{name}' holds values of type {kind}; numbers are needed")
    _require_whole(path, column, name)
    numbers = floats(path, column.to_numpy())
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise InvalidFile(path, f"row {bad[0]} of column '{name}' is {numbers[bad[0]]}; every value must be finite")
    return numbers


def _labels(path: Path, table: Any) -> list[int] | None:
    from pyarrow import types

    if LABEL not in table.column_names:
        return None
    if table.column_names.count(LABEL) > 1:
        raise InvalidFile(path, f"has the column '{LABEL}' twice")
    column = table.column(LABEL)
    if not types.is_integer(column.type):
        raise InvalidFile(path, f"column '{LABEL}' holds values of type {column.type}; classes are whole numbers")
    _require_whole(path, column, LABEL)
    return [int(label) for label in column.to_numpy()]


def _require_whole(path: Path, column: Any, name: str) -> None:
    """Raises: InvalidFile if a row of the column holds nothing."""
    if column.null_count:
        empty = np.flatnonzero(column.is_null().to_numpy())[0]
        raise InvalidFile(path, f"row {empty} of column '{name}' is empty (null); every value must be there")
