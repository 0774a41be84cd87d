"""What a reply's headers ask for: pauses, and limits by the minute."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from reki_feast.llm.port import RateLimits

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+")
#: A bare number above this is no duration but a moment, in seconds since 1970 …
_EPOCH = 1e8
#: … and one above this in milliseconds.
_EPOCH_MS = 1e11
#: A limit that is whole again only after this says nothing of how fast it comes back.
_LONGEST_S = 86_400.0
_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def wait_of(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that a reply asks to wait: ``Retry-After`` as a number or a date.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    >>> wait_of({"retry-after": "300"}, noon), wait_of({"retry-after-ms": "50"}, noon)
    (300.0, 0.05)
    >>> wait_of({"retry-after": "Thu, 01 Jan 2026 12:01:00 GMT"}, noon)
    60.0
    >>> wait_of({"retry-after": "soon"}, noon) is None
    True
    """
    after_ms, after = headers.get("retry-after-ms"), headers.get("retry-after")
    seconds = _number(after_ms, 0.001)
    if seconds is None:
        seconds = _number(after, 1.0)
    if seconds is None and after:
        try:
            moment = parsedate_to_datetime(after)
        except (ValueError, OverflowError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = (moment - now).total_seconds()
    return None if seconds is None else max(0.0, seconds)


def limits_of(headers: Mapping[str, str], now: datetime | None = None) -> RateLimits | None:
    """What the headers ``x-ratelimit-…`` say, as OpenAI and many others send them.

    How fast a limit comes back follows from when it will be whole again: in how long, or at which
    moment, by ``now`` or else by the clock.

    >>> limits_of({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "58",
    ...            "x-ratelimit-reset-requests": "2s"})
    RateLimits(requests=58.0, requests_a_second=1.0, tokens=None, tokens_a_second=None)
    >>> limits_of({}) is None
    True
    """
    if "x-ratelimit-remaining-requests" not in headers and (
        "x-ratelimit-remaining-tokens" not in headers
    ):
        return None
    moment = (now or datetime.now(timezone.utc)).timestamp()
    return RateLimits(
        *_limit_of(headers, "requests", moment), *_limit_of(headers, "tokens", moment)
    )


def _limit_of(
    headers: Mapping[str, str], what: str, now: float
) -> tuple[float | None, float | None]:
    limit = _number(headers.get(f"x-ratelimit-limit-{what}"), 1.0)
    left = _number(headers.get(f"x-ratelimit-remaining-{what}"), 1.0)
    whole_in = duration_of(headers.get(f"x-ratelimit-reset-{what}", ""))
    if whole_in is not None and whole_in > _EPOCH:
        whole_in = whole_in * (0.001 if whole_in > _EPOCH_MS else 1.0) - now
    if left is None or limit is None or whole_in is None or left >= limit:
        return left, None
    if not 0 < whole_in <= _LONGEST_S:
        return left, None
    return left, (limit - left) / whole_in


def duration_of(text: str) -> float | None:
    """Seconds of a duration as these servers write it; a bare number is seconds.

    >>> duration_of("6m0s"), duration_of("1h2m3.5s"), duration_of("20ms"), duration_of("1.5")
    (360.0, 3723.5, 0.02, 1.5)
    >>> duration_of("soon") is None
    True
    """
    bare = _number(text, 1.0)
    if bare is not None or not _DURATION.fullmatch(text):
        return bare
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _number(text: str | None, unit: float) -> float | None:
    try:
        value = float(text or "") * unit
    except ValueError:
        return None
    return value if math.isfinite(value) else None
