"""Prompts to knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract
from reki_feast import inputs as sources
from reki_feast import knowledge as known
from reki_feast.inputs import Inputs
from reki_feast.llm import BudgetError, Run, RunReport, Spent, ask_all, requests_from
from reki_feast.llm.report import added
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
from reki_feast.report import Progress, Report, Silent, Table


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
        limit: prompts asked, at most.
        limits: ``max_cost``, ``max_calls``, ``max_tokens`` of this run, before the declared ones.
        retry_quarantined: ask again for what failed a gate in an earlier run.
        allow_unconfirmed: use factors that no expert has confirmed.
        progress: shows how far it is.

    Raises:
        FactorsError: factors are missing or unconfirmed.
        LLMError: no call can succeed.
        BudgetError: a limit was reached; what was answered is kept, as knowledge too.
        KeyboardInterrupt: the same, on Ctrl-C.
    """
    given = sources.read(project.declared, project.root)
    how, llm = wording_of(project, allow_unconfirmed), project.llm()
    times = wanted_times(project, given, as_of)
    choose_times(project, times)
    formed = formed_groups(project, given, times, progress)
    with project.ledger() as ledger:
        terms = project.terms(llm, ledger, limits=limits, retry_quarantined=retry_quarantined)
        with Run(ledger, llm, terms) as run:
            done = _Generation(project, run, progress or Silent(), limit, times[-1])
            for some in _passes(project, times):
                done.ask(given, some, how, first=times[0])
                if done.is_over:
                    break
    done.raise_if_stopped()
    return Report(
        f"{project.name}: knowledge of {done.prompts:,} prompts by {llm.name}",
        tables=[*formed_table(formed), done.table(has_price=terms.price is not None)],
        notes=[*given.notices, *drift_notes(project, formed), *done.notes()],
        next=["reki generate"] if done.report.in_batch else ["reki encode"],
        failed=done.report.failed,
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
        self._redact, self._renew_before = project.redact(), renewal(project, newest)
        retry = run.terms.retry_quarantined
        self._estimate = Estimate(project, run.llm, run.ledger, newest, retry_quarantined=retry)
        self._prompted: list[Prompted] = []
        self._faults: list[str] = []
        self.report = RunReport()
        self.prompts = 0
        self._added = 0

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
        self._ask(pa.concat_tables([one.prompts for one in asked]))
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

    def _ask(self, prompts: pa.Table) -> None:
        run, renew_before = self._run, self._renew_before
        if self._limit is not None:
            waiting = run.ledger.unanswered(
                prompts,
                run.llm,
                renew_before=renew_before,
                retry_quarantined=run.terms.retry_quarantined,
            )
            prompts = waiting.slice(0, self._limit)
            self._limit -= prompts.num_rows
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

    def notes(self) -> list[str]:
        """What the user should know of this run."""
        report = self.report
        said = [f"{one.kind} {one.owner}: {one.error}" for one in report.failures]
        if report.quarantined:
            said.append(
                f"{report.quarantined:,} prompts are quarantined: their answers failed a gate, "
                "and their owners get the default vector; `reki quality` shows them"
            )
        if report.in_batch:
            said.append(f"{report.in_batch:,} prompts are in an open batch: run again to collect")
        return [*policy_notes(self._prompted), *said, *self._faults[:5]]


def _add(project: Project, table: pa.Table, time: datetime) -> int:
    """Add the rows that differ from the newest ones up to their time."""
    stored = state(project, time).knowledge
    fresh = known.changed(table, stored, ["kind", "channel", "owner", "grouped"])
    project.lake.append("knowledge", fresh)
    return int(fresh.num_rows)
