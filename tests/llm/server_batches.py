"""The Batch API: files and batches that go through their states as they are looked at."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.llm.server_bodies import Body, encoded, error_body
from tests.llm.server_http import Received, Sent
from tests.llm.server_texts import tokens_of, user_text

_CHAT = "/v1/chat/completions"
_LINES_MAX = 50_000
_BYTES_MAX = 200 * 1024 * 1024
_NAME = re.compile(rb'\bname="([^"]*)"')
_FILE_NAME = re.compile(rb'\bfilename="([^"]*)"')
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class Line:
    """What became of a line: its reply, and a fault of the line that a call would have had.

    ``drop``: an error without a reply; ``half``: in neither file; ``stall``: never done in time.
    """

    status: int
    body: Body
    fault: str = ""


@dataclass(frozen=True)
class End:
    """How a batch ends.

    Attributes:
        status: ``completed``, ``failed`` (nothing is done), ``expired``, ``cancelled``.
        share: of the lines, in their order, that are done; the others expire.
        missing: lines done, and counted, that are in neither file.
        code: why it failed.
    """

    status: str = "completed"
    share: float = 1.0
    missing: int = 0
    code: str = "token_limit_exceeded"


@dataclass
class _Batch:
    id: str
    number: int
    lines: list[dict[str, Any]]
    end: End
    fields: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    polls: int = 0


class Batches:
    """Files and batches.

    Args:
        answer: answers a line's body, for a batch.

    Attributes:
        polls: how often a batch is seen in each state before it goes on.
        delay_s: seconds that a batch is in progress, at least.
        ends: how a batch ends, by its number, from 1.
        lines_max: the most lines of a batch.
        bytes_max: the most bytes of a file.
        enqueued_max: the most tokens of batches under way, with which one more fails.
    """

    def __init__(self, answer: Callable[[dict[str, Any], str], Line]) -> None:
        self.polls = 1
        self.delay_s = 0.0
        self.ends: Callable[[int], End] = lambda number: End()
        self.lines_max, self.bytes_max = _LINES_MAX, _BYTES_MAX
        self.enqueued_max: int | None = None
        self._answer = answer
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, _Batch] = {}

    @property
    def all(self) -> list[dict[str, Any]]:
        """All batches as a client sees them, the oldest first."""
        return [dict(batch.fields) for batch in list(self._batches.values())]

    @property
    def files(self) -> dict[str, bytes]:
        """The files' contents by id."""
        return {name: content for name, (_, content) in list(self._files.items())}

    def handle(self, request: Received) -> Sent:
        """Answer a request to ``/v1/files`` or ``/v1/batches``."""
        _, kind, *rest = request.path.strip("/").split("/")
        match (request.method, kind, *rest):
            case ("POST", "files"):
                return self._upload(request)
            case (method, "files", name, *more) if name in self._files:
                return self._file(method, name, more)
            case ("POST", "batches"):
                return self._create(request.json())
            case ("GET", "batches"):
                return self._list(request.query)
            case (method, "batches", name, *more) if name in self._batches:
                return self._poll(method, self._batches[name], more)
            case _:
                return _refused(404, f"no {request.method} {request.path} here")

    def _upload(self, request: Received) -> Sent:
        fields, name, content = _form_of(request)
        if fields.get("purpose") != "batch" or not name:
            return _refused(400, "a file is uploaded with purpose=batch")
        if len(content) > self.bytes_max:
            return _refused(413, f"a file has at most {self.bytes_max} bytes")
        return _found(self._stored(name, "batch", content))

    def _stored(self, filename: str, purpose: str, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self._files) + 1:06}"
        fields = {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[name] = fields, content
        return fields

    def _file(self, method: str, name: str, more: list[str]) -> Sent:
        fields, content = self._files[name]
        match (method, *more):
            case ("GET",):
                return _found(fields)
            case ("GET", "content"):
                return Sent(200, content, {"content-type": "application/octet-stream"})
            case ("DELETE",):
                del self._files[name]
                return _found({"id": name, "object": "file", "deleted": True})
            case _:
                return _refused(404, f"no {method} of files {more}")

    def _create(self, body: dict[str, Any]) -> Sent:
        if body["input_file_id"] not in self._files or body["endpoint"] != _CHAT:
            return _refused(400, "input_file_id names a file, endpoint is chat completions")
        if body["completion_window"] != "24h":
            return _refused(400, "completion_window is 24h")
        number = len(self._batches) + 1
        lines, errors = self._checked(self._files[body["input_file_id"]][1])
        end = self.ends(number)
        if not errors and end.status == "failed":
            errors = [_fault(end.code, "the batch fails on demand", None)]
        batch = _Batch(f"batch_{number:06}", number, lines, end, _fields(number, body, lines))
        batch.fields["errors"] = {"object": "list", "data": errors} if errors else None
        self._batches[batch.id] = batch
        return _found(batch.fields)

    def _checked(self, content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines of an input file, and what is wrong with them."""
        lines: list[dict[str, Any]] = []
        errors, seen = [], set[str]()
        for n, raw in enumerate(filter(None, content.splitlines()), start=1):
            try:
                line = json.loads(raw)
                lines.append(line)
            except ValueError:
                errors.append(_fault("invalid_json_line", "the line is no JSON", n))
                continue
            if {"custom_id", "method", "url", "body"} - set(line):
                errors.append(_fault("missing_required_parameter", "a field is missing", n))
            elif line["custom_id"] in seen:
                errors.append(_fault("duplicate_custom_id", "the custom_id is used before", n))
            elif (line["method"], line["url"]) != ("POST", _CHAT):
                errors.append(_fault("invalid_url", "the url is not the batch's endpoint", n))
            elif line["body"]["model"] != lines[0]["body"]["model"]:
                errors.append(_fault("mismatched_model", "all lines ask one model", n))
            seen.add(line.get("custom_id", ""))
        if not lines or len(lines) > self.lines_max:
            errors.append(_fault("invalid_length", f"1 to {self.lines_max} lines", None))
        if not errors and self._is_too_much(lines):
            errors.append(_fault("token_limit_exceeded", "enqueued token limit reached", None))
        return lines, errors

    def _is_too_much(self, lines: list[dict[str, Any]]) -> bool:
        if self.enqueued_max is None:
            return False
        under_way = [b.lines for b in self._batches.values() if b.fields["status"] not in _ENDED]
        chars = sum(len(user_text(line["body"])) for part in [*under_way, lines] for line in part)
        return tokens_of(chars) > self.enqueued_max

    def _list(self, query: Any) -> Sent:
        newest = [batch.fields for batch in reversed(self._batches.values())]
        names = [fields["id"] for fields in newest]
        first = names.index(query["after"]) + 1 if query.get("after") in names else 0
        page = newest[first : first + int(query.get("limit", 20))]
        return _found(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": first + len(page) < len(newest),
            }
        )

    def _poll(self, method: str, batch: _Batch, more: list[str]) -> Sent:
        match (method, *more):
            case ("GET",):
                self._go_on(batch)
            case ("POST", "cancel") if batch.fields["status"] in ("validating", "in_progress"):
                share = 0.5 if batch.fields["status"] == "in_progress" else 0.0
                batch.end, batch.polls = End("cancelled", share), 0
                _enter(batch, "cancelling")
            case ("POST", "cancel"):
                return _refused(409, f"the batch is {batch.fields['status']}")
            case _:
                return _refused(404, f"no {method} of batches {more}")
        return _found(batch.fields)

    def _go_on(self, batch: _Batch) -> None:
        """Enter the next state, if the batch was seen often enough in this one."""
        status = batch.fields["status"]
        if status in _ENDED:
            return
        batch.polls += 1
        is_early = status == "in_progress" and time.monotonic() - batch.began < self.delay_s
        if batch.polls <= self.polls or is_early:
            return
        batch.polls = 0
        if status == "validating":
            _enter(batch, "failed" if batch.fields["errors"] else "in_progress")
        elif status == "in_progress":
            _enter(batch, "finalizing")
        else:
            self._finish(batch)
            _enter(batch, batch.end.status)

    def _finish(self, batch: _Batch) -> None:
        """Answer the lines and write both files, in an order of their own."""
        done = round(batch.end.share * len(batch.lines))
        results = [
            (line["custom_id"], self._answer(line["body"], batch.id)) for line in batch.lines[:done]
        ]
        results = [(name, line) for name, line in results if line.fault != "half"]
        random.Random(batch.number).shuffle(results)
        good: list[dict[str, Any]] = []
        bad = [_late(line["custom_id"]) for line in batch.lines[done:]]
        for name, line in results[batch.end.missing :]:
            is_good = line.status == 200 and not line.fault
            (good if is_good else bad).append(_line_outcome(name, line))
        counts = {"total": len(batch.lines), "completed": len(good), "failed": len(bad)}
        batch.fields["request_counts"] = counts
        for field_name, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                content = "".join(json.dumps(row) + "\n" for row in rows).encode()
                stored = self._stored(f"{batch.id}_{field_name}.jsonl", "batch_output", content)
                batch.fields[field_name] = stored["id"]


def _enter(batch: _Batch, status: str) -> None:
    batch.fields["status"] = status
    batch.fields[f"{status}_at"] = int(time.time())


def _fields(number: int, body: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    now = int(time.time())
    return {
        "id": f"batch_{number:06}",
        "object": "batch",
        "endpoint": body["endpoint"],
        "errors": None,
        "input_file_id": body["input_file_id"],
        "completion_window": body["completion_window"],
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now,
        "expires_at": now + 86_400,
        "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        "metadata": body.get("metadata"),
    }


def _line_outcome(name: str, line: Line) -> dict[str, Any]:
    """A line of the output or the error file."""
    if line.fault == "stall":
        return _late(name)
    if line.fault:
        return _unanswered(name, "batch_internal_error", "The request could not be completed.")
    response = {"status_code": line.status, "request_id": f"req-{name}", "body": line.body}
    return {"id": f"batch_req_{name}", "custom_id": name, "response": response, "error": None}


def _late(name: str) -> dict[str, Any]:
    message = "This request could not be executed before the completion window expired."
    return _unanswered(name, "batch_expired", message)


def _unanswered(name: str, code: str, message: str) -> dict[str, Any]:
    error = {"code": code, "message": message}
    return {"id": f"batch_req_{name}", "custom_id": name, "response": None, "error": error}


def _fault(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _form_of(request: Received) -> tuple[dict[str, str], str, bytes]:
    """Fields, file name and file of a multipart form."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    fields: dict[str, str] = {}
    filename, content = "", b""
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.removesuffix(b"\r\n").partition(b"\r\n\r\n")
        named, file = _NAME.search(head), _FILE_NAME.search(head)
        if file is not None:
            filename, content = file[1].decode(), value
        elif named is not None:
            fields[named[1].decode()] = value.decode()
    return fields, filename, content


def _found(body: dict[str, Any]) -> Sent:
    return Sent(200, encoded(body))


def _refused(status: int, message: str) -> Sent:
    return Sent(status, encoded(error_body(message, "invalid_request_error")))
