"""What a refusal says of waiting, in its headers or anywhere in its body.

Servers put a pause into headers, into fields of their own (``retryDelay``, ``retry_after_ms``), or
into a sentence (``Please try again in 6m0s``), in objects, lists and texts within texts. So the
body is read as text, whatever its shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from reki_feast.llm.headers import DURATION, is_daily_limit_used_up, retry_after_s, seconds_until

_ASKED = re.compile(
    r"\b(?:retry|try again|wait|resets?|available|estimated)"
    r"(?P<link>(?:[-_ ]?(?:again|delay|after|in|for|time|at least|about|another))*)"
    r"(?P<unit>[-_ ]?(?:milliseconds|millis|ms|seconds|secs?|s))?(?![a-z])"
    r"\W{1,12}(?:seconds\W{1,12})?"
    rf"(?P<value>{DURATION}|\d+(?:\.\d+)?(?![\d\w%/:-]|\s+\w))",
    re.IGNORECASE,
)
#: The moment at which a limit comes back, in a body that quotes another server's headers.
_MOMENT = re.compile(r"ratelimit-reset\W{1,12}(\d{10,13})\b", re.IGNORECASE)
#: Google's names of the limits that were reached.
_QUOTA_ID = re.compile(r"quotaId\W{1,12}([\w-]+)")
_LASTING = (
    r"per[-_ ]?(?:day|week|month)|\b(?:daily|weekly|monthly)\b|/\s?day\b|\b(?:rpd|tpd)\b|_rpd\b"
    r"|\btomorrow\b"
)
_PERIOD = re.compile(
    rf"(?P<lasting>{_LASTING})|per[-_ ]?(?:min|sec|hour)|/\s?(?:min|sec|s\b|hour)|\b[rt]p[ms]\b",
    re.IGNORECASE,
)
#: A body's beginning says it all; more is somebody's web page.
_READ = 10_000


def requested_wait(headers: Mapping[str, str], body: str, now: datetime) -> float | None:
    """Seconds that a reply asks to wait, in headers or body, the longest; None: it does not say.

    >>> noon = datetime(2026, 1, 1, 12)
    >>> requested_wait({}, '[{"error": {"details": [{"retryDelay": "2s"}]}}]', noon)
    2.0
    >>> requested_wait({"retry-after": "1"}, "Please try again in 1m30s. Limit: 60 / min", noon)
    90.0
    """
    body = body[:_READ]
    waits = [retry_after_s(headers, now)]
    waits += [_seconds(found, now) for found in _ASKED.finditer(body)]
    waits += [seconds_until(found, now) for found in _MOMENT.findall(body)]
    return max((max(0.0, seconds) for seconds in waits if seconds is not None), default=None)


def is_long_term_limit(headers: Mapping[str, str], body: str) -> bool:
    """Whether the limit that was reached is one by the day, or longer.

    Of several periods in a text the first counts: others are what an upgrade would bring.

    >>> is_long_term_limit({}, "Rate limit reached on requests per day (RPD): Limit 200, Used 200")
    True
    >>> is_long_term_limit({}, "Limit 3 / min. Daily limits: see your plan")
    False
    """
    body = body[:_READ]
    named = " ".join(_QUOTA_ID.findall(body))
    if re.search(_LASTING, named, re.IGNORECASE):
        return True
    first = None if named else _PERIOD.search(body)
    return is_daily_limit_used_up(headers) or bool(first and first["lasting"])


def _seconds(found: re.Match[str], now: datetime) -> float | None:
    """Seconds of one place that asks for a pause; a bare number must be said to be one."""
    value, unit = found["value"].strip(" ,"), (found["unit"] or "").strip("-_ ").lower()
    is_bare = value.replace(".", "").isdecimal()
    if is_bare and unit.startswith("m"):
        return float(value) * 0.001
    return None if is_bare and not (found["link"] or unit) else seconds_until(value, now)
