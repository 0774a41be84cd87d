"""What a run will take, said before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from reki_feast.llm.ledger import Ledger
from reki_feast.llm.port import LLM, Renewal, never
from reki_feast.llm.price import BYTES_A_TOKEN, PRICES, Price, price_of

#: Tokens of an answer: this many a factor, plus a frame.
_PER_FACTOR = 60
_FRAME = 20
#: Tokens of an answer without factors.
_FREE = 300
#: Tokens of the words around an answer that is to be reviewed.
_REVIEW = 110


@dataclass(frozen=True)
class Plan:
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


def plan(
    prompts: pa.Table,
    *,
    llm: LLM,
    ledger: Ledger | None = None,
    prices: Mapping[str, Price] = PRICES,
    renew_before: Renewal = never,
    review: bool = False,
    retry_quarantined: bool = False,
) -> Plan:
    """Count what a run over these prompts would send; nothing is sent and no key is needed.

    Args:
        prompts: a ``schema.PROMPTS`` table.
        llm: the model that would be asked.
        ledger: answers already paid for; None when there is no ledger yet.
        prices: by model name; free models have a price of 0.
        renew_before: by kind and as-of time, before when an answer is too old.
        review: each answer is checked in a second call, which holds the first one.
        retry_quarantined: what failed a gate is asked again.
    """
    distinct = pc.count_distinct(prompts["prompt_hash"]).as_py()
    if ledger is None:
        waiting, quarantined = _distinct(prompts), 0
    else:
        waiting = ledger.unanswered(
            prompts, llm, renew_before=renew_before, retry_quarantined=retry_quarantined
        )
        quarantined = 0 if retry_quarantined else len(ledger.quarantined(prompts, llm))
    model = llm.name.split("/", 1)[-1]
    price = price_of(model, prices)
    asked, answered = _prompt_tokens(waiting), _completion_tokens(waiting)
    if review:
        asked, answered = 2 * asked + answered + waiting.num_rows * _REVIEW, 2 * answered
    money = None
    if price is not None:
        money = (asked * price.prompt + answered * price.completion) / 1e6
    return Plan(
        prompts=prompts.num_rows,
        calls=waiting.num_rows * (2 if review else 1),
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
    return f"{rule}; ${price.prompt:g} and ${price.completion:g} a million tokens"
