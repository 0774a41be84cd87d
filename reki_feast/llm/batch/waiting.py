"""Waiting in the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from reki_feast.llm.batch.collector import StoppedError

T = TypeVar("T")


def loop_time() -> float:
    """Seconds, by the clock that the running loop sleeps by."""
    return asyncio.get_running_loop().time()


async def unless_stopped(call: Coroutine[Any, Any, T], stop: asyncio.Event) -> T:
    """Await a call to the server; cancel it as soon as the run is to stop.

    Raises:
        StoppedError: the run is to stop.
    """
    calling, stopping = asyncio.create_task(call), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({calling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if calling.done():
            return calling.result()
        raise StoppedError
    finally:
        calling.cancel()
        stopping.cancel()
        await asyncio.gather(calling, stopping, return_exceptions=True)
