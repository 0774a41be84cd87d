"""How far a view's rows are online: what an incremental materialization goes on from.

Feast notes up to which event time it materialized. That leaves out what comes late: rows made
anew, or as of a time before that end. So a checkpoint also names the files that were read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """Online is the last row that each entity has in some files, or a later one.

    Attributes:
        view: fingerprint of the view's definition, and of how its rows are stored.
        start: event time from which on rows count, included.
        end: event time up to which rows count, included.
        files: digests of the source's files.
    """

    view: str
    start: datetime
    end: datetime
    files: frozenset[str]

    def covers(self, view: str, start: datetime, end: datetime) -> bool:
        """Whether a materialization of a range may leave out what this one brought online."""
        return self.view == view and self.start <= start and self.end <= end

    def dumps(self) -> str:
        """As it is stored.

        >>> from datetime import UTC
        >>> day = datetime(2026, 9, 1, tzinfo=UTC)
        >>> made = Checkpoint("a1", day, day, frozenset({"b2"}))
        >>> Checkpoint.loads(made.dumps()) == made
        True
        """
        return json.dumps(
            {
                "format": _FORMAT,
                "view": self.view,
                "start": self.start.isoformat(),
                "end": self.end.isoformat(),
                "files": sorted(self.files),
            }
        )

    @classmethod
    def loads(cls, stored: bytes | str | None) -> Checkpoint | None:
        """What was stored; None for nothing, or another version's.

        >>> Checkpoint.loads(b"")
        """
        try:
            said = json.loads(stored or "{}")
            start, end = (datetime.fromisoformat(said[name]) for name in ("start", "end"))
            found = cls(said["view"], start, end, frozenset(said["files"]))
        except (ValueError, KeyError, TypeError):
            return None
        return found if said.get("format") == _FORMAT else None
