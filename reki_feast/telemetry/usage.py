"""What a command asks the language model, over its stages."""

from __future__ import annotations

from dataclasses import fields, replace

from reki_feast.telemetry.events import CallUsageSoFar, CommandStarted, Event, StageEnded

_SUMMED = [one.name for one in fields(CallUsageSoFar) if one.name != "server"]


class UsageMeter:
    """Adds up what the stages of a command have asked."""

    def __init__(self) -> None:
        self._before = self._current = CallUsageSoFar()

    @property
    def total(self) -> CallUsageSoFar:
        """All of the command so far."""
        return added(self._before, self._current)

    def on(self, event: Event) -> None:
        """Take an event."""
        match event:
            case CallUsageSoFar():
                self._current = event
            case StageEnded():
                self._before, self._current = replace(self.total, server=""), CallUsageSoFar()
            case CommandStarted():
                self._before = self._current = CallUsageSoFar()


def added(one: CallUsageSoFar, other: CallUsageSoFar) -> CallUsageSoFar:
    """Both together.

    >>> added(CallUsageSoFar(calls=2, server="busy"), CallUsageSoFar(calls=3)).calls
    5
    """
    sums = {name: getattr(one, name) + getattr(other, name) for name in _SUMMED}
    return CallUsageSoFar(**sums, server=other.server)
