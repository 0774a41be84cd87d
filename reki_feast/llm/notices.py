"""Log messages about long waits."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import datetime, timedelta

from reki_feast.llm.interface import RequestError

_log = logging.getLogger(__name__)

#: A wait of no more than this is not worth a word; nor are several without an answer between.
_SOME_S = 5.0
#: A wait as long as this is told whatever was told before …
_LONG_S = 300.0
#: … unless it hardly ends later than the last one told.
_SLACK_S = 60.0
#: Shorter waits are told no more often.
_SELDOM_S = 600.0
_QUOTED = 300


def error_summary(error: RequestError) -> str:
    """What a server says that did not answer; or that it says nothing."""
    fault = error.problems[0]
    return fault.detail if error.status else f"no answer came: {fault.detail or fault.problem}"


class WaitNotices:
    """Logs a line about the first wait of more than a few seconds, and later ones seldom.

    Args:
        clock: the time of day.

    Attributes:
        reason: why the last wait began; empty since the server answered.
    """

    def __init__(self, clock: Callable[[], datetime] = datetime.now) -> None:
        self._clock = clock
        self.reason = ""
        self._since: float | None = None
        self._logged_at = self._logged_until = -math.inf

    def answered(self) -> None:
        """The server answered: waits begin anew."""
        self._since, self.reason = None, ""

    def wait(self, seconds: float, why: str, at: float) -> None:
        """A wait begins.

        Args:
            seconds: how long it takes.
            why: what the server says.
            at: when it begins, by any clock in seconds.
        """
        self._since = at if self._since is None else self._since
        self.reason = " ".join(why.split())[:_QUOTED]
        until = at + seconds
        if until - self._since <= _SOME_S:
            return
        is_longer = seconds >= _LONG_S and until > self._logged_until + _SLACK_S
        if not is_longer and at - self._logged_at < _SELDOM_S:
            return
        self._logged_at, self._logged_until = at, until
        end = self._end(seconds)
        _log.warning("%s; waiting %.0f s, until %s", self.reason, math.ceil(seconds), end)

    def _end(self, seconds: float) -> str:
        """When a wait ends, with its day if it is another."""
        now = self._clock()
        try:
            end = now + timedelta(seconds=seconds)
        except OverflowError:
            return "long after today"
        return f"{end:%H:%M:%S}" if end.date() == now.date() else f"{end:%Y-%m-%d %H:%M}"
