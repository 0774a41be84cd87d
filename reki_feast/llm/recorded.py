"""Answers from a table: for demonstrations, tests and answers from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa

from reki_feast.errors import LLMError, Problem
from reki_feast.llm.interface import Answer, Request, RequestError, canonical_json
from reki_feast.schema import TIMESTAMP, content_hash

_REQUIRED = ("kind", "owner", "text")
_ALWAYS = datetime.min.replace(tzinfo=UTC)

#: Newest last: since when the answer holds, its text, its model.
_Entries = list[tuple[datetime, str, str]]


class RecordedLLM:
    """Answers a request by its kind, owner and channel, as of its time.

    Args:
        table: columns ``kind``, ``owner``, ``text``; optionally ``channel`` (null: any channel),
            ``event_timestamp`` (null: always held) and ``model``. The newest row not younger
            than the request's as-of time answers.
        name: the name in ledger and knowledge.

    Raises:
        LLMError: the table has the wrong shape.
    """

    def __init__(self, table: pa.Table, name: str = "recorded") -> None:
        self.name = name
        rows = _rows(table)
        self._answers = _indexed(rows, name)
        # Other answers under the same name must not be taken for these by the ledger.
        self.parameters = canonical_json({"table": content_hash(*(str(r) for r in rows))})

    async def ask(self, request: Request) -> Answer:
        """The recorded answer.

        Raises:
            RequestError: none is recorded for this owner as of the request's time.
        """
        exact = self._answers.get((request.kind, request.owner, request.channel), [])
        entries = exact or self._answers.get((request.kind, request.owner, ""), [])
        held = [entry for entry in entries if entry[0] <= request.event_timestamp]
        if not held:
            raise RequestError(
                "the table of recorded answers has one for every prompt",
                detail=f"none for {request.kind} {request.owner!r}, channel {request.channel},"
                f" as of {request.event_timestamp.isoformat()}",
                hint="add the row, or name a provider that can answer in the scenario's llm",
            )
        _, text, model = held[-1]
        return Answer(text=text, model=model)

    @property
    def max_answer_tokens(self) -> int:
        """0: its answers cost nothing."""
        return 0

    async def aclose(self) -> None:
        """Nothing to let go of."""


def _rows(table: pa.Table) -> list[dict[str, object]]:
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        raise LLMError(
            f"a table of recorded answers has the columns {', '.join(_REQUIRED)}",
            detail=f"no {', '.join(missing)} among {', '.join(table.column_names)}",
            hint="rename or add the columns",
        )
    names = [*_REQUIRED, "channel", "event_timestamp", "model"]
    table = table.select([name for name in names if name in table.column_names])
    if "event_timestamp" in table.column_names:
        table = _with_utc_times(table)
    rows: list[dict[str, object]] = table.to_pylist()
    faults = list(_faults(rows))
    if faults:
        raise LLMError(faults)
    return rows


def _with_utc_times(table: pa.Table) -> pa.Table:
    kind = table.schema.field("event_timestamp").type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise LLMError(
            "event_timestamp of recorded answers is a timestamp with a time zone",
            detail=str(kind),
            hint="cast it, for instance to timestamptz in DuckDB",
        )
    at = table.column_names.index("event_timestamp")
    cast = table["event_timestamp"].cast(TIMESTAMP, safe=False)
    return table.set_column(at, "event_timestamp", cast)


def _faults(rows: list[dict[str, object]]) -> list[Problem]:
    empty = [n for n, row in enumerate(rows) if any(not row[name] for name in ("kind", "text"))]
    nameless = [n for n, row in enumerate(rows) if row["owner"] is None]
    faults = []
    if empty:
        faults.append(Problem("every recorded answer has a kind and a text", f"rows {empty[:5]}"))
    if nameless:
        faults.append(Problem("every recorded answer has an owner", f"rows {nameless[:5]}"))
    return faults


def _indexed(rows: list[dict[str, object]], name: str) -> dict[tuple[str, str, str], _Entries]:
    index: dict[tuple[str, str, str], _Entries] = {}
    for row in rows:
        at = row.get("event_timestamp")
        since = at if isinstance(at, datetime) else _ALWAYS
        key = (str(row["kind"]), str(row["owner"]), str(row.get("channel") or ""))
        index.setdefault(key, []).append((since, str(row["text"]), str(row.get("model") or name)))
    for entries in index.values():
        entries.sort(key=lambda entry: entry[0])
    return index
