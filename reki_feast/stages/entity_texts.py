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
from reki_feast.tables.snapshot_times import split


@dataclass(frozen=True)
class EntityTexts:
    """Texts of n entities of a kind.

    Attributes:
        ids: ``[n]``, as text.
        texts: for each channel the text of each id, None where there is none.
    """

    ids: pa.Array
    texts: dict[str, list[str | None]]

    def take(self, rows: list[int]) -> EntityTexts:
        """Some of the entities."""
        texts = {name: [column[row] for row in rows] for name, column in self.texts.items()}
        return EntityTexts(self.ids.take(pa.array(rows, pa.int64())), texts)

    def hashes(self, encoder: str) -> pa.Array:
        """The hash ``[n]`` of each entity's representation by an encoder of this name."""
        from reki_feast.encoding import row_hashes, text_hashes

        columns = [text_hashes(column) for column in self.texts.values()]
        return row_hashes(list(self.texts), columns, encoder, len(self.ids))


def texts_of(context: StageContext, kind: Kind, time: datetime) -> EntityTexts:
    """Ids of a kind, and for each channel the text of each id as of a time."""
    own = _own_texts(context, kind, time)
    known = state(context, time)
    owners = by_entity.entity_ids(known.knowledge, known.members, kind)
    ids = pa.chunked_array([*own["owner"].chunks, owners], pa.string()).unique()
    texts = {
        channel: by_entity.texts(known.knowledge, known.members, kind, channel, ids)
        for channel in by_entity.channels(known.knowledge, kind)
    }
    at = pc.index_in(ids, value_set=own["owner"].combine_chunks())
    name = "history" if kind == "user" else "description"
    texts[name] = by_entity.take_texts(own["text"], at)
    return EntityTexts(ids, texts)


def _own_texts(context: StageContext, kind: Kind, time: datetime) -> pa.Table:
    """The texts that the user's tables tell, without a language model."""
    style, tables = context.prompt_style(), context.tables
    if kind == "item":
        return knowledge.description_texts(tables.items, **style)
    rows = split(tables, time, context.declared.scenario.history)
    shown = knowledge.PromptTables(tables.users, tables.items, rows)
    return knowledge.history_texts(shown, as_of=time, **style)


def all_texts(found: Iterable[EntityTexts]) -> Iterator[str]:
    """Every text, repeats included."""
    for one in found:
        for column in one.texts.values():
            yield from (text for text in column if text is not None)
