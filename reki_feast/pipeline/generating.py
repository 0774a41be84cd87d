"""Prompts to knowledge: what a generation would cost, and the generation."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract, schema
from reki_feast import inputs as sources
from reki_feast import knowledge as known
from reki_feast.inputs import Inputs
from reki_feast.pipeline.grouping import Formed, drift_notes, formed_table, group
from reki_feast.pipeline.stored import Times, choose_times, groups_of, state, wanted_times
from reki_feast.project import Project, now
from reki_feast.report import Progress, Report, Silent, Table
from reki_feast.schema import KINDS, Kind

if TYPE_CHECKING:
    from reki_feast.llm import LLM, Ledger, Price, RunReport
    from reki_feast.llm import Plan as CallPlan

#: So many individual prompts are written to judge what all of them would take.
_SAMPLE = 500


def plan(project: Project, *, as_of: Times = None, progress: Progress | None = None) -> Report:
    """How many prompts, tokens and how much money a generation takes; nothing is spent.

    Groups are formed, and kept, because their number is what there is to know.
    """
    from reki_feast.llm import plan as plan_calls

    given = sources.read(project.declared, project.root)
    how, llm, prices = _how(project, True), project.llm(), _prices(project)
    times = wanted_times(project, given, as_of)
    formed = _form_groups(project, given, times, progress)
    prompts = _all_prompts(project, given, times, how)
    with project.ledger() as ledger:
        rows = [
            (kind, plan_calls(some, llm=llm, ledger=ledger, prices=prices))
            for kind in KINDS
            for some in [prompts.filter(pc.field("kind") == kind)]
        ]
        whole = plan_calls(prompts, llm=llm, ledger=ledger, prices=prices)
    tables = [*formed_table(formed), _plan_table([*rows, ("all", whole)])]
    notes = [whole.note, *drift_notes(project, formed), *given.notices]
    collective = [kind for kind in KINDS if project.declared.collective(kind)]
    if collective:
        compared, said = _compared(project, given, times, collective, how, prompts, llm, prices)
        tables.append(compared)
        notes.append(said)
    return Report(
        f"{project.name}: {whole.to_ask:,} calls to {llm.name}",
        tables=tables,
        notes=notes,
        next=["reki generate"] if whole.to_ask else ["reki run"],
    )


def _form_groups(
    project: Project, given: Inputs, times: list[datetime], progress: Progress | None
) -> list[Formed]:
    if not any(project.declared.collective(kind) for kind in KINDS):
        return []
    choose_times(project, times)
    return group(project, given, times, progress)


def _compared(
    project: Project,
    given: Inputs,
    times: list[datetime],
    kinds: list[Kind],
    how: dict[str, Any],
    prompts: pa.Table,
    llm: LLM,
    prices: dict[str, Price],
) -> tuple[Table, str]:
    """What the same would take with a prompt for each entity, judged from some of them."""
    from reki_feast.llm import plan as plan_calls

    rows, calls = [], [0, 0]
    for kind in kinds:
        entities, sample = _individual_sample(project, given, times, kind, how)
        each = plan_calls(sample, llm=llm, prices=prices)
        scale = entities / max(sample.num_rows, 1)
        grouped = plan_calls(prompts.filter(pc.field("kind") == kind), llm=llm, prices=prices)
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


def _plan_table(rows: list[tuple[str, CallPlan]]) -> Table:
    columns = ("kind", "prompts", "answered", "to_ask", "prompt_tokens", "answer_tokens", "money")
    values = [
        (
            kind,
            found.prompts,
            found.answered,
            found.to_ask,
            found.prompt_tokens,
            found.completion_tokens,
            None if found.money is None else round(found.money, 4),
        )
        for kind, found in rows
    ]
    return Table("plan", columns, values)


def _prices(project: Project) -> dict[str, Price]:
    from reki_feast.llm import Price
    from reki_feast.llm.price import PRICES

    said = project.declared.llm
    if said.price is not None:
        return {said.model: Price(*said.price)}
    free = {} if said.provider == "openai" else {said.model: Price(0.0, 0.0)}
    return {**PRICES, **free, "echo": Price(0.0, 0.0)}


def generate(
    project: Project,
    *,
    as_of: Times = None,
    limit: int | None = None,
    allow_unconfirmed: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Ask what is not answered yet, at most ``limit`` calls; all answers become knowledge.

    Raises:
        FactorsError: factors are missing or unconfirmed.
        LLMError: no call can succeed.
    """
    given = sources.read(project.declared, project.root)
    how, llm = _how(project, allow_unconfirmed), project.llm()
    times = wanted_times(project, given, as_of)
    choose_times(project, times)
    formed = _form_groups(project, given, times, progress)
    prompts = _all_prompts(project, given, times, how)
    with project.ledger() as ledger:
        asked = _ask(project, prompts, llm, ledger, limit, progress or Silent())
        table, faults = extract.knowledge_from(prompts, ledger.answers(prompts, llm), created=now())
    added = _add(project, table, times)
    failed = asked.failed if limit is not None else prompts.num_rows - table.num_rows
    columns = ("asked", "reused", "failed", "prompt_tokens", "answer_tokens", "seconds", "added")
    reused = asked.reused + asked.repeated
    spent = (asked.prompt_tokens, asked.completion_tokens, round(asked.seconds, 1))
    return Report(
        f"{project.name}: knowledge of {prompts.num_rows:,} prompts by {llm.name}",
        tables=[
            *formed_table(formed),
            Table("calls", columns, [(asked.asked, reused, failed, *spent, added)]),
        ],
        notes=[
            *given.notices,
            *drift_notes(project, formed),
            *_failures(asked),
            *map(str, faults[:5]),
        ],
        next=["reki encode"],
        failed=failed,
    )


def _ask(
    project: Project,
    prompts: pa.Table,
    llm: LLM,
    ledger: Ledger,
    limit: int | None,
    progress: Progress,
) -> RunReport:
    from reki_feast.llm import ask_all, requests_from

    if limit is not None:
        prompts = ledger.unanswered(prompts, llm).slice(0, limit)
    with progress.bar("asking") as bar:
        return ask_all(
            requests_from(prompts),
            llm,
            ledger,
            concurrency=project.declared.llm.concurrency,
            progress=lambda so_far: bar(so_far.done, prompts.num_rows),
        )


def _failures(asked: RunReport) -> list[str]:
    return [f"{one.kind} {one.owner}: {one.error}" for one in asked.failures]


def _all_prompts(
    project: Project, given: Inputs, times: list[datetime], how: dict[str, Any]
) -> pa.Table:
    """The prompts of every generator at every time."""
    declared = project.declared
    kinds = [kind for kind in KINDS if declared.collective(kind)]
    tables = [schema.PROMPTS.empty_table()]
    for number, time in enumerate(times):
        if declared.individual("user"):
            rows = sources.split(given, time, declared.scenario.history)
            tables.append(extract.user_prompts(given.users, given.items, rows, as_of=time, **how))
        # an item's prompt tells no time: its answer serves every later snapshot
        if declared.individual("item") and number == 0:
            tables.append(extract.item_prompts(given.items, as_of=time, **how))
        if kinds:
            shown = groups_of(project, time).filter(pc.field("kind").isin(kinds))
            peopled = state(project, time).members["group"].unique()
            shown = shown.filter(pc.is_in(shown["group"], value_set=peopled))
            tables.append(extract.group_prompts(shown, given.items, as_of=time, **how))
    return pa.concat_tables(tables)


def _how(project: Project, allow_unconfirmed: bool) -> dict[str, Any]:
    """What prompts are written with; missing factors are told before groups take their time."""
    asks = bool(project.declared.generators)
    factors = project.factors(allow_unconfirmed=allow_unconfirmed) if asks else ()
    return {"wording": project.wording(factors), "templates": project.templates}


def _add(project: Project, table: pa.Table, times: list[datetime]) -> int:
    """Add, for each time, the rows that differ from the newest ones up to it."""
    added = 0
    for time in times:
        rows = table.filter(pc.field("event_timestamp") == pa.scalar(time, schema.TIMESTAMP))
        stored = state(project, time).knowledge
        fresh = known.changed(rows, stored, ["kind", "channel", "owner", "grouped"])
        project.lake.append("knowledge", fresh)
        added += fresh.num_rows
    return added
