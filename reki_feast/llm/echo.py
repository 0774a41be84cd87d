"""A deterministic model that needs no server, shipped so that users test the way we do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection

from reki_feast.llm.interface import Answer, Request, RequestError, canonical_json
from reki_feast.llm.pricing import estimate_tokens
from reki_feast.schema import content_hash

#: Which requests: owners by name, or a question asked of the request.
RequestFilter = Collection[str] | Callable[[Request], bool]

_FACTORS = ("genre", "theme", "mood", "setting", "director", "cast", "time period", "pacing")
_WORDS = ("quiet", "bold", "warm", "bleak", "playful", "grand", "tender", "strange", "sharp")


class EchoLLM:
    """Answers JSON with a sentence per factor, made from the prompt's hash.

    Args:
        name: the model's name in ledger and knowledge.
        fail: requests that get no answer (:class:`RequestError`).
        garble: requests that are answered with text that no parser can use.
        delay: requests that take ``delay_s`` seconds; all of them by default.
        delay_s: seconds.
        answer: makes the text instead, for answers of your own.

    Attributes:
        asked: the requests seen, in order of arrival.
        max_in_flight: the largest number of requests in flight together.
    """

    def __init__(
        self,
        *,
        name: str = "echo",
        fail: RequestFilter = (),
        garble: RequestFilter = (),
        delay: RequestFilter | None = None,
        delay_s: float = 0.0,
        answer: Callable[[Request], str] | None = None,
    ) -> None:
        self.name = name
        self.parameters = canonical_json({})
        self.asked: list[Request] = []
        self.max_in_flight = 0
        self._fail, self._garble, self._delay = fail, garble, delay
        self._delay_s = delay_s
        self._answer = answer or default_answer
        self._at_once = 0

    async def ask(self, request: Request) -> Answer:
        """Answer one request, as told.

        Raises:
            RequestError: the request is one of those told to fail.
        """
        self.asked.append(request)
        self._at_once += 1
        self.max_in_flight = max(self.max_in_flight, self._at_once)
        try:
            if self._delay is None or _is_chosen(request, self._delay):
                await asyncio.sleep(self._delay_s)
        finally:
            self._at_once -= 1
        if _is_chosen(request, self._fail):
            raise RequestError("the model answers", detail="told to fail this request")
        text = "~#~" if _is_chosen(request, self._garble) else self._answer(request)
        return Answer(
            text=text,
            model=self.name,
            prompt_tokens=estimate_tokens(request.system) + estimate_tokens(request.prompt),
            completion_tokens=estimate_tokens(text),
            latency_s=self._delay_s,
        )

    @property
    def max_answer_tokens(self) -> int:
        """0: its answers cost nothing."""
        return 0

    async def aclose(self) -> None:
        """Nothing to let go of."""


def default_answer(request: Request) -> str:
    """A JSON object with a sentence per factor, or a list of factors when none are asked for."""
    if not request.factors:
        return json.dumps({"factors": list(_FACTORS)})
    return json.dumps({factor: _sentence(request, factor) for factor in request.factors})


def _sentence(request: Request, factor: str) -> str:
    number = int(content_hash(request.prompt_hash, factor)[:8], 16)
    first, second = number % len(_WORDS), number // len(_WORDS) % len(_WORDS)
    return f"As to {factor}, this {request.kind} is {_WORDS[first]} and {_WORDS[second]}."


def _is_chosen(request: Request, chosen: RequestFilter) -> bool:
    return chosen(request) if callable(chosen) else request.owner in chosen
