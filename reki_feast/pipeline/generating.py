"""Prompts to knowledge: what a generation would cost, and the generation."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast import extract, schema
from reki_feast import inputs as sources
from reki_feast import knowledge as known
from reki_feast.inputs import Inputs
from reki_feast.pipeline.stored import Times, choose_times, state, wanted_times
from reki_feast.project import Project, now
from reki_feast.report import Progress, Report, Silent, Table
from reki_feast.schema import KINDS

if TYPE_CHECKING:
    from reki_feast.llm import LLM, Ledger, Price, RunReport
    from reki_feast.llm import Plan as CallPlan


def plan(project: Project, *, as_of: Times = None) -> Report:
    """How many prompts, tokens and how much money a generation takes; nothing is spent."""
    from reki_feast.llm import plan as plan_calls

    given = sources.read(project.declared, project.root)
    prompts = _all_prompts(project, given, wanted_times(project, given, as_of), True)
    llm, prices = project.llm(), _prices(project)
    with project.ledger() as ledger:
        rows = [
            (kind, plan_calls(some, llm=llm, ledger=ledger, prices=prices))
            for kind in KINDS
            for some in [prompts.filter(pc.field("kind") == kind)]
        ]
        whole = plan_calls(prompts, llm=llm, ledger=ledger, prices=prices)
    return Report(
        f"{project.name}: {whole.to_ask:,} calls to {llm.name}",
        tables=[_plan_table([*rows, ("all", whole)])],
        notes=[whole.note, *given.notices],
        next=["reki generate"] if whole.to_ask else ["reki run"],
    )


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
    times = wanted_times(project, given, as_of)
    choose_times(project, times)
    prompts = _all_prompts(project, given, times, allow_unconfirmed)
    llm = project.llm()
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
        tables=[Table("calls", columns, [(asked.asked, reused, failed, *spent, added)])],
        notes=[*given.notices, *_failures(asked), *map(str, faults[:5])],
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
    project: Project, given: Inputs, times: list[datetime], allow_unconfirmed: bool
) -> pa.Table:
    """The prompts of every generator at every time."""
    declared = project.declared
    factors = project.factors(allow_unconfirmed=allow_unconfirmed) if declared.generators else ()
    how: dict[str, Any] = {"wording": project.wording(factors), "templates": project.templates}
    tables = [schema.PROMPTS.empty_table()]
    for number, time in enumerate(times):
        if declared.generates("user"):
            rows = sources.split(given, time, declared.scenario.history)
            tables.append(extract.user_prompts(given.users, given.items, rows, as_of=time, **how))
        # an item's prompt tells no time: its answer serves every later snapshot
        if declared.generates("item") and number == 0:
            tables.append(extract.item_prompts(given.items, as_of=time, **how))
    return pa.concat_tables(tables)


def _add(project: Project, table: pa.Table, times: list[datetime]) -> int:
    """Add, for each time, the rows that differ from the newest ones up to it."""
    added = 0
    for time in times:
        rows = table.filter(pc.field("event_timestamp") == pa.scalar(time, schema.TIMESTAMP))
        stored = state(project, time).knowledge.filter(~pc.field("grouped"))
        fresh = known.changed(rows, stored, ["kind", "channel", "owner"])
        project.lake.append("knowledge", fresh)
        added += fresh.num_rows
    return added
