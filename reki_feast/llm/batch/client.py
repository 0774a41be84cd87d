"""OpenAI's Batch API: files of requests, answered within a day at half the price.

The requests to the server and the parsing of its files; when they are made is up to
:mod:`reki_feast.llm.batch.dispatcher`. Files stay at the server, which deletes them after a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Literal

from reki_feast.errors import LLMError
from reki_feast.llm import responses, wire
from reki_feast.llm.batch.records import LineOutcome
from reki_feast.llm.batch.remote_batch import (
    LateFileError,
    RemoteBatch,
    is_missing_file,
    parse_batch,
    required_text,
)
from reki_feast.llm.dialect import (
    FORMAT_FIELD,
    RESPONSE_FORMATS,
    TOKENS_FIELDS,
    Dialect,
    refused_field,
)
from reki_feast.llm.error_bodies import parse_error_body
from reki_feast.llm.interface import Request
from reki_feast.llm.key_masking import mask_keys
from reki_feast.llm.openai import DEFAULT_OPTIONS, CompletionOptions, OpenAILLM
from reki_feast.llm.wire import CallError, NotFoundError

_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_NAME = re.compile(r"reki-(\d{12})")
# Legal within a line of JSON, and taken for the end of one by some readers.
_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_NO_BATCHES = (
    "the server has a Batch API",
    "check base_url (it usually ends in /v1), or set provider='openai' in the scenario's llm",
)
_NO_BATCH = (
    "the server knows the batch that the ledger has open",
    "name the base_url and the key that it was submitted with; `reki ledger give-up-batches` "
    "frees its prompts, to be paid for again",
)
_NO_FILE = (
    "the server still has the answers of the batch",
    "the prompts are asked again: collect within a month next time",
)


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How batches are made and watched.

    Attributes:
        poll_s: seconds between two polls of a batch.
        file_wait_s: seconds that the server gets until it knows a file, or a batch, that it made.
        max_requests: the most requests of one file.
        max_bytes: the most bytes of one file.
    """

    poll_s: float = 30.0
    file_wait_s: float = 300.0
    max_requests: int = 50_000
    max_bytes: int = 200_000_000


#: How batches are made that nothing else is said of.
DEFAULT_BATCHES = BatchOptions()


class OpenAIBatchLLM(OpenAILLM):
    """A model asked in batches. It shares its answers in the ledger with :class:`OpenAILLM`.

    Args:
        model, base_url, api_key_env, allow_hosts, options: as for :class:`OpenAILLM`. With
            ``structured="auto"`` the richest response format is used until a batch has shown that
            the server does not support it.
        batches: how batches are made and watched.

    Attributes:
        batches: the same.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        allow_hosts: Sequence[str] | None = None,
        options: CompletionOptions = DEFAULT_OPTIONS,
        batches: BatchOptions = DEFAULT_BATCHES,
    ) -> None:
        super().__init__(
            model=model,
            base_url=base_url,
            api_key_env=api_key_env,
            allow_hosts=allow_hosts,
            options=options,
        )
        self.batches = batches

    def line(self, call: int, request: Request, dialect: Dialect) -> bytes:
        """The request line of a call, with its line break."""
        line = {
            "custom_id": f"reki-{call:012}",
            "method": "POST",
            "url": _ENDPOINT,
            "body": self._body(request, dialect),
        }
        return (json.dumps(line, ensure_ascii=False).translate(_LINE_ENDS) + "\n").encode()

    def size(self, request: Request) -> int:
        """Bytes of a request's line, in the longest of the styles that it may be written in."""
        return len(self.line(0, request, Dialect(self._formats.form, TOKENS_FIELDS[-1])))

    async def upload(self, file: IO[bytes], batch: str) -> str:
        """Upload a batch's file; its id there.

        Raises:
            RequestError: it did not succeed.
            LLMError: it never will.
        """
        files = self._session().client.files.with_raw_response
        named = (f"reki-{batch}.jsonl", file, "application/jsonl")
        reply = await self._json_reply(files.create(file=named, purpose="batch"))
        return required_text(reply, "id")

    async def submit(self, batch: str, file: str) -> RemoteBatch:
        """Let the server begin with an uploaded file.

        Raises:
            LateFileError: the server does not have the file, or not yet.
            RequestError: no word came; it may have begun all the same (:meth:`find`).
            LLMError: it never will.
        """
        call = self._session().client.batches.with_raw_response.create(
            input_file_id=file,
            endpoint=_ENDPOINT,
            completion_window="24h",
            metadata={"reki": batch},
        )
        try:
            return parse_batch(await self._json_reply(call))
        except (CallError, NotFoundError) as error:
            found = error.problems[0].detail
            if getattr(error, "again", False) or not is_missing_file(found):
                raise
            raise LateFileError("the server has the file that was uploaded", detail=found) from None

    async def find(self, batch: str, file: str) -> RemoteBatch | None:
        """The batch that was submitted under this name or with this file, if there is one.

        Raises:
            RequestError: the server did not tell.
            LLMError: it never will.
        """
        batches = self._session().client.batches.with_raw_response
        after: dict[str, str] = {}
        while True:
            reply = await self._json_reply(batches.list(limit=100, extra_query=after))
            page = [one for one in reply.get("data") or () if isinstance(one, dict)]
            for one in page:
                named = (one.get("metadata") or {}).get("reki") == batch
                if (named or one.get("input_file_id") == file) and one.get("status") != "failed":
                    return parse_batch(one)
            if not page or not reply.get("has_more"):
                return None
            after = {"after": required_text(page[-1], "id")}

    async def poll(self, remote: str) -> RemoteBatch:
        """The state of a batch.

        Raises:
            RequestError: the server did not tell.
            GoneError: it knows no such batch.
            LLMError: it never will tell.
        """
        batches = self._session().client.batches.with_raw_response
        return parse_batch(await self._json_reply(batches.retrieve(remote), _NO_BATCH))

    async def download(self, file: str, into: IO[bytes]) -> None:
        """Add a file of the server, as it comes, to one here.

        Raises:
            RequestError: it did not come whole; a part of it may be there.
            GoneError: the server has no such file.
            LLMError: it never will.
        """
        files = self._session().client.files.with_streaming_response
        with wire.translated_errors(self._endpoint, self._options.timeout_s, _NO_FILE):
            async with files.content(file) as response:
                async for part in response.iter_bytes():
                    into.write(part)
        into.write(b"\n")

    def read(self, raw: bytes, dialect: Dialect) -> tuple[int, LineOutcome] | None:
        """The call and its outcome in a line of a result file; None: the line cannot be parsed."""
        try:
            line = json.loads(raw)
        except ValueError:
            return None
        found = _NAME.fullmatch(str(line.get("custom_id"))) if isinstance(line, dict) else None
        return (int(found[1]), self._line_outcome(line, dialect)) if found else None

    def observe(self, sent: Dialect, *, has_answers: bool, has_format_errors: bool) -> None:
        """Learn from a batch whether the server supports the response format it was sent with."""
        if self._formats.is_settled:
            return
        if has_answers:
            self._formats.settle(sent.form)
        elif has_format_errors:
            self._formats.rule_out(sent.form, "no line of a batch was answered in it")

    def observe_failure(self, sent: Dialect, remote: RemoteBatch) -> bool:
        """Learn from a batch that failed as a whole; returns whether another dialect may help."""
        field = refused_field(parse_error_body(remote.error_text), self._sent(sent))
        if field == FORMAT_FIELD:
            self.observe(sent, has_answers=False, has_format_errors=True)
        elif field:
            self._learned.omit_field(field, remote.error_text)
        return self.dialect != sent

    def _sent(self, dialect: Dialect) -> list[str]:
        """Names of what lines are sent along with; a line cannot ask for a stream."""
        form = [FORMAT_FIELD] if dialect.form != "off" else []
        names = [dialect.tokens_field, "temperature", *form, *self._options.extra_body, "stream"]
        return [name for name in names if name not in dialect.omitted_fields]

    def _line_outcome(self, line: dict[str, Any], dialect: Dialect) -> LineOutcome:
        response = line.get("response")
        if not isinstance(response, dict):
            return _unanswered(line.get("error"))
        body, status = response.get("body"), response.get("status_code", wire.OK)
        if status == wire.OK and not line.get("error"):
            line_of = replace(self._endpoint, host="")
            try:
                return responses.parse_completion(_as_text(body), {}, line_of, latency_s=0.0)
            except CallError as trouble:
                return trouble
        error_body = parse_error_body(
            mask_keys(_as_text(body or line.get("error")), self._endpoint.key_env)
        )
        code = status if isinstance(status, int) else 0
        reply = wire.error_of_status(self._endpoint, code, error_body, {})
        if isinstance(reply, CallError):
            self._excuse_dialect(reply, dialect)
        return reply

    def _excuse_dialect(self, trouble: CallError, sent: Dialect) -> None:
        """Let a request be retried whose batch was sent in a dialect that the model rejects."""
        self._learned.observe(trouble, self._sent(sent))
        is_richer = RESPONSE_FORMATS.index(sent.form) < RESPONSE_FORMATS.index(self._formats.form)
        if trouble.may_be_format and is_richer:
            trouble.again, trouble.is_uncounted = True, True

    async def _json_reply(
        self, call: Awaitable[Any], gone: tuple[str, str] = _NO_BATCHES
    ) -> dict[str, Any]:
        with wire.translated_errors(self._endpoint, self._options.timeout_s, gone):
            response = await call
        try:
            return responses.parse_body(response.text)
        except CallError as trouble:
            trouble.again = True
            raise


def _as_text(body: object) -> str:
    """A body as it would have come over the line."""
    return body if isinstance(body, str) else json.dumps(body)


def _unanswered(error: object) -> LLMError:
    error_body = parse_error_body(_as_text(error))
    trouble = CallError("the server answers each line of a batch", detail=error_body.message[:200])
    trouble.again = True  # expired, cancelled or broken: nothing was answered, nothing is charged
    return trouble
