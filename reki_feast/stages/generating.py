"""Prompts to knowledge."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, TypedDict

from typing_extensions import Unpack

from reki_feast.llm import Ledger, Run
from reki_feast.llm.ledger import reports
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Progress, Report, Silent, attach_report
from reki_feast.results import AskingRun, GenerateResult, table_of
from reki_feast.stages.context import PromptStyle, StageContext
from reki_feast.stages.group_reports import drift_notes, group_updates
from reki_feast.stages.ledger_reports import latest_runs, total_usage
from reki_feast.stages.observed import stage
from reki_feast.stages.planning import formed_groups, renewal, style_of
from reki_feast.stages.prompting import (
    Prompting,
)
from reki_feast.stages.snapshots import Times, choose_times, wanted_times
from reki_feast.stages.unchanged_prompts import UnchangedPrompts
from reki_feast.stages.up_to_date import StandingResult

if TYPE_CHECKING:
    from reki_feast.llm import LanguageModel, RequestPolicy
from reki_feast.stages.generation_run import GenerationRun


class GenerateOptions(TypedDict, total=False):
    """Options of `reki generate`, which `reki run` has too.

    Attributes:
        as_of: snapshot times; None or absent: as declared.
        limit: maximum number of prompts to ask, of users and items in turn.
        max_cost: maximum cost of this run, instead of the declared budget's.
        max_calls: maximum number of calls of this run.
        max_tokens: maximum number of tokens of this run, prompts and answers together.
        retry_quarantined: whether to ask again what failed a gate in an earlier run.
        allow_unconfirmed: whether to use factors that no expert has confirmed.
    """

    as_of: Times
    limit: int | None
    max_cost: float | None
    max_calls: int | None
    max_tokens: int | None
    retry_quarantined: bool
    allow_unconfirmed: bool


@stage
def generate(
    project: DeclaredProject,
    *,
    progress: Progress | None = None,
    **options: Unpack[GenerateOptions],
) -> GenerateResult:
    """Ask what is not answered yet; all answers become knowledge.

    Args:
        project: the project.
        progress: shows how far it is.
        options: as :class:`GenerateOptions` says.

    Raises:
        FactorsError: factors are missing or unconfirmed.
        LLMError: no call can succeed.
        BudgetError: a limit was reached; what was answered is kept, as knowledge too.
        QuotaError: the same, of a limit by the day that the server has.
        KeyboardInterrupt: the same, on Ctrl-C.
    """
    context = StageContext.of(project)
    style, llm = style_of(context, options.get("allow_unconfirmed", False)), context.llm()
    context.check_key()
    model = (llm.name, llm.parameters)
    standing = StandingResult(context, GenerateResult, asks=True, llm=model, **options)
    return standing.stored() or _generated(context, style, llm, options, progress, standing)


def _generated(
    context: StageContext,
    style: PromptStyle,
    llm: LanguageModel,
    options: GenerateOptions,
    progress: Progress | None,
    standing: StandingResult[GenerateResult],
) -> GenerateResult:
    times = wanted_times(context, options.get("as_of"))
    choose_times(context, times)
    formed = formed_groups(context, times, progress)
    with context.ledger() as ledger, attach_report(partial(_paid, context, ledger, now())):
        began = ledger.data_version
        limits = {
            "max_cost": options.get("max_cost"),
            "max_calls": options.get("max_calls"),
            "max_tokens": options.get("max_tokens"),
        }
        retry = options.get("retry_quarantined", False)
        policy = context.request_policy(llm, ledger, limits=limits, retry_quarantined=retry)
        with _run(context, ledger, llm, policy) as run:
            prompting = _prompting(context, style, run)
            done = GenerationRun(
                prompting, run, progress or Silent(), options.get("limit"), times[-1]
            )
            for some in _passes(context, times):
                done.ask(some, first=times[0])
                if done.is_over:
                    break
        said, is_settled, until = done.notes(), done.is_settled(began), done.until()
        unchanged = done.unchanged() if done.is_complete(began) else None
    result = GenerateResult(
        project=context.name,
        model=llm.name,
        prompts=done.prompts,
        groups=group_updates(formed),
        usage=done.usage(has_price=policy.price is not None),
        notes=[*context.tables.notices, *drift_notes(context, formed), *said],
        next=done.next(),
        failed=done.report.failed,
    )
    with attach_report(lambda: replace(result, next=[]).report()):
        done.raise_if_stopped()
    if unchanged is not None:
        standing.foresee(partial(unchanged.result, formed), until=until)
    return standing.keep(result, until=until) if is_settled else result


def _run(context: StageContext, ledger: Ledger, llm: LanguageModel, policy: RequestPolicy) -> Run:
    engine = context.engine
    if engine is None:
        return Run(ledger, llm, policy)
    return Run(ledger, engine.model(llm, policy.concurrency), policy, engine.writer)


def _paid(project: DeclaredProject, ledger: Ledger, since: datetime) -> Report | None:
    """What a run that could not go on has paid; None where it did not begin to."""
    latest = reports.runs(ledger.rows, 1)
    if not latest or latest[0].began < since or not latest[0].calls:
        return None
    return Report(
        f"{project.name}: the run could not go on; what was answered is kept",
        tables=[table_of("runs", AskingRun, latest_runs(ledger, 1))],
        notes=total_usage(ledger).notes(),
    )


def _passes(project: DeclaredProject, times: list[datetime]) -> list[list[datetime]]:
    """Snapshots that can be asked for together: all, unless later ones build on earlier ones."""
    policy = project.declared.freshness
    builds = policy.incremental or policy.min_new > 1
    return [[time] for time in times] if builds else [times]


def _prompting(context: StageContext, style: PromptStyle, run: Run) -> Prompting:
    renew_before = renewal(context)
    unanswered = partial(run.ledger.unanswered, llm=run.llm, renew_before=renew_before)
    unchanged = cache(UnchangedPrompts(context, run).of)  # as it is before the first is asked
    return Prompting(context, style, unanswered, context.redact(), unchanged)
