"""An OpenAI-compatible server: its address, its key, and the connections of each event loop.

The SDK's own retries are off, since it gives up when a server asks for a pause of more than two
minutes. The SDK's client belongs to one event loop, so there is one for each loop. The API key is
read from the environment when a client is made, and appears in no error.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies
from weakref import WeakKeyDictionary

from reki_feast.errors import LLMError
from reki_feast.llm import wire
from reki_feast.llm._openai import get_models, post
from reki_feast.llm.hosts import check_host, is_loopback, without_dns_lookup
from reki_feast.llm.model_list import parse_model_names
from reki_feast.llm.pricing import OPENAI_URL
from reki_feast.llm.server_url import parse_server_url
from reki_feast.llm.wire import CallError

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import AsyncOpenAI


@dataclass
class _LoopState:
    """What belongs to one event loop."""

    client: AsyncOpenAI
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)


def server_address(base_url: str | None) -> str:
    """The address that calls go to: a declared one, ``OPENAI_BASE_URL``, else OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL


def check_extra_body(fields: Mapping[str, object], ours: Collection[str], hint: str) -> None:
    """Check that declared fields of a request's body are none that reki sets itself.

    Args:
        fields: the declared ones.
        ours: those that reki sets.
        hint: what to do instead.

    Raises:
        LLMError: some are.
    """
    taken = sorted({*ours} & {*fields})
    if taken:
        rule = "extra_body sets no field that reki sets itself"
        raise LLMError(rule, detail=", ".join(taken), hint=hint)


class ModelServer:
    """A model at an OpenAI-compatible server.

    Args:
        model: the model's name there.
        base_url: the server, such as ``http://localhost:8000/v1``, with a query where it wants
            one (``?api-version=…``); None: ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key_env: the environment variable that holds the key. A server on this machine needs
            none.
        allow_hosts: the only hosts that may be talked to; None: any.
        timeout_s: seconds that one call may take in all.

    Raises:
        LLMError: the url is none, or its host is not allowed.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None,
        api_key_env: str,
        allow_hosts: Sequence[str] | None,
        timeout_s: float,
    ) -> None:
        url = server_address(base_url)
        self._endpoint = wire.Endpoint(wire.host_of(url), api_key_env, model)
        check_host(url, allow_hosts)
        self._address = parse_server_url(without_dns_lookup(url))
        self._is_local, self._is_private = is_loopback(url), allow_hosts is not None
        self._timeout_s = timeout_s
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = (
            WeakKeyDictionary()
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_sessions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _sessions=WeakKeyDictionary())

    def __repr__(self) -> str:
        host, model = self._endpoint.host, self._endpoint.model
        return f"{type(self).__name__}(model={model!r}, host={host!r})"

    async def models(self, timeout_s: float = 10.0) -> list[str]:
        """Ask which models the server has, which costs nothing.

        Args:
            timeout_s: seconds that it may take.

        Returns:
            Their names; none where the server answers, and tells none.

        Raises:
            LLMError: no key, key refused, or no answer in time.
        """
        call = get_models(self._session().client, timeout_s)
        try:
            with wire.translated_errors(self._endpoint, timeout_s, gone=("", "")):
                response = await asyncio.wait_for(call, timeout_s)
        except (wire.NotFoundError, wire.ForbiddenError):
            return []
        except CallError as trouble:
            if 400 <= trouble.status < wire.SERVER_ERROR:  # it answers, if not to this
                return []
            raise
        return parse_model_names(response.text)

    async def aclose(self) -> None:
        """Close the running event loop's connections."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.client.close()

    def key(self) -> str:
        """The key, from the environment; empty where a server on this machine needs none.

        Raises:
            LLMError: there is none, or it cannot be one.
        """
        key_env = self._endpoint.key_env
        key = os.environ.get(key_env, "").strip()
        if not key and not self._is_local:
            raise LLMError(
                f"the API key is in the environment variable {key_env}",
                detail="it is not set",
                hint=f"export {key_env}=…, or name a server on this machine as base_url",
            )
        if not (key.isascii() and key.isprintable()):
            raise LLMError(
                "the API key is made of printable ASCII characters",
                detail=f"{key_env} holds others, such as a line break or typographic quotes",
                hint=f"copy the key alone, without quotes, into {key_env}",
            )
        return key

    async def _post(self, path: str, body: Mapping[str, Any]) -> tuple[Response, float]:
        """Make one call; the raw reply, and seconds that it took.

        Raises:
            CallError: it failed.
            LLMError: every call would fail.
        """
        from reki_feast.llm.transport import track_next_call

        client, started, sending = self._session().client, time.perf_counter(), track_next_call()
        call = post(client, path, body)
        try:
            with wire.translated_errors(self._endpoint, self._timeout_s):
                response = await asyncio.wait_for(call, self._timeout_s)
        except CallError as trouble:
            trouble.is_lost = trouble.is_lost and sending.has_begun
            raise
        return response, time.perf_counter() - started

    def _session(self) -> _LoopState:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = _LoopState(self._connected())
        return self._sessions[loop]

    def _connected(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        from reki_feast.llm.transport import ConnectionPools, request_hook

        key = self.key()
        # A proxy for the outer world does not know this machine's own servers, and a private
        # scenario talks to nobody else.
        may_use_proxy = bool(getproxies()) and not self._is_local and not self._is_private
        return AsyncOpenAI(
            api_key=key or "none",
            base_url=self._address.base,
            default_headers=self._address.headers(key),
            timeout=self._timeout_s,
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(
                # The key and the prompts go to the server that was named, and to no other.
                follow_redirects=False,
                params=self._address.query,
                trust_env=may_use_proxy,
                event_hooks={"request": [request_hook]},
                # with a transport of its own the client knows no proxy
                transport=None if may_use_proxy else ConnectionPools(),
            ),
        )
