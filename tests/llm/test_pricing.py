"""What a plan says before anything is spent."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec

import pyarrow as pa
import pytest

from reki_feast.llm import (
    EchoLLM,
    Ledger,
    OpenAILLM,
    Price,
    RequestPolicy,
    ask_all,
    estimate_calls,
    requests_from,
)
from reki_feast.llm.pricing import OPENAI_URL, PRICES, PRICES_DATE, estimate_tokens, price_of
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
            "event_timestamp": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for n, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def test_counts_tokens_and_money() -> None:
    llm = OpenAILLM(model="tiny", base_url="http://localhost:1/v1")
    found = estimate_calls(
        prompts("x" * 40, "y" * 41, "x" * 40), llm=llm, policy=RequestPolicy(price=Price(2, 10))
    )
    assert (found.prompts, found.answered, found.to_ask) == (3, 0, 2)
    assert found.prompt_tokens == 1 + 10 + 1 + 11
    assert found.completion_tokens == 2 * (20 + 2 * 60)
    assert found.money == pytest.approx((23 * 2 + 280 * 10) / 1e6)


def test_what_the_ledger_has_costs_nothing() -> None:
    table = prompts("one", "two", "three")
    with Ledger(None) as ledger:
        ask_all(requests_from(table.slice(0, 2)), EchoLLM(), ledger)
        found = estimate_calls(table, llm=EchoLLM(), ledger=ledger)
    assert (found.prompts, found.answered, found.to_ask) == (3, 2, 1)


def test_old_answers_are_planned_anew() -> None:
    table, later = prompts("one", "two"), datetime(2100, 1, 1, tzinfo=UTC)
    with Ledger(None) as ledger:
        ask_all(requests_from(table), EchoLLM(), ledger)
        assert estimate_calls(table, llm=EchoLLM(), ledger=ledger).to_ask == 0
        found = estimate_calls(
            table, llm=EchoLLM(), ledger=ledger, renew_before=lambda kind, as_of: later
        )
    assert (found.answered, found.to_ask, found.calls) == (0, 2, 2)


def test_a_review_is_a_second_call_that_holds_the_first_answer() -> None:
    table, policy = prompts("x" * 40), RequestPolicy(price=Price(2, 10))
    once = estimate_calls(table, llm=EchoLLM(), policy=policy)
    twice = estimate_calls(table, llm=EchoLLM(), policy=replace(policy, review=True))
    assert (once.calls, twice.calls) == (1, 2)
    assert twice.completion_tokens == 2 * once.completion_tokens
    assert twice.prompt_tokens > 2 * once.prompt_tokens + once.completion_tokens
    assert twice.money == pytest.approx(
        (twice.prompt_tokens * 2 + twice.completion_tokens * 10) / 1e6
    )


def test_unknown_model_is_said() -> None:
    found = estimate_calls(prompts("one"), llm=EchoLLM(name="mine"))
    assert found.money is None
    assert "unknown model 'mine'" in found.note


def test_a_free_model_costs_nothing() -> None:
    policy = RequestPolicy(price=Price(0, 0))
    assert estimate_calls(prompts("one"), llm=EchoLLM(), policy=policy).money == 0


def test_nothing_to_ask() -> None:
    found = estimate_calls(prompts(), llm=EchoLLM())
    assert (found.to_ask, found.prompt_tokens, found.completion_tokens) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("映画映画", 3)]
)
def test_tokens_of_a_text(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


# --- where a price comes from ----------------------------------------------------------------

PACKAGE = find_spec("genai_prices") is not None
without_package = pytest.mark.skipif(not PACKAGE, reason="genai-prices is not installed")


@pytest.fixture
def table_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where genai-prices is not installed: its import fails."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)


@pytest.mark.parametrize(
    ("model", "is_batch", "price"),
    [
        ("gpt-4o", False, Price(2.5, 10)),
        ("gpt-4o-2024-11-20", False, Price(2.5, 10)),
        ("gpt-4o-latest", False, Price(2.5, 10)),
        ("gpt-4o", True, Price(1.25, 5)),
        ("claude-sonnet-4-5", False, None),
        ("qwen3:8b", False, None),
    ],
)
def test_the_table_alone(table_only: None, model: str, is_batch: bool, price: Price | None) -> None:
    found = price_of(model, is_batch=is_batch)
    assert found == price
    assert found is None or found.source == f"reki-feast's table of {PRICES_DATE}"


@without_package
@pytest.mark.parametrize(
    ("model", "base_url", "is_batch", "price"),
    [
        ("gpt-4o", OPENAI_URL, False, Price(2.5, 10)),
        ("gpt-4o-2024-11-20", OPENAI_URL, False, Price(2.5, 10)),
        ("gpt-4o", OPENAI_URL, True, Price(1.25, 5)),
        ("claude-3-5-sonnet-latest", "https://api.anthropic.com/v1", False, Price(3, 15)),
    ],
)
def test_the_package_goes_before_the_table(
    model: str, base_url: str, is_batch: bool, price: Price
) -> None:
    found = price_of(model, base_url, is_batch=is_batch)
    assert found == price
    assert re.fullmatch(r"genai-prices [\d.]+, data up to \d{4}-\d\d-\d\d", found.source)


@without_package
@pytest.mark.parametrize(
    ("model", "base_url", "price"),
    [
        ("gpt-4o", "http://localhost:8000/v1", Price(2.5, 10)),  # no provider: the table's
        ("qwen3:8b", "http://localhost:11434/v1", None),
        ("no-such-model", OPENAI_URL, None),
    ],
)
def test_the_table_is_the_fallback(model: str, base_url: str, price: Price | None) -> None:
    found = price_of(model, base_url)
    assert found == price
    assert found is None or found.source.startswith("reki-feast's table")


@without_package
def test_all_models_of_the_table_cost_what_the_package_says() -> None:
    assert {model: price_of(model) for model in PRICES} == dict(PRICES)


def test_the_estimate_says_where_the_price_comes_from(table_only: None) -> None:
    policy = RequestPolicy(price=price_of("gpt-4o"))
    note = estimate_calls(prompts("one"), llm=EchoLLM(), policy=policy).note
    assert note.endswith("; $2.5 and $10 (reki-feast's table of 2026-03) a million tokens")
