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
from reki_feast.llm import replies, wire
from reki_feast.llm.batch.entries import Outcome
from reki_feast.llm.hiding import hidden
from reki_feast.llm.openai import OpenAILLM
from reki_feast.llm.port import Request, RequestError
from reki_feast.llm.said import said_of
from reki_feast.llm.style import FORMAT, FORMS, TOKENS_FIELDS, Style, refused_field
from reki_feast.llm.wire import GoneError, TroubleError

_ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_NAME = re.compile(r"reki-(\d{12})")
_OVER = ("completed", "failed", "expired", "cancelled")
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
#: How servers say that they do not have a file, or have not got it ready.
_LACKS_FILE = re.compile(
    r"no such file"
    r"|(?:cannot|can't|could not|unable to) (?:find|locate|access)\b.*\bfile"
    r"|\bfile\b.*\b(?:not (?:be )?found|not exist|not (?:yet )?(?:ready|processed|available)"
    r"|still (?:being )?process|pending|being (?:processed|imported))",
    re.IGNORECASE | re.DOTALL,
)
_NO_FILE = (
    "the server still has the answers of the batch",
    "the prompts are asked again: collect within a month next time",
)


class LateFileError(RequestError):
    """The server does not have the file that it was given, or has not got it ready."""


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

    @property
    def lacks_file(self) -> bool:
        """Whether it failed since the server did not have its file."""
        return self.status == "failed" and lacks_file(" ".join((*self.codes, self.faults)))


class OpenAIBatchLLM(OpenAILLM):
    """A model asked in batches; its answers and those of :class:`OpenAILLM` are one in the ledger.

    Args:
        poll_s: seconds between two looks at a batch.
        file_wait_s: seconds that the server gets to know of a file, or a batch, that it has made.
        max_requests: requests of one file, at most.
        max_bytes: bytes of one file, at most.
        how: as for :class:`OpenAILLM`. With ``structured="auto"`` the richest form of answer is
            used until a batch has shown that the server does not have it.
    """

    def __init__(
        self,
        *,
        poll_s: float = 30.0,
        file_wait_s: float = 300.0,
        max_requests: int = 50_000,
        max_bytes: int = 200_000_000,
        **how: Any,
    ) -> None:
        super().__init__(**how)
        self.poll_s, self.file_wait_s = poll_s, file_wait_s
        self.max_requests, self.max_bytes = max_requests, max_bytes

    def __repr__(self) -> str:
        return f"OpenAIBatchLLM(model={self._model!r}, host={self._host!r})"

    def line(self, call: int, request: Request, style: Style) -> bytes:
        """The line of a call, with its end."""
        line = {
            "custom_id": f"reki-{call:012}",
            "method": "POST",
            "url": _ENDPOINT,
            "body": self._body(request, style),
        }
        return (json.dumps(line, ensure_ascii=False).translate(_LINE_ENDS) + "\n").encode()

    def size(self, request: Request) -> int:
        """Bytes of a request's line, in the longest of the styles that it may be written in."""
        return len(self.line(0, request, Style(self._forms.form, TOKENS_FIELDS[-1])))

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
            return _remote(await self._told(call))
        except (TroubleError, GoneError) as error:
            found = error.faults[0].found
            if getattr(error, "again", False) or not lacks_file(found):
                raise
            raise LateFileError("the server has the file that was uploaded", found=found) from None

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
        if self._forms.is_settled:
            return
        if has_answers:
            self._forms.settle(sent.form)
        elif has_form_faults:
            self._forms.rule_out(sent.form, "no line of a batch was answered in it")

    def heed_failure(self, sent: Style, remote: Remote) -> bool:
        """Learn from a batch that failed as a whole; whether another style may help."""
        field = refused_field(said_of(remote.faults), self._sent(sent))
        if field == FORMAT:
            self.heed(sent, has_answers=False, has_form_faults=True)
        elif field:
            self._learnt.leave_out(field, remote.faults)
        return self.style != sent

    def _sent(self, style: Style) -> list[str]:
        """Names of what lines are sent along with; a line cannot ask for a stream."""
        form = [FORMAT] if style.form != "off" else []
        names = [style.tokens_field, "temperature", *form, *self._extra_body, "stream"]
        return [name for name in names if name not in style.left_out]

    def _outcome(self, line: dict[str, Any], style: Style) -> Outcome:
        response = line.get("response")
        if not isinstance(response, dict):
            return _unanswered(line.get("error"))
        body, status = response.get("body"), response.get("status_code", wire.OK)
        if status == wire.OK and not line.get("error"):
            env, text = self._key_env, _as_text(body)
            try:
                return replies.answer_of(text, {}, model=self._model, key_env=env, latency_s=0.0)
            except TroubleError as trouble:
                return trouble
        said = said_of(hidden(_as_text(body or line.get("error")), self._key_env))
        code = status if isinstance(status, int) else 0
        told = wire.refusal(self._host, code, said, {}, key_env=self._key_env, model=self._model)
        if isinstance(told, TroubleError):
            self._excuse(told, style)
        return told

    def _excuse(self, trouble: TroubleError, sent: Style) -> None:
        """A fault of the style that its batch was sent with is none of the request's own."""
        self._learnt.heed(trouble, self._sent(sent))
        is_richer = FORMS.index(sent.form) < FORMS.index(self._forms.form)
        if trouble.may_be_form and is_richer:
            trouble.again, trouble.is_free = True, True

    async def _told(
        self, call: Awaitable[Any], gone: tuple[str, str] = _NO_BATCHES
    ) -> dict[str, Any]:
        with wire.mapped(self._host, self._key_env, self._model, self._timeout_s, gone):
            response = await call
        try:
            return replies.body_of(response.text)
        except TroubleError as trouble:
            trouble.again = True
            raise


def lacks_file(said: str) -> bool:
    """Whether a server says that it does not have a file, or has not got it ready.

    >>> lacks_file("No such File object: file-1"), lacks_file("code: file_not_found")
    (True, True)
    >>> lacks_file("the file holds 60000 lines")
    False
    """
    return _LACKS_FILE.search(said.replace("_", " ")) is not None


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


def _as_text(body: object) -> str:
    """A body as it would have come over the line."""
    return body if isinstance(body, str) else json.dumps(body)


def _unanswered(error: object) -> LLMError:
    said = said_of(_as_text(error))
    trouble = TroubleError("the server answers each line of a batch", found=said.sentence[:200])
    trouble.again = True  # expired, cancelled or broken: nothing was answered, nothing is charged
    return trouble
