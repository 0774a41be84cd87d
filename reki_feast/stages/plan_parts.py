"""The prompts of a plan, written and counted of some users at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.results import DuePrompts
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.prompting import (
    Prompted,
    Prompting,
    UserPart,
    counted,
    prompts_at,
    user_parts,
)

if TYPE_CHECKING:
    from reki_feast.llm import CallEstimate

#: Counts calls, tokens and money of a table of prompts.
Count: TypeAlias = Callable[[pa.Table], "CallEstimate"]
#: Why prompts are due: of these, made of those.
Due: TypeAlias = Callable[[pa.Table, pa.Table], list[DuePrompts]]

_SUMMED = (
    *("prompts", "answered", "quarantined", "to_ask", "calls"),
    *("prompt_tokens", "completion_tokens"),
)


@dataclass(frozen=True)
class PromptPlan:
    """What the prompts of a generation take.

    Attributes:
        kinds: by kind.
        whole: of all kinds.
        afresh: by kind, if nothing were answered yet.
        prompted: for each snapshot what was counted of its prompts, without these.
        due: why prompts are due.
    """

    kinds: Mapping[Kind, CallEstimate]
    whole: CallEstimate
    afresh: Mapping[Kind, CallEstimate]
    prompted: Sequence[Prompted]
    due: Sequence[DuePrompts]

    def __add__(self, other: PromptPlan) -> PromptPlan:
        pairs = zip(self.prompted, other.prompted, strict=True)
        return PromptPlan(
            {kind: _sum(self.kinds[kind], other.kinds[kind]) for kind in KINDS},
            _sum(self.whole, other.whole),
            {kind: _sum(self.afresh[kind], other.afresh[kind]) for kind in KINDS},
            [counted(pair) for pair in pairs],
            _due_sum([*self.due, *other.due]),
        )


@dataclass(frozen=True)
class PlanCounters:
    """How prompts are counted.

    Attributes:
        estimate: by what is answered.
        afresh: as if nothing were.
        due: why they are due.
    """

    estimate: Count
    afresh: Count
    due: Due


def planned(prompting: Prompting, times: Sequence[datetime], counters: PlanCounters) -> PromptPlan:
    """The plan of all snapshots, of :data:`~reki_feast.stages.prompting.PART` users at a time."""
    seen = np.empty(0, np.uint64)
    found: PromptPlan | None = None
    for part in user_parts(prompting.context):
        prompted = _written(prompting, times, part)
        prompts = pa.concat_tables([one.prompts for one in prompted])
        hashes = _short(prompts)
        one = _counted(prompted, prompts, np.isin(hashes, seen), counters)
        found, seen = one if found is None else found + one, np.union1d(seen, hashes)
    assert found is not None
    return found


def _written(
    prompting: Prompting, times: Sequence[datetime], part: UserPart | None
) -> list[Prompted]:
    """The prompts of all snapshots, those that wait for answers to earlier ones among them."""
    found: list[Prompted] = []
    for number, time in enumerate(times):
        before = pa.concat_tables([one.prompts for one in found]) if found else None
        first = number == 0
        found.append(prompts_at(prompting, time, first=first, planned=before, part=part))
    return found


def _counted(
    prompted: Sequence[Prompted],
    prompts: pa.Table,
    is_repeated: npt.NDArray[np.bool_],
    counters: PlanCounters,
) -> PromptPlan:
    """The plan of a part; prompts that an earlier part has are repeated ones."""
    new = prompts.filter(pa.array(~is_repeated))

    def of_kind(by: Count, kind: Kind) -> CallEstimate:
        own = pc.field("kind") == kind
        return replace(by(new.filter(own)), prompts=prompts.filter(own).num_rows)

    return PromptPlan(
        {kind: of_kind(counters.estimate, kind) for kind in KINDS},
        replace(counters.estimate(new), prompts=prompts.num_rows),
        {kind: of_kind(counters.afresh, kind) for kind in KINDS},
        [counted([one]) for one in prompted],
        counters.due(new, pa.concat_tables([one.asked for one in prompted])),
    )


def _short(prompts: pa.Table) -> npt.NDArray[np.uint64]:
    """The first 64 bits of each prompt's hash."""
    texts = prompts["prompt_hash"].to_pylist()
    return np.array([int(one[:16], 16) for one in texts], np.uint64)


def _sum(one: CallEstimate, other: CallEstimate) -> CallEstimate:
    sums = {name: getattr(one, name) + getattr(other, name) for name in _SUMMED}
    money = None if one.money is None or other.money is None else one.money + other.money
    return replace(one, **sums, money=money)


def _due_sum(rows: Sequence[DuePrompts]) -> list[DuePrompts]:
    found = []
    for kind in KINDS:
        counts = [astuple(row)[1:] for row in rows if row.kind == kind]
        if counts:
            found.append(DuePrompts(kind, *map(sum, zip(*counts, strict=True))))
    return found
