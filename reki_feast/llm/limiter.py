"""The adaptive limiter of concurrency: calls in flight, requests and tokens a minute, pauses.

The number of calls in flight follows the server: one more for each round that went well, a
quarter fewer when it replies 429 (additive increase, multiplicative decrease,
as TCP does; Chiu and Jain 1989). Far below the last such limit it grows faster, as in CUBIC.
Limits by the minute are declared, or learned from the headers of replies.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from copy import copy
from dataclasses import dataclass

from reki_feast.llm.interface import RateLimits
from reki_feast.llm.notices import WaitNotices

#: Calls in flight at the start, at most.
_START = 32
_DECREASE = 0.75
#: Below this share of the last ceiling the climb is quick.
_NEAR = 0.95
#: A declared limit by the minute may be used up at once for so many seconds of it.
_BURST_S = 5.0
_REACHED = "the limit of requests or tokens is reached"


@dataclass(frozen=True)
class Permit:
    """The right to have one call in flight.

    Attributes:
        started: when it was given, in the event loop's seconds.
        tokens: tokens that the call was expected to take.
    """

    started: float
    tokens: float


class Bucket:
    """A token bucket: refills at a rate, up to a capacity.

    Args:
        per_minute: the declared limit; None: none until a reply tells one.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._declared = None if per_minute is None else per_minute / 60.0
        self._rate = self._declared
        self._capacity = math.inf
        self._level = math.inf
        if self._declared is not None:
            self._capacity = self._level = max(1.0, self._declared * _BURST_S)
        self._at = -math.inf

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until so many may be taken."""
        self._refill(now)
        lacking = min(amount, self._capacity) - self._level
        if lacking <= 0 or not self._rate:
            return 0.0
        return lacking / self._rate

    def take(self, amount: float) -> None:
        """Take so many; the level may fall below nothing."""
        self._level -= amount

    def learn(self, left: float | None, a_second: float | None, now: float) -> None:
        """What a reply says: so many left, so many a second come back."""
        if left is None:
            return
        self._refill(now)
        self._level = min(self._level, left)
        if a_second:
            self._rate = a_second if self._declared is None else min(a_second, self._declared)

    def _refill(self, now: float) -> None:
        if self._rate and math.isfinite(self._level) and math.isfinite(self._at):
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now


class ConcurrencyLimiter:
    """Grants permits in the order of requests; belongs to one event loop.

    Args:
        concurrency: calls in flight, at most.
        requests_per_minute: the declared limit, if any.
        tokens_per_minute: the declared limit, if any.

    Attributes:
        notices: tells the user of waits.
        in_flight: permits that are held.
        is_stopping: no more permits are granted.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = concurrency
        self._limit = float(min(concurrency, _START))
        self._ceiling = math.inf
        self._last_cut = -math.inf
        self._not_before = -math.inf
        self._requests = Bucket(requests_per_minute)
        self._tokens = Bucket(tokens_per_minute)
        self._waiting: deque[tuple[asyncio.Future[Permit | None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.notices = WaitNotices()
        self.in_flight = 0
        self.is_stopping = False

    def renewed(self) -> ConcurrencyLimiter:
        """The same limits, and what was learned, in the event loop that runs now."""
        made = copy(self)
        made._loop, made._waiting, made._timer = asyncio.get_running_loop(), deque(), None
        made.notices, made.in_flight, made.is_stopping = WaitNotices(), 0, False
        return made

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(1, int(self._limit))

    @property
    def pause_s(self) -> float:
        """Seconds left of a pause that the server asked for."""
        return max(0.0, self._not_before - self._loop.time())

    async def enter(self, tokens: float = 0.0) -> Permit | None:
        """Wait for a permit; None when the run is stopping."""
        if self.is_stopping:
            return None
        future: asyncio.Future[Permit | None] = self._loop.create_future()
        self._waiting.append((future, tokens))
        self._grant_permits()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result() is not None:
                self.leave()
            raise

    def leave(self) -> None:
        """Return a permit."""
        self.in_flight -= 1
        self._grant_permits()

    def succeeded(self, permit: Permit, tokens: float, limits: RateLimits | None) -> None:
        """A call went well and took so many tokens."""
        self.notices.answered()
        self._tokens.take(tokens - permit.tokens)
        self._learn(limits)
        if self._limit < self._most and self.in_flight >= 0.8 * self.limit:
            quick = self._limit < _NEAR * self._ceiling
            self._limit = min(self._most, self._limit + (1.0 if quick else 1.0 / self._limit))
        self._grant_permits()

    def throttled(self, permit: Permit, wait_s: float | None, limits: RateLimits | None) -> None:
        """The server replied 429, perhaps with how long to wait."""
        self._learn(limits)
        # calls that went out before the last cut tell nothing new
        if permit.started >= self._last_cut:
            self._ceiling = max(1.0, min(self._limit, self.in_flight) - 1.0)
            self._limit = max(1.0, self._ceiling * _DECREASE)
            self._last_cut = self._loop.time()
        if wait_s:
            self.pause(wait_s)

    def pause(self, seconds: float) -> None:
        """No call goes out for so long: the server's wish for all calls."""
        self._not_before = max(self._not_before, self._loop.time() + seconds)

    def stop(self) -> None:
        """Grant no more permits; waiters get None."""
        self.is_stopping = True
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
        if self._timer is not None:
            self._timer.cancel()

    def _learn(self, limits: RateLimits | None) -> None:
        if limits is not None:
            now = self._loop.time()
            self._requests.learn(limits.requests, limits.requests_a_second, now)
            self._tokens.learn(limits.tokens, limits.tokens_a_second, now)

    def _grant_permits(self) -> None:
        """Grant the available permits; schedule a call for when the next one is due."""
        while self._waiting and self.in_flight < self.limit:
            future, tokens = self._waiting[0]
            if future.done():
                self._waiting.popleft()
                continue
            now = self._loop.time()
            limit_s = max(self._requests.wait_s(1.0, now), self._tokens.wait_s(tokens, now))
            wait_s = max(self._not_before - now, limit_s)
            if wait_s > 0:
                if limit_s > 0:
                    self.notices.wait(limit_s, _REACHED, now)
                self._schedule(now + wait_s)
                return
            self._waiting.popleft()
            self._requests.take(1.0)
            self._tokens.take(tokens)
            self.in_flight += 1
            future.set_result(Permit(now, tokens))

    def _schedule(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._grant_permits)
