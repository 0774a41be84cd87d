"""Event loops: one for a run, and Ctrl-C within it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, in a thread of its own where a loop runs already (a notebook).

    Raises:
        KeyboardInterrupt: it was stopped at once.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            return asyncio.run(work())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


@contextlib.contextmanager
def graceful_interrupt(interrupt: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C call ``interrupt``; a second one stops at once.

    Where signals cannot be had (another thread, another system) Ctrl-C stops at once.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def pressed() -> None:
        loop.add_signal_handler(signal.SIGINT, pressed_again)
        interrupt()

    def pressed_again() -> None:
        if task is not None:
            task.cancel()

    has_signals = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        if has_signals:
            loop.add_signal_handler(signal.SIGINT, pressed)
    except NotImplementedError:
        has_signals = False
    try:
        yield
    finally:
        if has_signals:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)  # the loop would leave Python's default
