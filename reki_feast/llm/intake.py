"""Requests on their way in: what the ledger has an answer to is counted and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from reki_feast.llm.ledger.reading import is_settled
from reki_feast.llm.port import Request
from reki_feast.llm.run import Run

#: Requests looked up in the ledger at once.
_CHUNK = 256


class Intake:
    """Requests that are to be asked, some at a time.

    Args:
        requests: all of them; taken as they are wanted.
        run: says which ledger knows what, and on which terms.
        count: told of each one left out: ``repeated``, ``reused`` or ``quarantined``.
    """

    def __init__(self, requests: Iterable[Request], run: Run, count: Callable[[str], None]) -> None:
        self._requests = iter(requests)
        self._run = run
        self._count = count
        self._seen: set[bytes] = set()

    def take(self) -> list[Request] | None:
        """The next few that are to be asked, perhaps none of these; None when there are no more."""
        some = list(islice(self._requests, _CHUNK))
        if not some:
            return None
        keys = [self._run.key(request) for request in some]
        retry = self._run.terms.retry_quarantined
        known = self._run.ledger.known(keys, retry_quarantined=retry)
        pairs = zip(keys, some, strict=True)
        return [one for key, one in pairs if not self._is_left_out(key, one, known.get(key))]

    def _is_left_out(
        self, key: str, request: Request, known: tuple[str, str | None] | None
    ) -> bool:
        raw = bytes.fromhex(key)
        if raw in self._seen:
            self._count("repeated")
            return True
        self._seen.add(raw)
        if known is None or not is_settled(*known, request.renew_before):
            return False
        if known[0] == "quarantined" and self._run.terms.retry_quarantined:
            return False
        self._count("quarantined" if known[0] == "quarantined" else "reused")
        return True
