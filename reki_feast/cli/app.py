"""The entry point of `reki`: parses, runs one command, writes its result."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from reki_feast.cli.output import (
    DONE,
    FAILED,
    INTERRUPTED,
    OVER_BUDGET,
    WRONG_USE,
    escape_unprintable,
    warnings_on_stderr,
    write_error,
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
    options = parser().parse_args(arguments)
    try:
        with warnings_on_stderr():
            report = options.command(options)
    except RekiError as error:
        return write_error(error, as_json=options.json)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; answered calls are kept, run the command again to go on\n")
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED
    return write_report(report, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
