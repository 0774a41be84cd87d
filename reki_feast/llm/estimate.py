"""Estimates the calls, tokens and cost of a run."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.llm.interface import LanguageModel, RenewalPolicy, never_renew
from reki_feast.llm.ledger import Ledger
from reki_feast.llm.policy import RequestPolicy
from reki_feast.llm.pricing import BYTES_A_TOKEN, Price

#: Tokens of an answer: this many a factor, plus a frame.
_PER_FACTOR = 60
_FRAME = 20
#: Tokens of an answer without factors.
_FREE = 300
#: Tokens of the words around an answer that is to be reviewed.
_REVIEW = 110


@dataclass(frozen=True)
class CallEstimate:
    """What asking a table of prompts would take.

    Attributes:
        prompts: rows of the table.
        answered: distinct prompts that the ledger has an answer to.
        quarantined: distinct prompts whose answers failed a gate; they are left alone.
        to_ask: distinct prompts that would be sent.
        calls: calls that this takes, when every answer is good at once.
        prompt_tokens: estimate for those to ask.
        completion_tokens: estimate for those to ask.
        model: the model's name, as looked up in the prices.
        price: its price, or None.
        money: US dollars, or None when the model's price is unknown.
        note: a sentence on where the estimate comes from.
    """

    prompts: int
    answered: int
    quarantined: int
    to_ask: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    model: str
    price: Price | None
    money: float | None
    note: str


def estimate_calls(
    prompts: pa.Table,
    *,
    llm: LanguageModel,
    ledger: Ledger | None = None,
    policy: RequestPolicy | None = None,
    renew_before: RenewalPolicy = never_renew,
) -> CallEstimate:
    """Count what a run over these prompts would send; nothing is sent and no key is needed.

    Args:
        prompts: a ``schema.PROMPTS`` table.
        llm: the model that would be asked.
        ledger: answers already paid for; None when there is no ledger yet.
        policy: how the run would ask: its price, reviews, and whether it retries quarantined
            prompts; None for the defaults.
        renew_before: by kind and as-of time, before when an answer is too old.
    """
    policy = policy or RequestPolicy()
    retry_quarantined, price = policy.retry_quarantined, policy.price
    distinct = pc.count_distinct(prompts["prompt_hash"]).as_py()
    if ledger is None:
        waiting, quarantined = _distinct(prompts), 0
    else:
        waiting = ledger.unanswered(
            prompts, llm, renew_before=renew_before, retry_quarantined=retry_quarantined
        )
        quarantined = 0 if retry_quarantined else len(ledger.quarantined(prompts, llm))
    model = llm.name.split("/", 1)[-1]
    asked, answered = _prompt_tokens(waiting), _completion_tokens(waiting)
    if policy.review:
        asked, answered = 2 * asked + answered + waiting.num_rows * _REVIEW, 2 * answered
    money = None
    if price is not None:
        money = (asked * price.prompt + answered * price.completion) / 1e6
    return CallEstimate(
        prompts=prompts.num_rows,
        calls=waiting.num_rows * (2 if policy.review else 1),
        answered=distinct - waiting.num_rows - quarantined,
        quarantined=quarantined,
        to_ask=waiting.num_rows,
        prompt_tokens=asked,
        completion_tokens=answered,
        model=model,
        price=price,
        money=money,
        note=_note(model, price),
    )


def _distinct(prompts: pa.Table) -> pa.Table:
    numbered = pa.table({"hash": prompts["prompt_hash"], "row": range(prompts.num_rows)})
    first = numbered.group_by("hash", use_threads=False).aggregate([("row", "min")])
    return prompts.take(first["row_min"])


def _prompt_tokens(prompts: pa.Table) -> int:
    total = 0
    for name in ("system", "prompt"):
        sizes = pc.add(pc.binary_length(prompts[name]), BYTES_A_TOKEN - 1)
        total += pc.sum(pc.divide(sizes, BYTES_A_TOKEN)).as_py() or 0
    return int(total)


def _completion_tokens(prompts: pa.Table) -> int:
    counts = pc.fill_null(pc.list_value_length(prompts["factors"]), 0)
    keyed = pc.add(pc.multiply(counts, _PER_FACTOR), _FRAME)
    sizes = pc.if_else(pc.equal(counts, 0), _FREE, keyed)
    return int(pc.sum(sizes).as_py() or 0)


def _note(model: str, price: Price | None) -> str:
    rule = f"tokens estimated: {BYTES_A_TOKEN} bytes a token, {_PER_FACTOR} tokens a factor"
    if price is None:
        return f"{rule}; unknown model {model!r}: no price, tokens only"
    return f"{rule}; {price} a million tokens"
