"""A language model's server for tests: chat completions, the Batch API, limits, faults, a bill.

It answers every prompt with a sentence for each key asked for, made from the prompt's hash. What
goes wrong is said by two rules, and all that came in and was counted is on record.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.llm.server_batches import Batches, Line
from tests.llm.server_bodies import Body, completion, encoded, error_body, streamed
from tests.llm.server_faults import FAULTS, Fault
from tests.llm.server_http import HttpServer, Received, Sent
from tests.llm.server_limits import Limits
from tests.llm.server_records import Billed, Outcome, Records
from tests.llm.server_texts import Question, answer_text, question_of, user_text

__all__ = ["FAULTS", "Billed", "Endpoint", "Fault", "Question"]

#: Chooses a fault by the prompt (without what is said after it in a second go), how often it has
#: come by now, itself included, and the number of the call, from 1.
Rule = Callable[[str, int, int], Fault | None]
#: Chooses a fault of the Batch API by method, path and how often they have come by now.
PathRule = Callable[[str, str, int], Fault | None]


@dataclass
class _Call:
    """A call that is being answered."""

    question: Question
    nth: int
    number: int
    fault: Fault | None
    body: Body
    status: int
    is_good: bool
    usage: dict[str, int] | None

    @property
    def is_streamed(self) -> bool:
        wants = "stream" in self.question.fields or (self.fault is not None and self.fault.streams)
        return self.status == 200 and wants


class Endpoint(Records):
    """The server; runs from its making until it is closed, or as a context.

    Args:
        delay_s: seconds that each answer takes.
        allowed_at_once: calls that may be under way together; more meet 429.
        requests_per_minute: a limit, told in headers as OpenAI does; more meet 429.
        tokens_per_minute: the same for tokens, questions only.
        burst: share of a minute's limit that can be used at once.
        retry_after: whether a 429 of the limits says when to come back.
        rule: faults of calls, in batches too.
        path_rule: faults of requests to the Batch API.
        say: the content of a good answer.
        port: where; 0 takes a free one.

    All but the port may be set anew while it runs; ``batches`` holds how batches go on and end.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        allowed_at_once: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        burst: float = 1.0,
        retry_after: bool = True,
        rule: Rule | None = None,
        path_rule: PathRule | None = None,
        say: Callable[[Question], str] = answer_text,
        port: int = 0,
    ) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.rule, self.path_rule, self.say = rule, path_rule, say
        self.limits = Limits(
            allowed_at_once, requests_per_minute, tokens_per_minute, burst, retry_after
        )
        self.batches = Batches(self._line)
        self._seen: Counter[str] = Counter()
        self._paths: Counter[tuple[str, str]] = Counter()
        self._http = HttpServer(self._handle, port)

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Break all lines and end the server's thread."""
        self._http.close()

    @property
    def url(self) -> str:
        """``base_url``."""
        return f"http://127.0.0.1:{self._http.port}/v1"

    async def _handle(self, request: Received) -> Sent:
        try:
            return await self._route(request)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _error(400, f"the request cannot be read: {error!r}")

    async def _route(self, request: Received) -> Sent:
        match (request.method, request.path):
            case ("POST", "/v1/chat/completions"):
                return await self._chat(request)
            case ("GET", "/v1/models"):
                models = [{"id": "tiny", "object": "model", "created": 1, "owned_by": "us"}]
                return Sent(200, encoded({"object": "list", "data": models}))
            case ("GET", "/records"):
                return Sent(200, encoded(self.records()))
            case (method, path) if path.startswith(("/v1/files", "/v1/batches")):
                return await self._batch(request, method, path)
            case _:
                return _error(404, f"no {request.method} {request.path} here")

    async def _chat(self, request: Received) -> Sent:
        body = request.json()
        self.note(body, request.headers.get("authorization", ""))
        try:
            tokens = sum(len(str(m.get("content"))) for m in body["messages"]) // 4 + 1
            allowed, headers = self.limits.take(self.at_once, tokens)
            if not allowed:
                self.refused += 1
                return _error(429, "rate limit reached", "rate_limit_exceeded", headers)
            permit = self._call(body)
            await asyncio.sleep(self.delay_s + (permit.fault.delay_s if permit.fault else 0.0))
            return self._reply(permit, headers)
        finally:
            self.at_once -= 1

    def _call(self, body: dict[str, Any]) -> _Call:
        prompt = self._original(user_text(body))
        question = question_of(body, prompt)
        self._seen[prompt] += 1
        nth, number = self._seen[prompt], self._seen.total()
        fault = self.rule(prompt, nth, number) if self.rule is not None else None
        if fault is not None and not fault.meets(question):
            fault = None
        whole = completion(question, self.say(question))
        is_whole = whole["choices"][0]["finish_reason"] == "stop"
        if fault is None or fault.is_harmless:
            return _Call(question, nth, number, fault, whole, 200, is_whole, whole["usage"])
        if fault.status != 200:
            return _Call(question, nth, number, fault, fault.error(), fault.status, False, None)
        sent = fault.spoil(question, whole) if fault.spoil is not None else whole
        is_good = is_whole and fault.is_readable
        told = sent.get("usage") if isinstance(sent, dict) else None
        usage = (told or {}) if fault.is_counted else None
        return _Call(question, nth, number, fault, sent, 200, is_good, usage)

    def _original(self, text: str) -> str:
        """A prompt without what was said after it: the known prompt that the text begins with."""
        at = text.find("\n\n")
        while at >= 0:
            if text[:at].rstrip() in self._seen:
                return text[:at].rstrip()
            at = text.find("\n\n", at + 1)
        return text.rstrip()

    def _reply(self, permit: _Call, headers: dict[str, str]) -> Sent:
        fault, body = permit.fault, permit.body
        if permit.is_streamed:
            body, headers = streamed(body), {**headers, "content-type": "text/event-stream"}
        return Sent(
            permit.status,
            encoded(body),
            {**headers, **(fault.headers if fault else {})},
            fault.line if fault else "",
            before=lambda is_gone: self._book(permit, "online", is_gone=is_gone),
        )

    def _book(self, permit: _Call, via: str, *, is_gone: bool = False) -> None:
        line = permit.fault.line if permit.fault else ""
        outcome: Outcome = "well" if permit.is_good else "spoilt"
        if permit.usage is None:
            outcome = "refused"
        elif line == "half" or (permit.is_good and is_gone):
            outcome = "lost"
        usage = permit.usage or {}
        asked, said = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        said = max(said, usage.get("total_tokens", 0) - asked)  # thoughts, too
        name, prompt = permit.fault.name if permit.fault else "", permit.question.prompt
        self.book(Billed(prompt, permit.nth, permit.number, name, outcome, via, asked, said))

    async def _batch(self, request: Received, method: str, path: str) -> Sent:
        self._paths[method, path] += 1
        fault = None
        if self.path_rule is not None:
            fault = self.path_rule(method, path, self._paths[method, path])
        if fault is None or fault.is_harmless:
            await asyncio.sleep(fault.delay_s if fault else 0.0)
            return self.batches.handle(request)
        if fault.status != 200:
            return Sent(fault.status, encoded(fault.error()), fault.headers)
        if fault.line == "half":  # the request was heeded, and nobody hears of it
            sent = self.batches.handle(request)
            return Sent(sent.status, sent.body, sent.headers, "half")
        spoilt = fault.spoil(_NOBODY, {}) if fault.spoil is not None else ""
        return Sent(200, encoded(spoilt), fault.headers, fault.line)

    def _line(self, body: dict[str, Any], batch: str) -> Line:
        """Answer a line of a batch."""
        permit = self._call(body)
        self._book(permit, batch)
        line = permit.fault.line if permit.fault else ""
        return Line(
            permit.status, streamed(permit.body) if permit.is_streamed else permit.body, line
        )


_NOBODY = Question("", "", (), "", 0, None, "")


def _error(
    status: int,
    message: str,
    code: str = "invalid_request_error",
    headers: dict[str, str] | None = None,
) -> Sent:
    return Sent(status, encoded(error_body(message, code)), headers or {})
