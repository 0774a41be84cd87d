"""How far a step is, how fast it goes, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """A step's progress at one moment.

    Attributes:
        step: what is done.
        done: finished units.
        total: all units; 0 where the step does not count any.
        rate: units a second since the last time that it was told; 0 where none was finished since.
    """

    step: str
    done: int
    total: int
    rate: float

    @property
    def left_s(self) -> float | None:
        """Seconds that are left at this rate; None without one."""
        return max(self.total - self.done, 0) / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        return progress_line(self.step, self.done, self.total, self.rate)


class PaceMeter:
    """Measures the rate of a step between two times that it is told.

    Args:
        step: what is done.
    """

    def __init__(self, step: str) -> None:
        self._step, self._now = step, (0, 0)
        self._told = (0, time.monotonic())

    def update(self, done: int, total: int) -> None:
        """Note how far the step is."""
        self._now = (done, total)

    def pace(self) -> Pace:
        """The progress since this was last called."""
        (done, total), (before, since), now = self._now, self._told, time.monotonic()
        self._told = (done, now)
        return Pace(self._step, done, total, (done - before) / max(now - since, 1e-9))


def progress_line(label: str, done: int, total: int, speed: float) -> str:
    """How far a step is, its speed of late in units a second, and the time that is left by that.

    >>> progress_line("asking", 12_000, 60_000, 200.0)
    'asking: 12,000 of 60,000, 200/s, 4 min left'
    >>> progress_line("training", 3, 9, 0.0005)
    'training: 3 of 9, 1.8/h, 3.3 h left'
    >>> progress_line("measuring", 0, 0, 0.0)
    'measuring: at work'
    """
    if not total:
        return f"{label}: at work"
    if speed <= 0:
        return f"{label}: {done:,} of {total:,}"
    left = max(total - done, 0) / speed
    told = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
    rate = f"{speed:,.0f}/s" if speed >= 1 else f"{3600 * speed:,.3g}/h"
    return f"{label}: {done:,} of {total:,}, {rate}, {told if left < 6_000 else _hours(left)} left"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
