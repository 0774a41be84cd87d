"""Checks of the keys of a join: of one kind on both sides, and exact.

DuckDB compares a float with an integer as floats, where 2^53 and 2^53 + 1 are one number; True with
1; and a text with whatever it can be read as.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd
import pyarrow as pa
from feast import FeatureView

from reki_feast.errors import StoreError
from reki_feast.stores.exact import largest_inexact
from reki_feast.stores.ids import check_exact

from .entities import Entities
from .plan import ViewTable
from .query import name

_NUMBERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}
_NUMBERS |= {"INTEGER", "UINTEGER", "FLOAT", "DOUBLE", "DECIMAL"}
#: Whole numbers from here on have neighbours that a float of the type takes for them.
_EXACT = {"FLOAT": 2**24, "DOUBLE": 2**53}


def check_keys(
    connection: duckdb.DuckDBPyConnection, entities: Entities, tables: Sequence[ViewTable]
) -> None:
    """See that keys can be compared, and that floats among them are exact.

    Args:
        connection: of DuckDB; a column of keys is read only where it holds floats.
        entities: the rows.
        tables: of the views.

    Raises:
        StoreError: a key is text or bool on one side only, or has floats too large to be exact.
    """
    checked: set[str] = set()
    for table in tables:
        for row_key, key in table.keys.items():
            row_column, source_column = entities.column(row_key), table.column(key)
            rows_kind = entities.kinds[int(row_column[1:])]
            kind = table.source.types[source_column]
            _check_kinds(row_key, rows_kind, kind, table.view.name)
            if row_key not in checked:
                checked.add(row_key)
                what = f"{row_key} in the entity rows"
                check_floats(connection, what, row_column, rows_kind, entities.relation)
            what = f"{source_column} in the source of {table.view.name}"
            check_floats(connection, what, name(source_column), kind, table.source.scan)


def check_frame(rows: pd.DataFrame, views: Sequence[FeatureView]) -> None:
    """The same of entity rows for Feast's own store, whatever its sources.

    Raises:
        StoreError: a key has floats too large to be exact.
    """
    for view in views:
        renamed = view.projection.join_key_map or {}
        for key in view.entity_columns:
            column = renamed.get(key.name, key.name)
            if column in rows and pd.api.types.is_float_dtype(rows[column].dtype):
                ids = pa.array(rows[column], from_pandas=True)
                check_exact(f"{column} in the entity rows", largest_inexact(ids), str(ids.type))


def _check_kinds(row_key: str, rows_kind: str, kind: str, view: str) -> None:
    kinds = {rows_kind.split("(")[0], kind.split("(")[0]}
    alone = kinds & {"VARCHAR", "BOOLEAN"}
    if (alone and kinds - alone & _NUMBERS) or len(alone) > 1:
        by = "by way of whole numbers: 7.0 is not the text 7"
        floats = kinds & _EXACT.keys()
        raise StoreError(
            f"Key {row_key} of the entity rows has the type of the source of {view}",
            detail=f"{rows_kind} in the entity rows, {kind} in the source",
            hint=f"convert {row_key} in the entity rows{', ' + by if floats else ''}",
        )


def check_floats(
    connection: duckdb.DuckDBPyConnection, what: str, column: str, kind: str, relation: str
) -> None:
    """Refuse a column of keys with floats too large to be exact; any other is not read.

    Args:
        connection: of DuckDB.
        what: the column, for the message.
        column: its SQL.
        kind: its type.
        relation: what it is a column of.

    Raises:
        StoreError: it has such floats.
    """
    exact = _EXACT.get(kind)
    if exact is None:
        return
    sql = f"SELECT max(abs({column})) FROM {relation} WHERE isfinite({column})"
    ((largest,),) = connection.execute(sql).fetchall()
    check_exact(what, largest if (largest or 0) >= exact else None, kind)
