"""What came in, and what was counted for it; safe to read while the server runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from tests.llm.server_texts import user_text

#: well: a good answer, whole; spoilt: counted, and of no use; lost: a good answer on a line that
#: broke; refused: nothing was counted.
Outcome = Literal["well", "spoilt", "lost", "refused"]


@dataclass(frozen=True)
class Billed:
    """What became of one call that no limit refused.

    Attributes:
        prompt: the user message, without what was said after it in a second go.
        nth: how often the prompt had come by then, itself included.
        number: the number of the call, from 1.
        fault: the fault's name, or "".
        outcome: what came of it.
        via: ``online``, or the batch's id.
        prompt_tokens: counted for the question.
        completion_tokens: counted for the answer.
    """

    prompt: str
    nth: int
    number: int
    fault: str
    outcome: Outcome
    via: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def is_counted(self) -> bool:
        """Whether it costs."""
        return self.outcome != "refused"


class Records:
    """The records.

    Attributes:
        at_once: calls under way.
        max_in_flight: the most calls that were under way together, refused ones among them.
        refused: calls that a limit refused.
    """

    def __init__(self) -> None:
        self.at_once = 0
        self.max_in_flight = 0
        self.refused = 0
        self._lock = threading.Lock()
        self._bodies: list[dict[str, Any]] = []
        self._times: list[float] = []
        self._authorizations: list[str] = []
        self._bill: list[Billed] = []

    def note(self, body: dict[str, Any], authorization: str) -> None:
        """A call has come."""
        with self._lock:
            self._bodies.append(body)
            self._times.append(time.monotonic())
            self._authorizations.append(authorization)
            self.at_once += 1
            self.max_in_flight = max(self.max_in_flight, self.at_once)

    def book(self, billed: Billed) -> None:
        """A call is answered, or not."""
        with self._lock:
            self._bill.append(billed)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of chat calls, in order of arrival."""
        with self._lock:
            return list(self._bodies)

    @property
    def times(self) -> list[float]:
        """When they came, in seconds of the monotonic clock."""
        with self._lock:
            return list(self._times)

    @property
    def authorizations(self) -> list[str]:
        """Their ``Authorization`` headers."""
        with self._lock:
            return list(self._authorizations)

    @property
    def prompts(self) -> list[str]:
        """Their user messages, whole."""
        return [user_text(body) for body in self.bodies]

    @property
    def bill(self) -> list[Billed]:
        """Calls that no limit refused, those of batches too, as they were answered."""
        with self._lock:
            return list(self._bill)

    def counted(self) -> Counter[str]:
        """Calls that cost, by prompt."""
        return Counter(call.prompt for call in self.bill if call.is_counted)

    def answered_well(self) -> Counter[str]:
        """Good answers that went out whole, by prompt."""
        return Counter(call.prompt for call in self.bill if call.outcome == "well")

    def paid_twice(self) -> list[str]:
        """Prompts that were answered well more than once."""
        return [prompt for prompt, count in self.answered_well().items() if count > 1]

    def tokens(self) -> tuple[int, int]:
        """Tokens counted for questions and for answers."""
        bill = self.bill
        return sum(c.prompt_tokens for c in bill), sum(c.completion_tokens for c in bill)

    def records(self) -> dict[str, Any]:
        """The records in short, as ``GET /records`` gives them."""
        times, outcomes = self.times, Counter(call.outcome for call in self.bill)
        return {
            "calls": len(times),
            "outcomes": dict(outcomes),
            "refused_by_limits": self.refused,
            "paid_twice": len(self.paid_twice()),
            "most_at_once": self.max_in_flight,
            "seconds": times[-1] - times[0] if times else 0.0,
        }
