"""What differs between versions of DuckDB, from 1.4 on: the ways from a query to Arrow.

1.5 brought ``to_arrow_table`` and ``to_arrow_reader``, and 2.0 took ``fetch_arrow_table`` from
connections. Everything else that the stores ask of DuckDB is SQL, or an interface of all versions.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

#: Asked of the class: a relation takes an attribute that it lacks for a column.
_HAS_NEW_NAMES = hasattr(duckdb.DuckDBPyRelation, "to_arrow_reader")


def arrow_table(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """All rows of a SELECT."""
    if _HAS_NEW_NAMES:  # of a relation: a connection's result copies the rows
        relation: Any = connection.sql(sql)
        return relation.to_arrow_table()
    result: Any = connection.execute(sql)  # which 1.4 runs in two thirds of a relation's time
    return result.fetch_arrow_table()


def arrow_reader(
    connection: duckdb.DuckDBPyConnection, sql: str, rows: int
) -> pa.RecordBatchReader:
    """The rows of a SELECT as a stream, about `rows` at a time."""
    if _HAS_NEW_NAMES:
        relation: Any = connection.sql(sql)
        return relation.to_arrow_reader(rows)
    result: Any = connection.execute(sql)
    return result.fetch_record_batch(rows)
