"""Connections for many calls at once.

Before each call the SDK's pool of connections looks through all of them for expired ones; with 64
calls in flight that takes more time than the call itself. Several small pools do not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar

from httpx2 import (
    AsyncBaseTransport,
    AsyncByteStream,
    AsyncHTTPTransport,
    Limits,
    Request,
    Response,
    create_ssl_context,
)

_POOLS = 16
_LIMITS = Limits(max_connections=None, max_keepalive_connections=64)


class SendProgress:
    """The progress of a call.

    Attributes:
        has_begun: its body began to go out; before that, nobody can have answered, nor counted it.
    """

    has_begun = False


_SENDING: ContextVar[SendProgress | None] = ContextVar("sending", default=None)


def track_next_call() -> SendProgress:
    """Track the next call of this task, by a client with the hook :func:`request_hook`."""
    sending = SendProgress()
    _SENDING.set(sending)
    return sending


async def request_hook(request: Request) -> None:
    """A client's hook: note when the body of a request begins to go out."""
    sending = _SENDING.get()
    if sending is not None and isinstance(request.stream, AsyncByteStream):
        request.stream = _Watched(request.stream, sending)


class _Watched(AsyncByteStream):
    def __init__(self, stream: AsyncByteStream, sending: SendProgress) -> None:
        self._stream, self._sending = stream, sending

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._sending.has_begun = True
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        await self._stream.aclose()


class ConnectionPools(AsyncBaseTransport):
    """Sends each request through the pool with the fewest requests in flight."""

    def __init__(self) -> None:
        context = create_ssl_context()
        self._pools = [AsyncHTTPTransport(verify=context, limits=_LIMITS) for _ in range(_POOLS)]
        self._in_flight = [0] * _POOLS

    async def handle_async_request(self, request: Request) -> Response:
        """Send one request."""
        at = min(range(_POOLS), key=self._in_flight.__getitem__)
        self._in_flight[at] += 1
        try:
            return await self._pools[at].handle_async_request(request)
        finally:
            self._in_flight[at] -= 1

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()
