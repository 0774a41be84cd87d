"""Work on Redis written once for threads and for event loops.

An exchange is a generator: it yields requests, is sent their replies and returns a result. The two
drivers differ in how they wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import TypeAlias, TypeVar

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Result = TypeVar("Result")
Exchange: TypeAlias = Generator[Request, Reply, Result]


def run(exchange: Exchange[Request, Reply, Result], answer: Callable[[Request], Reply]) -> Result:
    """The result of an exchange.

    Args:
        exchange: not started yet.
        answer: gives the reply to a request.
    """
    try:
        request = next(exchange)
        while True:
            request = exchange.send(answer(request))
    except StopIteration as end:
        result: Result = end.value
        return result


async def run_async(
    exchange: Exchange[Request, Reply, Result], answer: Callable[[Request], Awaitable[Reply]]
) -> Result:
    """The result of an exchange whose replies are awaited."""
    try:
        request = next(exchange)
        while True:
            request = exchange.send(await answer(request))
    except StopIteration as end:
        result: Result = end.value
        return result
