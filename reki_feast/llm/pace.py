"""How fast to ask: calls in flight, requests and tokens a minute, pauses that the server wants.

The number of calls in flight follows the server: one more for each round that went well, a
quarter fewer when it says that it is asked too much (additive increase, multiplicative decrease,
as TCP does; Chiu and Jain 1989). Up to near the height at which it last said so the climb is
quick, as in CUBIC. Limits by the minute are declared, or learnt from the headers of replies.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass

from reki_feast.llm.notices import Notices
from reki_feast.llm.port import RateLimits

#: Calls in flight at the start, at most.
_START = 32
_DECREASE = 0.75
#: Below this share of the last ceiling the climb is quick.
_NEAR = 0.95
#: A declared limit by the minute may be used up at once for so many seconds of it.
_BURST_S = 5.0
_REACHED = "the limit of requests or tokens is reached"


@dataclass(frozen=True)
class Turn:
    """The right to have one call in flight.

    Attributes:
        begun: when it was given, in the event loop's seconds.
        tokens: tokens that the call was expected to take.
    """

    begun: float
    tokens: float


class Bucket:
    """So many a second, and as many at once as have gathered meanwhile.

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


class Pace:
    """Gives turns, in the order in which they are asked for; belongs to one event loop.

    Args:
        concurrency: calls in flight, at most.
        requests_per_minute: the declared limit, if any.
        tokens_per_minute: the declared limit, if any.

    Attributes:
        notices: tells the user of waits.
        in_flight: turns given and not given back.
        is_stopping: no more turns are given.
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
        self._waiting: deque[tuple[asyncio.Future[Turn | None], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.notices = Notices()
        self.in_flight = 0
        self.is_stopping = False

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(1, int(self._limit))

    @property
    def pause_s(self) -> float:
        """Seconds left of a pause that the server asked for."""
        return max(0.0, self._not_before - self._loop.time())

    async def enter(self, tokens: float = 0.0) -> Turn | None:
        """Wait for a turn; None when the run is stopping."""
        if self.is_stopping:
            return None
        future: asyncio.Future[Turn | None] = self._loop.create_future()
        self._waiting.append((future, tokens))
        self._pump()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result() is not None:
                self.leave()
            raise

    def leave(self) -> None:
        """Give a turn back."""
        self.in_flight -= 1
        self._pump()

    def succeeded(self, turn: Turn, tokens: float, limits: RateLimits | None) -> None:
        """A call went well and took so many tokens."""
        self.notices.answered()
        self._tokens.take(tokens - turn.tokens)
        self._learn(limits)
        if self._limit < self._most and self.in_flight >= 0.8 * self.limit:
            quick = self._limit < _NEAR * self._ceiling
            self._limit = min(self._most, self._limit + (1.0 if quick else 1.0 / self._limit))
        self._pump()

    def throttled(self, turn: Turn, wait_s: float | None, limits: RateLimits | None) -> None:
        """The server said that it is asked too much, and perhaps how long to wait."""
        self._learn(limits)
        # calls that went out before the last cut tell nothing new
        if turn.begun >= self._last_cut:
            self._ceiling = max(1.0, min(self._limit, self.in_flight) - 1.0)
            self._limit = max(1.0, self._ceiling * _DECREASE)
            self._last_cut = self._loop.time()
        if wait_s:
            self.pause(wait_s)

    def pause(self, seconds: float) -> None:
        """No call goes out for so long: the server's wish for all calls."""
        self._not_before = max(self._not_before, self._loop.time() + seconds)

    def stop(self) -> None:
        """Give no more turns; those who wait get None."""
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

    def _pump(self) -> None:
        """Give out the turns that there are; come back when the next is due."""
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
                self._come_back(now + wait_s)
                return
            self._waiting.popleft()
            self._requests.take(1.0)
            self._tokens.take(tokens)
            self.in_flight += 1
            future.set_result(Turn(now, tokens))

    def _come_back(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._pump)
