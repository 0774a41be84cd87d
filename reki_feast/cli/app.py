"""The entry point of `reki`: parses, runs one command, writes its result."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise

from reki_feast.cli.output import (
    DONE,
    FAILED,
    INTERRUPTED,
    OVER_BUDGET,
    WRONG_USE,
    escape_unprintable,
    warnings_on_stderr,
    write_error,
    write_interrupted,
    write_report,
)
from reki_feast.cli.parsers import parser
from reki_feast.errors import RekiError

__all__ = ["DONE", "FAILED", "INTERRUPTED", "OVER_BUDGET", "WRONG_USE", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words of the command line; None: those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong use, 3 stopped at a budget's limit, 130 stopped by
        a key.
    """
    # on a shared machine threads that spin while they wait make training ten times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    escape_unprintable()
    words = sys.argv[1:] if arguments is None else arguments
    options = parser(json_errors=_logs_json(words)).parse_args(words)
    log_json = options.log == "json"
    try:
        with warnings_on_stderr(as_json=log_json):
            report = options.command(options)
    except RekiError as error:
        return write_error(error, as_json=options.json, log_json=log_json)
    except KeyboardInterrupt:
        return write_interrupted(log_json=log_json)
    except BrokenPipeError:
        return FAILED
    return write_report(report, as_json=options.json)


def _logs_json(words: Sequence[str]) -> bool:
    """Whether the command line, be it right or wrong, says ``--log json``."""
    return "--log=json" in words or ("--log", "json") in pairwise(words)


if __name__ == "__main__":
    sys.exit(main())
