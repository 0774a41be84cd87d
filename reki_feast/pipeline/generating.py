"""Prompts to knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract
from reki_feast import inputs as sources
from reki_feast import knowledge as known
from reki_feast.inputs import Inputs
from reki_feast.llm import BudgetError, Ledger, Run, RunReport, Spent, ask_all, requests_from
from reki_feast.llm.budget import QUOTA_MEND, QuotaError
from reki_feast.llm.ledger import reading
from reki_feast.llm.report import added
from reki_feast.pipeline.asked import remember
from reki_feast.pipeline.books import paid_note, runs_table
from reki_feast.pipeline.grouping import drift_notes, formed_table
from reki_feast.pipeline.planning import (
    Estimate,
    formed_groups,
    policy_notes,
    renewal,
    wording_of,
)
from reki_feast.pipeline.prompting import Prompted, prompts_at
from reki_feast.pipeline.stored import Times, choose_times, state, wanted_times
from reki_feast.project import Project, now
from reki_feast.report import Progress, Report, Silent, Table, told_on_failure
from reki_feast.schema import KINDS


def generate(
    project: Project,
    *,
    as_of: Times = None,
    limit: int | None = None,
    limits: Mapping[str, float | None] | None = None,
    retry_quarantined: bool = False,
    allow_unconfirmed: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Ask what is not answered yet; all answers become knowledge.

    Args:
        project: the project.
        as_of: snapshot times; None: as declared.
        limit: prompts asked, at most, of users and items in turn.
        limits: ``max_cost``, ``max_calls``, ``max_tokens`` of this run, before the declared ones.
        retry_quarantined: ask again for what failed a gate in an earlier run.
        allow_unconfirmed: use factors that no expert has confirmed.
        progress: shows how far it is.

    Raises:
        FactorsError: factors are missing or unconfirmed.
        LLMError: no call can succeed.
        BudgetError: a limit was reached; what was answered is kept, as knowledge too.
        QuotaError: the same, of a limit by the day that the server has.
        KeyboardInterrupt: the same, on Ctrl-C.
    """
    given = sources.read(project.declared, project.root)
    how, llm = wording_of(project, allow_unconfirmed), project.llm()
    project.check_key()
    times = wanted_times(project, given, as_of)
    choose_times(project, times)
    formed = formed_groups(project, given, times, progress)
    with project.ledger() as ledger, told_on_failure(partial(_paid, project, ledger, now())):
        terms = project.terms(llm, ledger, limits=limits, retry_quarantined=retry_quarantined)
        with Run(ledger, llm, terms) as run:
            done = _Generation(project, run, progress or Silent(), limit, times[-1])
            for some in _passes(project, times):
                done.ask(given, some, how, first=times[0])
                if done.is_over:
                    break
        said = done.notes()
    report = Report(
        f"{project.name}: knowledge of {done.prompts:,} prompts by {llm.name}",
        tables=[*formed_table(formed), done.table(has_price=terms.price is not None)],
        notes=[*given.notices, *drift_notes(project, formed), *said],
        next=done.next(),
        failed=done.report.failed,
    )
    with told_on_failure(lambda: replace(report, next=[])):
        done.raise_if_stopped()
    return report


def _paid(project: Project, ledger: Ledger, since: datetime) -> Report | None:
    """What a run that could not go on has paid; None where it did not begin to."""
    latest = reading.runs(ledger.rows, 1)
    if not latest or latest[0].began < since or not latest[0].calls:
        return None
    return Report(
        f"{project.name}: the run could not go on; what was answered is kept",
        tables=[runs_table(ledger, 1)],
        notes=paid_note(ledger),
    )


def _passes(project: Project, times: list[datetime]) -> list[list[datetime]]:
    """Snapshots that can be asked for together: all, unless later ones build on earlier ones."""
    policy = project.declared.freshness
    builds = policy.incremental or policy.min_new > 1
    return [[time] for time in times] if builds else [times]


class _Generation:
    """One run over the snapshots."""

    def __init__(
        self,
        project: Project,
        run: Run,
        progress: Progress,
        limit: int | None,
        newest: datetime,
    ) -> None:
        self._project, self._run, self._progress, self._limit = project, run, progress, limit
        self._last = newest
        self._redact, self._renew_before = project.redact(), renewal(project, newest)
        retry = run.terms.retry_quarantined
        self._estimate = Estimate(project, run.llm, run.ledger, newest, retry_quarantined=retry)
        self._prompted: list[Prompted] = []
        self._faults: list[str] = []
        self.report = RunReport()
        self.prompts = 0
        self._added = 0
        self._left = 0
        declared = project.declared
        self._kinds = [k for k in KINDS if declared.individual(k) or declared.collective(k)]

    @property
    def is_over(self) -> bool:
        """Whether the later snapshots have to wait."""
        return bool(self.report.stopped) or self._limit == 0

    def ask(
        self, given: Inputs, times: list[datetime], how: dict[str, Any], *, first: datetime
    ) -> None:
        """Ask for some snapshots together, and keep what is known at each."""
        asked = [self._prompts(given, time, how, first=time == first) for time in times]
        self._prompted += asked
        self.prompts += sum(one.prompts.num_rows for one in asked)
        for one in asked:
            remember(self._project, one.asked)
        self._ask(pa.concat_tables([one.prompts for one in asked]), is_last=times[-1] == self._last)
        for time, one in zip(times, asked, strict=True):
            self._keep(one.prompts, time)

    def _prompts(
        self, given: Inputs, time: datetime, how: dict[str, Any], *, first: bool
    ) -> Prompted:
        ledger, llm = self._run.ledger, self._run.llm
        unanswered = partial(ledger.unanswered, llm=llm, renew_before=renewal(self._project))
        return prompts_at(
            self._project,
            given,
            time,
            how,
            first=first,
            unanswered=unanswered,
            redact=self._redact,
        )

    def _keep(self, prompts: pa.Table, time: datetime) -> None:
        """Turn what is answered into knowledge."""
        ledger, llm = self._run.ledger, self._run.llm
        lost = pa.array(list(ledger.quarantined(prompts, llm)), pa.string())
        kept = prompts.filter(pc.invert(pc.is_in(prompts["prompt_hash"], lost)))
        table, faults = extract.knowledge_from(kept, ledger.answers(kept, llm), created=now())
        self._added += _add(self._project, table, time)
        if not self.is_over:
            self._faults += map(str, faults)

    def _ask(self, prompts: pa.Table, *, is_last: bool) -> None:
        run, renew_before = self._run, self._renew_before
        if self._limit is not None:
            waiting = run.ledger.unanswered(
                prompts,
                run.llm,
                renew_before=renew_before,
                retry_quarantined=run.terms.retry_quarantined,
            )
            prompts = _few(waiting, self._limit, 1 if is_last else len(self._kinds))
            self._limit -= prompts.num_rows
            self._left += waiting.num_rows - prompts.num_rows
        found = self._estimate(prompts)
        tokens = found.prompt_tokens + found.completion_tokens
        run.expect(Spent(found.calls, tokens, found.money or 0.0))
        with self._progress.bar("asking") as bar:
            report = ask_all(
                requests_from(prompts, renew_before),
                run.llm,
                run.ledger,
                run=run,
                progress=lambda so_far: bar(so_far.done + so_far.batch_done, prompts.num_rows),
            )
        self.report = added(self.report, report)

    def raise_if_stopped(self) -> None:
        """Tell that a limit, or the user, ended the run before its time."""
        report = self.report
        if report.stopped == "interrupted":
            raise KeyboardInterrupt
        if report.stopped == "budget":
            left = self.prompts - report.done
            raise BudgetError(
                "the run stays within its budget",
                found=f"{report.limit} is reached: {report.asked:,} prompts answered in this run, "
                f"at least {left:,} left",
                mend="raise the limit and run again: it goes on where it stopped and pays for "
                "nothing twice; `reki encode` goes on with what is known now",
            )
        if report.stopped == "quota":
            raise QuotaError(
                "the server's quota lasts for the run",
                found=f"{report.limit}; {report.asked:,} prompts answered in this run, at least "
                f"{self.prompts - report.done:,} left",
                mend=f"{QUOTA_MEND}; `reki encode` goes on with what is known now",
            )

    def next(self) -> list[str]:
        """What makes sense now: not to go on with nothing, nor with a small part."""
        report = self.report
        if report.failed and not report.asked:
            return ["reki doctor", "reki generate"]
        if self._left:
            return ["reki quality", "reki generate"]
        return ["reki generate"] if report.in_batch or report.failed else ["reki encode"]

    def table(self, *, has_price: bool) -> Table:
        """What was asked and what it took."""
        report = self.report
        values = {
            "asked": report.asked,
            "reused": report.reused + report.repeated,
            "quarantined": report.quarantined,
            "failed": report.failed,
            "calls": report.calls,
            "prompt_tokens": report.prompt_tokens,
            "answer_tokens": report.completion_tokens,
            "money": round(report.cost, 4) if has_price else None,
            "seconds": round(report.seconds, 1),
            "added": self._added,
        }
        return Table("calls", tuple(values), [tuple(values.values())])

    def _filtered(self) -> str:
        """How many prompts the server refuses for what they say."""
        gates = reading.gates(self._run.ledger.rows)
        count = sum(lost for gate, _, lost in gates if gate == "filtered")
        return f", or the server's content filter refused them (so far {count:,})" if count else ""

    def notes(self) -> list[str]:
        """What the user should know of this run."""
        report = self.report
        said = [f"{one.kind} {one.owner}: {one.error}" for one in report.failures]
        if report.quarantined:
            said.append(
                f"{report.quarantined:,} prompts are quarantined: their answers failed a gate"
                f"{self._filtered()}, and their owners get the default vector; `reki quality` "
                "shows them"
            )
        if self._left:
            said.append(f"{self._left:,} prompts or more are left: --limit is reached")
        if report.in_batch:
            said.append(f"{report.in_batch:,} prompts are in an open batch: run again to collect")
        return [*policy_notes(self._prompted), *report.notes, *said, *self._faults[:5]]


def _few(prompts: pa.Table, limit: int, parts: int) -> pa.Table:
    """At most so many prompts, of users and of items in turn.

    Args:
        prompts: ``schema.PROMPTS``.
        limit: so many at most.
        parts: a kind gets this part of the limit, or it all, where none is left for others later.
    """
    places = [
        (rank, kind, row)
        for kind in KINDS
        for rank, row in enumerate(np.flatnonzero(prompts["kind"].to_numpy() == kind).tolist())
        if rank * parts < limit
    ]
    return prompts.take(pa.array([row for *_, row in sorted(places)[:limit]], pa.int64()))


def _add(project: Project, table: pa.Table, time: datetime) -> int:
    """Add the rows that differ from the newest ones up to their time."""
    stored = state(project, time).knowledge
    fresh = known.changed(table, stored, ["kind", "channel", "owner", "grouped"])
    project.lake.append("knowledge", fresh)
    return int(fresh.num_rows)
