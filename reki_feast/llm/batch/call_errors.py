"""Errors of the calls of a batch."""

from __future__ import annotations

from reki_feast.errors import LLMError
from reki_feast.llm.batch.records import BatchRecord
from reki_feast.llm.interface import RequestError


def missing_call(error: LLMError, *, is_paid: bool) -> RequestError:
    """The error of a call that no line of the batch's files is about.

    Args:
        error: why there is none.
        is_paid: the call may have been answered, so it is billed as its worst case.
    """
    fault = error.problems[0]
    return RequestError(
        fault.problem, detail=fault.detail, hint=fault.hint, again=True, is_lost=is_paid
    )


def named_batch(error: LLMError, batch: BatchRecord) -> LLMError:
    """The same error, with the batch's id and when it was made."""
    fault = error.problems[0]
    found = f"{fault.detail} (batch {batch.remote}, made {batch.created:%Y-%m-%d %H:%M})"
    return LLMError(fault.problem, detail=found, hint=fault.hint)
