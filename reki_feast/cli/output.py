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
        sys.stderr.write(f"{self.line(record)}\n")
        sys.stderr.flush()

    def line(self, record: logging.LogRecord) -> str:
        """A record as a line of text."""
        return visible(record.getMessage())


class _JsonHandler(_StderrHandler):
    """The same as JSON."""

    def line(self, record: logging.LogRecord) -> str:
        """A record as a line of ``--log json``."""
        from reki_feast.telemetry.lines import LogLine, now

        is_error = record.levelno >= logging.ERROR
        line = LogLine(
            time=now(),
            level="error" if is_error else "warning",
            event="warning",
            message=record.getMessage(),
            logger=record.name,
        )
        return str(line)


@contextlib.contextmanager
def warnings_on_stderr(*, as_json: bool = False) -> Iterator[None]:
    """Write log warnings to standard error, a line each, while a command runs.

    Args:
        as_json: as JSON, and also those of other packages, and Python's own warnings.
    """
    log = logging.getLogger(None if as_json else "reki_feast")
    handler = (_JsonHandler if as_json else _StderrHandler)(logging.WARNING)
    log.addHandler(handler)
    if as_json:
        logging.captureWarnings(True)
    try:
        yield
    finally:
        log.removeHandler(handler)
        if as_json:
            logging.captureWarnings(False)


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


def write_interrupted(*, log_json: bool) -> int:
    """Write that the user stopped the command.

    Returns:
        The exit code.
    """
    message = "stopped; answered calls are kept, run the command again to go on"
    if log_json:
        from reki_feast.telemetry.lines import LogLine, now

        code, event = INTERRUPTED, "interrupted"
        line = LogLine(time=now(), level="warning", event=event, message=message, exit_code=code)
        message = str(line)
    sys.stderr.write(f"{message}\n")
    return INTERRUPTED


def write_error(error: RekiError, *, as_json: bool, log_json: bool = False) -> int:
    """Write an error, after what was done before it.

    Args:
        error: the error.
        as_json: whether results are JSON.
        log_json: whether standard error is.

    Returns:
        The exit code.
    """
    kind = type(error).__name__
    if as_json:
        sys.stdout.write(json_text(_error_json(error)) + "\n")
    elif error.done is not None:
        write_report(error.done, as_json=False)
    code = _exit_code(error)
    if log_json:
        from reki_feast.telemetry.lines import error_line

        sys.stderr.write(f"{error_line(error, code)}\n")
    else:
        sys.stderr.write(visible(f"{kind}: {error}\n"))
    return code


def _exit_code(error: RekiError) -> int:
    if type(error).__name__ == "BudgetError":
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
