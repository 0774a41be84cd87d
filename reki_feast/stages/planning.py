"""What a generation would take: prompts, tokens, money; nothing is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import knowledge, schema
from reki_feast.llm import RequestPolicy, SpendLimits, Spent, estimate_calls
from reki_feast.project import DeclaredProject, now
from reki_feast.report import Progress
from reki_feast.results import CostComparison, DuePrompts, PlannedPrompts, PlanResult
from reki_feast.schema import KINDS, Kind
from reki_feast.stages.context import PromptStyle, StageContext
from reki_feast.stages.encoding_plan import ComingTexts, embedding_estimate, encoding_estimate
from reki_feast.stages.gain import coverage
from reki_feast.stages.group_reports import Formed, drift_notes, group_updates
from reki_feast.stages.grouping import group
from reki_feast.stages.plan_parts import PlanCounters, planned
from reki_feast.stages.prompting import Prompted, Prompting
from reki_feast.stages.refresh_reasons import due_prompts
from reki_feast.stages.snapshots import Times, choose_times, wanted_times
from reki_feast.tables.snapshot_times import split

if TYPE_CHECKING:
    from reki_feast.llm import CallEstimate as CallPlan
    from reki_feast.llm import LanguageModel, Ledger
    from reki_feast.llm.interface import RenewalPolicy

#: So many individual prompts are written to judge what all of them would take.
_SAMPLE = 500


def plan(
    project: DeclaredProject, *, as_of: Times = None, progress: Progress | None = None
) -> PlanResult:
    """How many prompts, tokens and how much money a generation takes; nothing is spent.

    Groups are formed, and kept, because their number is what there is to know.

    Raises:
        SourceError, DeclarationError, FactorsError: no prompt can be written.
    """
    context = StageContext.of(project)
    style, llm = style_of(context, True), context.llm()
    times = wanted_times(context, as_of)
    formed = formed_groups(context, times, progress)
    with context.ledger() as ledger:
        estimate = Estimate(context, llm, ledger, times[-1])
        unanswered = partial(ledger.unanswered, llm=llm, renew_before=renewal(context))
        prompting = Prompting(context, style, unanswered, context.redact())

        def due(prompts: pa.Table, asked: pa.Table) -> list[DuePrompts]:
            return due_prompts(
                context,
                ledger.unanswered(prompts, llm, renew_before=renewal(context, times[-1])),
                asked,
                outdated=unanswered,
                unanswered=partial(ledger.unanswered, llm=llm),
            )

        counters = PlanCounters(estimate, Estimate(context, llm, None), due)
        found = planned(prompting, times, counters)
        whole = found.whole
        left = _left_of_budget(context, ledger)
    policies = policy_notes(found.prompted)
    notes = [*_plan_notes(whole), *policies, *left, *_over_budget(context, whole)]
    collective = [kind for kind in KINDS if context.declared.collective(kind)]
    compared: list[CostComparison] = []
    if collective:
        grouped = {kind: found.afresh[kind] for kind in collective}
        compared, note = _compared(context, times, grouped, style, counters.afresh)
        notes.append(note)
    coming = ComingTexts(times, whole.to_ask, whole.completion_tokens)
    embeddings, told = embedding_estimate(context, coming)
    return PlanResult(
        project=context.name,
        model=llm.name,
        calls=whole.calls,
        groups=group_updates(formed),
        prompts=[_planned_prompts(*row) for row in [*found.kinds.items(), ("all", whole)]],
        due=[*found.due],
        coverage=coverage(context.tables),
        comparison=compared,
        encoding=encoding_estimate(context, coming),
        embeddings=embeddings,
        notes=[*drift_notes(context, formed), *context.tables.notices, *notes, *told],
        next=["reki generate"] if whole.to_ask else ["reki run"],
    )


class Estimate:
    """What asking a table of prompts would take, as the project is declared."""

    def __init__(
        self,
        project: DeclaredProject,
        llm: LanguageModel,
        ledger: Ledger | None,
        newest: datetime | None = None,
        *,
        retry_quarantined: bool = False,
    ) -> None:
        self._llm, self._ledger = llm, ledger
        self._policy = RequestPolicy(
            price=project.price(),
            review=project.declared.gates.review and bool(llm.max_answer_tokens),
            retry_quarantined=retry_quarantined,
        )
        self._renew_before = renewal(project, newest)

    def __call__(self, prompts: pa.Table) -> CallPlan:
        """Count calls, tokens and money of a ``schema.PROMPTS`` table."""
        return estimate_calls(
            prompts,
            llm=self._llm,
            ledger=self._ledger,
            policy=self._policy,
            renew_before=self._renew_before,
        )


def renewal(project: DeclaredProject, newest: datetime | None = None) -> RenewalPolicy:
    """Before when an answer is too old, by the project's policy.

    Args:
        project: its policy.
        newest: what is known of users as of earlier times is history, and does not grow old; None:
            all may.
    """
    days = project.declared.freshness.max_age_days
    cutoff = None if days is None else now() - timedelta(days=days)

    def renew_before(kind: str, as_of: datetime) -> datetime | None:
        is_history = newest is not None and kind == "user" and as_of < newest
        return None if is_history else cutoff

    return renew_before


def policy_notes(prompted: Sequence[Prompted]) -> list[str]:
    """What the policies of freshness did."""
    left = sum(one.left_alone for one in prompted)
    updated = sum(one.updated for one in prompted)
    note = [f"{left:,} users left alone: fewer new interactions than Freshness.min_new"]
    sent = [f"{updated:,} users are asked with their last knowledge and what is new"]
    reworded = max((one.reworded for one in prompted), default=0)
    words = [
        f"{reworded:,} users or groups are not asked again although the catalogue has other words "
        "for what they met, or no longer has it: Freshness(catalogue=True) asks them"
    ]
    notes = dict.fromkeys(note for one in prompted for note in one.notes)
    policies = ((note, left), (sent, updated), (words, reworded))
    return [*(note for found, count in policies if count for note in found), *notes]


def formed_groups(
    context: StageContext, times: list[datetime], progress: Progress | None
) -> list[Formed]:
    """Form the groups that are declared, if any; the first snapshots are remembered."""
    if not any(context.declared.collective(kind) for kind in KINDS):
        return []
    choose_times(context, times)
    return group(context, times, progress)


def style_of(context: StageContext, allow_unconfirmed: bool) -> PromptStyle:
    """How prompts are written; missing factors are told before groups take their time."""
    asks = bool(context.declared.generators)
    return context.prompt_style(
        context.factors(allow_unconfirmed=allow_unconfirmed) if asks else ()
    )


def _left_of_budget(project: DeclaredProject, ledger: Ledger) -> list[str]:
    """What the project's budget has been used for, as a sentence."""
    budget = project.declared.budget("project")
    if budget is None:
        return []
    totals = ledger.totals()
    pairs = (
        ("max_cost", budget.max_cost, totals.cost),
        ("max_calls", budget.max_calls, totals.calls),
        ("max_tokens", budget.max_tokens, totals.prompt_tokens + totals.completion_tokens),
    )
    spending = [f"{spent:,.10g} of {name}={most:,.10g}" for name, most, spent in pairs if most]
    return [f"the project has spent {', '.join(spending)}"]


def _over_budget(project: DeclaredProject, whole: CallPlan) -> list[str]:
    tokens = whole.prompt_tokens + whole.completion_tokens
    expected = Spent(whole.calls, tokens, whole.money or 0.0)
    limits = [
        SpendLimits(f"the {budget.per}", **budget.model_dump(exclude={"per"}))
        for budget in project.declared.budgets
    ]
    passed = [found for one in limits if (found := one.passed_by(expected))]
    return [f"this is expected to pass {limit}: the run will stop there" for limit in passed]


def _compared(
    context: StageContext,
    times: list[datetime],
    groups: Mapping[Kind, CallPlan],
    style: PromptStyle,
    estimate: Callable[[pa.Table], CallPlan],
) -> tuple[list[CostComparison], str]:
    """What the same would take with a prompt for each entity, judged from some of them."""
    rows: list[CostComparison] = []
    calls = [0, 0]
    for kind, grouped in groups.items():
        entities, sample = _individual_sample(context, times, kind, style)
        each = estimate(sample)
        scale = entities / max(sample.num_rows, 1)
        calls = [calls[0] + entities, calls[1] + grouped.to_ask]
        rows += [
            CostComparison(f"each {kind}", entities, *_spent(each, scale)),
            CostComparison(f"groups of {kind}s", grouped.to_ask, *_spent(grouped, 1.0)),
        ]
    note = f"{calls[1]:,} calls in place of {calls[0]:,} for the same entities"
    return (
        rows,
        f"{note}, whatever is answered already; tokens of individual prompts are judged from "
        f"{_SAMPLE:,} of them",
    )


def _spent(found: CallPlan, scale: float) -> tuple[int, int, float | None]:
    money = None if found.money is None else round(found.money * scale, 4)
    return round(found.prompt_tokens * scale), round(found.completion_tokens * scale), money


def _individual_sample(
    context: StageContext, times: list[datetime], kind: Kind, style: PromptStyle
) -> tuple[int, pa.Table]:
    """How many individual prompts there would be, and some of them, evenly spread."""
    if kind == "item":
        some = context.tables.items.take(_spread(context.tables.items.num_rows))
        return context.tables.items.num_rows, knowledge.item_prompts(some, as_of=times[0], **style)
    count, prompts, tables = 0, [schema.PROMPTS.empty_table()], context.tables
    for time in times:
        rows = split(tables, time, context.declared.scenario.history)
        rows = rows.filter(rows["prompt"])
        users = rows[tables.user.name].unique()
        count += len(users)
        chosen = pc.is_in(rows[tables.user.name], value_set=users.take(_spread(len(users))))
        some = rows.filter(chosen)
        chosen_rows = knowledge.PromptTables(tables.users, tables.items, some)
        prompts.append(knowledge.user_prompts(chosen_rows, as_of=time, **style))
    return count, pa.concat_tables(prompts)


def _spread(count: int) -> pa.Array:
    return pa.array(np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64)))


def _repeated(found: CallPlan) -> int:
    """Prompts whose very text another one has."""
    return found.prompts - found.answered - found.quarantined - found.to_ask


def _plan_notes(whole: CallPlan) -> list[str]:
    """Where the numbers of a plan come from, and why they differ."""
    notes = [whole.note]
    if repeated := _repeated(whole):
        notes.append(
            f"{repeated:,} prompts repeat the text of another, such as those of a user without "
            "news between two snapshots: each text is asked once"
        )
    if whole.calls > whole.to_ask:
        notes.append("each answer is checked by the model in a second call: Gates(review=True)")
    return notes


def _planned_prompts(kind: str, found: CallPlan) -> PlannedPrompts:
    return PlannedPrompts(
        kind=kind,
        prompts=found.prompts,
        repeated=_repeated(found),
        answered=found.answered,
        quarantined=found.quarantined,
        to_ask=found.to_ask,
        prompt_tokens=found.prompt_tokens,
        answer_tokens=found.completion_tokens,
        money=None if found.money is None else round(found.money, 4),
    )
