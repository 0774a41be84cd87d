"""Answers in the ledger as tables, and whether a prompt needs a call at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa

from reki_feast.errors import LLMError
from reki_feast.llm.ledger.database import DAMAGED_HINT

#: Runs a query with values.
RunQuery = Callable[[str, Sequence[object]], list[tuple[Any, ...]]]
TIME = pa.timestamp("us", tz="UTC")
#: What :meth:`Ledger.answers` gives back, one row a distinct prompt.
ANSWERS = pa.schema(
    [
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("coverage", pa.float64()),
        pa.field("created_timestamp", TIME, nullable=False),
    ]
)


@contextmanager
def reporting_damage() -> Iterator[None]:
    """Have it told as damage when values are not what the ledger writes.

    Raises:
        LLMError: they are not.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        raise _damaged(error) from error


def _damaged(error: TypeError | ValueError) -> LLMError:
    rule = "the ledger's rows are as they were written"
    return LLMError(rule, detail=" ".join(str(error).split()), hint=DAMAGED_HINT)


@reporting_damage()
def answers_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of (hash, answer, model, coverage, time) as a table of :data:`ANSWERS`."""
    parts = [list(part) for part in zip(*rows, strict=True)] or [[] for _ in ANSWERS]
    parts[-1] = [datetime.fromisoformat(text) for text in parts[-1]]
    return pa.table(parts, schema=ANSWERS)


def answer_time(retry_quarantined: bool) -> str:
    """The column of the time by which an answer is too old, or not.

    A renewal that failed a gate is not made anew before its time, as a first answer is not.
    """
    return "answered" if retry_quarantined else "COALESCE(renewed, answered)"


def is_settled(state: str, answered: str | None, renew_before: datetime | None) -> bool:
    """Whether a run leaves a prompt alone; ``answered`` is of the column :func:`tried`."""
    if state == "quarantined":
        return True
    if answered is None:
        return False
    # whatever became of a renewal: who wants none takes the answer that there is
    try:
        return renew_before is None or datetime.fromisoformat(answered) >= renew_before
    except ValueError as error:
        raise _damaged(error) from error
