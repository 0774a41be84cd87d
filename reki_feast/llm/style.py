"""How a call is written, as far as models differ in what they take, and what a refusal says of it.

A field that a server refuses is left out from then on; ``max_tokens`` has another name, and a model
that only streams is asked for a stream.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from reki_feast.llm.said import Said
from reki_feast.llm.wire import TroubleError

Form = Literal["json_schema", "json_object", "off"]
#: Forms of answers, the richest first.
FORMS: tuple[Form, ...] = ("json_schema", "json_object", "off")
FORMAT = "response_format"
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
class Style:
    """How calls are written; ``str`` of it, and :meth:`of`, keep it in the ledger.

    Attributes:
        form: the form of answer that is asked for.
        tokens_field: the name of the most tokens that an answer may have.
        left_out: fields that are not sent.
        streams: whether the answer is asked for as a stream.
    """

    form: Form
    tokens_field: str = TOKENS_FIELDS[0]
    left_out: frozenset[str] = frozenset()
    streams: bool = False

    def __str__(self) -> str:
        return " ".join([self.form, self.tokens_field, *sorted(self.left_out)])

    @staticmethod
    def of(text: str) -> Style | None:
        """The style of such a text; None if it is none.

        >>> Style.of(str(Style("off", "max_tokens"))) == Style("off", "max_tokens")
        True
        """
        name, _, rest = text.partition(" ")
        tokens_field, *left_out = rest.split() or [""]
        form = next((one for one in FORMS if one == name), None)
        return Style(form, tokens_field, frozenset(left_out)) if form and tokens_field else None

    def written(self, body: dict[str, Any], most_tokens: int) -> dict[str, Any]:
        """A request's body in this style.

        Args:
            body: all its fields but those of the stream and of the most tokens.
            most_tokens: of the answer.
        """
        body = {**body, self.tokens_field: most_tokens}
        if self.streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return {n: v for n, v in body.items() if n not in self.left_out} if self.left_out else body


class Learnt:
    """What refusals have taught of a model, beside the form of answers: once for all calls."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}
        self._style = Style(FORMS[0])

    def style(self, form: Form) -> Style:
        """How calls are written that ask for a form."""
        return self._style if form == self._style.form else replace(self._style, form=form)

    @property
    def notes(self) -> tuple[str, ...]:
        """What calls go without, and why: a sentence for each."""
        return tuple(why for why in self._fields.values() if why)

    def heed(self, trouble: TroubleError, sent: Collection[str]) -> None:
        """Leave out from now on what was refused of the fields sent, if calls can go without.

        The trouble is told which field it is about, and that the same call may succeed without.
        """
        field = refused_field(trouble.said, sent) if trouble.may_be_form else ""
        if field == FORMAT or (field and trouble.may_be_style):
            trouble.refused = field
        if trouble.refused and field != FORMAT:
            self.leave_out(field, trouble.faults[0].found)
            trouble.again, trouble.is_free = True, True

    def leave_out(self, field: str, why: str) -> None:
        """Write calls without a field, or with what stands for it."""
        if field in self._fields:
            return
        if field == "stream":
            self._fields[field] = f"answers are asked for as a stream: {why}"
            self._style = replace(self._style, streams=True)
        elif field == TOKENS_FIELDS[0]:
            self._fields[field] = ""  # it has another name there, which is no news
            self._style = replace(self._style, tokens_field=TOKENS_FIELDS[1])
        else:
            self._fields[field] = f"{field} is left out of all calls: {why}"
            self._style = replace(self._style, left_out=self._style.left_out | {field})


def response_format(factors: tuple[str, ...], form: Form) -> dict[str, Any]:
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


def refused_field(said: Said, sent: Collection[str]) -> str:
    """The field of a request's body that a server refuses, of those it can go without; or "".

    ``max_tokens`` stands for its name, ``stream`` for there being none.

    >>> from reki_feast.llm.said import said_of
    >>> refused_field(said_of("'temperature' is not supported"), ["model", "temperature"])
    'temperature'
    """
    if "stream" not in sent and _STREAMS.search(said.words):
        return "stream"
    if "max_tokens" in sent and _is_of_tokens_field(said):
        return "max_tokens"
    optional = [name for name in sent if name not in _NEEDED]
    pointed = [name for name in optional if name in said.fields]
    if not pointed and _REFUSES.search(said.words):
        places = {name: _place(name, said.words) for name in optional}
        pointed = sorted((n for n in optional if places[n] >= 0), key=places.__getitem__)
    if not pointed and FORMAT in sent and _FORM.search(said.words):
        return FORMAT
    return pointed[0] if pointed else ""


def _is_of_tokens_field(said: Said) -> bool:
    if _TOO_MANY.search(said.words):
        return False
    is_pointed = "max_tokens" in said.fields or _place("max_tokens", said.words) >= 0
    return TOKENS_FIELDS[1] in said.words or (is_pointed and bool(_REFUSES.search(said.words)))


def _place(name: str, words: str) -> int:
    """Where a text names a field, as such if the name may be a mere word; -1: nowhere."""
    spellings = {re.escape(name.lower()), re.escape(name.replace("_", "").lower())}
    form = rf"(?<![\w.])(?:{'|'.join(sorted(spellings))})(?!\w)"
    if "_" not in name and name != "temperature":
        before = r"['\"`\[({]\s*|(?:parameter|argument|field|property|option|input|name)s?:?\s+"
        form = rf"(?:{before}){form}|{form}(?=['\"`]? (?:is|are|does) )"
    found = re.search(form, words)
    return found.start() if found else -1
