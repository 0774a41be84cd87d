"""Client of any server with the chat-completions protocol of OpenAI.

It makes one call at a time: pauses, retries and limits are those of the run
(:mod:`reki_feast.llm.run`). The SDK's own retries are off, since it gives up when a server asks for
a pause of more than two minutes. The SDK's client belongs to one event loop, so there is one for
each loop. Errors are translated in :mod:`reki_feast.llm.wire` and :mod:`reki_feast.llm.responses`;
the API key is read from the environment when a client is made, and appears in none of them. What a
model does not support is learned from its error replies, once for all calls: response formats in
:mod:`reki_feast.llm.response_format`, other fields in :mod:`reki_feast.llm.dialect`.
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
from reki_feast.llm import responses, wire
from reki_feast.llm._openai import get_models, post_chat
from reki_feast.llm.dialect import FORMAT_FIELD, Dialect, LearnedDialect, response_format
from reki_feast.llm.hosts import check_host, is_loopback, without_dns_lookup
from reki_feast.llm.interface import Answer, Request, canonical_json
from reki_feast.llm.messages import messages_of
from reki_feast.llm.model_list import parse_model_names
from reki_feast.llm.pricing import OPENAI_URL
from reki_feast.llm.response_format import ResponseFormatSelector
from reki_feast.llm.server_url import parse_server_url
from reki_feast.llm.wire import CallError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

#: Fields that reki sets itself: budgets, the ledger and the parsing of replies rely on them.
_OURS = frozenset(
    ("model", "messages", "n", "stream", "response_format", "max_tokens", "max_completion_tokens")
)


@dataclass
class _LoopState:
    """What belongs to one event loop."""

    client: AsyncOpenAI
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """The parameters of each call.

    Attributes:
        temperature: None leaves it to the server, as happens with models that refuse it.
        max_tokens: the longest answer; one that is cut off there is a failure.
        timeout_s: seconds that one call may take in all.
        structured: the response format that is asked for; ``auto`` finds out what the server
            supports: ``json_schema``, else ``json_object``, else none (``off``).
        extra_body: further fields of the request's body, as in the server's documentation. It is
            part of the ledger's key, so no secrets in it. Fields that reki sets itself are refused;
            one that the server refuses is left out.
    """

    temperature: float | None = 0.0
    max_tokens: int = 2048
    timeout_s: float = 120.0
    structured: Literal["auto", "json_schema", "json_object", "off"] = "auto"
    extra_body: Mapping[str, object] = field(default_factory=dict)


#: The parameters of calls that nothing else is said of.
DEFAULT_OPTIONS = CompletionOptions()


def server_address(base_url: str | None) -> str:
    """The address that calls go to: a declared one, ``OPENAI_BASE_URL``, else OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL


class OpenAILLM:
    """A model behind an OpenAI-compatible server (OpenAI, vLLM, Ollama, …).

    Args:
        model: the model's name there.
        base_url: the server, such as ``http://localhost:8000/v1``, with a query where it wants
            one (``?api-version=…``); None: ``OPENAI_BASE_URL``, else OpenAI's own.
        api_key_env: the environment variable that holds the key. A server on this machine needs
            none.
        allow_hosts: the only hosts that may be talked to; None: any.
        options: the parameters of each call.

    Raises:
        LLMError: the url is none, its host is not allowed, or ``extra_body`` sets what is ours.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        allow_hosts: Sequence[str] | None = None,
        options: CompletionOptions = DEFAULT_OPTIONS,
    ) -> None:
        url = server_address(base_url)
        self._endpoint = wire.Endpoint(wire.host_of(url), api_key_env, model)
        check_host(url, allow_hosts)
        self._address = parse_server_url(without_dns_lookup(url))
        self._is_local, self._is_private = is_loopback(url), allow_hosts is not None
        self._options, structured = options, options.structured
        self._formats = ResponseFormatSelector(None if structured == "auto" else structured)
        _check_extra(options.extra_body)
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = (
            WeakKeyDictionary()
        )
        self._learned = LearnedDialect()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_sessions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _sessions=WeakKeyDictionary())

    def __repr__(self) -> str:
        return f"OpenAILLM(model={self._endpoint.model!r}, host={self._endpoint.host!r})"

    @property
    def name(self) -> str:
        """``openai/`` and the model; the server's address is not part of it."""
        return f"openai/{self._endpoint.model}"

    @property
    def parameters(self) -> str:
        """The parameters that change answers; response format and longest length do not."""
        return canonical_json(
            {
                "temperature": self._options.temperature,
                "extra_body": dict(self._options.extra_body),
            }
        )

    @property
    def max_answer_tokens(self) -> int:
        """``max_tokens``."""
        return self._options.max_tokens

    @property
    def dialect(self) -> Dialect:
        """How calls are written now."""
        return self._learned.dialect(self._formats.form)

    @property
    def notes(self) -> tuple[str, ...]:
        """Request fields and formats that calls omit, and why: a sentence for each."""
        return (*self._learned.notes, *self._formats.notes)

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
        if request.factors and not self._formats.is_settled:
            async with session.probing:
                if not self._formats.is_settled:
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

    async def _call(self, client: AsyncOpenAI, request: Request) -> Answer:
        from reki_feast.llm.transport import track_next_call

        started, form = time.perf_counter(), self._formats.of(request)
        body = self._body(request, self._learned.dialect(form))
        sending = track_next_call()
        call, timeout_s = post_chat(client, body), self._options.timeout_s
        try:
            with wire.translated_errors(self._endpoint, timeout_s):
                response = await asyncio.wait_for(call, timeout_s)
            latency_s = time.perf_counter() - started
            answer = responses.parse_completion(
                response.text, response.headers, self._endpoint, latency_s=latency_s
            )
        except CallError as trouble:
            trouble.is_lost = trouble.is_lost and sending.has_begun
            self._learned.observe(trouble, body)
            self._formats.failed(request, form, trouble)
            raise
        self._formats.answered(request, form, answer.text)
        return answer

    def _body(self, request: Request, dialect: Dialect) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._endpoint.model, "messages": messages_of(request)}
        if self._options.temperature is not None:
            body["temperature"] = self._options.temperature
        if request.factors and dialect.form != "off":
            body[FORMAT_FIELD] = response_format(request.factors, dialect.form)
        return dialect.written({**body, **self._options.extra_body}, self._options.max_tokens)

    def _session(self) -> _LoopState:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._sessions[loop] = _LoopState(self._connected())
        return self._sessions[loop]

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
            timeout=self._options.timeout_s,
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


def _check_extra(fields: Mapping[str, object]) -> None:
    ours = sorted(_OURS & set(fields))
    if ours:
        raise LLMError(
            "extra_body sets no field that reki sets itself",
            detail=", ".join(ours),
            hint="leave it out; model, max_tokens and structured have settings of their own, and "
            "one whole answer to each prompt is what is asked for",
        )
