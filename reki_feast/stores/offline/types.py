"""Arrow types as Feast's DuckDB store shows them, on the way into DuckDB and out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import pyarrow as pa
from ibis.formats.pyarrow import PyArrowType

_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)


def feast_type(kind: pa.DataType) -> pa.DataType:
    """The type Feast's store gives a column that DuckDB gives this type.

    >>> feast_type(pa.time64("us"))
    Time64Type(time64[ns])
    """
    if pa.types.is_interval(kind):
        return kind  # Feast's fails there
    if pa.types.is_dictionary(kind):
        return feast_type(kind.value_type)
    return PyArrowType.from_ibis(PyArrowType.to_ibis(kind))


def result_schema(
    schema: pa.Schema, columns: Sequence[str], types: Mapping[str, pa.DataType]
) -> pa.Schema:
    """The schema of a result.

    Args:
        schema: as DuckDB gives it.
        columns: names of the columns; empty to keep DuckDB's.
        types: types by name, where DuckDB's is not the one to show.
    """
    names = columns or schema.names
    return pa.schema(
        [
            (name, types[name] if name in types else feast_type(field.type))
            for name, field in zip(names, schema, strict=True)
        ]
    )


def cast_rows(rows: _Rows, schema: pa.Schema) -> _Rows:
    """Rows under another schema, column by column; what has its type already is not copied."""
    if rows.schema.equals(schema):
        return rows
    columns = [_cast(rows.column(n), field.type) for n, field in enumerate(schema)]
    return type(rows).from_arrays(columns, schema=schema)


def to_duckdb(table: pa.Table) -> tuple[pa.Table, dict[str, pa.DataType]]:
    """A table for DuckDB, and the types in which its columns are shown again.

    Times are counted in microseconds, as DuckDB's are.
    """
    shown = {field.name: _from_pandas(field.type) for field in table.schema}
    columns = [
        _cast(table.column(n), _for_duckdb(field.type, shown[field.name]))
        for n, field in enumerate(table.schema)
    ]
    return pa.table(columns, names=table.column_names), shown


def _from_pandas(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return kind if pa.types.is_duration(kind) else feast_type(kind)


def _for_duckdb(kind: pa.DataType, shown: pa.DataType) -> pa.DataType:
    if pa.types.is_duration(kind):
        return pa.int64()  # DuckDB's own intervals come back as months, days and nanoseconds
    return shown if pa.types.is_timestamp(kind) or pa.types.is_dictionary(kind) else kind


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if column.type == kind:
        return column
    if pa.types.is_null(kind):
        return pa.nulls(len(column))
    return column.cast(kind, safe=False)
