"""What a plan says before anything is spent."""

from __future__ import annotations

from datetime import datetime, timezone

import pyarrow as pa
import pytest

from reki_feast.llm import EchoLLM, Ledger, OpenAILLM, Price, ask_all, plan, requests_from
from reki_feast.llm.price import estimate_tokens, halved, price_of
from reki_feast.schema import PROMPTS, content_hash


def prompts(*texts: str, factors: tuple[str, ...] = ("a", "b")) -> pa.Table:
    rows = [
        {
            "kind": "item",
            "channel": "knowledge",
            "owner": str(n),
            "grouped": False,
            "system": "abcd",
            "prompt": text,
            "factors": factors,
            "facts": [],
            "prompt_hash": content_hash("abcd", text, *factors),
            "event_timestamp": datetime(2026, 1, 1, tzinfo=timezone.utc),
        }
        for n, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def test_counts_tokens_and_money() -> None:
    llm = OpenAILLM(model="tiny", base_url="http://localhost:1/v1")
    found = plan(prompts("x" * 40, "y" * 41, "x" * 40), llm=llm, prices={"tiny": Price(2, 10)})
    assert (found.prompts, found.answered, found.to_ask) == (3, 0, 2)
    assert found.prompt_tokens == 1 + 10 + 1 + 11
    assert found.completion_tokens == 2 * (20 + 2 * 60)
    assert found.money == pytest.approx((23 * 2 + 280 * 10) / 1e6)


def test_what_the_ledger_has_costs_nothing() -> None:
    table = prompts("one", "two", "three")
    with Ledger(None) as ledger:
        ask_all(requests_from(table.slice(0, 2)), EchoLLM(), ledger)
        found = plan(table, llm=EchoLLM(), ledger=ledger)
    assert (found.prompts, found.answered, found.to_ask) == (3, 2, 1)


def test_old_answers_are_planned_anew() -> None:
    table, later = prompts("one", "two"), datetime(2100, 1, 1, tzinfo=timezone.utc)
    with Ledger(None) as ledger:
        ask_all(requests_from(table), EchoLLM(), ledger)
        assert plan(table, llm=EchoLLM(), ledger=ledger).to_ask == 0
        found = plan(table, llm=EchoLLM(), ledger=ledger, renew_before=lambda kind, as_of: later)
    assert (found.answered, found.to_ask, found.calls) == (0, 2, 2)


def test_a_review_is_a_second_call_that_holds_the_first_answer() -> None:
    table, prices = prompts("x" * 40), {"echo": Price(2, 10)}
    once = plan(table, llm=EchoLLM(), prices=prices)
    twice = plan(table, llm=EchoLLM(), prices=prices, review=True)
    assert (once.calls, twice.calls) == (1, 2)
    assert twice.completion_tokens == 2 * once.completion_tokens
    assert twice.prompt_tokens > 2 * once.prompt_tokens + once.completion_tokens
    assert twice.money == pytest.approx(
        (twice.prompt_tokens * 2 + twice.completion_tokens * 10) / 1e6
    )


def test_batches_cost_half() -> None:
    assert halved({"m": Price(2, 10)}) == {"m": Price(1, 5)}


def test_unknown_model_is_said() -> None:
    found = plan(prompts("one"), llm=EchoLLM(name="mine"))
    assert found.money is None
    assert "unknown model 'mine'" in found.note


def test_a_free_model_costs_nothing() -> None:
    assert plan(prompts("one"), llm=EchoLLM(), prices={"echo": Price(0, 0)}).money == 0


def test_nothing_to_ask() -> None:
    found = plan(prompts(), llm=EchoLLM())
    assert (found.to_ask, found.prompt_tokens, found.completion_tokens) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("映画映画", 3)]
)
def test_tokens_of_a_text(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-2024-11-20", "gpt-4o-latest"])
def test_releases_cost_what_their_model_costs(model: str) -> None:
    assert price_of(model) == price_of("gpt-4o")
