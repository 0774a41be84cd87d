"""The texts of users and items as of a time, by channel; hashes of their representations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge
from reki_feast.knowledge import by_entity
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import State, channels, preference_columns, state
from reki_feast.tables.inputs import without_ids, without_users
from reki_feast.tables.snapshot_times import split

#: Entities whose texts are in memory at a time.
PART = 1 << 16


@dataclass(frozen=True)
class EntityTexts:
    """Texts of n entities of a kind.

    Attributes:
        ids: ``[n]``, as text.
        texts: for each channel the text of each id, None where there is none.
    """

    ids: pa.Array
    texts: dict[str, list[str | None]]


@dataclass(frozen=True)
class EntityHashes:
    """The hashes of the texts of n entities of a kind: what a representation is made by.

    Attributes:
        ids: ``[n]``, as text.
        hashes: for each channel the hash ``[n]`` of each id's text, null where there is none.
        unchanged: how many more there are, whose texts are as they were.
    """

    ids: pa.Array
    hashes: dict[str, pa.Array]
    unchanged: int = 0

    @classmethod
    def of(cls, part: EntityTexts) -> EntityHashes:
        """Of texts."""
        from reki_feast.encoding import text_hashes

        columns = {name: text_hashes(texts) for name, texts in part.texts.items()}
        return cls(part.ids, {name: pa.array(one, pa.string()) for name, one in columns.items()})

    @classmethod
    def joined(cls, parts: Sequence[EntityHashes], unchanged: int) -> EntityHashes:
        """Those of several parts."""
        names = parts[0].hashes if parts else {}
        hashes = {name: _joined([part.hashes[name] for part in parts]) for name in names}
        return cls(_joined([part.ids for part in parts]), hashes, unchanged)

    def take(self, rows: pa.Array) -> EntityHashes:
        """Some of the entities."""
        hashes = {name: column.take(rows) for name, column in self.hashes.items()}
        return EntityHashes(self.ids.take(rows), hashes)

    def rows(self, encoder: str) -> pa.Array:
        """The hash ``[n]`` of each entity's representation by an encoder of this name."""
        from reki_feast.encoding import row_hashes

        found = []
        for start in range(0, len(self.ids), PART):
            columns = [one.slice(start, PART).to_pylist() for one in self.hashes.values()]
            count = min(PART, len(self.ids) - start)
            found.append(row_hashes(list(self.hashes), columns, encoder, count))
        return _joined(found)


def texts_of(context: StageContext, kind: Kind, time: datetime) -> EntityTexts:
    """Ids of a kind, and for each channel the text of each id as of a time."""
    found = list(text_parts(context, kind, time))
    names = found[0].texts if found else {}
    texts = {name: [text for part in found for text in part.texts[name]] for name in names}
    return EntityTexts(_joined([part.ids for part in found]), texts)


def sample_texts(context: StageContext, time: datetime, count: int) -> list[str]:
    """Histories and descriptions of the first users and items, half of the count of each."""
    style, tables, half = context.prompt_style(), context.tables, count // 2
    described = knowledge.description_texts(tables.items.slice(0, half), **style)["text"]
    rows, key = split(tables, time, context.declared.scenario.history), tables.user.name
    rows = rows.filter(rows["prompt"])
    first = rows[key].unique().slice(0, half)
    some = [rows, *([] if tables.users is None else [tables.users])]
    of_first = [table.filter(pc.is_in(table[key], value_set=first)) for table in some]
    users = of_first[1] if len(of_first) > 1 else None
    shown = knowledge.PromptTables(users, tables.items, of_first[0])
    told = knowledge.history_texts(shown, as_of=time, **style)["text"]
    pairs = zip_longest(described.to_pylist(), told.to_pylist())
    return [text for pair in pairs for text in pair if text is not None]


def text_parts(
    context: StageContext, kind: Kind, time: datetime, unchanged: pa.Array | None = None
) -> Iterator[EntityTexts]:
    """The texts of entities as of a time, of :data:`PART` entities at a time.

    Args:
        context: the command's.
        kind: users or items.
        time: as of when.
        unchanged: ids, as text, of entities that are left out.
    """
    left_out = pa.array([], pa.string()) if unchanged is None else unchanged
    known = _Knowledge(state(context, time), kind, preference_columns(context, kind))
    own_channel = {"history", "description"}.intersection(channels(context, kind))

    def part(ids: pa.Array, texts: list[str | None]) -> EntityTexts:
        return EntityTexts(ids, {**known.texts(ids), **dict.fromkeys(own_channel, texts)})

    owners = []
    for own in _own_parts(context, kind, time, left_out):
        ids = own["owner"].combine_chunks()
        owners.append(ids)
        yield part(ids, own["text"].to_pylist())
    others = known.ids.filter(pc.invert(pc.is_in(known.ids, value_set=left_out)))
    others = others.filter(pc.invert(pc.is_in(others, value_set=_joined(owners))))
    for start in range(0, len(others), PART):
        ids = others.slice(start, PART)
        yield part(ids, [None] * len(ids))
    if not owners and not len(others):  # the channels are told also where nobody is
        yield part(others, [])


class _Knowledge:
    """What is known of entities, through groups or of their own, looked up part by part."""

    def __init__(self, known: State, kind: Kind, factors: Mapping[str, str]) -> None:
        self._factors = factors
        self.ids = by_entity.entity_ids(known.knowledge, known.members, kind)
        self._channels = {
            name: by_entity.ChannelIndex(known.knowledge, known.members, kind, name)
            for name in by_entity.channels(known.knowledge, kind)
        }

    def texts(self, ids: pa.Array) -> dict[str, list[str | None]]:
        """The text of each id by channel; a group's text is one object, whoever has it."""
        texts = {name: self._of(one, ids) for name, one in self._channels.items()}
        preferences = {name: self._preference(one, ids) for name, one in self._factors.items()}
        return {**texts, **preferences}

    def _preference(self, factor: str, ids: pa.Array) -> list[str | None]:
        """What is known of each id about a factor, but for what is disliked."""
        liked = (self._channels.get(name) for name in ("knowledge", "liked"))
        found = [one.factor(factor, one.index(ids)[0]) for one in liked if one is not None]
        texts: list[str | None] = pc.coalesce(pa.nulls(len(ids), pa.string()), *found).to_pylist()
        return texts

    def _of(self, one: by_entity.ChannelIndex, ids: pa.Array) -> list[str | None]:
        at, _ = one.index(ids)
        rows = at.drop_null().unique()
        return by_entity.take_texts(one.rows["text"].take(rows), pc.index_in(at, value_set=rows))


def _own_parts(
    context: StageContext, kind: Kind, time: datetime, left_out: pa.Array
) -> Iterator[pa.Table]:
    """The texts that the user's tables tell, without a language model."""
    style, tables = context.prompt_style(), context.tables
    if kind == "item":
        items = without_ids(tables.items, tables.item.name, left_out)
        for start in range(0, items.num_rows, PART):
            yield knowledge.description_texts(items.slice(start, PART), **style)
        return
    key, tables = tables.user.name, without_users(tables, left_out)
    rows = split(tables, time, context.declared.scenario.history)
    is_told = "history" in channels(context, "user")
    for some in _by_user(rows.filter(rows["prompt"]), key):
        if not is_told:
            yield _owners(some[key])
            continue
        users = tables.users
        if users is not None:
            users = users.filter(pc.is_in(users[key], value_set=some[key].unique()))
        shown = knowledge.PromptTables(users, tables.items, some)
        yield knowledge.history_texts(shown, as_of=time, **style)


def _owners(ids: pa.ChunkedArray) -> pa.Table:
    """The owners of texts that nobody reads."""
    distinct = ids.unique()
    owners = distinct.take(pc.array_sort_indices(distinct)).cast(pa.string())
    return pa.table({"owner": owners, "text": pa.nulls(len(owners), pa.string())})


def _by_user(rows: pa.Table, key: str) -> Iterator[pa.Table]:
    """Interactions of :data:`PART` users at a time, users in the order of their keys."""
    encoded = rows[key].combine_chunks().dictionary_encode()
    users = encoded.dictionary
    if len(users) <= PART:
        yield rows
        return
    rank = np.empty(len(users), np.int64)
    rank[pc.sort_indices(users).to_numpy()] = np.arange(len(users))
    part = rank[pc.fill_null(encoded.indices, 0).to_numpy()] // PART
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(np.bincount(part)).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        yield rows.take(pa.array(order[start:end]))


def all_texts(found: Iterable[EntityTexts]) -> Iterator[str]:
    """Every text, repeats included."""
    for one in found:
        for column in one.texts.values():
            yield from (text for text in column if text is not None)


def _joined(arrays: list[pa.Array]) -> pa.Array:
    return pa.chunked_array(arrays, pa.string()).combine_chunks()
