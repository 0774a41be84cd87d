"""The source of requests of a run; skips those that the ledger has an answer to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from reki_feast.llm.interface import Request
from reki_feast.llm.ledger.answers import is_settled
from reki_feast.llm.run import Run

#: Requests looked up in the ledger at once.
_CHUNK = 256


class RequestSource:
    """Requests that need a call, in chunks.

    Args:
        requests: all of them; read lazily.
        run: its ledger and its policy.
        count: called for each skipped request: ``repeated``, ``reused`` or ``quarantined``.
    """

    def __init__(self, requests: Iterable[Request], run: Run, count: Callable[[str], None]) -> None:
        self._requests = iter(requests)
        self._run = run
        self._count = count
        # by key: whether it was skipped; an answer may be too old for another row of the prompt
        self._seen: dict[bytes, bool] = {}

    def take(self) -> list[Request] | None:
        """The next requests that need a call, perhaps none of a chunk; None at the end."""
        chunk = list(islice(self._requests, _CHUNK))
        if not chunk:
            return None
        keys = [self._run.key(request) for request in chunk]
        retry = self._run.policy.retry_quarantined
        known = self._run.ledger.known(keys, retry_quarantined=retry)
        pairs = zip(keys, chunk, strict=True)
        return [one for key, one in pairs if not self._is_left_out(key, one, known.get(key))]

    def _is_left_out(
        self, key: str, request: Request, known: tuple[str, str | None] | None
    ) -> bool:
        raw = bytes.fromhex(key)
        was_left_out = self._seen.get(raw)
        is_left_out = was_left_out is False or self._is_settled(request, known)
        if was_left_out is not None and is_left_out:
            self._count("repeated")
            return True
        self._seen[raw] = is_left_out
        if is_left_out:
            is_bad = known is not None and known[0] == "quarantined"
            self._count("quarantined" if is_bad else "reused")
        return is_left_out

    def _is_settled(self, request: Request, known: tuple[str, str | None] | None) -> bool:
        if known is None or not is_settled(*known, request.renew_before):
            return False
        return known[0] != "quarantined" or not self._run.policy.retry_quarantined
