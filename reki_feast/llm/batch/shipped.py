"""A batch that a run looks after, and how its server takes it."""

from __future__ import annotations

from dataclasses import dataclass

from reki_feast.llm.batch.entries import Batch


@dataclass
class Shipped:
    """A batch that this run looks after.

    Attributes:
        entry: as the ledger has it.
        due: when the next step is due, in seconds of the loop.
        done: requests that the server has dealt with.
        looks: how often the server was asked about it.
        faults: steps in a row that did not succeed.
        is_new: it was certainly not submitted yet.
        was_alone: the server had no other batch of this run when it was submitted.
        late: how often the server did not know of something that it must have.
        late_since: when it first did not, in seconds of the loop.
    """

    entry: Batch
    due: float = 0.0
    done: int = 0
    looks: int = 0
    faults: int = 0
    is_new: bool = False
    was_alone: bool = False
    late: int = 0
    late_since: float = 0.0

    @property
    def is_there(self) -> bool:
        """Whether the server has it."""
        return self.entry.state == "submitted"

    @property
    def is_pending(self) -> bool:
        """Whether the server may still refuse it as a whole."""
        return not self.is_there or self.entry.status in ("", "validating")

    def is_patient(self, now: float, patience_s: float) -> bool:
        """Whether the server gets more time for what it does not know of, but must have."""
        if not self.late:
            self.late_since = now
        self.late += 1
        return now - self.late_since < patience_s
