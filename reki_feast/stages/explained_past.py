"""What made one entity's vector: its history, prompts with their answers, groups and knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge, schema
from reki_feast.knowledge.prompts.histories import histories
from reki_feast.llm.ledger.prompts import PromptRecord, prompts_with
from reki_feast.results import AskedPrompt, FactorText, ShownInteraction
from reki_feast.schema import Kind
from reki_feast.stages.context import StageContext
from reki_feast.stages.snapshots import state
from reki_feast.tables.inputs import of_users
from reki_feast.tables.snapshot_times import split

_SLOT = ("kind", "channel", "owner", "grouped")


@dataclass(frozen=True)
class GivenEntity:
    """What the user's tables tell of one entity.

    Attributes:
        is_named: whether they name it.
        history: its latest interactions before a time, of a user.
        interactions: how many there are of it, of all times.
        first: time of the first of them; None where they have no times.
        description: its text, of an item.
    """

    is_named: bool
    history: list[ShownInteraction] = field(default_factory=list)
    interactions: int = 0
    first: datetime | None = None
    description: str = ""

    @classmethod
    def of(cls, context: StageContext, kind: Kind, id: Any, time: datetime) -> GivenEntity:
        """Of a user or an item.

        Args:
            context: the command's.
            kind: of the entity.
            id: in the key's type.
            time: the history ends before it.

        Raises:
            SourceError: a table cannot be read.
        """
        tables, style = context.tables, context.prompt_style()
        if kind == "item":
            one = tables.items.filter(pc.field(tables.item.name) == id)
            if not one.num_rows:
                return cls(False)
            [text] = knowledge.description_texts(one, **style)["text"].to_pylist()
            return cls(True, description=text or "")
        own = of_users(tables, pa.array([id], tables.user.type))
        count = own.interactions.num_rows
        if not count:
            return cls(own.users is not None and own.users.num_rows > 0)
        wording = style["wording"]
        rows = split(own, time, context.declared.scenario.history)
        found = histories(own.items, rows, wording=wording, as_of=time)
        first = pc.min(own.interactions["event_timestamp"]).as_py() if own.timed else None
        shown = own.items.take(pa.array(found.items))
        names = (wording.item_key, wording.title)
        ids, titles = (shown[name].to_pylist() for name in names)
        history = [
            ShownInteraction(place, str(item), str(title), said)
            for place, (item, title, said) in enumerate(
                zip(ids, titles, found.verdicts, strict=True), start=1
            )
        ]
        return cls(True, history, count, first)


@dataclass(frozen=True)
class StoredPast:
    """What is stored of how one entity came to its knowledge.

    Attributes:
        context: the command's.
        kind: of the entity.
        id: as text.
    """

    context: StageContext
    kind: Kind
    id: str

    @cached_property
    def groups(self) -> dict[str, str]:
        """By channel, the group that it is in."""
        members = state(self.context).members
        mine = members.filter((pc.field("kind") == self.kind) & (pc.field("owner") == self.id))
        return {row["channel"]: row["group"] for row in mine.to_pylist()}

    @cached_property
    def knowledge(self) -> list[Mapping[str, Any]]:
        """Its rows of knowledge, one a channel: its own before its group's."""
        found = state(self.context).knowledge.filter(self._is_mine)
        rows = sorted(found.to_pylist(), key=lambda row: (row["channel"], row["grouped"]))
        return [row for n, row in enumerate(rows) if row["channel"] not in _channels(rows[:n])]

    @property
    def factors(self) -> list[FactorText]:
        """The same by factor."""
        return [
            FactorText(
                row["channel"],
                factor,
                text,
                row["owner"],
                row["event_timestamp"],
                row["model"] or "",
            )
            for row in self.knowledge
            for factor, text in (row["factors"] or [("", row["text"])])
            if text
        ]

    @cached_property
    def prompts(self) -> list[AskedPrompt]:
        """The newest prompt of each channel, and that whose answer is known, the newest first.

        Raises:
            LLMError: the ledger cannot be read.
        """
        if not (self.context.data / "ledger.sqlite").exists():
            return []
        known = {row["prompt_hash"] for row in self.knowledge}
        about = self._hashes
        with self.context.ledger(reading=True) as ledger:
            hashes = sorted(about)
            found = prompts_with(ledger.rows, self.kind, hashes, "" if hashes else self.id)
        shown, seen = [], set()
        for one in found:
            # an answer serves all who would be asked the same: the ledger names one of them
            channel, owner = about.get(one.prompt_hash, (one.channel, one.owner))
            if channel not in seen or one.prompt_hash in known:
                shown.append(_prompt(one, owner, is_knowledge=one.prompt_hash in known))
            seen.add(channel)
        return shown

    @cached_property
    def _hashes(self) -> dict[str, tuple[str, str]]:
        """Channel and owner of each prompt that was written about it, or its groups."""
        names = [*_SLOT, "prompt_hash"]
        made = pa.schema([schema.KNOWLEDGE.field(name) for name in names])
        tables = [self.context.lake.read(name, made) for name in ("knowledge", "asked")]
        rows = pa.concat_tables(tables).filter(self._is_mine).to_pylist()
        return {r["prompt_hash"]: (r["channel"], r["owner"]) for r in rows if r["prompt_hash"]}

    @property
    def _is_mine(self) -> pc.Expression:
        found = (pc.field("owner") == self.id) & ~pc.field("grouped")
        for channel, group in self.groups.items():
            is_its = (pc.field("owner") == group) & (pc.field("channel") == channel)
            found = found | (is_its & pc.field("grouped"))
        return (pc.field("kind") == self.kind) & found

    @cached_property
    def gate(self) -> tuple[str, str]:
        """Gate and fault of an imported text that failed; both empty where none did."""
        rows = self.context.lake.read("imported", schema.IMPORTED).filter(self._is_mine)
        failed = rows.filter(pc.field("gate") != "").sort_by("event_timestamp").to_pylist()
        return (failed[-1]["gate"], failed[-1]["fault"]) if failed else ("", "")


def _channels(rows: list[dict[str, Any]]) -> set[str]:
    return {row["channel"] for row in rows}


def _prompt(one: PromptRecord, owner: str, *, is_knowledge: bool) -> AskedPrompt:
    return AskedPrompt(
        about=owner,
        channel=one.channel,
        as_of=one.as_of,
        state=one.state,
        gate=one.gate,
        fault=one.fault,
        coverage=one.coverage,
        model=one.model,
        calls=one.calls,
        tokens=one.tokens,
        cost=one.cost,
        answered=one.answered,
        is_knowledge=is_knowledge,
        system=one.system,
        prompt=one.prompt,
        answer=one.answer,
    )
