"""Event loops, and Ctrl-C within them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from reki_feast.llm.event_loop import graceful_interrupt, run_in_loop


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A job in the background may have been started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    """Ctrl-C."""
    signal.raise_signal(signal.SIGINT)


async def for_long() -> None:
    """Longer than a test should take."""
    await asyncio.wait_for(asyncio.Event().wait(), 10)


def test_the_result_comes_back() -> None:
    async def work() -> str:
        return "done"

    assert run_in_loop(work) == "done"


def test_a_loop_that_runs_already_is_left_alone() -> None:
    async def work() -> str:
        return threading.current_thread().name

    async def notebook() -> str:
        return run_in_loop(work)

    assert run_in_loop(work) == threading.main_thread().name
    assert asyncio.run(notebook()) != threading.main_thread().name


@pytest.mark.parametrize("is_within", [False, True])
def test_errors_come_through(is_within: bool) -> None:
    async def work() -> None:
        raise ZeroDivisionError("in the work")

    async def notebook() -> None:
        run_in_loop(work)

    def run() -> None:
        if is_within:
            asyncio.run(notebook())
        else:
            run_in_loop(work)

    with pytest.raises(ZeroDivisionError, match="in the work"):
        run()


def test_pressed_once_the_work_is_told_and_goes_on() -> None:
    told = list[str]()

    async def work() -> str:
        stopped = asyncio.Event()

        def interrupt() -> None:
            told.append("interrupted")
            stopped.set()

        with graceful_interrupt(interrupt):
            press()
            await stopped.wait()
            await asyncio.sleep(0)
        return "ended of itself"

    assert run_in_loop(work) == "ended of itself"
    assert told == ["interrupted"]


def test_pressed_twice_it_stops_at_once() -> None:
    told, cleaned = list[str](), list[str]()

    async def work() -> None:
        stopped = asyncio.Event()

        def interrupt() -> None:
            told.append("interrupted")
            stopped.set()

        with graceful_interrupt(interrupt):
            press()
            await stopped.wait()
            press()
            try:
                await for_long()
            finally:
                cleaned.append("cleaned up")

    with pytest.raises(KeyboardInterrupt, match="^$"):
        run_in_loop(work)
    assert (told, cleaned) == (["interrupted"], ["cleaned up"])


@pytest.mark.parametrize("presses", [0, 1])
def test_afterwards_ctrl_c_is_what_it_was(presses: int) -> None:
    before = signal.getsignal(signal.SIGINT)

    async def work() -> None:
        stopped = asyncio.Event()
        with graceful_interrupt(stopped.set):
            for _ in range(presses):
                press()
                await stopped.wait()

    run_in_loop(work)
    assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt, match="^$"):
        press()


def test_a_caller_s_own_handler_is_there_again() -> None:
    pressed = list[int]()
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))

    async def work() -> None:
        with graceful_interrupt(lambda: None):
            await asyncio.sleep(0)

    try:
        run_in_loop(work)
        with contextlib.suppress(KeyboardInterrupt):
            press()
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]


def test_in_another_thread_there_are_no_signals_to_be_had() -> None:
    before = signal.getsignal(signal.SIGINT)

    async def work() -> str:
        with graceful_interrupt(lambda: None):
            assert signal.getsignal(signal.SIGINT) is before
            return "done"

    thread: list[str] = []
    other = threading.Thread(target=lambda: thread.append(run_in_loop(work)))
    other.start()
    other.join()
    assert thread == ["done"]


def test_where_the_system_has_no_signals_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(self: object, number: int, handle: Callable[[], None]) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", none)

    async def work() -> str:
        with graceful_interrupt(lambda: None):
            return "done"

    assert run_in_loop(work) == "done"
