"""A batch as the server describes it, and the meaning of its error texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reki_feast.llm import wire
from reki_feast.llm.interface import RequestError
from reki_feast.llm.wire import CallError

_OVER = ("completed", "failed", "expired", "cancelled")
#: How servers say that they do not have a file, or have not got it ready.
_LACKS_FILE = re.compile(
    r"no such file"
    r"|(?:cannot|can't|could not|unable to) (?:find|locate|access)\b.*\bfile"
    r"|\bfile\b.*\b(?:not (?:be )?found|not exist|not (?:yet )?(?:ready|processed|available)"
    r"|still (?:being )?process|pending|being (?:processed|imported))",
    re.IGNORECASE | re.DOTALL,
)


class LateFileError(RequestError):
    """The server does not have the file that it was given, or has not got it ready."""


@dataclass(frozen=True)
class RemoteBatch:
    """A batch as the server tells of it.

    Attributes:
        id: the server's id.
        status: ``validating``, ``in_progress``, ``completed``, …
        files: ids of the output and the error file, as far as there are any.
        codes: what was wrong with the whole of it, as codes.
        error_text: the same, for a reader.
        done: requests that the server has dealt with.
    """

    id: str
    status: str
    files: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    error_text: str = ""
    done: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _OVER

    @property
    def is_missing_file(self) -> bool:
        """Whether it failed since the server did not have its file."""
        return self.status == "failed" and is_missing_file(" ".join((*self.codes, self.error_text)))


def is_missing_file(text: str) -> bool:
    """Whether a server says that it does not have a file, or has not got it ready.

    >>> is_missing_file("No such File object: file-1"), is_missing_file("code: file_not_found")
    (True, True)
    >>> is_missing_file("the file holds 60000 lines")
    False
    """
    return _LACKS_FILE.search(text.replace("_", " ")) is not None


def parse_batch(reply: Mapping[str, Any]) -> RemoteBatch:
    """A batch as the server describes it.

    Raises:
        CallError: the reply lacks an id or a status.
    """
    names = (reply.get("output_file_id"), reply.get("error_file_id"))
    errors = (reply.get("errors") or {}).get("data") or ()
    counts = reply.get("request_counts") or {}
    return RemoteBatch(
        id=required_text(reply, "id"),
        status=required_text(reply, "status"),
        files=tuple(name for name in names if isinstance(name, str) and name),
        codes=tuple(str(error.get("code")) for error in errors),
        error_text="; ".join(_fault(error) for error in errors[:3]),
        done=sum(int(counts.get(name) or 0) for name in ("completed", "failed")),
    )


def _fault(error: dict[str, Any]) -> str:
    line = error.get("line")
    where = "" if line is None else f"line {line}: "
    return f"{where}{error.get('message') or error.get('code')}"


def required_text(reply: Mapping[str, Any], name: str) -> str:
    """A text field of a reply.

    Raises:
        CallError: the reply lacks it.
    """
    value = reply.get(name)
    if isinstance(value, str) and value:
        return value
    trouble = CallError(f"the server's reply has {name!r}", detail=str(reply)[:80])
    trouble.again, trouble.status = True, wire.OK
    raise trouble
