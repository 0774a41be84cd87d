"""A batch that a run processes, with the state of its retries."""

from __future__ import annotations

from dataclasses import dataclass

from reki_feast.llm.batch.records import BatchRecord


@dataclass
class TrackedBatch:
    """A batch that this run processes.

    Attributes:
        entry: as the ledger has it.
        due_at: when the next step is due, in seconds of the loop.
        done: requests that the server has dealt with.
        polls: how often the server was asked about it.
        faults: steps in a row that did not succeed.
        is_unsubmitted: it was certainly not submitted yet.
        was_only_batch: the server had no other batch of this run when it was submitted.
        late_count: how often the server did not know of something that it must have.
        late_since: when it first did not, in seconds of the loop.
    """

    entry: BatchRecord
    due_at: float = 0.0
    done: int = 0
    polls: int = 0
    faults: int = 0
    is_unsubmitted: bool = False
    was_only_batch: bool = False
    late_count: int = 0
    late_since: float = 0.0

    @property
    def is_submitted(self) -> bool:
        """Whether the server has it."""
        return self.entry.state == "submitted"

    @property
    def is_pending(self) -> bool:
        """Whether the server may still refuse it as a whole."""
        return not self.is_submitted or self.entry.status in ("", "validating")

    def may_wait(self, now: float, patience_s: float) -> bool:
        """Whether to wait longer for something that the server does not know yet."""
        if not self.late_count:
            self.late_since = now
        self.late_count += 1
        return now - self.late_since < patience_s
