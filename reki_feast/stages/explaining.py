"""`reki explain`: the path of one user's or item's vector, and why a request gets the default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.errors import DeclarationError
from reki_feast.project import DeclaredProject
from reki_feast.results import ExplainResult, GroupsResult
from reki_feast.results.explaining import AskedPrompt
from reki_feast.schema import KINDS, Key, Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.explained_outcome import EntityPath, gap_notes, verdict_of
from reki_feast.stages.explained_past import GivenEntity, StoredPast
from reki_feast.stages.explained_rows import StoredRows
from reki_feast.stages.groups import groups as groups_of
from reki_feast.stages.part_reader import PartReader
from reki_feast.stages.snapshots import times

#: Ids that an unknown one is compared with.
_COMPARED = 20_000
#: After every interaction.
_END = datetime(9999, 1, 1, tzinfo=UTC)


def explain(project: DeclaredProject, kind: Kind, id: str) -> ExplainResult:
    """Tell how one user or item came to what a feature service returns of it.

    Everything is read from what is stored; nothing is written, asked or started. A part that
    cannot be read is named in a note.

    Args:
        project: the project.
        kind: ``user`` or ``item``.
        id: as text.

    Raises:
        DeclarationError: the kind is none, the id is not of the key's type, or neither tables nor
            what is stored know it.
        LakeError: stored tables are damaged.
    """
    if kind not in KINDS:
        rule = "a user or an item is explained"
        raise DeclarationError(rule, detail=repr(kind), hint="reki explain user 1001")
    context, reader = StageContext.of(project), PartReader()
    key = _key(context, kind, reader)
    value = _value(key, id, kind)
    past, rows = StoredPast(context, kind, id), StoredRows(context, kind, key, value)
    time = _time(context, rows, kind)
    given = reader.read("tables", lambda: GivenEntity.of(context, kind, value, time), None)
    if not _is_known(given, past, rows, kind):
        raise _unknown(context, kind, id, reader)
    prompts = reader.read("prompts", lambda: past.prompts, cast("list[AskedPrompt]", []))
    views = reader.read("online store", rows.served, None)
    verdict = verdict_of(EntityPath(context, kind, given, past, rows, prompts, views, time))
    found = GroupsResult(project=context.name, total=0)
    if past.groups:
        found = reader.read(
            "way into the group", lambda: groups_of(context, of=id, kind=kind), found
        )
    titles = reader.read("titles", lambda: _titles(context), cast("Mapping[Any, str]", {}))
    return ExplainResult(
        project=context.name,
        kind=kind,
        id=id,
        outcome=verdict.outcome,
        answer=verdict.why,
        history=given.history if given else [],
        description=given.description if given else "",
        prompts=prompts,
        groups=found.groups,
        paths=found.paths,
        factors=past.factors,
        channels=rows.channels,
        vector=rows.vector,
        views=views or [],
        nearest=reader.read("match scores", lambda: rows.nearest(titles), []),
        notes=[*gap_notes(past, prompts, verdict), *reader.notes],
        next=[verdict.mend] if verdict.mend else [],
    )


def _is_known(given: GivenEntity | None, past: StoredPast, rows: StoredRows, kind: Kind) -> bool:
    if given is not None and given.is_named:
        return True
    stored = (rows.row(f"{kind}_{name}") for name in ("aug", "representation"))
    return bool(past.groups or past.knowledge) or any(row is not None for row in stored)


def _key(context: StageContext, kind: Kind, reader: PartReader) -> Key:
    """The kind's key: by the tables, else by what was published."""
    found = reader.read("tables", lambda: context.key(kind), None)
    if found is not None:
        return found
    said = (context.lake.read_json("manifest") or {}).get(kind, {})
    scenario = context.declared.scenario
    name = scenario.user_key if kind == "user" else scenario.item_key
    return Key(said.get("key", name), pa.int64() if said.get("type") == "int64" else pa.string())


def _value(key: Key, id: str, kind: Kind) -> Any:
    if key.type != pa.int64():
        return id
    try:
        return int(id)
    except ValueError:
        rule, hint = f"{key.name} is a whole number", f"name the id of {_a(kind)}"
        raise DeclarationError(rule, detail=repr(id), hint=hint) from None


def _a(kind: Kind) -> str:
    return "a user" if kind == "user" else "an item"


def _time(context: StageContext, rows: StoredRows, kind: Kind) -> datetime:
    """The last snapshot: what happened then or later no row knows of."""
    row = rows.row(f"{kind}_representation")
    made = times(context, "knowledge", "asked") or ([row["event_timestamp"]] if row else [])
    return max(made, default=_END)


def _titles(context: StageContext) -> Mapping[Any, str]:
    items, scenario = context.tables.items, context.declared.scenario
    ids, titles = (items[name].to_pylist() for name in (scenario.item_key, scenario.title))
    return dict(zip(ids, map(str, titles), strict=True))


def _unknown(context: StageContext, kind: Kind, id: str, reader: PartReader) -> DeclarationError:
    """That an id is nowhere, with those that are nearest to it."""
    other: Kind = "item" if kind == "user" else "user"
    ids = reader.read("tables", lambda: _ids(context), cast("dict[Kind, pa.Array]", {}))
    if ids and pc.is_in(pa.scalar(id), value_set=ids[other]).as_py():
        hint = f"{_a(other)} has this id: reki explain {other} {id}"
    else:
        near = get_close_matches(id, _alike(ids, kind, id), n=3, cutoff=0)
        hint = f"the nearest ids: {', '.join(near)}" if near else f"name the id of {_a(kind)}"
    return DeclarationError(
        f"the tables, or what is stored, know the {kind}",
        detail=f"{id!r} was never seen, or is forgotten; a feature service returns the default",
        hint=hint,
    )


def _ids(context: StageContext) -> dict[Kind, pa.Array]:
    """All ids as text, by kind."""
    tables = context.tables
    users = [tables.interactions[tables.user.name]]
    users += [] if tables.users is None else [tables.users[tables.user.name]]
    chunks = [chunk for column in users for chunk in column.chunks]
    return {
        "user": pa.chunked_array(chunks, tables.user.type).unique().cast(pa.string()),
        "item": tables.items[tables.item.name].combine_chunks().cast(pa.string()),
    }


def _alike(ids: Mapping[Kind, pa.Array], kind: Kind, id: str) -> list[str]:
    """Ids that may be near to one: those that begin alike first, bounded in number."""
    if not ids:
        return []
    alike = ids[kind].filter(pc.starts_with(ids[kind], id[:2]))
    found: Iterable[str] = (*alike.slice(0, _COMPARED).to_pylist(), *ids[kind].to_pylist()[:100])
    return list(dict.fromkeys(islice(found, _COMPARED)))
