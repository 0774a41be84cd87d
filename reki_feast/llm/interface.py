"""The interface of language models.

A provider either answers, or raises :class:`RequestError` (this request failed, another may not),
or raises a plain :class:`~reki_feast.errors.LLMError` (no request can succeed: stop the run).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from reki_feast.errors import LLMError
from reki_feast.schema import content_hash

#: Statuses from here on come in place of an answer.
_REFUSED = 400


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
        facts: what the catalogue knows, as (column, value), to check the answer by; sent only
            where an answer contradicts it.
        feedback: what was wrong with the last answer to this prompt; sent after it.
        draft: an answer that the model is to check and correct; sent after the prompt.
        renew_before: an answer older than this is asked for anew.
    """

    system: str
    prompt: str
    factors: tuple[str, ...]
    prompt_hash: str
    kind: str
    channel: str
    owner: str
    event_timestamp: datetime
    facts: tuple[tuple[str, str], ...] = ()
    feedback: str = ""
    draft: str = ""
    renew_before: datetime | None = None


@dataclass(frozen=True)
class RateLimits:
    """What a reply's headers say of the server's limits; None: nothing.

    Attributes:
        requests: requests left now.
        requests_a_second: how fast they come back.
        tokens: tokens left now.
        tokens_a_second: how fast they come back.
    """

    requests: float | None = None
    requests_a_second: float | None = None
    tokens: float | None = None
    tokens_a_second: float | None = None


@dataclass(frozen=True)
class Answer:
    """What the model said to one request, whole; whether it is of use, gates decide.

    Attributes:
        text: the answer, never blank.
        model: the model that answered, as the server names it.
        finish_reason: why the model stopped; ``stop`` for a whole answer.
        prompt_tokens: tokens paid for the question; 0 where unknown.
        completion_tokens: tokens paid for the answer; 0 where unknown.
        latency_s: seconds that the call took.
        limits: what the server said of its limits.
    """

    text: str
    model: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    limits: RateLimits | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gates say of an answer.

    Attributes:
        gate: the gate that it failed; empty for an answer that passed all.
        fault: what is wrong with it, a sentence that the model is told too.
        coverage: share of the factors that it covers, 0 to 1; None for an answer without factors.
        bands: marks by which nearly equal answers are found
            (:mod:`reki_feast.knowledge.validation.near_duplicates`).
    """

    gate: str = ""
    fault: str = ""
    coverage: float | None = None
    bands: tuple[int, ...] = ()


#: Looks at an answer before it becomes knowledge.
Validator = Callable[[Request, str], Verdict]


@dataclass(frozen=True)
class FailedReply:
    """What a server sent in place of a usable answer.

    Attributes:
        status: the HTTP status; 0 when no reply came.
        gate: the gate that the reply fails: ``cut``, ``filtered``, ``refusal`` or ``empty``;
            ``filtered`` for a refused prompt, too; else "".
        finish_reason: why the model stopped, if it began to answer (``length``, …), else "".
        prompt_tokens: tokens billed for the prompt.
        completion_tokens: tokens billed for the unusable answer.
    """

    status: int = 0
    gate: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


#: No reply came.
NO_REPLY = FailedReply()


class RequestError(LLMError):
    """One call brought no answer; the run goes on with others.

    Args:
        problem: the rule that was broken.
        detail: what was found.
        hint: what to do about it.
        again: whether the same call may succeed later.
        is_lost: the server may have answered and billed the call, but nothing usable came back.
        reply: what the server sent.

    Attributes:
        wait_s: the pause that the server asks for.
        is_throttled: the server rejected the call by a rate limit (429).
        is_uncounted: the attempt does not count: it served to find out what the server supports.
        limits: the rate limits in the reply's headers.
    """

    def __init__(
        self,
        problem: str,
        *,
        detail: str = "",
        hint: str = "",
        again: bool = False,
        is_lost: bool = False,
        reply: FailedReply = NO_REPLY,
    ) -> None:
        super().__init__(problem, detail=detail, hint=hint)
        self.again = again
        self.wait_s: float | None = None
        self.status = reply.status
        self.is_throttled = False
        self.is_lost = is_lost
        self.is_uncounted = False
        self.gate = reply.gate
        self.finish_reason = reply.finish_reason
        self.prompt_tokens = reply.prompt_tokens
        self.completion_tokens = reply.completion_tokens
        self.limits: RateLimits | None = None

    @property
    def is_refused(self) -> bool:
        """Whether a filter refused the prompt, before the model saw it."""
        return bool(self.gate) and self.status >= _REFUSED


class LanguageModel(Protocol):
    """A language model. An answer in the ledger is reused only under the same name, parameters."""

    @property
    def name(self) -> str:
        """``provider/model``."""
        ...

    @property
    def parameters(self) -> str:
        """Whatever else changes its answers, as text (:func:`canonical_json`)."""
        ...

    @property
    def max_answer_tokens(self) -> int:
        """The most tokens that an answer can cost; 0 where calls cost nothing."""
        ...

    async def ask(self, request: Request) -> Answer:
        """Make one call.

        Raises:
            RequestError: it brought no answer.
            LLMError: every call would fail (wrong key, unknown model, …).
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections of the running event loop; a later ``ask`` opens new ones."""
        ...


def notes_of(llm: LanguageModel) -> tuple[str, ...]:
    """What a model has to tell of its calls: its ``notes``, which a model need not have."""
    return tuple(getattr(llm, "notes", ()))


#: Before when an answer of this kind, as of this time, was given to be asked for anew; None: never.
RenewalPolicy = Callable[[str, datetime], "datetime | None"]


def never_renew(kind: str, as_of: datetime) -> None:
    """No answer grows old."""


def canonical_json(parameters: Mapping[str, object]) -> str:
    """Parameters as text, the same for the same parameters in any order.

    >>> canonical_json({"b": 1, "a": None}) == canonical_json({"a": None, "b": 1})
    True
    """
    return json.dumps(parameters, sort_keys=True, default=str)


def call_key(prompt_hash: str, name: str, parameters: str) -> str:
    """The ledger's key of a call: who is asked what."""
    return content_hash(prompt_hash, name, parameters)


def requests_from(
    prompts: pa.Table, renew_before: RenewalPolicy = never_renew
) -> Iterator[Request]:
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
                facts=tuple(row["facts"]),
                renew_before=renew_before(row["kind"], row["event_timestamp"]),
            )
