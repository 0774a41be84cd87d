"""What a generation would take: prompts, tokens, money; nothing is spent."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract, schema
from reki_feast import inputs as sources
from reki_feast.inputs import Inputs
from reki_feast.llm import Limits, Spent
from reki_feast.llm import plan as plan_calls
from reki_feast.pipeline.grouping import Formed, drift_notes, formed_table, group
from reki_feast.pipeline.helping import coverage
from reki_feast.pipeline.prompting import Prompted, prompts_at
from reki_feast.pipeline.reasons import due_table
from reki_feast.pipeline.stored import Times, choose_times, wanted_times
from reki_feast.project import Project, now
from reki_feast.report import Progress, Report, Table
from reki_feast.schema import KINDS, Kind

if TYPE_CHECKING:
    from reki_feast.llm import LLM, Ledger
    from reki_feast.llm import Plan as CallPlan
    from reki_feast.llm.port import Renewal
    from reki_feast.pipeline.asked import Unanswered

#: So many individual prompts are written to judge what all of them would take.
_SAMPLE = 500


def plan(project: Project, *, as_of: Times = None, progress: Progress | None = None) -> Report:
    """How many prompts, tokens and how much money a generation takes; nothing is spent.

    Groups are formed, and kept, because their number is what there is to know.

    Raises:
        SourceError, DeclarationError, FactorsError: no prompt can be written.
    """
    given = sources.read(project.declared, project.root)
    how, llm = wording_of(project, True), project.llm()
    times = wanted_times(project, given, as_of)
    formed = formed_groups(project, given, times, progress)
    with project.ledger() as ledger:
        estimate = Estimate(project, llm, ledger, times[-1])
        unanswered = partial(ledger.unanswered, llm=llm, renew_before=renewal(project))
        prompted = _planned(project, given, times, how, unanswered)
        prompts, asked = (
            pa.concat_tables([getattr(one, name) for one in prompted])
            for name in ("prompts", "asked")
        )
        rows = [(kind, estimate(prompts.filter(pc.field("kind") == kind))) for kind in KINDS]
        whole = estimate(prompts)
        due = due_table(
            project,
            ledger.unanswered(prompts, llm, renew_before=renewal(project, times[-1])),
            asked,
            outdated=unanswered,
            unanswered=partial(ledger.unanswered, llm=llm),
        )
        left = _left_of_budget(project, ledger)
    tables = [*formed_table(formed), _plan_table([*rows, ("all", whole)]), *due, *coverage(given)]
    notes = [*_plan_notes(whole), *policy_notes(prompted), *left, *_over_budget(project, whole)]
    collective = [kind for kind in KINDS if project.declared.collective(kind)]
    if collective:
        compared, said = _compared(project, given, times, collective, how, prompts, llm)
        tables.append(compared)
        notes.append(said)
    return Report(
        f"{project.name}: {whole.calls:,} calls to {llm.name}",
        tables=tables,
        notes=[*drift_notes(project, formed), *given.notices, *notes],
        next=["reki generate"] if whole.to_ask else ["reki run"],
    )


class Estimate:
    """What asking a table of prompts would take, as the project is declared."""

    def __init__(
        self,
        project: Project,
        llm: LLM,
        ledger: Ledger | None,
        newest: datetime | None = None,
        *,
        retry_quarantined: bool = False,
    ) -> None:
        self._retry_quarantined = retry_quarantined
        self._llm, self._ledger = llm, ledger
        self._prices = project.prices()
        self._review = project.declared.gates.review and bool(llm.longest_answer)
        self._renew_before = renewal(project, newest)

    def __call__(self, prompts: pa.Table) -> CallPlan:
        """Count calls, tokens and money of a ``schema.PROMPTS`` table."""
        return plan_calls(
            prompts,
            llm=self._llm,
            ledger=self._ledger,
            prices=self._prices,
            renew_before=self._renew_before,
            review=self._review,
            retry_quarantined=self._retry_quarantined,
        )


def renewal(project: Project, newest: datetime | None = None) -> Renewal:
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


def policy_notes(prompted: list[Prompted]) -> list[str]:
    """What the policies of freshness did."""
    left = sum(one.left_alone for one in prompted)
    updated = sum(one.updated for one in prompted)
    said = [f"{left:,} users left alone: fewer new interactions than Freshness.min_new"]
    sent = [f"{updated:,} users are asked with their last knowledge and what is new"]
    reworded = max((one.reworded for one in prompted), default=0)
    words = [
        f"{reworded:,} users or groups are not asked again although the catalogue has other words "
        "for what they met, or no longer has it: Freshness(catalogue=True) asks them"
    ]
    notes = dict.fromkeys(note for one in prompted for note in one.notes)
    policies = ((said, left), (sent, updated), (words, reworded))
    return [*(note for found, count in policies if count for note in found), *notes]


def formed_groups(
    project: Project, given: Inputs, times: list[datetime], progress: Progress | None
) -> list[Formed]:
    """Form the groups that are declared, if any; the first snapshots are remembered."""
    if not any(project.declared.collective(kind) for kind in KINDS):
        return []
    choose_times(project, times)
    return group(project, given, times, progress)


def wording_of(project: Project, allow_unconfirmed: bool) -> dict[str, Any]:
    """What prompts are written with; missing factors are told before groups take their time."""
    asks = bool(project.declared.generators)
    factors = project.factors(allow_unconfirmed=allow_unconfirmed) if asks else ()
    return {"wording": project.wording(factors), "templates": project.templates}


def _planned(
    project: Project,
    given: Inputs,
    times: list[datetime],
    how: dict[str, Any],
    unanswered: Unanswered,
) -> list[Prompted]:
    """The prompts of all snapshots, those that wait for answers to earlier ones among them."""
    found: list[Prompted] = []
    for number, time in enumerate(times):
        planned = pa.concat_tables([one.prompts for one in found]) if found else None
        first = number == 0
        found.append(
            prompts_at(
                project, given, time, how, first=first, unanswered=unanswered, planned=planned
            )
        )
    return found


def _left_of_budget(project: Project, ledger: Ledger) -> list[str]:
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
    said = [f"{spent:,.10g} of {name}={most:,.10g}" for name, most, spent in pairs if most]
    return [f"the project has spent {', '.join(said)}"]


def _over_budget(project: Project, whole: CallPlan) -> list[str]:
    tokens = whole.prompt_tokens + whole.completion_tokens
    expected = Spent(whole.calls, tokens, whole.money or 0.0)
    limits = [
        Limits(f"the {budget.per}", **budget.model_dump(exclude={"per"}))
        for budget in project.declared.budgets
    ]
    passed = [found for one in limits if (found := one.passed_by(expected))]
    return [f"this is expected to pass {limit}: the run will stop there" for limit in passed]


def _compared(
    project: Project,
    given: Inputs,
    times: list[datetime],
    kinds: list[Kind],
    how: dict[str, Any],
    prompts: pa.Table,
    llm: LLM,
) -> tuple[Table, str]:
    """What the same would take with a prompt for each entity, judged from some of them."""
    estimate = Estimate(project, llm, None)
    rows, calls = [], [0, 0]
    for kind in kinds:
        entities, sample = _individual_sample(project, given, times, kind, how)
        each = estimate(sample)
        scale = entities / max(sample.num_rows, 1)
        grouped = estimate(prompts.filter(pc.field("kind") == kind))
        calls = [calls[0] + entities, calls[1] + grouped.to_ask]
        rows += [
            (f"each {kind}", entities, *_spent(each, scale)),
            (f"groups of {kind}s", grouped.to_ask, *_spent(grouped, 1.0)),
        ]
    columns = ("a prompt for", "calls", "prompt_tokens", "answer_tokens", "money")
    said = f"{calls[1]:,} calls in place of {calls[0]:,} for the same entities"
    return (
        Table("collective instead of individual", columns, rows),
        f"{said}, whatever is answered already; tokens of individual prompts are judged from "
        f"{_SAMPLE:,} of them",
    )


def _spent(found: CallPlan, scale: float) -> tuple[int, int, float | None]:
    money = None if found.money is None else round(found.money * scale, 4)
    return round(found.prompt_tokens * scale), round(found.completion_tokens * scale), money


def _individual_sample(
    project: Project, given: Inputs, times: list[datetime], kind: Kind, how: dict[str, Any]
) -> tuple[int, pa.Table]:
    """How many individual prompts there would be, and some of them, evenly spread."""
    if kind == "item":
        some = given.items.take(_spread(given.items.num_rows))
        return given.items.num_rows, extract.item_prompts(some, as_of=times[0], **how)
    count, tables = 0, [schema.PROMPTS.empty_table()]
    for time in times:
        rows = sources.split(given, time, project.declared.scenario.history)
        rows = rows.filter(rows["prompt"])
        users = rows[given.user.name].unique()
        count += len(users)
        chosen = pc.is_in(rows[given.user.name], value_set=users.take(_spread(len(users))))
        rows = rows.filter(chosen)
        tables.append(extract.user_prompts(given.users, given.items, rows, as_of=time, **how))
    return count, pa.concat_tables(tables)


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


def _plan_table(rows: list[tuple[str, CallPlan]]) -> Table:
    columns = ("kind", "prompts", "repeated", "answered", "quarantined", "to_ask")
    values = [
        (
            kind,
            found.prompts,
            _repeated(found),
            found.answered,
            found.quarantined,
            found.to_ask,
            found.prompt_tokens,
            found.completion_tokens,
            None if found.money is None else round(found.money, 4),
        )
        for kind, found in rows
    ]
    return Table("plan", (*columns, "prompt_tokens", "answer_tokens", "money"), values)
