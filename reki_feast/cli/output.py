"""What `reki` writes: results and errors, for a person or as JSON, and its exit codes."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reki_feast.errors import DeclarationError, FactorsError, RekiError, SourceError
from reki_feast.escaping import json_text, visible

if TYPE_CHECKING:
    from reki_feast.report import Report

DONE, FAILED, WRONG_USE, OVER_BUDGET, INTERRUPTED = 0, 1, 2, 3, 130


def escape_unprintable() -> None:
    """Print characters as escapes that the encoding of a terminal or a pipe lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _StderrHandler(logging.Handler):
    """Writes to the standard error of the moment: above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{visible(record.getMessage())}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Write the package's log warnings to standard error, a line each, while a command runs."""
    log, handler = logging.getLogger("reki_feast"), _StderrHandler(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def write_report(report: Report, *, as_json: bool) -> int:
    """Write what a command reports.

    Returns:
        The exit code.
    """
    from reki_feast import rendering

    if as_json:
        sys.stdout.write(json_text(report.plain(), indent=1) + "\n")
    else:
        rendering.report(report)
    return FAILED if report.failed else DONE


def write_error(error: RekiError, *, as_json: bool) -> int:
    """Write an error, after what was done before it.

    Returns:
        The exit code.
    """
    kind = type(error).__name__
    if as_json:
        sys.stdout.write(json_text(_error_json(error)) + "\n")
    elif error.done is not None:
        write_report(error.done, as_json=False)
    sys.stderr.write(visible(f"{kind}: {error}\n"))
    if kind == "BudgetError":
        return OVER_BUDGET
    wrong_use = isinstance(error, DeclarationError | SourceError | FactorsError)
    return WRONG_USE if wrong_use else FAILED


def _error_json(error: RekiError) -> dict[str, Any]:
    problems = [vars(problem) for problem in error.problems]
    # "faults" is the key of 0.1, to be removed with the next version
    found: dict[str, Any] = {"error": type(error).__name__, "problems": problems}
    found["faults"] = problems
    if error.done is not None:
        found["done"] = error.done.plain()
    return found
