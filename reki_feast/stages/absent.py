"""Who is stored, and who of them the tables no longer name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import schema
from reki_feast.project import DeclaredProject
from reki_feast.schema import KINDS, Kind
from reki_feast.stages import group_state
from reki_feast.stages.context import StageContext
from reki_feast.tables import inputs as sources
from reki_feast.tables.inputs import Inputs

if TYPE_CHECKING:
    from reki_feast.llm.ledger.deletion import PromptRef

#: Tables whose first column is the key of users, or of items: ``user_aug`` and so on.
PUBLISHED = ("aug", "knowledge", "match", "representation")
#: Tables whose column ``owner`` is a user's or an item's id, or a group's where ``grouped``.
OWNED = ("knowledge", "asked", "inputs", "imported")
#: A kind, a channel and the id of a group or of an entity.
Slot = tuple[Kind, str, str]
_SLOT = [schema.KNOWLEDGE.field(name) for name in ("kind", "channel", "owner", "grouped")]


@dataclass(frozen=True)
class StoredIds:
    """Whom the tables of knowledge tell of: entities, and groups of them."""

    project: DeclaredProject

    @cached_property
    def asked(self) -> list[tuple[Slot, bool, str]]:
        """Prompts that are stored: of whom, whether that is a group, the prompt's hash."""
        made = pa.schema([*_SLOT, schema.KNOWLEDGE.field("prompt_hash")])
        tables = [self.project.lake.read(name, made) for name in ("knowledge", "asked")]
        rows = pa.concat_tables(tables).group_by(made.names).aggregate([])
        return [((kind, channel, owner), *rest) for kind, channel, owner, *rest in _rows(rows)]

    @cached_property
    def groups(self) -> set[Slot]:
        """All groups."""
        slot = pa.schema([schema.GROUPS.field(name) for name in ("kind", "channel", "group")])
        tables = [self.project.lake.read(name, slot) for name in ("groups", "members")]
        return {(kind, channel, group) for kind, channel, group in _rows(pa.concat_tables(tables))}

    def is_group(self, prompt: PromptRef) -> bool:
        """Whether a prompt of the ledger, which does not say so, asks about a group."""
        if prompt.prompt_hash in self._hashes[True]:
            return True
        return prompt.prompt_hash not in self._hashes[False] and prompt.slot in self.groups

    @cached_property
    def _hashes(self) -> dict[bool, set[str]]:
        found: dict[bool, set[str]] = {True: set(), False: set()}
        for _, is_group, prompt_hash in self.asked:
            found[is_group].add(prompt_hash)
        return found


def stored_ids(project: DeclaredProject, kind: Kind) -> set[str]:
    """Ids, as text, of all of whom something is stored here; the online store is not looked at."""
    lake, found = project.lake, group_state.placed_ids(project, kind)
    for name in PUBLISHED:
        found.update(lake.ids(f"{kind}_{name}").to_pylist())
    for name in OWNED:
        rows = lake.read(name, pa.schema(_SLOT))
        found.update(rows.filter(_own(kind))["owner"].unique().to_pylist())
    members = lake.read("members", schema.MEMBERS)
    found.update(members.filter(pc.field("kind") == kind)["owner"].unique().to_pylist())
    return found | _in_ledger(project, kind)


def absent_notes(context: StageContext) -> list[str]:
    """A sentence where ids are published that the tables no longer name; none where all are."""
    missing = {kind: _published(context, kind) - _given(context.tables, kind) for kind in KINDS}
    if any(missing.values()):  # look twice: users whose items are all unknown are in the tables
        given = sources.named(context.declared, context.root)
        missing = {kind: missing[kind] - given[kind] for kind in KINDS}
    counts = [f"{len(ids):,} {kind}s" for kind, ids in missing.items() if ids]
    if not counts:
        return []
    return [
        f"{' and '.join(counts)} that the tables no longer have are still stored and served: "
        "`reki forget --absent` removes them"
    ]


def _published(project: DeclaredProject, kind: Kind) -> set[str]:
    return set(project.lake.ids(f"{kind}_aug").to_pylist())


def _given(given: Inputs, kind: Kind) -> set[str]:
    if kind == "item":
        columns = [given.items[given.item.name]]
    else:
        tables = [given.interactions, *([] if given.users is None else [given.users])]
        columns = [table[given.user.name] for table in tables]
    return {str(one) for column in columns for one in column.unique().to_pylist()}


def _own(kind: Kind) -> pc.Expression:
    return (pc.field("kind") == kind) & ~pc.field("grouped")


def _in_ledger(project: DeclaredProject, kind: Kind) -> set[str]:
    from reki_feast.llm.ledger.deletion import prompts_of

    if not (project.data / "ledger.sqlite").exists():
        return set()
    owners = StoredIds(project)
    with project.ledger() as ledger:
        prompts = prompts_of(ledger.rows, kind)
    return {one.owner for one in prompts if not owners.is_group(one)}


def _rows(table: pa.Table) -> Iterable[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
