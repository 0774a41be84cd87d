"""Any server that speaks the chat-completions protocol of OpenAI.

The SDK's own retries are off: it gives up when a server asks for a pause of more than two
minutes. Ours are bounded in number, not in patience. The SDK's client belongs to one event loop,
so there is one a loop. What the servers say is mapped to our errors here and nowhere else; the
key is read from the environment when a client is made and appears in none of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from reki_feast.errors import LLMError
from reki_feast.llm import wire
from reki_feast.llm.port import Answer, Request, canonical
from reki_feast.llm.wire import Form, TroubleError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_log = logging.getLogger(__name__)

#: Tries of a server that was never reached: a wrong url should not take minutes to tell.
_TRIES_UNPROVEN = 3
#: Tries of a call that ran out of time: it was long, and perhaps paid for.
_TRIES_TIMEOUT = 3
#: Tries of a form of answer that the server meets with 5xx, before the next form is tried.
_TRIES_PROBE = 2
_BACKOFF_MAX_S = 60.0
#: A pause longer than this is told to the user.
_LONG_PAUSE_S = 30.0


@dataclass
class _Session:
    """What belongs to one event loop."""

    client: AsyncOpenAI
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)


class OpenAILLM:
    """A model behind an OpenAI-compatible server (OpenAI, vLLM, Ollama, …).

    Args:
        model: the model's name there.
        base_url: the server, such as ``http://localhost:8000/v1``; None: ``OPENAI_BASE_URL``,
            else OpenAI's own.
        api_key_env: the environment variable that holds the key. A server on this machine needs
            none.
        temperature: None leaves it to the server (reasoning models accept nothing else).
        max_tokens: the longest answer; one that is cut off there is a failure.
        timeout_s: seconds that one call may take in all.
        structured: how the answer's form is asked for; ``auto`` finds out once what the server
            has: ``json_schema``, else ``json_object``, else nothing (``off``).
        extra_body: further fields of the request's body, as in the server's documentation. It is
            part of the ledger's key, so no secrets in it.
        attempts: the most calls made for one request.
        backoff_s: the first pause after a server's fault; it doubles, with jitter, up to 60.
        sleep: waits that many seconds.

    Raises:
        LLMError: the url is none.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float | None = 0.0,
        max_tokens: int = 2048,
        timeout_s: float = 120.0,
        structured: Literal["auto", "json_schema", "json_object", "off"] = "auto",
        extra_body: Mapping[str, object] | None = None,
        attempts: int = 8,
        backoff_s: float = 0.5,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._model = model
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or wire.OPENAI_URL
        self._host = wire.host_of(self._base_url)
        self._key_env = api_key_env
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._timeout_s = timeout_s
        self._form: Form | None = None if structured == "auto" else structured
        self._extra_body = dict(extra_body or {})
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._sleep = sleep
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()
        self._tokens_field = "max_tokens"
        self._is_proven = False
        self._not_before = 0.0

    def __repr__(self) -> str:
        return f"OpenAILLM(model={self._model!r}, host={self._host!r})"

    @property
    def name(self) -> str:
        """``openai/`` and the model; the server's address is not part of it."""
        return f"openai/{self._model}"

    @property
    def parameters(self) -> str:
        """What changes whole answers; their form and longest length do not."""
        return canonical({"temperature": self._temperature, "extra_body": self._extra_body})

    async def ask(self, request: Request) -> Answer:
        """Answer one request, trying again where that may help.

        Raises:
            RequestError: no whole answer came (refused, cut off, empty, server at fault).
            LLMError: no key, key refused, no access, no such model or url, no money left.
        """
        session = self._session()
        if self._form is None and request.factors:
            async with session.probing:
                if self._form is None:
                    return await self._probe(session.client, request)
        return await self._insist(session.client, request, self._form or "off")

    async def aclose(self) -> None:
        """Close the running event loop's connections."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.client.close()

    async def _probe(self, client: AsyncOpenAI, request: Request) -> Answer:
        """Find the richest form of answer that the server has, on a request that counts."""
        forms: tuple[Form, ...] = ("json_schema", "json_object", "off")
        for form in forms:
            try:
                answer = await self._insist(client, request, form, probing=form != "off")
            except TroubleError as trouble:
                if trouble.status == wire.OK:
                    self._form = form
                if form == "off" or not trouble.may_be_form:
                    raise
            else:
                self._form = form
                return answer
        raise AssertionError("the last form answers or raises")

    async def _insist(
        self, client: AsyncOpenAI, request: Request, form: Form, *, probing: bool = False
    ) -> Answer:
        tried = 0
        while True:
            await self._pause()
            tried += 1
            try:
                return await self._call(client, request, form, tried)
            except TroubleError as trouble:
                trouble.attempts = tried
                if trouble.wants_other_tokens_field and self._tokens_field == "max_tokens":
                    self._tokens_field = "max_completion_tokens"
                elif not trouble.again or tried >= self._limit(trouble, probing):
                    raise
                else:
                    await self._back_off(trouble, tried)

    async def _call(self, client: AsyncOpenAI, request: Request, form: Form, tried: int) -> Answer:
        begun = time.perf_counter()
        body = self._body(request, form)
        call = client.chat.completions.with_raw_response.create(**body)
        with wire.mapped(self._host, self._key_env, self._model, self._timeout_s):
            response = await asyncio.wait_for(call, self._timeout_s)
            self._is_proven = True
            latency_s = time.perf_counter() - begun
            return wire.answer_of(
                response.text,
                model=self._model,
                key_env=self._key_env,
                latency_s=latency_s,
                attempts=tried,
            )

    def _body(self, request: Request, form: Form) -> dict[str, Any]:
        messages = [{"role": "user", "content": request.prompt}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            self._tokens_field: self._max_tokens,
        }
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if request.factors and form != "off":
            body["response_format"] = wire.response_format(request.factors, form)
        if self._extra_body:
            body["extra_body"] = self._extra_body
        return body

    def _limit(self, trouble: TroubleError, probing: bool) -> int:
        self._is_proven = self._is_proven or trouble.status > 0
        limit = self._attempts
        if not self._is_proven:
            limit = min(limit, _TRIES_UNPROVEN)
        if trouble.is_timeout:
            limit = min(limit, _TRIES_TIMEOUT)
        if probing and trouble.status >= wire.SERVER_FAULT:
            limit = min(limit, _TRIES_PROBE)
        return limit

    async def _back_off(self, trouble: TroubleError, tried: int) -> None:
        if trouble.wait_s is None:
            ceiling = min(_BACKOFF_MAX_S, self._backoff_s * 2.0 ** (tried - 1))
            await self._sleep(ceiling * random.uniform(0.5, 1.0))
            return
        if trouble.wait_s > _LONG_PAUSE_S:
            _log.warning("%s asks for a pause of %.0f s", self._host, trouble.wait_s)
        # The pause is the server's wish for all calls, not only for the one that it refused.
        self._not_before = max(self._not_before, time.monotonic() + trouble.wait_s)

    async def _pause(self) -> None:
        left = self._not_before - time.monotonic()
        if left > 0:
            # Jitter only ever adds: nobody comes back too early, nor all at once.
            await self._sleep(left + self._backoff_s * random.random())

    def _session(self) -> _Session:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = _Session(self._connected())
        return self._sessions[loop]

    def _connected(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        is_local = wire.is_loopback(self._host)
        key = os.environ.get(self._key_env, "").strip()
        if not key and not is_local:
            raise LLMError(
                f"the API key is in the environment variable {self._key_env}",
                found="it is not set",
                mend=f"export {self._key_env}=…, or name a server on this machine as base_url",
            )
        return AsyncOpenAI(
            api_key=key or "none",
            base_url=self._base_url,
            timeout=self._timeout_s,
            max_retries=0,
            # A proxy for the outer world does not know this machine's own servers.
            http_client=DefaultAsyncHttpxClient(trust_env=False) if is_local else None,
        )
