"""Rate limits and pauses in the headers of replies."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from reki_feast.llm.interface import RateLimits

#: Seconds of a unit, by its first letters.
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "mil": 1e-3}
_UNITS |= {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_UNIT = (
    r"(?:ns|[uµ]s|ms|milli(?:second)?s?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?"
    r"|d(?:ays?)?)"
)
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*({_UNIT})(?![a-z])", re.IGNORECASE)
#: A duration as servers write it: ``6m0s``, ``20ms``, ``26 seconds``, ``1 hour 5 minutes``.
DURATION = rf"(?:\d+(?:\.\d+)?\s*{_UNIT}(?![a-z])[ ,]*)+"
_WHOLE = re.compile(DURATION, re.IGNORECASE)
#: A bare number above this is no duration but a moment, in seconds since 1970 …
_EPOCH = 1e8
#: … and one above this in milliseconds.
_EPOCH_MS = 1e11
#: A limit that is whole again only after this says nothing of how fast it comes back.
_LONGEST_S = 86_400.0
_MINUTE_S = 60.0
#: Headers of a limit that fills steadily, by what it limits; each with ``limit``, ``remaining`` and
#: ``reset`` in the gap: OpenAI's, Azure's and Groq's, Anthropic's, Cerebras', Mistral's.
_STEADY: Mapping[str, tuple[str, ...]] = {
    "requests": (
        "x-ratelimit-{}-requests",
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}-requests-minute",
        "x-ratelimit-{}-req-minute",
    ),
    "tokens": (
        "x-ratelimit-{}-tokens",
        "anthropic-ratelimit-tokens-{}",
        "anthropic-ratelimit-input-tokens-{}",
        "x-ratelimit-{}-tokens-minute",
        "x-ratelimitbysize-{}-minute",
        "ratelimitbysize-{}",
    ),
}
#: Headers of limits that come back all at once, when their window ends.
_WINDOWS = ("x-ratelimit-{}", "x-tokenlimit-{}", "ratelimit-{}")
#: Headers of limits by the day.
_DAYS = ("x-ratelimit-{}-requests-day", "x-ratelimit-{}-tokens-day", "x-ratelimit-{}-req-day")
#: The draft standard's one header: ``"default";r=0;t=30`` or ``limit=9, remaining=0, reset=30``.
_DRAFT = re.compile(r"\b(?:r|remaining)=0\b.*?\b(?:t|reset)=(\d+)")


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a reply asks to wait: ``Retry-After``, else the end of a window used up.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> retry_after_s({"retry-after": "300"}, noon), retry_after_s({"retry-after-ms": "50"}, noon)
    (300.0, 0.05)
    >>> retry_after_s({"retry-after": "Thu, 01 Jan 2026 12:01:00 GMT"}, noon)
    60.0
    >>> retry_after_s({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, noon)
    30.0
    >>> retry_after_s({"retry-after": "soon"}, noon) is None
    True
    """
    seconds = _number(headers.get("retry-after-ms"), 0.001)
    if seconds is None:
        seconds = seconds_until(headers.get("retry-after", ""), now)
    if seconds is None:
        seconds = _end_of_window(headers, now)
    return None if seconds is None else max(0.0, seconds)


def is_daily_limit_used_up(headers: Mapping[str, str]) -> bool:
    """Whether a limit by the day has nothing left."""
    return any(_number(headers.get(template.format("remaining")), 1.0) == 0 for template in _DAYS)


def rate_limits_of(headers: Mapping[str, str], now: datetime | None = None) -> RateLimits | None:
    """The rate limits in headers, of limits that refill steadily.

    The refill rate follows from when a limit will be full again: after a duration, or at a moment,
    by ``now`` or else by the clock.

    >>> rate_limits_of({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "58",
    ...            "x-ratelimit-reset-requests": "2s"})
    RateLimits(requests=58.0, requests_a_second=1.0, tokens=None, tokens_a_second=None)
    >>> rate_limits_of({}) is None
    True
    """
    limit_headers = {name: value for name, value in headers.items() if "ratelimit" in name}
    templates = (
        [_template_in(limit_headers, names) for names in _STEADY.values()] if limit_headers else []
    )
    if not any(templates):
        return None
    moment = now or datetime.now(UTC)
    requests, tokens = (_limit_of(limit_headers, template, moment) for template in templates)
    return RateLimits(*requests, *tokens)


def _template_in(headers: Mapping[str, str], templates: tuple[str, ...]) -> str:
    """The first of the forms in which the headers say what is left; "": in none."""
    return next((template for template in templates if template.format("remaining") in headers), "")


def _limit_of(
    headers: Mapping[str, str], template: str, now: datetime
) -> tuple[float | None, float | None]:
    """What is left of a limit, and how many come back a second."""
    if not template:
        return None, None
    limit, left = (_number(headers.get(template.format(n)), 1.0) for n in ("limit", "remaining"))
    whole_in = seconds_until(headers.get(template.format("reset"), ""), now)
    if whole_in is None and template.endswith("-minute"):
        whole_in = _MINUTE_S
    if left is None or limit is None or whole_in is None or left >= limit:
        return left, None
    if not 0 < whole_in <= _LONGEST_S:
        return left, None
    a_second = (limit - left) / whole_in
    return left, a_second if math.isfinite(a_second) else None


def _end_of_window(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds until limits with nothing left come back, of those that tell no rate."""
    ends = [float(found[1]) for found in [_DRAFT.search(headers.get("ratelimit", ""))] if found]
    for template in (*_WINDOWS, *_STEADY["requests"], *_STEADY["tokens"]):
        left = _number(headers.get(template.format("remaining")), 1.0)
        if left != 0 or (template not in _WINDOWS and template.format("limit") in headers):
            continue
        end = seconds_until(headers.get(template.format("reset"), ""), now)
        ends += [] if end is None else [end]
    return max(ends, default=None)


def seconds_until(text: str, now: datetime) -> float | None:
    """Seconds that a text asks for: a number, a duration, or a moment in any common form.

    Below 0 for a moment gone by; None for anything else.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> seconds_until("1m30s", noon), seconds_until("2026-01-01T12:00:05Z", noon)
    (90.0, 5.0)
    """
    seconds = parse_duration(text)
    if seconds is None:
        return _seconds_to_date(text, now)
    if seconds > _EPOCH:
        return seconds * (0.001 if seconds > _EPOCH_MS else 1.0) - now.timestamp()
    return seconds


def _seconds_to_date(text: str, now: datetime) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
        except (ValueError, OverflowError):
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - now).total_seconds()
    return None


def parse_duration(text: str) -> float | None:
    """Seconds of a duration as servers write it; a bare number is seconds.

    >>> [parse_duration(text) for text in ("6m0s", "1h2m3.5s", "20ms", "1.5")]
    [360.0, 3723.5, 0.02, 1.5]
    >>> parse_duration("26 seconds"), parse_duration("soon")
    (26.0, None)
    """
    bare = _number(text, 1.0)
    if bare is not None or not _WHOLE.fullmatch(text):
        return bare
    return sum(float(number) * _unit_s(unit) for number, unit in _PART.findall(text))


def _unit_s(unit: str) -> float:
    unit = unit.lower()
    return next(_UNITS[unit[:n]] for n in (3, 2, 1) if unit[:n] in _UNITS)


def _number(text: str | None, unit: float) -> float | None:
    try:
        value = float(text or "") * unit
    except ValueError:
        return None
    return value if math.isfinite(value) else None
