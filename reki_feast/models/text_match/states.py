"""What is known of users by the texts of what they met: the last ones, and the mean of the liked.

A user's state changes with each interaction by a step that needs nothing but the state before it,
so it can be brought up to date as interactions come. An interaction counts from the moment on that
its item has a text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from reki_feast.encoding import Floats
from reki_feast.models.text_match.interactions import InteractionIndex
from reki_feast.models.text_match.settings import MatchSettings
from reki_feast.models.text_match.texts import Texts
from reki_feast.tables.asof import Doubles, Indices, place_at
from reki_feast.tables.digests import Hashes, mixed

_ROWS = 8192


@dataclass(frozen=True)
class Encoded:
    """Texts, and their vectors ``[k, p]`` of length 1."""

    texts: Texts
    vectors: Floats


@dataclass(frozen=True)
class Events:
    """Interactions whose item has a text, by user and the moment since which they count.

    Attributes:
        user: ``[m]``, code of the user, rising.
        since: ``[m]``, the moment, rising within a user.
        text: ``[m]``, row of the text.
        liked: ``[m]``, 1 or 0.
        residual: ``[m]``, by how much it was liked more than expected.
        digest: ``[m]``, of this interaction and all the user's before it.
        vectors: of all texts.
    """

    user: Indices
    since: Indices
    text: Indices
    liked: Doubles
    residual: Doubles
    digest: Hashes
    vectors: Floats

    @cached_property
    def sums(self) -> Doubles:
        """Sums ``[m, p + 3]`` of the user's events up to each.

        Of liked texts, their number, residuals, all events.
        """
        texts, once = self.vectors[self.text] * self.liked[:, None], np.ones(len(self.text))
        steps = np.column_stack([texts, self.liked, self.residual, once])
        return _summed(steps, self.user)

    def of_users(self, users: Indices) -> tuple[Events, Indices]:
        """The events of some users alone, and the place that each had."""
        rows = np.flatnonzero(np.isin(self.user, users))
        names = ("user", "since", "text", "liked", "residual", "digest")
        return replace(self, **{name: getattr(self, name)[rows] for name in names}), rows

    def before(self, user: Indices, time: Indices) -> Indices:
        """Place of a user's last event that counts before a time; -1 without any."""
        return place_at(self.user, self.since, user, time - 1)

    def recent(self, place: Indices, count: int) -> Indices:
        """Places ``[k, count]`` of the last events up to each ``place``, newest first, then -1."""
        back = place[:, None] - np.arange(count)
        start = np.searchsorted(self.user, self.user[place])
        return np.where(back >= start[:, None], back, -1)


@dataclass(frozen=True)
class UserHistory:
    """What user rows are made of: the interactions, their events, and the encoded texts."""

    log: InteractionIndex
    events: Events
    encoded: Encoded


def make_events(log: InteractionIndex, encoded: Encoded) -> Events:
    """Find each interaction's text, and since when it counts."""
    texts = encoded.texts
    first = texts.first(len(log.items))[log.item]
    rows = np.flatnonzero(first < np.iinfo(np.int64).max)
    since = np.maximum(log.time[rows], first[rows])
    order = np.lexsort((log.time[rows], since, log.user[rows]))
    rows, since = rows[order], since[order]
    user, text = log.user[rows], texts.at(log.item[rows], since)
    liked, residual = log.liked[rows], log.residual[rows]
    columns = (texts.digest[text], log.time[rows], liked, residual, _rank(user))
    own = mixed(*(np.ascontiguousarray(part).view(np.uint64) for part in columns))
    return Events(user, since, text, liked, residual, _prefix(own, user), encoded.vectors)


def taste(sums: npt.NDArray[np.floating]) -> Floats:
    """What a tower reads ``[n, p]``: the mean of liked texts, near 0 where few were liked."""
    mean: Floats = (sums[:, :-3] / (sums[:, -3:-2] + 1)).astype(np.float32)
    return mean


def levelled(
    residuals: npt.NDArray[np.floating],
    present: npt.NDArray[np.bool_],
    sums: npt.NDArray[np.floating],
) -> Floats:
    """The last residuals ``[n, r]`` with the mean of all the user's residuals for their own.

    What a user has liked of late more than ever is a running statistic, and no merit of texts.
    """
    count = np.maximum(present.sum(axis=1), 1)
    shift = sums[:, -2] / np.maximum(sums[:, -1], 1) - residuals.sum(axis=1) / count
    return np.where(present, residuals + shift[:, None], 0).astype(np.float32)


def recent_texts(
    events: Events, place: Indices, encoded: Encoded, count: int
) -> tuple[Floats, Floats]:
    """The last texts ``[k, count, p]`` up to each place and their residuals ``[k, count]``.

    Both are 0 where there are fewer; residuals are :func:`levelled`.
    """
    back = events.recent(place, count)
    present = back >= 0
    vectors = encoded.vectors[events.text[back]] * present[:, :, None]
    residuals = np.where(present, events.residual[back], 0)
    return vectors, levelled(residuals, present, events.sums[place])


def kernel_scores(
    events: Events, place: Indices, candidate: Indices, encoded: Encoded, settings: MatchSettings
) -> Floats:
    """Scores ``[k, kernels]`` of states at ``place`` and candidates' texts, each row one pair."""
    made = np.empty((len(place), len(settings.kernels)), np.float32)
    for at in range(0, len(place), _ROWS):
        rows = slice(at, at + _ROWS)
        vectors, residuals = recent_texts(events, place[rows], encoded, settings.recent)
        cosine = np.einsum("nrp,np->nr", vectors, encoded.vectors[candidate[rows]])
        present = vectors.any(axis=2)
        for number, kernel in enumerate(settings.kernels):
            alike = np.exp(kernel.sharpness * (cosine - 1)) * present
            scored = (alike * residuals).sum(axis=1) / (alike.sum(axis=1) + kernel.shrink)
            made[rows, number] = scored
    return made


def _summed(steps: Doubles, user: Indices) -> Doubles:
    """Sums up to each row within its user, in place; users' rows stand together."""
    start = 0
    for end in (np.flatnonzero(np.diff(user, append=-1)) + 1).tolist():
        # one after the other, so that a user's sums do not depend on other users'
        np.cumsum(steps[start:end], axis=0, out=steps[start:end])
        start = end
    return steps


def _rank(user: Indices) -> Indices:
    return np.arange(len(user)) - np.searchsorted(user, user)


def _prefix(own: Hashes, user: Indices) -> Hashes:
    """Sum of each user's hashes up to each row; it wraps around."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(own, dtype=np.uint64)])
    prefix: Hashes = sums[1:] - sums[np.searchsorted(user, user)]
    return prefix
