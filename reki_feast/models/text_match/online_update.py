"""A user's row brought up to date by interactions that came after it, without the log.

The steps are those of :mod:`reki_feast.models.text_match.states` and
:mod:`reki_feast.models.text_match.export`, one
interaction after another: what comes out is what they would have published of the longer log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reki_feast.encoding import Floats
from reki_feast.models.text_match.export import TICK, time_of, time_parts
from reki_feast.models.text_match.fitted import Fitted
from reki_feast.models.text_match.interactions import chance_of, shrunk
from reki_feast.models.text_match.settings import MatchSettings
from reki_feast.models.text_match.states import levelled, taste
from reki_feast.tables.asof import Doubles

#: Stamp of a user of whom nothing is stored.
NEVER = int(np.iinfo(np.int64).min)
_TIME = 3  # parts of a time, last of the sums


@dataclass(frozen=True)
class UserState:
    """What is stored of a user.

    Attributes:
        vector: ``[U]``, as ``user_match``.
        sums: ``[S]``, as ``user_sums``.
        stamp: microseconds since 1970: what happened before it counts.
    """

    vector: Floats
    sums: Floats
    stamp: int

    @property
    def last(self) -> int:
        """The last moment that counts."""
        return self.stamp - TICK


@dataclass(frozen=True)
class Step:
    """An interaction that a state does not know, or not in full.

    Attributes:
        time: microseconds since 1970.
        liked: 1 or 0.
        of_item: the item's rate.
        mean: everybody's rate.
        since: from when on its item's text counts; None where there is none.
        text: ``[p]``, of the item at that time.
        chance: that it is liked, of an interaction that is counted and whose text alone is new;
            None for one that is not counted: the state's own counts tell.
    """

    time: int
    liked: float
    of_item: float
    mean: float
    since: int | None = None
    text: Floats | None = None
    chance: float | None = None


def stored_state(vector: Floats, sums: Floats) -> UserState:
    """The state of a row; its time is in the sums, for some stores keep whole seconds alone."""
    return UserState(vector, sums, time_of(sums[-_TIME:]))


def unknown_user(settings: MatchSettings) -> UserState:
    """The state of a user who has done nothing."""
    vector, sums = (np.zeros(size, "f4") for size in (settings.user_size, settings.sums_size))
    return UserState(vector, sums, NEVER)


def last_counted(state: UserState, settings: MatchSettings) -> int:
    """How many interactions of its last moment a state counts."""
    known, _, before, _ = state.sums[settings.width + 3 : settings.width + 7].tolist()
    return int(known - before)


def recent_texts(state: UserState, settings: MatchSettings) -> Floats:
    """``[k, p]``: the texts that a state has read last, the newest first."""
    count = int(min(state.sums[settings.width + 2], settings.recent))
    return state.vector[: count * settings.width].reshape(count, settings.width)


def updated(
    fitted: Fitted, states: Sequence[UserState], steps: Sequence[Sequence[Step]]
) -> list[UserState]:
    """States after some steps each, stamped a tick after the last.

    Args:
        fitted: the scores that the states are of.
        states: of users.
        steps: of each user, one at least, in the order of time; those of one moment in the order of
            the catalogue. None lies before the last moment that the state counts.
    """
    settings = fitted.settings
    gone = [_gone(_Going(state, settings), own) for state, own in zip(states, steps, strict=True)]
    stamps = np.array([going.moment + TICK for going in gone], np.int64)
    sums = np.stack([going.all_sums() for going in gone])
    sums = np.concatenate([sums, time_parts(stamps)], axis=1)
    recent = np.stack([going.recent(own) for going, own in zip(gone, sums, strict=True)])
    tastes, numbers = taste(sums[:, : settings.width + 3]), fitted.number(stamps)
    towers = np.empty((len(gone), settings.tower), np.float32)
    for number in np.unique(numbers):
        towers[numbers == number] = fitted.users(int(number), tastes[numbers == number])
    vectors = np.concatenate([recent, towers], axis=1).astype(np.float32)
    rows = zip(vectors, sums.astype(np.float32), stamps.tolist(), strict=True)
    return [UserState(*row) for row in rows]


def _gone(going: _Going, steps: Sequence[Step]) -> _Going:
    """The state after the steps: at each moment interactions count first, then texts."""
    counted = [(step.time, 0, place) for place, step in enumerate(steps) if step.chance is None]
    read = [(step.since, 1, place) for place, step in enumerate(steps) if step.since is not None]
    chances: dict[int, float] = {}
    for moment, is_read, place in sorted(counted + read):
        step = steps[place]
        going.enter(moment)
        if not is_read:
            chances[place] = going.count(step)
        else:
            chance = chances[place] if step.chance is None else step.chance
            going.read(step, step.liked - chance)
    return going


class _Going:
    """A state on its way; residuals stand here as they were before they were levelled."""

    def __init__(self, state: UserState, settings: MatchSettings) -> None:
        self._width, self._recent = settings.width, settings.recent
        self.moment = state.last
        sums: Doubles = state.sums.astype(np.float64)
        self._sums = sums[: self._width + 3]
        *counts, of_recent = sums[self._width + 3 : -_TIME].tolist()
        self._known, self._closed = (counts[0], counts[1]), (counts[2], counts[3])
        count = int(min(self._sums[-1], self._recent))
        texts = state.vector[: self._recent * self._width].reshape(self._recent, -1)
        self._texts = deque(texts[:count], self._recent)
        residuals = state.vector[texts.size : texts.size + count].astype(np.float64)
        if count:
            residuals += of_recent / count - self._sums[-2] / self._sums[-1]
        self._residuals = deque(residuals.tolist(), self._recent)

    def enter(self, moment: int) -> None:
        """Come to a moment, whose interactions do not see each other."""
        if moment > self.moment:
            self.moment, self._closed = moment, self._known

    def count(self, step: Step) -> float:
        """Count an interaction; the chance that it was liked, of what was known before."""
        of_user = shrunk(*self._closed, step.mean)
        self._known = self._known[0] + 1, self._known[1] + step.liked
        return float(chance_of(of_user, step.of_item, step.mean))

    def read(self, step: Step, residual: float) -> None:
        """Take an interaction's text in."""
        assert step.text is not None
        self._texts.appendleft(step.text)
        self._residuals.appendleft(residual)
        self._sums[:-3] += step.text * step.liked
        self._sums[-3:] += (step.liked, residual, 1.0)

    def all_sums(self) -> Doubles:
        """The sums of :meth:`MatchSettings.sums_size` without the time."""
        counts = [*self._known, *self._closed, sum(self._residuals)]
        return np.concatenate([self._sums, counts])

    def recent(self, sums: Doubles) -> Floats:
        """The last texts, newest first, then their residuals, levelled."""
        texts = np.zeros((self._recent, self._width), np.float32)
        residuals, present = np.zeros(self._recent), np.arange(self._recent) < len(self._texts)
        if self._texts:
            texts[present], residuals[present] = np.stack(list(self._texts)), list(self._residuals)
        level = levelled(residuals[None], present[None], sums[None, : self._width + 3])
        return np.concatenate([texts.ravel(), level[0]])
