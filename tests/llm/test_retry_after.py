"""What refusals say of waiting, in the words of servers in use."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reki_feast.llm.retry_after import is_long_term_limit, requested_wait

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GEMINI = json.dumps(
    [
        {
            "error": {
                "code": 429,
                "message": "You exceeded your current quota. Please retry in 1.9s.",
                "status": "RESOURCE_EXHAUSTED",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                        "violations": [{"quotaId": "GenerateRequestsPerMinutePerProject"}],
                    },
                    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"},
                ],
            }
        }
    ],
    indent=2,
)
GEMINI_DAY = GEMINI.replace("PerMinute", "PerDay")
OPENROUTER = {
    "error": {
        "message": "Rate limit exceeded: free-models-per-min. ",
        "code": 429,
        "metadata": {"headers": {"X-RateLimit-Reset": f"{1000 * NOON.timestamp() + 30_000:.0f}"}},
    }
}


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (GEMINI, 2.0),
        ('{"error": {"details": [{"retryDelay": {"seconds": "2", "nanos": 0}}]}}', 2.0),
        # the provider's own words, as text within a gateway's
        (json.dumps({"error": {"metadata": {"raw": GEMINI}}}), 2.0),
        (json.dumps({"a": json.dumps({"raw": '{"retryDelay": "36s"}'})}), 36.0),
        (json.dumps(OPENROUTER), 30.0),
        ('{"retry_after": 9, "x": 1}', 9.0),
        ('{"retry_after": "9.5"}', 9.5),
        ('{"retry_after_ms": 1500}', 1.5),
        ('{"retryAfterMs": 1500}', 1.5),
        ('{"retry_after_seconds": 12}', 12.0),
        ('{"retry-after": "1m30s"}', 90.0),
        (f'{{"retry_after": {NOON.timestamp() + 60:.0f}}}', 60.0),
        ('{"resets_in_seconds": 300}', 300.0),
        ('{"error": "Model x is currently loading", "estimated_time": 20.0}', 20.0),
        # OpenAI, Groq
        ("on tokens per min (TPM): Limit 30000, Used 29000. Please try again in 20s.", 20.0),
        ("Please try again in 6ms. Visit https://platform.openai.com", 0.006),
        ("Please try again in 7m12.345s. Need more tokens?", 432.345),
        ("Please try again in 1h2m", 3720.0),
        # Azure
        ("Please retry after 26 seconds. Please go here: https://aka.ms/oai", 26.0),
        ("Try again in 1 minute.", 60.0),
        ("Please wait 10 seconds and try again", 10.0),
        ("Rate limit resets in 12s", 12.0),
        ("Retry-After: 30", 30.0),
        ("retry after 30", 30.0),
        ("your quota will reset after 3h25m", 12_300.0),
        # the longest counts
        ("try again in 2s, or wait for 1 minute", 60.0),
        # nothing is said
        ("", None),
        ("rate limit reached", None),
        ("Please try again later. Error 429", None),
        ("retry with fewer than 1000 tokens", None),
        ('{"retry": 3, "max_retries": 5, "max_wait_time": 30}', None),
        ("retry after 3 attempts", None),
        ("retry after 2026-01-01", None),
        ("wait 10", None),
        ("we meet again in 20s; latency 3 s", None),
    ],
)
def test_pauses_in_bodies(body: str, seconds: float | None) -> None:
    told = requested_wait({}, body, NOON)
    assert told == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "1"}, "try again in 20s", 20.0),
        ({"retry-after": "30"}, "try again in 20s", 30.0),
        ({"retry-after": "0"}, "no", 0.0),
        ({}, json.dumps({"metadata": {"X-RateLimit-Reset": "1700000000"}}), 0.0),  # gone by
    ],
)
def test_headers_and_body_together(headers: dict[str, str], body: str, seconds: float) -> None:
    assert requested_wait(headers, body, NOON) == seconds


@pytest.mark.parametrize(
    ("body", "lasts"),
    [
        (GEMINI, False),
        (GEMINI_DAY, True),
        (json.dumps({"error": {"metadata": {"raw": GEMINI_DAY}}}), True),
        ("Rate limit reached on requests per day (RPD): Limit 200. Try again in 7m12s.", True),
        ("Rate limit reached for model x on tokens per day (TPD): Limit 100000", True),
        ("Rate limit exceeded: free-models-per-day. Add 10 credits for 1000 a day", True),
        ("Rate limit exceeded: limit_rpd/deepseek/r1", True),
        ("10000 requests / day are used up", True),
        ("You have reached your daily limit, try again tomorrow", True),
        ("your monthly quota", True),
        ("Rate limit reached on requests per min (RPM): Limit 3 / min. Daily limits: …", False),
        ("free-models-per-min. Add 10 credits for 1000 requests per day", False),
        ("You exceeded your current quota, please check your plan and billing details", False),
        ("Please try again in 20s.", False),
        ("", False),
    ],
)
def test_limits_that_last(body: str, lasts: bool) -> None:
    assert is_long_term_limit({}, body) is lasts


@pytest.mark.parametrize(
    ("name", "left", "lasts"),
    [
        ("x-ratelimit-remaining-requests-day", "0", True),
        ("x-ratelimit-remaining-tokens-day", "0", True),
        ("x-ratelimit-remaining-requests-day", "7", False),
        ("x-ratelimit-remaining-requests", "0", False),
    ],
)
def test_headers_of_limits_that_last(name: str, left: str, lasts: bool) -> None:
    assert is_long_term_limit({name: left}, "too many requests") is lasts


WORDS = ["retry", "Delay", "after", "in", "wait", '": "', "9", "2s", "1e9", "\\", "ms", "-", "per"]


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=3)).map("".join))
def test_no_body_breaks_the_reading(body: str) -> None:
    told = requested_wait({}, body, NOON)
    assert told is None or told >= 0
    is_long_term_limit({}, body)
