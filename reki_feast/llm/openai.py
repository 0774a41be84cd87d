"""Any server that speaks the chat-completions protocol of OpenAI.

One call at a time: pauses, retries and limits are the run's (:mod:`reki_feast.llm.run`). The SDK's
own retries are off: it gives up when a server asks for a pause of more than two minutes. The SDK's
client belongs to one event loop, so there is one a loop. What the servers say is mapped to our
errors in :mod:`reki_feast.llm.wire` and :mod:`reki_feast.llm.replies`; the key is read from the
environment when a client is made and appears in none of them. What a model does not take is learnt
from its refusals, once for all calls: the form of answer in :mod:`reki_feast.llm.forms`, other
fields in :mod:`reki_feast.llm.style`.
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
from reki_feast.llm import replies, wire
from reki_feast.llm.address import address_of
from reki_feast.llm.forms import Forms
from reki_feast.llm.hosts import check_host, is_this_machine, without_lookup
from reki_feast.llm.messages import messages_of
from reki_feast.llm.models import models_of
from reki_feast.llm.port import Answer, Request, canonical
from reki_feast.llm.style import FORMAT, Learnt, Style, response_format
from reki_feast.llm.wire import TroubleError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

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
        base_url: the server, such as ``http://localhost:8000/v1``, with a query where it wants
            one (``?api-version=…``); None: ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key_env: the environment variable that holds the key. A server on this machine needs
            none.
        temperature: None leaves it to the server, as happens with models that refuse it.
        max_tokens: the longest answer; one that is cut off there is a failure.
        timeout_s: seconds that one call may take in all.
        structured: how the answer's form is asked for; ``auto`` finds out what the server has:
            ``json_schema``, else ``json_object``, else nothing (``off``).
        extra_body: further fields of the request's body, as in the server's documentation. It is
            part of the ledger's key, so no secrets in it. Fields that are set here are refused;
            one that the server refuses is left out.
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
        url = base_url or os.environ.get("OPENAI_BASE_URL") or wire.OPENAI_URL
        self._host = wire.host_of(url)
        check_host(url, allow_hosts)
        self._address = address_of(without_lookup(url))
        self._is_local, self._is_private = is_this_machine(url), allow_hosts is not None
        self._key_env = api_key_env
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._timeout_s = timeout_s
        self._forms = Forms(None if structured == "auto" else structured)
        self._extra_body = dict(extra_body or {})
        _check_extra(self._extra_body)
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Session] = WeakKeyDictionary()
        self._learnt = Learnt()

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

    @property
    def style(self) -> Style:
        """How calls are written now."""
        return self._learnt.style(self._forms.form)

    @property
    def notes(self) -> tuple[str, ...]:
        """What calls go without, and why: a sentence for each."""
        return (*self._learnt.notes, *self._forms.notes)

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
        if request.factors and not self._forms.is_settled:
            async with session.probing:
                if not self._forms.is_settled:
                    return await self._call(session.client, request)
        return await self._call(session.client, request)

    async def models(self, timeout_s: float = 10.0) -> list[str]:
        """Ask which models the server has, which costs nothing.

        Args:
            timeout_s: seconds that it may take.

        Returns:
            Their names; none where the server answers, and tells none.

        Raises:
            LLMError: no key, key refused, or no answer in time.
        """
        from httpx2 import Response

        call = self._session().client.get(
            "/models", cast_to=Response, options={"timeout": timeout_s}
        )
        try:
            with wire.mapped(self._host, self._key_env, self._model, timeout_s, gone=("", "")):
                response = await asyncio.wait_for(call, timeout_s)
        except (wire.GoneError, wire.ForbiddenError):
            return []
        except TroubleError as trouble:
            if 400 <= trouble.status < wire.SERVER_FAULT:  # it answers, if not to this
                return []
            raise
        return models_of(response.text)

    async def aclose(self) -> None:
        """Close the running event loop's connections."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.client.close()

    async def _call(self, client: AsyncOpenAI, request: Request) -> Answer:
        from httpx2 import Response

        begun, form = time.perf_counter(), self._forms.of(request)
        body = self._body(request, self._learnt.style(form))
        # The SDK's typed method spends more time on looking through the body than all the rest
        # takes, so the path is named; the options are the SDK's own.
        call = client.post("/chat/completions", cast_to=Response, body=body)
        try:
            with wire.mapped(self._host, self._key_env, self._model, self._timeout_s):
                response = await asyncio.wait_for(call, self._timeout_s)
            answer = replies.answer_of(
                response.text,
                response.headers,
                model=self._model,
                key_env=self._key_env,
                latency_s=time.perf_counter() - begun,
                host=self._host,
            )
        except TroubleError as trouble:
            self._learnt.heed(trouble, body)
            self._forms.failed(request, form, trouble)
            raise
        self._forms.answered(request, form, answer.text)
        return answer

    def _body(self, request: Request, style: Style) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "messages": messages_of(request)}
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if request.factors and style.form != "off":
            body[FORMAT] = response_format(request.factors, style.form)
        return style.written(body | self._extra_body, self._max_tokens)

    def _session(self) -> _Session:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = _Session(self._connected())
        return self._sessions[loop]

    def key(self) -> str:
        """The key, from the environment; empty where a server on this machine needs none.

        Raises:
            LLMError: there is none, or it cannot be one.
        """
        key = os.environ.get(self._key_env, "").strip()
        if not key and not self._is_local:
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
        return key

    def _connected(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        from reki_feast.llm.transport import Pools

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
