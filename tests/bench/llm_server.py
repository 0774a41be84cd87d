"""The endpoint of the tests in a process of its own, for benchmarks of throughput.

    python -m tests.bench.llm_server --delay 1 --allowed 64 --port 0

prints the url and serves until it is ended. ``GET /records`` says what it has seen.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.bench.common import ROOT
from tests.llm.servers import Endpoint


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The url of a server started with these options; it ends with the context."""
    command = [sys.executable, "-m", "tests.bench.llm_server", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.llm_server")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that an answer takes")
    parser.add_argument("--allowed", type=int, help="calls allowed at once; more meet 429")
    parser.add_argument("--requests-per-minute", type=float, help="told in headers")
    parser.add_argument("--tokens-per-minute", type=float, help="told in headers")
    parser.add_argument("--burst", type=float, default=1.0, help="share of a minute at once")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    given = parser.parse_args(arguments)
    endpoint = Endpoint(
        delay_s=given.delay,
        allowed_at_once=given.allowed,
        requests_per_minute=given.requests_per_minute,
        tokens_per_minute=given.tokens_per_minute,
        burst=given.burst,
        port=given.port,
    )
    with endpoint, suppress(KeyboardInterrupt):
        sys.stdout.write(f"{endpoint.url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
