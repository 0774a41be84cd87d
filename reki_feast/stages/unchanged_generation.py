"""What a generation returns that finds all as it is, told by the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.results import CallUsage, GenerateResult
from reki_feast.stages.context import StageContext
from reki_feast.stages.group_reports import Formed, drift_notes, group_updates, unchanged_groups
from reki_feast.stages.prompting import Prompted


@dataclass(frozen=True)
class PromptCount:
    """Some prompts: how many, and the hashes of those whose answers failed a gate."""

    prompts: int = 0
    quarantined: frozenset[str] = frozenset()


def quarantine_note(count: int, filtered: int) -> str:
    """What becomes of prompts whose answers failed a gate.

    Args:
        count: how many these are.
        filtered: how many prompts the server has refused for what they say.
    """
    refused = f", or the server's content filter refused them (so far {filtered:,})"
    return (
        f"{count:,} prompts are quarantined: their answers failed a gate"
        f"{refused if filtered else ''}, and their owners get the default vector; `reki quality` "
        "shows them"
    )


@dataclass
class UnchangedGeneration:
    """What a run without a call returns, made from what this one asked of each snapshot.

    Attributes:
        context: the command's.
        model: name of the language model.
        money: what no call costs; None without a price.
        filtered: how many prompts the server has refused for what they say.
        items: of single items, which are asked about once, whatever the snapshot.
        snapshots: of all others, by time.
    """

    context: StageContext
    model: str
    money: float | None
    filtered: int = 0
    items: PromptCount = PromptCount()
    snapshots: dict[datetime, PromptCount] = field(default_factory=dict)

    def add(self, time: datetime, asked: Prompted, quarantined: pa.Array, *, first: bool) -> None:
        """Count the prompts of a snapshot, or of a part of its users.

        Args:
            time: as of when.
            asked: its prompts.
            quarantined: hashes of prompts whose answers failed a gate.
            first: whether single items are among them.
        """
        rows = asked.prompts.filter(pc.is_in(asked.prompts["prompt_hash"], value_set=quarantined))
        is_item = pc.field("kind").isin(["item"]) & ~pc.field("grouped")
        count = asked.prompts.num_rows + asked.unchanged
        if first and self.context.declared.individual("item"):
            every = self.context.tables.items.num_rows
            count -= every
            self.items = PromptCount(every, _hashes(rows.filter(is_item)))
        before = self.snapshots.get(time, PromptCount())
        lost = before.quarantined | _hashes(rows.filter(~is_item))
        self.snapshots[time] = PromptCount(before.prompts + count, lost)

    def result(self, formed: list[Formed], times: Sequence[datetime]) -> GenerateResult | None:
        """The result of a run of some snapshots; None where it does not follow from this one.

        Args:
            formed: what happened to groups in this run.
            times: the snapshots.
        """
        if not {*times}.issubset(self.snapshots):
            return None
        groups = unchanged_groups(formed)
        counted = [self.items, *(self.snapshots[time] for time in times)]
        prompts = sum(one.prompts for one in counted)
        # of several that ask the same, the first counts as such and others as repeated
        lost = len(frozenset[str]().union(*(one.quarantined for one in counted)))
        return GenerateResult(
            project=self.context.name,
            model=self.model,
            prompts=prompts,
            groups=group_updates(groups),
            usage=CallUsage(
                asked=0,
                reused=prompts - lost,
                quarantined=lost,
                failed=0,
                calls=0,
                prompt_tokens=0,
                answer_tokens=0,
                money=self.money,
                seconds=0.0,
                added=0,
            ),
            notes=[
                *self.context.tables.notices,
                *drift_notes(self.context, groups),
                *([quarantine_note(lost, self.filtered)] if lost else []),
            ],
            next=["reki encode"],
        )


def _hashes(prompts: pa.Table) -> frozenset[str]:
    return frozenset(prompts["prompt_hash"].to_pylist())
