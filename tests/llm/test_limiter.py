"""How fast to ask: turns, limits learnt and declared, pauses. Time is the loop's, and jumps."""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.llm.interface import RateLimits
from reki_feast.llm.limiter import Bucket, ConcurrencyLimiter, Permit

T = TypeVar("T")


class Jumping(selectors.SelectSelector):
    """Does not wait: time jumps to when the next thing is due."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("all wait, and nothing is due: a deadlock")
        self.now += max(timeout, 1e-7)  # no clock stands quite still
        return super().select(0)


class FakeLoop(asyncio.SelectorEventLoop):
    """A loop whose clock hardly moves while anything is to be done, and then jumps."""

    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def in_fake_time(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    loop = FakeLoop()
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


def near(*seconds: float) -> Any:
    """These times, or this one, but for what little the clock moves meanwhile."""
    return pytest.approx(seconds[0] if len(seconds) == 1 else list(seconds), abs=1e-3)


async def settled() -> None:
    """Let all that can go on now go on."""
    for _ in range(5):
        await asyncio.sleep(0)


async def permit(limiter: ConcurrencyLimiter, tokens: float = 0.0) -> Permit:
    got = await limiter.enter(tokens)
    assert got is not None
    return got


async def turns(limiter: ConcurrencyLimiter, count: int) -> list[Permit]:
    return [await permit(limiter) for _ in range(count)]


# --- turns ----------------------------------------------------------------------------------


def test_as_many_at_once_as_are_allowed_in_the_order_of_asking() -> None:
    async def work() -> list[int]:
        limiter, order = ConcurrencyLimiter(3), list[int]()

        async def call(n: int) -> None:
            await permit(limiter)
            order.append(n)
            assert limiter.in_flight <= 3
            await asyncio.sleep(1 + (n % 3) / 10)
            limiter.leave()

        await asyncio.gather(*(call(n) for n in range(20)))
        assert limiter.in_flight == 0
        return order

    assert in_fake_time(work) == list(range(20))


@pytest.mark.parametrize(("most", "start"), [(1, 1), (8, 8), (32, 32), (500, 32)])
def test_the_start_is_careful(most: int, start: int) -> None:
    async def work() -> int:
        return ConcurrencyLimiter(most).limit

    assert in_fake_time(work) == start


def test_one_who_waits_and_is_cancelled_takes_no_turn() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(1)
        await permit(limiter)
        gone, stays = asyncio.create_task(limiter.enter()), asyncio.create_task(limiter.enter())
        await settled()
        gone.cancel()
        await settled()
        limiter.leave()
        assert isinstance(await stays, Permit)
        assert limiter.in_flight == 1

    in_fake_time(work)


def test_one_who_is_cancelled_as_the_turn_comes_gives_it_back() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(1)
        await permit(limiter)
        gone, stays = asyncio.create_task(limiter.enter()), asyncio.create_task(limiter.enter())
        await settled()
        limiter.leave()  # the turn is given …
        assert limiter.in_flight == 1
        gone.cancel()  # … and he who gets it does not come any more
        assert isinstance(await stays, Permit)
        assert gone.cancelled()
        limiter.leave()
        assert limiter.in_flight == 0

    in_fake_time(work)


def test_when_it_stops_those_who_wait_get_none() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(1)
        await permit(limiter)
        waiting = [asyncio.create_task(limiter.enter()) for _ in range(3)]
        await settled()
        limiter.stop()
        assert await asyncio.gather(*waiting) == [None] * 3
        assert await limiter.enter() is None
        limiter.leave()
        assert (limiter.in_flight, limiter.is_stopping) == (0, True)

    in_fake_time(work)


def test_when_it_stops_in_a_pause_nobody_waits_on() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(1)
        limiter.pause(3600)
        waiting = asyncio.create_task(limiter.enter())
        await settled()
        limiter.stop()
        assert await waiting is None
        assert now() < 1

    in_fake_time(work)


# --- how many at once -----------------------------------------------------------------------


def test_a_refusal_takes_a_quarter_and_success_brings_one_a_round() -> None:
    async def work() -> list[float]:
        limiter, limits = ConcurrencyLimiter(100), list[float]()
        got = await turns(limiter, 32)
        await asyncio.sleep(1)
        limiter.throttled(got[0], None, None)
        limits.append(limiter._limit)  # 32 in flight: the ceiling is 31, three quarters of it 23.25
        for _ in range(9):
            limiter.leave()
        for _ in range(8):
            limiter.succeeded(got[1], 0, None)
        limits.append(limiter._limit)  # quick up to near the ceiling; 23 are in flight
        return limits

    assert in_fake_time(work) == [23.25, 29.25]


def test_near_the_ceiling_the_climb_is_one_a_round() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(100)
        got = await turns(limiter, 20)
        await asyncio.sleep(1)
        limiter.throttled(got[0], None, None)  # the ceiling is 19, the limit 14.25
        for _ in range(4):
            limiter.succeeded(got[1], 0, None)
        assert limiter._limit == 18.25  # above 95 % of 19
        before = limiter.limit
        for _ in range(before):
            limiter.succeeded(got[1], 0, None)
        assert before < limiter._limit <= before + 1.25

    in_fake_time(work)


def test_calls_that_were_out_before_the_cut_do_not_cut_again() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(16)
        got = await turns(limiter, 16)
        await asyncio.sleep(1)
        limiter.throttled(got[0], None, None)
        cut = limiter._limit
        for one in got[1:]:
            await asyncio.sleep(0.01)
            limiter.throttled(one, None, None)
            limiter.leave()
        assert limiter._limit == cut == 15 * 0.75
        later = await permit(limiter)
        limiter.throttled(later, None, None)
        assert limiter._limit < cut

    in_fake_time(work)


def test_few_in_flight_say_nothing_of_more() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(100)
        [one] = await turns(limiter, 1)
        for _ in range(50):
            limiter.succeeded(one, 0, None)
        assert limiter.limit == 32

    in_fake_time(work)


def test_more_room_is_used_at_once() -> None:
    async def work() -> None:
        limiter = ConcurrencyLimiter(100)
        got = await turns(limiter, 32)
        more = asyncio.create_task(limiter.enter())
        await settled()
        assert not more.done()
        limiter.succeeded(got[0], 0, None)
        await settled()
        assert more.done()

    in_fake_time(work)


EVENTS = st.lists(st.sampled_from(["enter", "good", "refused", "wait"]), max_size=60)


@settings(deadline=None)
@given(st.integers(1, 60), EVENTS)
def test_the_limit_stays_between_one_and_the_most(most: int, events: list[str]) -> None:
    async def work() -> None:
        limiter, mine = ConcurrencyLimiter(most), list[Permit]()
        for event in events:
            if event == "wait":
                await asyncio.sleep(0.1)
            elif event == "enter" and limiter.in_flight < limiter.limit:
                mine.append(await permit(limiter))
            elif mine:
                if event == "good":
                    limiter.succeeded(mine.pop(), 0, None)
                else:
                    limiter.throttled(mine.pop(), None, None)
                limiter.leave()
            assert 1 <= limiter.limit <= most
            assert limiter.in_flight == len(mine)

    in_fake_time(work)


@dataclass
class Crowd:
    """A server that bears so many calls at once, a second each, and refuses more."""

    bears: int
    at_once: int = 0
    well: int = 0
    refused: int = 0
    crowds: list[int] = field(default_factory=list)

    async def call(self, limiter: ConcurrencyLimiter) -> None:
        got = await permit(limiter)
        self.at_once += 1
        self.crowds.append(self.at_once)
        is_refused = self.at_once > self.bears
        await asyncio.sleep(0.01 if is_refused else 1.0)
        self.at_once -= 1
        if is_refused:
            self.refused += 1
            limiter.throttled(got, None, None)
        else:
            self.well += 1
            limiter.succeeded(got, 0, None)
        limiter.leave()


@pytest.mark.parametrize("bears", [1, 2, 10, 25, 60])
def test_it_finds_out_how_many_the_server_bears(bears: int) -> None:
    async def work() -> Crowd:
        limiter, crowd = ConcurrencyLimiter(200), Crowd(bears)

        async def worker() -> None:
            while now() < 300:
                await crowd.call(limiter)

        await asyncio.gather(*(worker() for _ in range(200)))
        return crowd

    crowd = in_fake_time(work)
    share = crowd.well / (bears * 300)
    assert share > 0.8, f"{share:.0%} of what the server bears"
    if bears >= 10:
        assert crowd.refused < 0.1 * crowd.well


# --- pauses ---------------------------------------------------------------------------------


def test_a_pause_holds_for_all() -> None:
    async def work() -> list[float]:
        limiter, started = ConcurrencyLimiter(4), list[float]()
        first = await permit(limiter)
        limiter.throttled(first, 3.0, None)
        limiter.leave()
        assert limiter.pause_s == near(3)

        async def call() -> None:
            started.append((await permit(limiter)).started)
            limiter.leave()

        await asyncio.gather(*(call() for _ in range(2)))
        return started

    assert in_fake_time(work) == near(3, 3)


def test_the_longest_pause_counts() -> None:
    async def work() -> float:
        limiter = ConcurrencyLimiter(1)
        limiter.pause(2.0)
        waiting = asyncio.create_task(permit(limiter))
        await asyncio.sleep(1)
        limiter.pause(5.0)
        limiter.pause(0.5)
        return (await waiting).started

    assert in_fake_time(work) == near(6)


def test_a_pause_of_an_hour_is_waited_for() -> None:
    async def work() -> float:
        limiter = ConcurrencyLimiter(4)
        limiter.pause(20.0)
        for _ in range(3):
            limiter.pause(3600.0)
        return (await permit(limiter)).started

    assert in_fake_time(work) == near(3600)


# --- limits by the minute -------------------------------------------------------------------


def begun_at(
    pace_of: Callable[[], ConcurrencyLimiter], count: int, tokens: float = 0.0
) -> list[float]:
    """When so many calls, that end at once, go out."""

    async def work() -> list[float]:
        limiter, times = pace_of(), list[float]()
        for _ in range(count):
            times.append((await permit(limiter, tokens)).started)
            limiter.leave()
        return times

    return in_fake_time(work)


@pytest.mark.parametrize(
    ("per_minute", "times"),
    [
        (60, [0, 0, 0, 0, 0, 1, 2, 3]),  # five seconds' worth at once, then one a second
        (6, [0, 10, 20]),
        (600, [0.0] * 50 + [0.1, 0.2]),
    ],
)
def test_declared_requests_a_minute(per_minute: float, times: list[float]) -> None:
    got = begun_at(lambda: ConcurrencyLimiter(99, requests_per_minute=per_minute), len(times))
    assert got == near(*times)


@settings(deadline=None, max_examples=40)
@given(st.floats(1, 5_000), st.integers(1, 80))
def test_no_window_has_more_than_the_limit_and_its_burst(per_minute: float, count: int) -> None:
    times = begun_at(lambda: ConcurrencyLimiter(99, requests_per_minute=per_minute), count)
    rate = per_minute / 60
    burst = max(1.0, 5 * rate)
    for first in range(count):
        for last in range(first, count):
            window = times[last] - times[first]
            assert last - first + 1 <= burst + rate * window + 1e-3
    # nor is it slower than it may be
    assert times[-1] <= max(0.0, count - burst) / rate + 1e-3


def test_declared_tokens_a_minute() -> None:
    got = begun_at(lambda: ConcurrencyLimiter(99, tokens_per_minute=6_000), 4, tokens=250)
    assert got == near(0, 0, 2.5, 5)  # a hundred a second, 500 at once


def test_a_call_of_more_tokens_than_gather_at_once_goes_out_all_the_same() -> None:
    got = begun_at(lambda: ConcurrencyLimiter(99, tokens_per_minute=6_000), 3, tokens=2_000)
    assert got == near(0, 20, 40)


def test_what_a_call_really_took_counts() -> None:
    async def work() -> float:
        limiter = ConcurrencyLimiter(9, tokens_per_minute=6_000)
        first = await permit(limiter, 100)
        limiter.succeeded(first, 900, None)  # 500 were there: 400 are lacking now
        limiter.leave()
        return (await permit(limiter, 100)).started

    assert in_fake_time(work) == near(5)


def test_who_asked_first_is_not_overtaken_by_a_smaller_call() -> None:
    async def work() -> list[str]:
        limiter, order = ConcurrencyLimiter(9, tokens_per_minute=6_000), list[str]()

        async def call(name: str, tokens: float) -> None:
            await permit(limiter, tokens)
            order.append(name)

        await asyncio.gather(call("first", 500), call("large", 400), call("small", 1))
        return order

    assert in_fake_time(work) == ["first", "large", "small"]


def learning(*told: RateLimits, declared: float | None = None, count: int) -> list[float]:
    """When calls go out whose replies say this, one after another."""

    async def work() -> list[float]:
        limiter, times = ConcurrencyLimiter(99, requests_per_minute=declared), list[float]()
        for n in range(count):
            got = await permit(limiter)
            times.append(got.started)
            limiter.succeeded(got, 0, told[min(n, len(told) - 1)])
            limiter.leave()
        return times

    return in_fake_time(work)


def left(requests: float, a_second: float | None) -> RateLimits:
    return RateLimits(requests=requests, requests_a_second=a_second)


def test_limits_are_learnt_from_replies() -> None:
    assert learning(left(2, 0.5), left(1, 0.5), left(0, 0.5), count=5) == near(0, 0, 0, 2, 4)


def test_a_long_wait_for_a_limit_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert learning(left(0, 0.01), count=2) == near(0, 100)
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith("the limit of requests or tokens is reached; waiting 100 s, until ")


def test_short_waits_for_a_limit_between_answers_are_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert learning(left(0, 0.25), count=20)[-1] == near(19 * 4)
    assert caplog.records == []


def test_a_reply_that_tells_no_rate_holds_nobody_up() -> None:
    assert learning(left(0, None), count=4) == near(0, 0, 0, 0)
    assert learning(RateLimits(tokens=3), count=4) == near(0, 0, 0, 0)


def test_a_declared_limit_is_not_passed_by_a_higher_one_told() -> None:
    times = learning(left(1_000, 100), declared=60, count=8)
    assert times == near(0, 0, 0, 0, 0, 1, 2, 3)


def test_a_lower_limit_than_declared_is_heeded() -> None:
    times = learning(left(0, 0.1), declared=60, count=3)
    assert times == near(0, 10, 20)


def test_tokens_are_learnt_too() -> None:
    async def work() -> float:
        limiter = ConcurrencyLimiter(9)
        first = await permit(limiter, 50)
        limiter.throttled(first, None, RateLimits(tokens=10, tokens_a_second=20))
        limiter.leave()
        return (await permit(limiter, 50)).started

    assert in_fake_time(work) == near(2)


AMOUNTS, RATES = st.floats(0, 1e4), st.floats(1e-3, 1e4)


@given(
    st.none() | st.floats(0.1, 1e6),
    st.lists(st.tuples(AMOUNTS, st.floats(0, 60), st.none() | AMOUNTS, st.none() | RATES)),
)
def test_a_bucket_never_asks_for_a_wait_without_end(
    per_minute: float | None, steps: list[tuple[float, float, float | None, float | None]]
) -> None:
    bucket, time = Bucket(per_minute), 0.0
    for amount, pause, chunk, a_second in steps:
        time += pause
        bucket.learn(chunk, a_second, time)
        wait = bucket.wait_s(amount, time)
        assert 0 <= wait < float("inf")
        time += wait
        assert bucket.wait_s(amount, time) <= 1e-6 * (1 + time)
        bucket.take(amount)


def test_a_loop_in_which_all_wait_is_told() -> None:
    """The tests' clock itself: a turn that never comes is no success."""

    async def work() -> None:
        limiter = ConcurrencyLimiter(1)
        await permit(limiter)
        waiting: Awaitable[Permit | None] = limiter.enter()
        await waiting

    with pytest.raises(AssertionError, match="a deadlock"):
        in_fake_time(work)
