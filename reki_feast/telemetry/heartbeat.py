"""Something told again and again while a step goes on, whether or not the step says anything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: Seconds between two lines that say how far a command is, at most.
EVERY = 30.0


class Heartbeat:
    """Calls a function every so many seconds, in a thread of its own, until it is closed.

    Args:
        tell: the function.
        every: seconds.
    """

    def __init__(self, tell: Callable[[], None], every: float = EVERY) -> None:
        self._tell, self._every = tell, every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="reki-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop; when this returns nothing is told any more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            self._tell()
