"""Asks the model several times which factors matter, and merges its answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from reki_feast.errors import FactorsError
from reki_feast.knowledge.factors.file import FactorsFile
from reki_feast.knowledge.factors.merging import merge_factors
from reki_feast.knowledge.prompts.templating import Templates
from reki_feast.knowledge.prompts.wording import Wording
from reki_feast.llm.asking import ask_all
from reki_feast.llm.budget import QUOTA_HINT, BudgetError, QuotaError
from reki_feast.llm.interface import LanguageModel, Request, call_key
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.policy import RequestPolicy
from reki_feast.llm.report import RunReport
from reki_feast.schema import content_hash


def factor_requests(
    wording: Wording, *, templates: Templates, as_of: datetime, asks: int = 5
) -> list[Request]:
    """The paper's question, ``asks`` times; each is numbered, so that none is taken for another."""
    words = {name: getattr(wording, name) for name in ("item", "user", "action", "language")}
    system = templates.render("system", **words)
    requests = []
    for opinion in range(1, asks + 1):
        prompt = templates.render("factors", **words, opinion=opinion)
        prompt_hash = content_hash(system, prompt)
        who = ("factors", "factors", str(opinion), as_of)
        requests.append(Request(system, prompt, (), prompt_hash, *who))
    return requests


def ask_factors(
    requests: Sequence[Request],
    llm: LanguageModel,
    ledger: Ledger,
    *,
    policy: RequestPolicy | None = None,
) -> tuple[FactorsFile, RunReport]:
    """Ask the model which factors decide, and merge its answers; unconfirmed.

    Args:
        requests: the question, several times (:func:`factor_requests`).
        llm: the model.
        ledger: keeps the answers.
        policy: how to ask; None for the defaults.

    Raises:
        LLMError: the model cannot be asked.
        BudgetError: a limit was reached before all answers came; those that came are kept.
        QuotaError: the same, of a limit by the day that the server has.
        KeyboardInterrupt: the same, on Ctrl-C.
        FactorsError: no answer names a factor.
    """
    report = ask_all(requests, llm, ledger, policy=policy)
    _raise_if_stopped(report, len(requests))
    keys = [call_key(r.prompt_hash, llm.name, llm.parameters) for r in requests]
    answers = [answer for key in keys if (answer := ledger.answered(key)) is not None]
    factors = merge_factors([answer.text for answer in answers])
    if not factors:
        first = report.failures[0].error if report.failures else "no list of names in any answer"
        raise FactorsError(
            "the model names factors",
            detail=first,
            hint="list factors in the scenario yourself, or name another model",
        )
    return FactorsFile(factors, model=answers[0].model, answers=len(answers)), report


def _raise_if_stopped(report: RunReport, asks: int) -> None:
    if report.stopped == "interrupted":
        raise KeyboardInterrupt
    if report.stopped == "budget":
        raise BudgetError(
            "the run stays within its budget",
            detail=f"{report.limit} is reached: {report.asked + report.reused} of {asks} answers "
            "are there, and no factors are written",
            hint="raise the limit and run again: it goes on where it stopped and pays for nothing "
            "twice; or merge fewer answers with --calls",
        )
    if report.stopped == "quota":
        rule = "the server's quota lasts for the run"
        raise QuotaError(rule, detail=report.limit, hint=QUOTA_HINT)
