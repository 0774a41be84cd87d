"""The port: what the project asks of a language model, whoever provides it.

A provider either answers, or raises :class:`RequestError` (this request failed, another may not),
or raises a plain :class:`~reki_feast.errors.LLMError` (no request can succeed: stop the run).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from reki_feast.errors import LLMError
from reki_feast.schema import content_hash


@dataclass(frozen=True)
class Request:
    """One question to the model; a row of ``schema.PROMPTS``.

    Attributes:
        system: the system message, may be empty.
        prompt: the user message.
        factors: keys that the answer, one JSON object, must have; empty for a free answer.
        prompt_hash: hash of system, prompt and factors.
        kind: ``user``, ``item`` or ``factors``.
        channel: channel that the answer becomes.
        owner: id, as text, of the entity or group asked about; never sent.
        event_timestamp: the as-of time.
    """

    system: str
    prompt: str
    factors: tuple[str, ...]
    prompt_hash: str
    kind: str
    channel: str
    owner: str
    event_timestamp: datetime


@dataclass(frozen=True)
class Answer:
    """What the model said to one request, whole and usable.

    Attributes:
        text: the answer, never blank.
        model: the model that answered, as the server names it.
        finish_reason: why the model stopped; ``stop`` for a whole answer.
        prompt_tokens: tokens paid for the question; 0 where unknown.
        completion_tokens: tokens paid for the answer; 0 where unknown.
        latency_s: seconds from the last send to the answer.
        attempts: calls made for it.
    """

    text: str
    model: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    attempts: int = 1


class RequestError(LLMError):
    """One request got no usable answer; the run goes on with the others.

    Attributes:
        attempts: calls made for it.
        finish_reason: why the model stopped, if it began to answer (``length``, …), else "".
        prompt_tokens: tokens paid in vain for the question.
        completion_tokens: tokens paid in vain for the answer.
    """

    def __init__(
        self,
        rule: str,
        *,
        found: str = "",
        mend: str = "",
        attempts: int = 1,
        finish_reason: str = "",
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
    ) -> None:
        super().__init__(rule, found=found, mend=mend)
        self.attempts = attempts
        self.finish_reason = finish_reason
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


class LLM(Protocol):
    """A language model. An answer in the ledger is reused only under the same name, parameters."""

    @property
    def name(self) -> str:
        """``provider/model``."""
        ...

    @property
    def parameters(self) -> str:
        """Whatever else changes its answers, as text (:func:`canonical`)."""
        ...

    async def ask(self, request: Request) -> Answer:
        """Answer one request.

        Raises:
            RequestError: this request failed.
            LLMError: every request would fail (wrong key, unknown model, …).
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections of the running event loop; a later ``ask`` opens new ones."""
        ...


def canonical(parameters: Mapping[str, object]) -> str:
    """Parameters as text, the same for the same parameters in any order.

    >>> canonical({"b": 1, "a": None}) == canonical({"a": None, "b": 1})
    True
    """
    return json.dumps(parameters, sort_keys=True, default=str)


def call_key(prompt_hash: str, name: str, parameters: str) -> str:
    """The ledger's key of a call: who is asked what."""
    return content_hash(prompt_hash, name, parameters)


def requests_from(prompts: pa.Table) -> Iterator[Request]:
    """The rows of a ``schema.PROMPTS`` table, made one batch at a time."""
    for batch in prompts.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield Request(
                system=row["system"],
                prompt=row["prompt"],
                factors=tuple(row["factors"]),
                prompt_hash=row["prompt_hash"],
                kind=row["kind"],
                channel=row["channel"],
                owner=row["owner"],
                event_timestamp=row["event_timestamp"],
            )
