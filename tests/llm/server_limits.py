"""Limits of the endpoint, told as OpenAI tells them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass
class _Bucket:
    """Fills by ``a_minute``, up to ``most``."""

    a_minute: float
    most: float
    level: float
    filled: float = field(default_factory=time.monotonic)

    def wait_for(self, amount: float) -> float:
        """Seconds until so much can be taken; 0: now."""
        now = time.monotonic()
        self.level = min(self.most, self.level + (now - self.filled) * self.a_minute / 60)
        self.filled = now
        return max(0.0, min(amount, self.most) - self.level) * 60 / self.a_minute

    def headers(self, kind: str) -> dict[str, str]:
        """What OpenAI says of a limit with each reply."""
        whole_in_s = (self.most - self.level) * 60 / self.a_minute
        return {
            f"x-ratelimit-limit-{kind}": f"{self.most:.0f}",
            f"x-ratelimit-remaining-{kind}": f"{max(0.0, math.floor(self.level)):.0f}",
            f"x-ratelimit-reset-{kind}": duration(whole_in_s),
        }


class Limits:
    """What is allowed at once and by the minute.

    Args:
        allowed_at_once: calls under way together; None: any number.
        requests_per_minute: None: any number.
        tokens_per_minute: None: any number.
        burst: share of a minute's limit that can be used at once.
        retry_after: whether a refusal says when to come back.
    """

    def __init__(
        self,
        allowed_at_once: int | None = None,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        burst: float = 1.0,
        retry_after: bool = True,
    ) -> None:
        self.allowed_at_once = allowed_at_once
        self.retry_after = retry_after
        self._buckets = {
            kind: _Bucket(limit, limit * burst, limit * burst)
            for kind, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute))
            if limit is not None
        }

    def take(self, at_once: int, tokens: float) -> tuple[bool, dict[str, str]]:
        """Whether a call may go on, the ``at_once``-th under way, and the reply's headers."""
        wanted = {"requests": 1.0, "tokens": tokens}
        wait_s = max(
            (bucket.wait_for(wanted[kind]) for kind, bucket in self._buckets.items()), default=0.0
        )
        is_crowded = self.allowed_at_once is not None and at_once > self.allowed_at_once
        if not wait_s and not is_crowded:
            for kind, bucket in self._buckets.items():
                bucket.level -= wanted[kind]
        headers = {k: v for kind, b in self._buckets.items() for k, v in b.headers(kind).items()}
        if wait_s and self.retry_after:
            headers["retry-after"] = f"{math.ceil(wait_s)}"
            headers["retry-after-ms"] = f"{math.ceil(1000 * wait_s)}"
        return not wait_s and not is_crowded, headers


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them.

    >>> [duration(s) for s in (0, 0.12, 1, 7.66, 360, 86_399.5)]
    ['0s', '120ms', '1s', '7.66s', '6m0s', '23h59m59.5s']
    """
    if 0 < seconds < 1:
        return f"{max(1, round(1000 * seconds))}ms"
    hours, rest = divmod(round(seconds, 3), 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{hours:.0f}h" if hours else "", f"{minutes:.0f}m" if hours or minutes else ""]
    return "".join(parts) + f"{round(rest, 3):g}s"
