"""Vectors that the user hands in to form groups by, checked."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.declare import Declarations
from reki_feast.errors import Problem, SourceError
from reki_feast.schema import TIMESTAMP, VECTOR, Key, Kind
from reki_feast.stores.exact import largest_inexact
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.parts import newest
from reki_feast.tables.sources import Given, Source

Floats = npt.NDArray[np.float32]


def source_of(declared: Declarations, kind: Kind) -> Source | None:
    """The query or function that hands in vectors of a kind, None without one."""
    sources = declared.sources
    return sources.embeddings if kind == "item" else sources.user_embeddings


def read(
    declared: Declarations, root: Path, kind: Kind, key: Key, as_of: datetime
) -> tuple[pa.Array, Floats] | None:
    """Ids and float32 ``[n, d]``, the newest vector of each id up to ``as_of``; None without any.

    Raises:
        SourceError: the source fails, or its table breaks a rule; all faults at once.
    """
    source = source_of(declared, kind)
    if source is None:
        return None
    name = "embeddings" if kind == "item" else "user_embeddings"
    with contextlib.closing(DuckDBSession(root, declared.sources.setup)) as session:
        table = Given(source, session, root).read()
    faults = _column_faults(table, key, name)
    if faults:
        raise SourceError(faults)
    table = _as_of(_as_floats(table), key, as_of)
    ids = table[key.name].cast(key.type).combine_chunks()
    faults = _row_faults(table, ids, key, name)
    if faults:
        raise SourceError(faults)
    flat = pc.list_flatten(table["vector"]).to_numpy()
    return ids, np.ascontiguousarray(flat.reshape(len(ids), -1), np.float32)


def _column_faults(table: pa.Table, key: Key, name: str) -> list[Problem]:
    has = ", ".join(table.column_names)
    faults = [
        Problem(f"{name}: has a column {column}", has, f"select … as {column} in the {name} query")
        for column in (key.name, "vector")
        if column not in table.column_names
    ]
    if not faults and (largest := largest_inexact(table[key.name])) is not None:
        found = f"floats up to {largest:.0f}, of digits that a float does not keep"
        hint = f"select {key.name}::bigint … before it becomes a float (in pandas, Int64)"
        faults.append(Problem(f"{name}.{key.name}: ids are whole", found, hint))
    if not faults and not _is_list(table["vector"].type):
        rule, hint = f"{name}.vector: is a list of numbers", "select [x, y, …] as vector"
        faults.append(Problem(rule, str(table["vector"].type), hint))
    return faults


def _is_list(kind: Any) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    inner = kind.value_type
    numbers = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)
    return any(fits(inner) for fits in numbers)


def _as_floats(table: pa.Table) -> pa.Table:
    """Vectors as lists of float32; DuckDB gives decimals for literals."""
    at = table.column_names.index("vector")
    wide = table["vector"].cast(pa.list_(pa.float64()))
    return table.set_column(at, "vector", wide.cast(VECTOR, safe=False))


def _as_of(table: pa.Table, key: Key, as_of: datetime) -> pa.Table:
    if "event_timestamp" not in table.column_names:
        return table
    times = table["event_timestamp"].cast(TIMESTAMP, safe=False)
    dated = pa.table({key.name: table[key.name], "vector": table["vector"]})
    for name in ("event_timestamp", "created_timestamp"):
        dated = dated.append_column(name, times)
    return newest(dated.filter(pc.less_equal(times, pa.scalar(as_of, TIMESTAMP))), [key.name])


def _row_faults(table: pa.Table, ids: pa.Array, key: Key, name: str) -> list[Problem]:
    faults = []
    if ids.null_count:
        hint = f"add «where {key.name} is not null»"
        faults.append(Problem(f"{name}.{key.name}: no id is null", f"{ids.null_count} nulls", hint))
    if len(ids.unique()) < len(ids):
        found = f"{len(ids) - len(ids.unique())} rows too many"
        hint = "keep one row an id, or select event_timestamp too"
        faults.append(Problem(f"{name}.{key.name}: each id once", found, hint))
    vectors = table["vector"]
    lengths = pc.unique(pc.list_value_length(vectors)).to_pylist()
    flat = pc.list_flatten(vectors)
    if len(lengths) > 1 or None in lengths:
        found = f"lengths {', '.join(map(str, lengths[:5]))}"
        faults.append(
            Problem(f"{name}.vector: all have one length", found, "mend or drop the rows")
        )
    if flat.null_count or not pc.all(pc.is_finite(flat), min_count=0).as_py():
        found = "null, NaN or infinity in some"
        faults.append(Problem(f"{name}.vector: numbers are finite", found, "drop those rows"))
    return faults
