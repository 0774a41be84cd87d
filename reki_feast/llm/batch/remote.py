"""OpenAI's Batch API: files of requests, answered within a day at half the price.

What the server is asked and what its files say; when to ask is
:mod:`reki_feast.llm.batch.batching`'s. Files stay at the server, which deletes them in its time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import IO, Any, Literal

from reki_feast.errors import LLMError
from reki_feast.llm import wire
from reki_feast.llm.batch.entries import Outcome
from reki_feast.llm.openai import FORMS, OpenAILLM
from reki_feast.llm.port import Request
from reki_feast.llm.wire import Form, TroubleError

_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_NAME = re.compile(r"reki-(\d{12})")
_OVER = ("completed", "failed", "expired", "cancelled")
_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
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


@dataclass(frozen=True)
class Style:
    """How lines are written; ``str`` of it, and :meth:`of`, keep it in the ledger."""

    form: Form
    tokens_field: str

    def __str__(self) -> str:
        return f"{self.form} {self.tokens_field}"

    @staticmethod
    def of(text: str) -> Style | None:
        """The style of such a text; None if it is none.

        >>> Style.of(str(Style("off", "max_tokens")))
        Style(form='off', tokens_field='max_tokens')
        """
        form, _, tokens_field = text.partition(" ")
        found = next((one for one in FORMS if one == form), None)
        return Style(found, tokens_field) if found and tokens_field else None


@dataclass(frozen=True)
class Remote:
    """A batch as the server tells of it.

    Attributes:
        id: the server's id.
        status: ``validating``, ``in_progress``, ``completed``, …
        files: ids of the output and the error file, as far as there are any.
        codes: what was wrong with the whole of it, as codes.
        faults: the same, for a reader.
        done: requests that the server has dealt with.
    """

    id: str
    status: str
    files: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    faults: str = ""
    done: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _OVER


class OpenAIBatchLLM(OpenAILLM):
    """A model asked in batches; its answers and those of :class:`OpenAILLM` are one in the ledger.

    Args:
        poll_s: seconds between two looks at a batch.
        max_requests: requests of one file, at most.
        max_bytes: bytes of one file, at most.
        how: as for :class:`OpenAILLM`. With ``structured="auto"`` the richest form of answer is
            used until a batch has shown that the server does not have it.
    """

    def __init__(
        self,
        *,
        poll_s: float = 30.0,
        max_requests: int = 50_000,
        max_bytes: int = 200_000_000,
        **how: Any,
    ) -> None:
        super().__init__(**how)
        self.poll_s, self.max_requests, self.max_bytes = poll_s, max_requests, max_bytes

    def __repr__(self) -> str:
        return f"OpenAIBatchLLM(model={self._model!r}, host={self._host!r})"

    @property
    def style(self) -> Style:
        """How lines are written now."""
        return Style(self._form or FORMS[self._probe], self._tokens_field)

    def line(self, call: int, request: Request, style: Style) -> bytes:
        """The line of a call, with its end."""
        body = self._body(request, style.form)
        body[style.tokens_field] = body.pop(self._tokens_field)
        line = {
            "custom_id": f"reki-{call:012}",
            "method": "POST",
            "url": _ENDPOINT,
            "body": body,
        }
        return (json.dumps(line, ensure_ascii=False).translate(_LINE_ENDS) + "\n").encode()

    def size(self, request: Request) -> int:
        """Bytes of a request's line, in the longest of the styles that it may be written in."""
        return len(self.line(0, request, Style(self.style.form, _TOKENS_FIELDS[-1])))

    async def upload(self, file: IO[bytes], batch: str) -> str:
        """Upload a batch's file; its id there.

        Raises:
            RequestError: it did not succeed.
            LLMError: it never will.
        """
        files = self._session().client.files.with_raw_response
        named = (f"reki-{batch}.jsonl", file, "application/jsonl")
        told = await self._told(files.create(file=named, purpose="batch"))
        return _text(told, "id")

    async def submit(self, batch: str, file: str) -> Remote:
        """Let the server begin with an uploaded file.

        Raises:
            RequestError: no word came; it may have begun all the same (:meth:`find`).
            LLMError: it never will.
        """
        call = self._session().client.batches.with_raw_response.create(
            input_file_id=file,
            endpoint=_ENDPOINT,
            completion_window="24h",
            metadata={"reki": batch},
        )
        return _remote(await self._told(call))

    async def find(self, batch: str, file: str) -> Remote | None:
        """The batch that was submitted under this name or with this file, if there is one.

        Raises:
            RequestError: the server did not tell.
            LLMError: it never will.
        """
        batches = self._session().client.batches.with_raw_response
        after: dict[str, str] = {}
        while True:
            told = await self._told(batches.list(limit=100, extra_query=after))
            page = [one for one in told.get("data") or () if isinstance(one, dict)]
            for one in page:
                named = (one.get("metadata") or {}).get("reki") == batch
                if (named or one.get("input_file_id") == file) and one.get("status") != "failed":
                    return _remote(one)
            if not page or not told.get("has_more"):
                return None
            after = {"after": _text(page[-1], "id")}

    async def look(self, remote: str) -> Remote:
        """How far a batch is.

        Raises:
            RequestError: the server did not tell.
            GoneError: it knows no such batch.
            LLMError: it never will tell.
        """
        batches = self._session().client.batches.with_raw_response
        return _remote(await self._told(batches.retrieve(remote), _NO_BATCH))

    async def download(self, file: str, into: IO[bytes]) -> None:
        """Add a file of the server, as it comes, to one here.

        Raises:
            RequestError: it did not come whole; a part of it may be there.
            GoneError: the server has no such file.
            LLMError: it never will.
        """
        files = self._session().client.files.with_streaming_response
        with wire.mapped(self._host, self._key_env, self._model, self._timeout_s, _NO_FILE):
            async with files.content(file) as response:
                async for part in response.iter_bytes():
                    into.write(part)
        into.write(b"\n")

    def read(self, raw: bytes, style: Style) -> tuple[int, Outcome] | None:
        """What a line of an output or an error file says of which call; None: it tells nothing."""
        try:
            line = json.loads(raw)
        except ValueError:
            return None
        found = _NAME.fullmatch(str(line.get("custom_id"))) if isinstance(line, dict) else None
        return (int(found[1]), self._outcome(line, style)) if found else None

    def heed(self, sent: Style, *, has_answers: bool, has_form_faults: bool) -> None:
        """Learn from a batch whether the server has the form of answer that it was sent with."""
        if self._form is not None:
            return
        if has_answers:
            self._form = sent.form
        elif has_form_faults and FORMS[self._probe] == sent.form:
            self._probe = min(self._probe + 1, len(FORMS) - 1)

    def heed_failure(self, sent: Style, remote: Remote) -> bool:
        """Learn from a batch that failed as a whole; whether another style may help."""
        if "max_completion_tokens" in remote.faults:
            self._tokens_field = _TOKENS_FIELDS[-1]
        elif "response_format" in remote.faults or "json_schema" in remote.faults:
            self.heed(sent, has_answers=False, has_form_faults=True)
        return self.style != sent

    def _outcome(self, line: dict[str, Any], style: Style) -> Outcome:
        response = line.get("response")
        if not isinstance(response, dict):
            return _unanswered(line.get("error"))
        body, status = response.get("body"), response.get("status_code", wire.OK)
        if status == wire.OK and not line.get("error"):
            env, text = self._key_env, json.dumps(body)
            try:
                return wire.answer_of(text, {}, model=self._model, key_env=env, latency_s=0.0)
            except TroubleError as trouble:
                return trouble
        said = _said(body.get("error") if isinstance(body, dict) else line.get("error") or body)
        code = status if isinstance(status, int) else 0
        told = wire.refusal(self._host, code, said, {}, key_env=self._key_env, model=self._model)
        if isinstance(told, TroubleError):
            self._excuse(told, style)
        return told

    def _excuse(self, trouble: TroubleError, sent: Style) -> None:
        """A fault of the style that its batch was sent with is none of the request's own."""
        if trouble.wants_other_tokens_field and sent.tokens_field == _TOKENS_FIELDS[0]:
            self._tokens_field = _TOKENS_FIELDS[-1]
            trouble.again, trouble.is_free = True, True
        elif trouble.may_be_form and FORMS.index(sent.form) < FORMS.index(self.style.form):
            trouble.again, trouble.is_free = True, True

    async def _told(
        self, call: Awaitable[Any], gone: tuple[str, str] = _NO_BATCHES
    ) -> dict[str, Any]:
        with wire.mapped(self._host, self._key_env, self._model, self._timeout_s, gone):
            response = await call
        try:
            return wire.body_of(response.text)
        except TroubleError as trouble:
            trouble.again = True
            raise


def _remote(told: dict[str, Any]) -> Remote:
    names = (told.get("output_file_id"), told.get("error_file_id"))
    errors = (told.get("errors") or {}).get("data") or ()
    counts = told.get("request_counts") or {}
    return Remote(
        id=_text(told, "id"),
        status=_text(told, "status"),
        files=tuple(name for name in names if isinstance(name, str) and name),
        codes=tuple(str(error.get("code")) for error in errors),
        faults="; ".join(_fault(error) for error in errors[:3]),
        done=sum(int(counts.get(name) or 0) for name in ("completed", "failed")),
    )


def _fault(error: dict[str, Any]) -> str:
    line = error.get("line")
    where = "" if line is None else f"line {line}: "
    return f"{where}{error.get('message') or error.get('code')}"


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if isinstance(value, str) and value:
        return value
    trouble = TroubleError(f"the server's reply has {name!r}", found=str(told)[:80])
    trouble.again, trouble.status = True, wire.OK
    raise trouble


def _said(error: object) -> tuple[str, str]:
    """Message and code of an error."""
    if not isinstance(error, dict):
        return str(error), ""
    return str(error.get("message") or error), str(error.get("code") or "")


def _unanswered(error: object) -> LLMError:
    trouble = TroubleError("the server answers each line of a batch", found=_said(error)[0][:200])
    trouble.again = True  # expired, cancelled or broken: nothing was answered, nothing is charged
    return trouble
