"""Interactions that embeddings are learnt from, checked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import CondenseError
from reki_feast.schema import Key

#: Earlier interactions that DIN attends to.
HISTORY = 10


def training_rows(interactions: pa.Table, ids: pa.Array, user: Key, item: Key) -> pa.Table:
    """The interactions with these items, each a sample."""
    check_columns(interactions, [user.name, item.name, "liked", "order"], "interactions")
    columns = {
        user.name: interactions[user.name].cast(user.type),
        item.name: interactions[item.name].cast(item.type),
        **{
            name: interactions[name]
            for name in ("liked", "order", "rating")
            if name in interactions.column_names
        },
        "sample": pa.array(np.ones(interactions.num_rows, np.bool_)),
    }
    return pa.table(columns).filter(pc.is_in(columns[item.name], value_set=ids))


def of_drawn(rows: pa.Table, user: Key, drawn: pa.Array) -> pa.Table:
    """The same interactions, of which those of drawn users alone are samples."""
    at = rows.column_names.index("sample")
    return rows.set_column(at, "sample", pc.is_in(rows[user.name], value_set=drawn))


def check_labels(interactions: pa.Table) -> None:
    """There is something to learn.

    Raises:
        CondenseError: there are no interactions, or all are liked or none is.
    """
    count, liked = interactions.num_rows, pc.sum(interactions["liked"]).as_py() or 0
    own = 'hand in your own: Sources(embeddings="select item_id, vector from …")'
    if not count:
        rule = "embeddings are learnt from interactions with items of the items table"
        raise CondenseError(rule, detail="none", hint=own)
    if liked in (0, count):
        rule = "embeddings are learnt from interactions of which some are liked and some are not"
        raise CondenseError(rule, detail=f"{liked} liked of {count}", hint=own)


def check_columns(table: pa.Table, wanted: Sequence[str], name: str) -> None:
    """The table has these columns.

    Raises:
        CondenseError: one is missing.
    """
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        raise CondenseError(
            f"{name} have the columns {', '.join(wanted)}",
            detail=f"no {', '.join(missing)}; there are: {', '.join(table.column_names)}",
            hint=f"select them in the {name} query, or name columns that are there",
        )
