"""Knowledge joined to entities: the texts about each user or item.

Knowledge is stored once per owner, an entity or a group; groups reach their members through the
members table. The functions here join the two, on whole columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.schema import ITEM_CHANNELS, KNOWLEDGE_CHANNELS, USER_CHANNELS, Key, Kind


def channels(knowledge: pa.Table, kind: Kind) -> list[str]:
    """The knowledge channels that some entity of this kind has, in the order of the schema.

    >>> channels(schema.KNOWLEDGE.empty_table(), "user")
    []
    """
    present = set(knowledge.filter(pc.field("kind") == kind)["channel"].to_pylist())
    order = USER_CHANNELS if kind == "user" else ITEM_CHANNELS
    return [channel for channel in order if channel in present and channel in KNOWLEDGE_CHANNELS]


def entity_ids(knowledge: pa.Table, members: pa.Table, kind: Kind) -> pa.Array:
    """Ids, as text, of the entities that have knowledge of their own or through a group."""
    own = knowledge.filter((pc.field("kind") == kind) & ~pc.field("grouped"))["owner"]
    grouped = members.filter(pc.field("kind") == kind)["owner"]
    return pa.chunked_array([*own.chunks, *grouped.chunks], pa.string()).unique()


#: Entities whose texts are put together at a time: an Arrow array holds 2 GiB of text.
_ROWS = 1 << 15


class ChannelIndex:
    """One knowledge channel of one kind: from an entity's id to its row of knowledge.

    An entity's own knowledge goes before its group's.
    """

    def __init__(self, knowledge: pa.Table, members: pa.Table, kind: Kind, channel: str) -> None:
        of_channel = (pc.field("kind") == kind) & (pc.field("channel") == channel)
        self.rows = knowledge.filter(of_channel).combine_chunks()
        self.members = members.filter(of_channel).combine_chunks()

    def index(self, ids: pa.Array) -> tuple[pa.Array, pa.Array]:
        """For each id the row in ``rows`` (null without one) and the group (null without one)."""
        grouped = self.rows["grouped"].combine_chunks()
        names = self.rows["owner"].combine_chunks()
        own = pc.index_in(ids, value_set=pc.if_else(grouped, None, names))
        member = pc.index_in(ids, value_set=self.members["owner"].combine_chunks())
        group = self.members["group"].combine_chunks().take(member)
        shared = pc.index_in(group, value_set=pc.if_else(grouped, names, None), skip_nulls=True)
        return pc.coalesce(own, shared), pc.if_else(own.is_null(), group, None)

    def column(self, name: str, at: pa.Array) -> pa.Array:
        """A column of the rows that :meth:`index` found; null where it found none."""
        return self.rows[name].combine_chunks().take(at)

    def factor(self, name: str, at: pa.Array) -> pa.Array:
        """One factor's text of the rows found; null where the answer left the factor out."""
        maps = self.rows["factors"].combine_chunks()
        return pc.map_lookup(maps, query_key=pa.scalar(name), occurrence="first").take(at)


def texts(
    knowledge: pa.Table, members: pa.Table, kind: Kind, channel: str, ids: pa.Array
) -> list[str | None]:
    """The channel's text for each id (given as text), None where there is none."""
    one = ChannelIndex(knowledge, members, kind, channel)
    at, _ = one.index(ids)
    return take_texts(one.rows["text"], at)


def take_texts(texts: pa.ChunkedArray, at: pa.Array) -> list[str | None]:
    """The texts at some rows, None where there is none.

    A group's text is one object, however many members have it; an Arrow array would hold it for
    each, and at most 2 GiB of them.
    """
    values = [*texts.to_pylist(), None]
    return [values[row] for row in at.fill_null(-1).to_pylist()]


def entity_table(
    knowledge: pa.Table,
    members: pa.Table,
    *,
    kind: Kind,
    key: Key,
    factors: Sequence[str],
    times: Timestamps,
) -> pa.Table:
    """Knowledge as Feast serves it, one row an entity.

    An entity with several channels (liked and disliked) gets their texts one below the other, each
    under the channel's name.

    Returns:
        A table of ``schema.entity_knowledge(key, factors)``, all rows with these times.
    """
    parts = entity_parts(knowledge, members, kind=kind, key=key, factors=factors, times=times)
    return pa.concat_tables([schema.entity_knowledge(key, factors).empty_table(), *parts])


def entity_parts(
    knowledge: pa.Table,
    members: pa.Table,
    *,
    kind: Kind,
    key: Key,
    factors: Sequence[str],
    times: Timestamps,
) -> Iterator[pa.Table]:
    """The rows of :func:`entity_table`, some thousand at a time: a group's text is its members'."""
    ids = entity_ids(knowledge, members, kind)
    found = [
        (name, one, *one.index(ids))
        for name in channels(knowledge, kind)
        for one in [ChannelIndex(knowledge, members, kind, name)]
    ]
    made = schema.entity_knowledge(key, factors)
    for n in range(0, len(ids) if found else 0, _ROWS):
        some = [
            (name, one, at.slice(n, _ROWS), group.slice(n, _ROWS)) for name, one, at, group in found
        ]
        yield _entity_rows(some, ids.slice(n, _ROWS).cast(key.type), factors, made, times)


#: A channel's name, the channel, its row and group of each entity.
_Found = tuple[str, ChannelIndex, pa.Array, pa.Array]


def _entity_rows(
    found: list[_Found],
    ids: pa.Array,
    factors: Sequence[str],
    made: pa.Schema,
    times: Timestamps,
) -> pa.Table:
    """Rows of the schema ``made``."""
    titled = len(found) > 1
    columns = {
        made.names[0]: ids,
        "text": _stacked([(name, one.column("text", at)) for name, one, at, _ in found], titled),
        **{
            schema.factor_column(factor): _stacked(
                [(name, one.factor(factor, at)) for name, one, at, _ in found], titled
            )
            for factor in factors
        },
        "group": _joined([_prefixed(name, group, titled) for name, *_, group in found], ids),
        "model": _joined([one.column("model", at) for _, one, at, _ in found], ids, first=True),
        "prompt_hash": _joined([one.column("prompt_hash", at) for _, one, at, _ in found], ids),
        "hash": _joined([one.column("hash", at) for _, one, at, _ in found], ids),
    }
    columns["hash"] = _hashes(columns["hash"], columns["group"])
    rows = pa.table(columns).filter(columns["text"].is_valid())
    for name, time in times.columns().items():
        column = pa.repeat(pa.scalar(time, schema.TIMESTAMP), rows.num_rows)
        rows = rows.append_column(name, column)
    return rows.cast(made)


def _stacked(columns: list[tuple[str, pa.Array]], titled: bool) -> pa.Array:
    if not titled:
        return columns[0][1] if columns else pa.nulls(0, pa.string())
    named = [pc.binary_join_element_wise(f"{name.title()}:", text, "\n") for name, text in columns]
    return _join(named, "\n\n")


def _prefixed(channel: str, group: pa.Array, titled: bool) -> pa.Array:
    return pc.binary_join_element_wise(channel, group, ":") if titled else group


def _joined(columns: list[pa.Array], ids: pa.Array, *, first: bool = False) -> pa.Array:
    if not columns:
        return pa.nulls(len(ids), pa.string())
    if first or len(columns) == 1:
        return pc.coalesce(*columns)
    return _join(columns, ", ")


def _join(columns: list[pa.Array], between: str) -> pa.Array:
    """Join what is there, row by row; null where nothing is."""
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    present = ([text for text in row if text] for row in rows)
    return pa.array([between.join(row) or None for row in present], pa.string())


def _hashes(knowledge: pa.Array, group: pa.Array) -> pa.Array:
    pairs = zip(knowledge.to_pylist(), group.to_pylist(), strict=True)
    return pa.array([schema.content_hash(k or "", g or "") for k, g in pairs], pa.string())


def changed_rows(rows: pa.Table, stored: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows whose hash differs from the stored row of the same keys, new keys included."""
    if rows.num_rows == 0 or stored.num_rows == 0:
        return rows
    at = pc.index_in(_key_text(rows, keys), value_set=_key_text(stored, keys))
    old = stored["hash"].combine_chunks().take(at)
    differs = pc.fill_null(pc.not_equal(rows["hash"].combine_chunks(), old), True)
    return rows.filter(differs)


def changed_members(members: pa.Table, stored: pa.Table) -> pa.Table:
    """Memberships that differ from the stored ones: the group stands in for a hash."""
    before, after = (table.append_column("hash", table["group"]) for table in (stored, members))
    return changed_rows(after, before, ["kind", "channel", "owner"]).select(schema.MEMBERS.names)


def _key_text(table: pa.Table, keys: Sequence[str]) -> pa.Array:
    columns = [_as_text(table[key].combine_chunks()) for key in keys]
    return pc.binary_join_element_wise(*columns, "\x1f") if len(columns) > 1 else columns[0]


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_timestamp(column.type):  # numbers are faster written than dates
        column = column.cast(schema.TIMESTAMP).cast(pa.int64())
    return column.cast(pa.string())
