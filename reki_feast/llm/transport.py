"""Connections for many calls at once.

Before each call the SDK's pool of connections looks through all of them for expired ones; with 64
calls in flight that takes more time than the call itself. Several small pools do not.
"""

from __future__ import annotations

from httpx2 import (
    AsyncBaseTransport,
    AsyncHTTPTransport,
    Limits,
    Request,
    Response,
    create_ssl_context,
)

_POOLS = 16
_LIMITS = Limits(max_connections=None, max_keepalive_connections=64)


class Pools(AsyncBaseTransport):
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
