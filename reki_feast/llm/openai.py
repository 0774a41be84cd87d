"""Any server that speaks the chat-completions protocol of OpenAI.

One call at a time: pauses, retries and limits are the run's (:mod:`reki_feast.llm.run`). The SDK's
own retries are off: it gives up when a server asks for a pause of more than two minutes. The SDK's
client belongs to one event loop, so there is one a loop. What the servers say is mapped to our
errors in :mod:`reki_feast.llm.wire` and nowhere else; the key is read from the environment when a
client is made and appears in none of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.request import getproxies
from weakref import WeakKeyDictionary

from reki_feast.errors import LLMError
from reki_feast.llm import wire
from reki_feast.llm.hosts import check_host
from reki_feast.llm.messages import messages_of
from reki_feast.llm.port import Answer, Request, canonical
from reki_feast.llm.wire import Form, TroubleError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

#: Looks at a form of answer that the server meets with 5xx, before the next form is tried.
_TRIES_PROBE = 2
FORMS: tuple[Form, ...] = ("json_schema", "json_object", "off")
#: Fields that are ours to set: budgets, the ledger and the reading of replies build on them.
_OURS = frozenset(
    ("model", "messages", "n", "stream", "response_format", "max_tokens", "max_completion_tokens")
)


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
            part of the ledger's key, so no secrets in it. Fields that are set here are refused.
        allow_hosts: the only hosts that may be talked to; None: any.

    Raises:
        LLMError: the url is none, its host is not allowed, or ``extra_body`` sets what is ours.
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
        allow_hosts: Sequence[str] | None = None,
    ) -> None:
        self._model = model
        self._base_url = base_url or os.environ.get("OPENAI_BASE_URL") or wire.OPENAI_URL
        self._host = wire.host_of(self._base_url)
        check_host(self._base_url, allow_hosts)
        self._is_private = allow_hosts is not None
        self._key_env = api_key_env
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._timeout_s = timeout_s
        self._form: Form | None = None if structured == "auto" else structured
        self._probe, self._probes = 0, 0
        self._extra_body = dict(extra_body or {})
        _check_extra(self._extra_body)
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()
        self._tokens_field = "max_tokens"

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

    @property
    def longest_answer(self) -> int:
        """``max_tokens``."""
        return self._max_tokens

    async def ask(self, request: Request) -> Answer:
        """Make one call.

        Raises:
            RequestError: no whole answer came (refused, cut off, empty, server at fault).
            LLMError: no key, key refused, no such model or url, no money left.
        """
        try:
            return await self._ask(request)
        except wire.ForbiddenError as error:
            # whether all prompts meet it, the run finds out: it stops when none succeeds
            raise error.of_prompt() from None

    async def _ask(self, request: Request) -> Answer:
        session = self._session()
        if self._form is None and request.factors:
            async with session.probing:
                if self._form is None:
                    return await self._look(session.client, request)
        return await self._call(session.client, request, self._form or "off")

    async def aclose(self) -> None:
        """Close the running event loop's connections."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.client.close()

    async def _look(self, client: AsyncOpenAI, request: Request) -> Answer:
        """Ask for the richest form of answer not yet ruled out, on a request that counts."""
        form = FORMS[self._probe]
        try:
            answer = await self._call(client, request, form)
        except TroubleError as trouble:
            if trouble.gate:  # the model answered, if in vain
                self._form = form
            elif trouble.may_be_form:
                self._rule_out(trouble)
            raise
        if form == "off" or wire.has_form(answer.text, request.factors):
            self._form = form
        else:  # the form is silently ignored; the answer, which is paid for, may still be read
            self._probe, self._probes = self._probe + 1, 0
        return answer

    def _rule_out(self, trouble: TroubleError) -> None:
        """The form may be what the server dislikes: try the next one, on the same request."""
        self._probes += 1
        if trouble.status >= wire.SERVER_FAULT and self._probes < _TRIES_PROBE:
            return
        if self._probe + 1 < len(FORMS):
            trouble.again, trouble.is_free = True, True
        self._probe, self._probes = (self._probe + 1) % len(FORMS), 0

    async def _call(self, client: AsyncOpenAI, request: Request, form: Form) -> Answer:
        from httpx2 import Response

        begun = time.perf_counter()
        # The SDK's typed method spends more time on looking through the body than all the rest
        # takes, so the path is named; the options are the SDK's own.
        call = client.post("/chat/completions", cast_to=Response, body=self._body(request, form))
        try:
            with wire.mapped(self._host, self._key_env, self._model, self._timeout_s):
                response = await asyncio.wait_for(call, self._timeout_s)
        except TroubleError as trouble:
            if trouble.wants_other_tokens_field and self._tokens_field == "max_tokens":
                self._tokens_field = "max_completion_tokens"
                trouble.again, trouble.is_free = True, True
            raise
        return wire.answer_of(
            response.text,
            response.headers,
            model=self._model,
            key_env=self._key_env,
            latency_s=time.perf_counter() - begun,
            host=self._host,
        )

    def _body(self, request: Request, form: Form) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages_of(request),
            self._tokens_field: self._max_tokens,
        }
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if request.factors and form != "off":
            body["response_format"] = wire.response_format(request.factors, form)
        return body | self._extra_body

    def _session(self) -> _Session:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = _Session(self._connected())
        return self._sessions[loop]

    def _connected(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        from reki_feast.llm.transport import Pools

        is_local = wire.is_loopback(self._host)
        key = os.environ.get(self._key_env, "").strip()
        if not key and not is_local:
            raise LLMError(
                f"the API key is in the environment variable {self._key_env}",
                found="it is not set",
                mend=f"export {self._key_env}=…, or name a server on this machine as base_url",
            )
        if not (key.isascii() and key.isprintable()):
            raise LLMError(
                "the API key is made of printable ASCII characters",
                found=f"{self._key_env} holds others, such as a line break or typographic quotes",
                mend=f"copy the key alone, without quotes, into {self._key_env}",
            )
        # A proxy for the outer world does not know this machine's own servers, and a private
        # scenario talks to nobody else.
        may_use_proxy = bool(getproxies()) and not is_local and not self._is_private
        return AsyncOpenAI(
            api_key=key or "none",
            base_url=self._base_url,
            timeout=self._timeout_s,
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(
                # The key and the prompts go to the server that was named, and to no other.
                follow_redirects=False,
                trust_env=may_use_proxy,
                # with a transport of its own the client knows no proxy
                transport=None if may_use_proxy else Pools(),
            ),
        )


def _check_extra(fields: Mapping[str, object]) -> None:
    ours = sorted(_OURS & set(fields))
    if ours:
        raise LLMError(
            "extra_body sets no field that reki sets itself",
            found=", ".join(ours),
            mend="leave it out; model, max_tokens and structured have settings of their own, and "
            "one whole answer to each prompt is what is asked for",
        )
