"""The texts of users and items as of a time, by channel; hashes of their representations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge
from reki_feast.knowledge import by_entity
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import state
from reki_feast.tables.inputs import without_ids, without_users
from reki_feast.tables.snapshot_times import split


@dataclass(frozen=True)
class EntityTexts:
    """Texts of n entities of a kind.

    Attributes:
        ids: ``[n]``, as text.
        texts: for each channel the text of each id, None where there is none.
        unchanged: how many more there are, whose texts are as they were.
    """

    ids: pa.Array
    texts: dict[str, list[str | None]]
    unchanged: int = 0

    def take(self, rows: list[int]) -> EntityTexts:
        """Some of the entities."""
        texts = {name: [column[row] for row in rows] for name, column in self.texts.items()}
        return EntityTexts(self.ids.take(pa.array(rows, pa.int64())), texts)

    def hashes(self, encoder: str) -> pa.Array:
        """The hash ``[n]`` of each entity's representation by an encoder of this name."""
        from reki_feast.encoding import row_hashes, text_hashes

        columns = [text_hashes(column) for column in self.texts.values()]
        return row_hashes(list(self.texts), columns, encoder, len(self.ids))


def texts_of(
    context: StageContext, kind: Kind, time: datetime, unchanged: pa.Array | None = None
) -> EntityTexts:
    """Ids of a kind, and for each channel the text of each id as of a time.

    Args:
        context: the command's.
        kind: users or items.
        time: as of when.
        unchanged: ids, as text, of entities that are left out.
    """
    left_out = pa.array([], pa.string()) if unchanged is None else unchanged
    own = _own_texts(context, kind, time, left_out)
    known = state(context, time)
    owners = by_entity.entity_ids(known.knowledge, known.members, kind)
    ids = pa.chunked_array([*own["owner"].chunks, owners], pa.string()).unique()
    ids = ids.filter(pc.invert(pc.is_in(ids, value_set=left_out)))
    texts = {
        channel: by_entity.texts(known.knowledge, known.members, kind, channel, ids)
        for channel in by_entity.channels(known.knowledge, kind)
    }
    at = pc.index_in(ids, value_set=own["owner"].combine_chunks())
    name = "history" if kind == "user" else "description"
    texts[name] = by_entity.take_texts(own["text"], at)
    return EntityTexts(ids, texts, len(left_out))


def _own_texts(context: StageContext, kind: Kind, time: datetime, left_out: pa.Array) -> pa.Table:
    """The texts that the user's tables tell, without a language model."""
    style, tables = context.prompt_style(), context.tables
    if kind == "item":
        items = without_ids(tables.items, tables.item.name, left_out)
        return knowledge.description_texts(items, **style)
    tables = without_users(tables, left_out)
    rows = split(tables, time, context.declared.scenario.history)
    shown = knowledge.PromptTables(tables.users, tables.items, rows)
    return knowledge.history_texts(shown, as_of=time, **style)


def all_texts(found: Iterable[EntityTexts]) -> Iterator[str]:
    """Every text, repeats included."""
    for one in found:
        for column in one.texts.values():
            yield from (text for text in column if text is not None)
