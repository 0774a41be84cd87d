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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from reki_feast.llm import responses, wire
from reki_feast.llm._openai import CHAT
from reki_feast.llm.dialect import FORMAT_FIELD, Dialect, LearnedDialect, response_format
from reki_feast.llm.interface import Answer, Request, canonical_json
from reki_feast.llm.messages import messages_of
from reki_feast.llm.response_format import ResponseFormatSelector
from reki_feast.llm.server import ModelServer, check_extra_body
from reki_feast.llm.wire import CallError

#: Fields that reki sets itself: budgets, the ledger and the parsing of replies rely on them.
_OURS = frozenset(
    ("model", "messages", "n", "stream", "response_format", "max_tokens", "max_completion_tokens")
)
_EXTRA_HINT = (
    "leave it out; model, max_tokens and structured have settings of their own, and one whole "
    "answer to each prompt is what is asked for"
)


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


class OpenAILLM(ModelServer):
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
        super().__init__(
            model=model,
            base_url=base_url,
            api_key_env=api_key_env,
            allow_hosts=allow_hosts,
            timeout_s=options.timeout_s,
        )
        self._options, structured = options, options.structured
        self._formats = ResponseFormatSelector(None if structured == "auto" else structured)
        check_extra_body(options.extra_body, _OURS, _EXTRA_HINT)
        self._learned = LearnedDialect()

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
                    return await self._call(request)
        return await self._call(request)

    async def _call(self, request: Request) -> Answer:
        form = self._formats.of(request)
        body = self._body(request, self._learned.dialect(form))
        try:
            response, latency_s = await self._post(CHAT, body)
            answer = responses.parse_completion(
                response.text, response.headers, self._endpoint, latency_s=latency_s
            )
        except CallError as trouble:
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
