"""Knowledge as tables for Feast: of the times, and the entities, that something new is known of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.errors import LakeError
from reki_feast.knowledge import by_entity
from reki_feast.knowledge.timestamps import Timestamps
from reki_feast.project import now
from reki_feast.report import Bar
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import State, state, times, up_to
from reki_feast.stages.up_to_date import package_digest
from reki_feast.tables.parts import newest

#: The JSON object that says, by kind, which parts are published.
_PUBLISHED = "published_knowledge"
_SOURCES = ("knowledge", "members")
_NEW = pa.schema([schema.KNOWLEDGE.field(name) for name in ("kind", "owner", "event_timestamp")])


def write_knowledge(
    context: StageContext, kind: Kind, bar: Bar = lambda done, total: None
) -> tuple[int, int]:
    """Add the rows of entities whose knowledge, or group, is another than what is published.

    Args:
        context: the command's.
        kind: users or items.
        bar: shows how many snapshots are done.

    Returns:
        The number of rows, and how many are new.
    """
    key, table = context.key(kind), f"{kind}_knowledge"
    context.lake.conform(table, schema.entity_knowledge(key, context.known_factors()))
    bare, added = schema.representation(key, []), 0
    stored = context.lake.read(table, bare)
    changes = _Changes.of(context, kind, stored.num_rows)
    for number, time in enumerate(changes.times, start=1):
        last, new = newest(up_to(stored, time), [key.name]), 0
        for rows in _knowledge_at(context, kind, time, changes.owners):
            fresh = by_entity.changed_rows(rows, last, [key.name])
            context.lake.append(table, fresh)
            new += fresh.num_rows
        if new:
            stored, added = context.lake.read(table, bare), added + new
        bar(number, len(changes.times))
    changes.remember(context, kind, stored.num_rows)
    return stored.num_rows, added


class _Changes:
    """What came since the last publishing of a kind.

    Attributes:
        times: the as-of times at which anybody may have other knowledge.
        owners: ids, as text, of whom; None: of all.
    """

    def __init__(
        self, times: list[datetime], owners: pa.Array | None, about: Mapping[str, Any]
    ) -> None:
        self.times, self.owners, self._about = times, owners, about

    @classmethod
    def of(cls, context: StageContext, kind: Kind, rows: int) -> _Changes:
        """What came; all, where it is not known what was published, or how."""
        parts = {name: context.lake.parts(name) for name in _SOURCES}
        about: dict[str, Any] = {
            "package": package_digest(),
            "factors": list(context.known_factors()),
            "rows": rows,
            "parts": sorted(f"{name}/{path.name}" for name in parts for path in parts[name]),
        }
        every = times(context, *_SOURCES)
        before = _stored(context).get(kind) or {}
        published = {*before.get("parts", ())}
        is_same = all(before.get(name) == about[name] for name in ("package", "factors", "rows"))
        if not is_same or not published.issubset(about["parts"]):
            return cls(every, None, about)
        new = [x for name in _SOURCES for x in parts[name] if f"{name}/{x.name}" not in published]
        rows_of = context.lake.read_parts(new, _NEW)
        first = pc.min(rows_of["event_timestamp"]).as_py()
        since = [time for time in every if first is not None and time >= first]
        if parts["members"]:  # a group's knowledge is its members'
            return cls(since, None, about)
        return cls(since, rows_of["owner"].unique(), about)

    def remember(self, context: StageContext, kind: Kind, rows: int) -> None:
        """Store that all of this is published."""
        kept = {**_stored(context), kind: {**self._about, "rows": rows}}
        context.lake.write_json(_PUBLISHED, kept)


def _stored(context: StageContext) -> dict[str, Any]:
    try:
        found = context.lake.read_json(_PUBLISHED) or {}
    except LakeError:  # all is published again, which adds no row
        return {}
    return {kind: found[kind] for kind in schema.KINDS if kind in found}


def _knowledge_at(
    context: StageContext, kind: Kind, time: datetime, owners: pa.Array | None
) -> Iterator[pa.Table]:
    snapshot = state(context, time)
    if owners is not None:
        which = pc.is_in(snapshot.knowledge["owner"], value_set=owners)
        snapshot = State(snapshot.knowledge.filter(which), snapshot.members)
    return by_entity.entity_parts(
        snapshot.knowledge,
        snapshot.members,
        kind=kind,
        key=context.key(kind),
        factors=context.known_factors(),
        times=Timestamps(time, now()),
    )
