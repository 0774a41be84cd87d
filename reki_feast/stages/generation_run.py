"""One run that asks: its prompts part by part, the answers as knowledge, and what to tell of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge
from reki_feast.extras import require
from reki_feast.knowledge import by_entity
from reki_feast.llm import BudgetError, Run, RunReport, Spent, ask_in_run, requests_from
from reki_feast.llm.budget import QUOTA_HINT, QuotaError
from reki_feast.llm.ledger import reports
from reki_feast.llm.report import merged
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Progress
from reki_feast.results import CallUsage
from reki_feast.schema import KINDS
from reki_feast.stages.observed import tell_usage
from reki_feast.stages.planning import Estimate, policy_notes, renewal
from reki_feast.stages.prompt_inputs import remember
from reki_feast.stages.prompting import (
    Prompted,
    Prompting,
    UserPart,
    counted,
    prompts_at,
    user_parts,
)
from reki_feast.stages.snapshots import state
from reki_feast.stages.unchanged_generation import UnchangedGeneration, quarantine_note
from reki_feast.stages.unchanged_prompts import UnchangedPrompts

if TYPE_CHECKING:
    pass


class GenerationRun:
    """One run over the snapshots."""

    def __init__(
        self,
        prompting: Prompting,
        run: Run,
        progress: Progress,
        limit: int | None,
        newest: datetime,
    ) -> None:
        self._prompting, self._context = prompting, prompting.context
        self._run, self._progress, self._limit = run, progress, limit
        self._last, self._renew_before = newest, renewal(self._context, newest)
        retry = run.policy.retry_quarantined
        self._estimate = Estimate(
            self._context, run.llm, run.ledger, newest, retry_quarantined=retry
        )
        self._unchanged_prompts = UnchangedPrompts(self._context, run)
        self._counts: dict[datetime, Prompted] = {}
        self._asked, self._coming = 0, 0
        self._next = UnchangedGeneration(
            self._context, run.llm.name, None if run.policy.price is None else 0.0
        )
        self._faults: list[str] = []
        self.report = RunReport()
        self.prompts = 0
        self._added = 0
        self._left = 0
        declared = self._context.declared
        self._kinds = [k for k in KINDS if declared.individual(k) or declared.collective(k)]

    @property
    def is_over(self) -> bool:
        """Whether the later snapshots have to wait."""
        return bool(self.report.stopped) or self._limit == 0

    @property
    def _unchanged(self) -> int:
        """Prompts that were not written, since they and their answers are as they were."""
        return sum(one.unchanged for one in self._counts.values())

    def ask(self, times: list[datetime], *, first: datetime) -> None:
        """Ask for some snapshots together, of some users at a time; keep what is known at each."""
        for part in user_parts(self._context):
            self._coming = 0 if part is None else part.later * len(times)
            self._ask_part(times, part, first=first)
            if self.is_over:
                break

    def _ask_part(self, times: list[datetime], part: UserPart | None, *, first: datetime) -> None:
        write = partial(prompts_at, self._prompting, part=part)
        asked = [write(time, first=time == first) for time in times]
        for time, one in zip(times, asked, strict=True):
            before = [self._counts[time]] if time in self._counts else []
            self._counts[time] = counted([*before, one])
            self.prompts += one.prompts.num_rows + one.unchanged
            remember(self._context, one.asked)
        is_last = times[-1] == self._last and not self._coming
        self._ask(pa.concat_tables([one.prompts for one in asked]), is_last=is_last)
        has_items = part is None or part.is_first
        for time, one in zip(times, asked, strict=True):
            lost = self._keep(one.prompts, time)
            self._next.add(time, one, lost, first=time == first and has_items)

    def _keep(self, prompts: pa.Table, time: datetime) -> pa.Array:
        """Turn what is answered into knowledge; the hashes of prompts that are quarantined."""
        ledger, llm = self._run.ledger, self._run.llm
        lost = pa.array(list(ledger.quarantined(prompts, llm)), pa.string())
        kept = prompts.filter(pc.invert(pc.is_in(prompts["prompt_hash"], lost)))
        digests = self._unchanged_prompts.answers(kept["prompt_hash"].to_pylist())
        table, faults = knowledge.knowledge_from(kept, ledger.answers(kept, llm), created=now())
        self._added += _add(self._context, table, time)
        self._unchanged_prompts.remember(kept, digests, time)
        if not self.is_over:
            self._faults += map(str, faults)
        return lost

    def _ask(self, prompts: pa.Table, *, is_last: bool) -> None:
        run, renew_before = self._run, self._renew_before
        if self._limit is not None:
            waiting = run.ledger.unanswered(
                prompts,
                run.llm,
                renew_before=renew_before,
                retry_quarantined=run.policy.retry_quarantined,
            )
            prompts = _few(waiting, self._limit, 1 if is_last else len(self._kinds))
            self._limit -= prompts.num_rows
            self._left += waiting.num_rows - prompts.num_rows
        found = self._estimate(prompts)
        if found.calls:  # the gates load them at the first answer, which is paid for by then
            require("datasketch", "py3langid")
        tokens = found.prompt_tokens + found.completion_tokens
        run.expect(Spent(found.calls, tokens, found.money or 0.0))
        before, total = self._asked, self._asked + prompts.num_rows + self._coming
        with self._progress.bar("asking") as bar:

            def told(so_far: RunReport) -> None:
                bar(before + so_far.done + so_far.batch_done, total)
                tell_usage(self._context, self.report, so_far)

            report = ask_in_run(requests_from(prompts, renew_before), run, progress=told)
        self._asked += prompts.num_rows
        self.report = merged(self.report, report)
        tell_usage(self._context, RunReport(), self.report)

    def is_settled(self, began: int) -> bool:
        """Whether nothing was asked and added, and nothing is left to ask (:meth:`is_complete`)."""
        return self.is_complete(began) and not (self.report.calls or self._added)

    def is_complete(self, began: int) -> bool:
        """Whether nothing is left to ask, until something stored or declared changes.

        Vectors of groups that are handed in are neither.

        Args:
            began: the ledger's version when the run began; others may have written since.
        """
        declared, report = self._context.declared, self.report
        is_waiting = report.stopped or report.failed or report.in_batch or self._left
        is_handed_in = declared.sources.embeddings or declared.sources.user_embeddings
        can_change = is_handed_in and any(declared.collective(kind) for kind in KINDS)
        return not (is_waiting or can_change) and self._run.ledger.data_version == began

    def unchanged(self) -> UnchangedGeneration | None:
        """What a run returns that finds all as this one leaves it; None where that is unclear."""
        policy, report = self._context.declared.freshness, self.report
        builds = policy.incremental or policy.min_new > 1
        asks_again = policy.max_age_days is not None or self._run.policy.retry_quarantined
        has_more = self._faults or policy_notes([*self._counts.values()]) or self._limit is not None
        if builds or has_more or (report.quarantined and asks_again):
            return None
        return replace(self._next, filtered=self._filtered())

    def until(self) -> datetime | None:
        """When the next answer becomes too old; None: never."""
        days = self._context.declared.freshness.max_age_days
        age = timedelta(days=days or 0)
        oldest = None if days is None else self._run.ledger.oldest_answer(now() - age)
        return None if oldest is None else oldest + age

    def raise_if_stopped(self) -> None:
        """Tell that a limit, or the user, ended the run before its time."""
        report = self.report
        if report.stopped == "interrupted":
            raise KeyboardInterrupt
        if report.stopped == "budget":
            left = self.prompts - self._unchanged - report.done
            raise BudgetError(
                "the run stays within its budget",
                detail=f"{report.limit} is reached: {report.asked:,} prompts answered in this run, "
                f"at least {left:,} left",
                hint="raise the limit and run again: it goes on where it stopped and pays for "
                "nothing twice; `reki encode` goes on with what is known now",
            )
        if report.stopped == "quota":
            raise QuotaError(
                "the server's quota lasts for the run",
                detail=f"{report.limit}; {report.asked:,} prompts answered in this run, at least "
                f"{self.prompts - self._unchanged - report.done:,} left",
                hint=f"{QUOTA_HINT}; `reki encode` goes on with what is known now",
            )

    def next(self) -> list[str]:
        """What makes sense now: not to go on with nothing, nor with a small part."""
        report = self.report
        if report.failed and not report.asked:
            return ["reki doctor", "reki generate"]
        if self._left:
            return ["reki quality", "reki generate"]
        return ["reki generate"] if report.in_batch or report.failed else ["reki encode"]

    def usage(self, *, has_price: bool) -> CallUsage:
        """What was asked and what it took."""
        report = self.report
        return CallUsage(
            asked=report.asked,
            reused=report.reused + report.repeated + self._unchanged,
            quarantined=report.quarantined,
            failed=report.failed,
            calls=report.calls,
            prompt_tokens=report.prompt_tokens,
            answer_tokens=report.completion_tokens,
            money=round(report.cost, 4) if has_price else None,
            seconds=round(report.seconds, 1),
            added=self._added,
        )

    def _filtered(self) -> int:
        """How many prompts the server refuses for what they say."""
        gates = reports.gates(self._run.ledger.rows)
        return sum(lost for gate, _, lost in gates if gate == "filtered")

    def notes(self) -> list[str]:
        """What the user should know of this run."""
        report = self.report
        said = [f"{one.kind} {one.owner}: {one.error}" for one in report.failures]
        if report.quarantined:
            said.append(quarantine_note(report.quarantined, self._filtered()))
        if self._left:
            said.append(f"{self._left:,} prompts or more are left: --limit is reached")
        if report.in_batch:
            said.append(f"{report.in_batch:,} prompts are in an open batch: run again to collect")
        return [*policy_notes([*self._counts.values()]), *report.notes, *said, *self._faults[:5]]


def _few(prompts: pa.Table, limit: int, parts: int) -> pa.Table:
    """At most so many prompts, of users and of items in turn.

    Args:
        prompts: ``schema.PROMPTS``.
        limit: so many at most.
        parts: a kind gets this part of the limit, or it all, where none is left for others later.
    """
    ranked = [
        (rank, kind, row)
        for kind in KINDS
        for rank, row in enumerate(np.flatnonzero(prompts["kind"].to_numpy() == kind).tolist())
        if rank * parts < limit
    ]
    return prompts.take(pa.array([row for *_, row in sorted(ranked)[:limit]], pa.int64()))


def _add(project: DeclaredProject, table: pa.Table, time: datetime) -> int:
    """Add the rows that differ from the newest ones up to their time."""
    stored = state(project, time).knowledge
    fresh = by_entity.changed_rows(table, stored, ["kind", "channel", "owner", "grouped"])
    project.lake.append("knowledge", fresh)
    return int(fresh.num_rows)
