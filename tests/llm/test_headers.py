"""What a reply's headers ask for, whatever a server writes into them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reki_feast.llm.headers import parse_duration, rate_limits_of, retry_after_s
from reki_feast.llm.interface import RateLimits
from tests.llm import server_limits

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
#: What a careless server may write.
WORDS = st.text(st.sampled_from("0123456789.-+eE_ :,dhmsGMTJanuThinfy"), max_size=40)
ANYTHING = st.one_of(st.text(max_size=40), WORDS, st.floats().map(str), st.integers().map(str))


def limit_headers(limit: str, left: str, reset: str, what: str = "requests") -> dict[str, str]:
    names = ("limit", "remaining", "reset")
    values = zip(names, (limit, left, reset), strict=True)
    return {f"x-ratelimit-{name}-{what}": value for name, value in values}


def window(form: str, left: str, reset: str) -> dict[str, str]:
    return {form.format("remaining"): left, form.format("reset"): reset}


def whole(form: str, limit: str, left: str, reset: str) -> dict[str, str]:
    return {form.format("limit"): limit, **window(form, left, reset)}


# --- durations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("20ms", 0.02),
        ("7.66s", 7.66),
        ("6m0s", 360.0),
        ("23h59m59.5s", 86_399.5),
        ("1d2h", 93_600.0),
        ("59", 59.0),
        ("0.5", 0.5),
        ("", None),
        ("s", None),
        ("5 s", 5.0),
        ("26 seconds", 26.0),
        ("1 hour, 5 minutes", 3_900.0),
        ("2 Mins", 120.0),
        ("12 milliseconds", 0.012),
        ("500µs", 0.0005),
        ("3msecs", None),
        ("3 sheep", None),
        ("soon", None),
        ("1w", None),
        ("5s!", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6).map(lambda x: round(x, 3)), st.sampled_from(list(UNITS))),
        min_size=1,
        max_size=5,
    )
)
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[float, str]]) -> None:
    text = "".join(f"{number:.3f}{unit}" for number, unit in parts)
    expected = sum(number * UNITS[unit] for number, unit in parts)
    assert parse_duration(text) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0, 1e6))
def test_durations_as_openai_writes_them(seconds: float) -> None:
    assert parse_duration(server_limits.duration(seconds)) == pytest.approx(seconds, abs=1e-3)


@given(ANYTHING)
def test_no_text_breaks_a_duration(text: str) -> None:
    assert parse_duration(text) is None or isinstance(parse_duration(text), float)


# --- pauses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.4"}, 0.4),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "3600", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "3", "retry-after-ms": "soon"}, 3.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30"}, 30.0),  # no zone: taken for UTC
        ({"retry-after": "Thu, 01 Jan 2026 13:00:30 +0100"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),  # past
        ({"retry-after": "2026-01-01T12:00:30Z"}, 30.0),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": f"{NOON.timestamp() + 30:.0f}"}, 30.0),
        # a window that is used up: OpenRouter, Together, the draft standard in its two forms
        (window("x-ratelimit-{}", "0", f"{1000 * NOON.timestamp() + 30_000:.0f}"), 30.0),
        (window("x-ratelimit-{}", "0", "30"), 30.0),
        (window("x-tokenlimit-{}", "0", "12.5"), 12.5),
        (window("ratelimit-{}", "0", "9"), 9.0),
        ({"ratelimit": '"default";r=0;t=30'}, 30.0),
        ({"ratelimit": "limit=9, remaining=0, reset=30"}, 30.0),
        # … or is not
        (window("x-ratelimit-{}", "7", "30"), None),
        ({"ratelimit": '"default";r=50;t=30'}, None),
        ({"x-ratelimit-reset": "30"}, None),
        # one that fills steadily tells a rate, unless it does not tell its height
        (limit_headers("60", "0", "1m0s"), None),
        (window("x-ratelimit-{}-tokens", "0", "20s"), 20.0),
        ({"retry-after": "2", **window("x-ratelimit-{}", "0", "30")}, 2.0),
    ],
)
def test_pauses(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOON) == (None if seconds is None else pytest.approx(seconds))


@given(st.timedeltas(timedelta(0), timedelta(days=400)), st.integers(-12, 14))
def test_a_pause_until_a_moment(pause: timedelta, hours: int) -> None:
    moment = (NOON + pause).astimezone(timezone(timedelta(hours=hours)))
    told = retry_after_s({"retry-after": format_datetime(moment)}, NOON)
    assert told == math.floor(pause.total_seconds())  # a date has no parts of seconds


@given(ANYTHING, ANYTHING)
@example("Thu, 99999999999999999999 Jan 2026 12:00:00 GMT", "")
@example("Thu, 01 Jan 2026 12:00:00 +99999999999999999999", "")
@example("Thu, 01 Jan 99999999999 12:00:00 GMT", "")
def test_no_text_breaks_a_pause(after: str, after_ms: str) -> None:
    told = retry_after_s({"retry-after": after, "retry-after-ms": after_ms}, NOON)
    assert told is None or 0 <= told < math.inf


# --- limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-ratelimit-limit-requests": "60"}, None),
        (limit_headers("60", "58", "2s"), RateLimits(58, 1.0)),
        (limit_headers("60", "0", "1m0s"), RateLimits(0, 1.0)),
        (limit_headers("60", "60", "0s"), RateLimits(60)),
        (limit_headers("60", "60", "1s"), RateLimits(60)),
        (limit_headers("60", "58", "soon"), RateLimits(58)),
        (limit_headers("many", "58", "2s"), RateLimits(58)),
        (limit_headers("6000", "5000", "10s", "tokens"), RateLimits(None, None, 5000, 100.0)),
        (
            {**limit_headers("60", "58", "2s"), **limit_headers("90", "0", "1500ms", "tokens")},
            RateLimits(58, 1.0, 0, 60.0),
        ),
    ],
)
def test_limits(headers: dict[str, str], expected: RateLimits | None) -> None:
    assert rate_limits_of(headers) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        # Anthropic: a moment in which it is whole
        (
            whole("anthropic-ratelimit-requests-{}", "60", "58", "2026-01-01T12:00:02Z")
            | whole("anthropic-ratelimit-tokens-{}", "9000", "0", "2026-01-01T12:01:30Z"),
            RateLimits(58, 1.0, 0, 100.0),
        ),
        (
            whole("anthropic-ratelimit-input-tokens-{}", "90", "0", "2026-01-01T12:00:30+00:00"),
            RateLimits(None, None, 0, 3.0),
        ),
        # Mistral: by the minute, without a word on when
        (
            {
                "x-ratelimit-limit-tokens-minute": "6000",
                "x-ratelimit-remaining-tokens-minute": "0",
                "x-ratelimit-limit-req-minute": "60",
                "x-ratelimit-remaining-req-minute": "60",
            },
            RateLimits(60, None, 0, 100.0),
        ),
        (whole("ratelimitbysize-{}", "600", "0", "60"), RateLimits(None, None, 0, 10.0)),
        # Cerebras; its limit by the day is no rate
        (
            whole("x-ratelimit-{}-requests-minute", "30", "0", "15.5")
            | whole("x-ratelimit-{}-requests-day", "900", "5", "33011.38"),
            RateLimits(0, pytest.approx(30 / 15.5)),  # type: ignore[arg-type]
        ),
        # Groq
        (
            whole("x-ratelimit-{}-requests", "14400", "14370", "2m59.56s")
            | whole("x-ratelimit-{}-tokens", "18000", "17997", "7.66ms"),
            RateLimits(14370, pytest.approx(30 / 179.56), 17997, pytest.approx(3 / 0.00766)),  # type: ignore[arg-type]
        ),
        # a window comes back at once: no rate
        (whole("x-ratelimit-{}", "60", "0", "30"), None),
    ],
)
def test_limits_as_servers_tell_them(headers: dict[str, str], expected: RateLimits | None) -> None:
    assert rate_limits_of(headers, NOON) == expected


@pytest.mark.parametrize(
    ("reset", "a_second"),
    [
        (f"{NOON.timestamp() + 2:.0f}", 1.0),
        (f"{NOON.timestamp() * 1000 + 2000:.0f}", 1.0),
        (f"{NOON.timestamp():.0f}", None),
        (f"{NOON.timestamp() - 60:.0f}", None),
        (f"{NOON.timestamp() + 90_000:.0f}", None),
        ("90000", None),
        ("1d2h", None),
    ],
)
def test_resets_at_a_moment_and_after_more_than_a_day(reset: str, a_second: float | None) -> None:
    assert rate_limits_of(limit_headers("60", "58", reset), NOON) == RateLimits(58, a_second)


@given(ANYTHING, ANYTHING, ANYTHING)
@example("60", "58", "-2")
@example("60", "58", "-2s")
@example("60", "58", "nan")
def test_no_text_makes_a_rate_that_is_none(limit: str, left: str, reset: str) -> None:
    told = rate_limits_of(limit_headers(limit, left, reset))
    assert told is not None
    assert told.requests is None or math.isfinite(told.requests)
    assert told.requests_a_second is None or 0 <= told.requests_a_second < math.inf


@given(st.integers(1, 100_000), st.data())
def test_the_rate_is_what_makes_the_limit_whole_in_time(limit: int, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, limit - 1))
    whole_in = data.draw(st.floats(0.01, 86_400).map(lambda x: round(x, 2)))
    told = rate_limits_of(limit_headers(str(limit), str(left), f"{whole_in}s"))
    assert told is not None
    assert told.requests_a_second is not None
    assert left + told.requests_a_second * whole_in == pytest.approx(limit)
