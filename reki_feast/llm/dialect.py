"""The dialect of a model: which request fields it supports, learned from error replies.

A field that a server rejects is omitted from then on; ``max_tokens`` may have another name, and a
model that only streams is asked for a stream.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from reki_feast.llm.error_bodies import ErrorBody
from reki_feast.llm.wire import CallError

ResponseFormat = Literal["json_schema", "json_object", "off"]
#: Forms of answers, the richest first.
RESPONSE_FORMATS: tuple[ResponseFormat, ...] = ("json_schema", "json_object", "off")
FORMAT_FIELD = "response_format"
TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
#: Fields that no call can do without, or that are asked for in another way.
_NEEDED = frozenset(("model", "messages", "stream", *TOKENS_FIELDS))
#: What a refusal of a field says of it.
_REFUSES = re.compile(
    r"unsupported|not (?:be )?(?:supported?|permitted|allowed|enabled|available|compatible|valid)"
    r"|n[o']t support|unknown|unrecognized|unexpected|extra (?:inputs|fields|parameters)"
    r"|invalid|deprecated|must be|cannot|can't|only |no longer|does not (?:exist|accept)"
)
_FORM = re.compile(
    r"response_?format|json_?schema|json_?object|json[ _-]mode|structured[ _-]?output|schema"
    r"|grammar|guided|\bformat\b"
)
_STREAMS = re.compile(
    r"only supports? (?:the )?stream|stream(?:ing)?[ _-](?:mode )?only|non-?[ _]?stream"
    r"|enable the stream|stream['\"` ]+(?:parameter )?(?:must|has to|should) be (?:set to )?true"
    r"|requires? (?:the )?stream|must (?:be )?stream|set ['\"`]?stream['\"`]? ?(?:to|=) ?true"
)
#: A number of tokens that is refused for its size has the right name.
_TOO_MANY = re.compile(
    r"too (?:large|long|many|high|big)|context (?:length|window)|maximum|exceed|at most|less than"
    r"|greater than|range"
)


@dataclass(frozen=True)
class Dialect:
    """How calls are written; the ledger stores it as ``str`` and reads it by :meth:`of`.

    Attributes:
        form: the form of answer that is asked for.
        tokens_field: the name of the most tokens that an answer may have.
        omitted_fields: fields that are not sent.
        streams: whether the answer is asked for as a stream.
    """

    form: ResponseFormat
    tokens_field: str = TOKENS_FIELDS[0]
    omitted_fields: frozenset[str] = frozenset()
    streams: bool = False

    def __str__(self) -> str:
        return " ".join([self.form, self.tokens_field, *sorted(self.omitted_fields)])

    @staticmethod
    def of(text: str) -> Dialect | None:
        """The style of such a text; None if it is none.

        >>> Dialect.of(str(Dialect("off", "max_tokens"))) == Dialect("off", "max_tokens")
        True
        """
        name, _, rest = text.partition(" ")
        tokens_field, *omitted_fields = rest.split() or [""]
        form = next((one for one in RESPONSE_FORMATS if one == name), None)
        return (
            Dialect(form, tokens_field, frozenset(omitted_fields))
            if form and tokens_field
            else None
        )

    def written(self, body: dict[str, Any], most_tokens: int) -> dict[str, Any]:
        """A request's body in this style.

        Args:
            body: all its fields but those of the stream and of the most tokens.
            most_tokens: of the answer.
        """
        body = {**body, self.tokens_field: most_tokens}
        if self.streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return (
            {n: v for n, v in body.items() if n not in self.omitted_fields}
            if self.omitted_fields
            else body
        )


class LearnedDialect:
    """The dialect that error replies have taught so far, for all calls of a model."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}
        self._dialect = Dialect(RESPONSE_FORMATS[0])

    def dialect(self, form: ResponseFormat) -> Dialect:
        """How calls are written that ask for a form."""
        return self._dialect if form == self._dialect.form else replace(self._dialect, form=form)

    @property
    def notes(self) -> tuple[str, ...]:
        """What calls go without, and why: a sentence for each."""
        return tuple(why for why in self._fields.values() if why)

    def observe(self, trouble: CallError, sent: Collection[str]) -> None:
        """Omit a rejected field from now on, if calls can go without it.

        The error learns which field it is about, and that a retry without it may succeed.
        """
        field = refused_field(trouble.error_body, sent) if trouble.may_be_format else ""
        if field == FORMAT_FIELD or (field and trouble.may_be_dialect):
            trouble.refused = field
        if trouble.refused and field != FORMAT_FIELD:
            self.omit_field(field, trouble.problems[0].detail)
            trouble.again, trouble.is_uncounted = True, True

    def omit_field(self, field: str, why: str) -> None:
        """Write calls without a field, or with its substitute."""
        if field in self._fields:
            return
        if field == "stream":
            self._fields[field] = f"answers are asked for as a stream: {why}"
            self._dialect = replace(self._dialect, streams=True)
        elif field == TOKENS_FIELDS[0]:
            self._fields[field] = ""  # it has another name there, which is no news
            self._dialect = replace(self._dialect, tokens_field=TOKENS_FIELDS[1])
        else:
            self._fields[field] = f"{field} is left out of all calls: {why}"
            self._dialect = replace(
                self._dialect, omitted_fields=self._dialect.omitted_fields | {field}
            )


def response_format(factors: tuple[str, ...], form: ResponseFormat) -> dict[str, Any]:
    """The request's ``response_format``: one object with a text per factor."""
    if form == "json_object":
        return {"type": "json_object"}
    schema = {
        "type": "object",
        "properties": {factor: {"type": "string"} for factor in factors},
        "required": list(factors),
        "additionalProperties": False,
    }
    inner = {"name": "knowledge", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": inner}


def refused_field(error_body: ErrorBody, sent: Collection[str]) -> str:
    """The field of a request's body that a server refuses, of those it can go without; or "".

    ``max_tokens`` stands for its name, ``stream`` for there being none.

    >>> from reki_feast.llm.error_bodies import parse_error_body
    >>> refused_field(parse_error_body("'temperature' is not supported"), ["model", "temperature"])
    'temperature'
    """
    if "stream" not in sent and _STREAMS.search(error_body.words):
        return "stream"
    if "max_tokens" in sent and _is_of_tokens_field(error_body):
        return "max_tokens"
    optional = [name for name in sent if name not in _NEEDED]
    pointed = [name for name in optional if name in error_body.fields]
    if not pointed and _REFUSES.search(error_body.words):
        places = {name: _place(name, error_body.words) for name in optional}
        pointed = sorted((n for n in optional if places[n] >= 0), key=places.__getitem__)
    if not pointed and FORMAT_FIELD in sent and _FORM.search(error_body.words):
        return FORMAT_FIELD
    return pointed[0] if pointed else ""


def _is_of_tokens_field(error_body: ErrorBody) -> bool:
    if _TOO_MANY.search(error_body.words):
        return False
    is_pointed = "max_tokens" in error_body.fields or _place("max_tokens", error_body.words) >= 0
    return TOKENS_FIELDS[1] in error_body.words or (
        is_pointed and bool(_REFUSES.search(error_body.words))
    )


def _place(name: str, words: str) -> int:
    """Where a text names a field, as such if the name may be a mere word; -1: nowhere."""
    spellings = {re.escape(name.lower()), re.escape(name.replace("_", "").lower())}
    form = rf"(?<![\w.])(?:{'|'.join(sorted(spellings))})(?!\w)"
    if "_" not in name and name != "temperature":
        before = r"['\"`\[({]\s*|(?:parameter|argument|field|property|option|input|name)s?:?\s+"
        form = rf"(?:{before}){form}|{form}(?=['\"`]? (?:is|are|does) )"
    found = re.search(form, words)
    return found.start() if found else -1
