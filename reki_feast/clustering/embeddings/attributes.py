"""Attributes of items and users: vocabularies, integer codes and concatenated embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from reki_feast.clustering.embeddings.interactions import check_columns
from reki_feast.encoding import Floats
from reki_feast.errors import CondenseError
from reki_feast.models.fields import Fields, is_list, make_fields
from reki_feast.models.inputs import average
from reki_feast.schema import Key

#: The values of each attribute column, as text; value n has row n + 1 of the column's embeddings.
Vocabularies = Mapping[str, pa.Array]


def attributes_of(table: pa.Table | None, key: Key, columns: Sequence[str], name: str) -> pa.Table:
    """The key and the attribute columns as text or lists of text.

    Raises:
        CondenseError: a column is missing or not of categories, or the table is.
    """
    if table is None and not columns:
        return pa.table({key.name: pa.array([], key.type)})
    if table is None:
        found = f"no {name} table, for {', '.join(columns)}"
        raise CondenseError(f"{name} have the attributes that are named", detail=found)
    check_columns(table, [key.name, *columns], name)
    texts = {column: _as_text(table[column], f"{name}.{column}") for column in columns}
    return pa.table({key.name: table[key.name].cast(key.type), **texts})


def _as_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.list_(pa.string()) if is_list(column.type) else pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise CondenseError(
            f"{name}: an attribute is a category, or a list of them",
            detail=str(column.type),
            hint=f"cast it in the query, or leave {name} out",
        ) from error


def vocabularies_of(table: pa.Table, known: Vocabularies | None = None) -> Vocabularies:
    """The values of each attribute: those of ``known``, then new ones, sorted."""
    vocabularies = {}
    for column in table.column_names[1:]:
        values = _values_of(table[column])
        vocabularies[column] = appended(known[column] if known else values[:0], values.sort())
    return vocabularies


def used_values(table: pa.Table | None, vocabularies: Vocabularies) -> Mapping[str, pa.Array]:
    """Mask of the values of each vocabulary that occur in the table, which may lack columns."""
    columns = {} if table is None else dict(zip(table.column_names, table.columns, strict=True))
    used = {}
    for column, vocabulary in vocabularies.items():
        cells = columns.get(column)
        values = vocabulary[:0] if cells is None else _values_of(_as_text(cells, column))
        used[column] = pc.is_in(vocabulary, value_set=values)
    return used


def _values_of(cells: pa.ChunkedArray) -> pa.Array:
    return pc.unique(pc.list_flatten(cells) if is_list(cells.type) else cells).drop_null()


def appended(known: pa.Array, values: pa.Array) -> pa.Array:
    """The known values, then the new ones."""
    return pa.concat_arrays([known, values.filter(pc.invert(pc.is_in(values, value_set=known)))])


def encode_attributes(table: pa.Table, ids: pa.Array, vocabularies: Vocabularies) -> Fields:
    """Attribute values of entities as integer codes; unknown values count as absent."""
    return make_fields(
        table, table.column_names[0], ids, list(vocabularies), vocabularies=vocabularies
    )


def index_of(ids: pa.Array, among: pa.Array) -> Tensor:
    """``[n + 1]``: 0, then the index from 1 of each id, 0 for unknown ids."""
    found = pc.index_in(ids, value_set=among).fill_null(-1).to_numpy(zero_copy_only=False)
    return torch.from_numpy(np.append(-1, found).astype(np.int64) + 1)


def concatenated(tables: Iterable[nn.Module], fields: Fields) -> Tensor:
    """The attribute embeddings of n entities, ``[n, e * number of fields]``."""
    parts = fields.codes[1:].split(fields.widths, dim=1)
    made = [average(table, codes) for table, codes in zip(tables, parts, strict=True)]
    return torch.cat(made, dim=1) if made else torch.zeros(len(fields.codes) - 1, 0)


def mean_rows(rows: Tensor, count: int) -> Tensor:
    """The mean of rows, repeated ``count`` times; 0 without rows."""
    mean = rows.mean(0) if len(rows) else torch.zeros(rows.shape[1])
    return mean.expand(count, -1).clone()


def table_name(kind: str, number: int) -> str:
    """The name in DIN's state of an attribute's embeddings."""
    return f"inputs.{kind}_fields.tables.{number}.weight"


def tensor(values: Floats) -> Tensor:
    """A copy: what is stored may be read-only."""
    return torch.from_numpy(np.array(values))
