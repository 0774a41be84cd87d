"""A log that grows as interactions come, and says of each what a log of all of them would say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from reki_feast.encoding import Floats
from reki_feast.models.text_match.interactions import DAY, InteractionIndex, chance_of, shrunk
from reki_feast.models.text_match.online_update import (
    Step,
    UserState,
    last_counted,
    recent_texts,
)
from reki_feast.models.text_match.settings import MatchSettings
from reki_feast.models.text_match.states import Encoded
from reki_feast.tables.asof import Indices

_Counted = tuple[float, float]


class Entry(NamedTuple):
    """An interaction of a user; entries sort as a log does.

    Attributes:
        time: microseconds since 1970.
        item: code of the item in the log.
        liked: 1 or 0.
    """

    time: int
    item: int
    liked: float


class GrowingInteractions:
    """A log, and what was added to it.

    Args:
        log: what it begins with.
        encoded: the texts of its items.
    """

    def __init__(self, log: InteractionIndex, encoded: Encoded) -> None:
        self._log, self._encoded = log, encoded
        self._users = {user: code for code, user in enumerate(log.users.to_pylist())}
        self._items = {item: code for code, item in enumerate(log.items.to_pylist())}
        self._first = encoded.texts.first(len(log.items))
        self._all, self._of_items = _Days(np.zeros_like(log.item), log), _Days(log.item, log)
        self._added: dict[Hashable, list[Entry]] = defaultdict(list)

    def code(self, item: Hashable) -> int | None:
        """Code of an item; None for one that the catalogue lacks."""
        return self._items.get(item)

    def add(self, user: Hashable, entry: Entry) -> bool:
        """Add an interaction; False where the same was there: it has been sent twice.

        One that has a date and no time of day may well repeat, and is added each time.
        """
        if entry.time % DAY and self._count(user, entry):
            return False
        self._add(user, entry)
        return True

    def _add(self, user: Hashable, entry: Entry) -> None:
        self._added[user].append(entry)
        self._all.add(0, entry)
        self._of_items.add(entry.item, entry)

    @property
    def added(self) -> dict[Hashable, list[Entry]]:
        """What was added, by user."""
        return {user: list(entries) for user, entries in self._added.items() if entries}

    def take_over(self, before: GrowingInteractions) -> None:
        """Add what was added to a log of before and is lacking in this one."""
        for user, entries in before._added.items():
            for entry in entries:
                code = self.code(before._log.items[entry.item].as_py())
                same = None if code is None else entry._replace(item=code)
                if same and self._count(user, same) < before._count(user, entry):
                    self._add(user, same)

    def told_before(
        self, user: Hashable, fresh: Iterable[Entry], state: UserState, settings: MatchSettings
    ) -> list[Entry]:
        """Those of just added entries that a state counts already: another process added them.

        A state counts more of its last moment then than this log has, and has read the entries'
        texts. Entries without a time of day may repeat, and are none of these.
        """
        ties = [entry for entry in fresh if entry.time == state.last]
        if not ties:
            return []
        told = [one for one in ties if one.time % DAY and self._is_read(one, state, settings)]
        return told[: max(self._unknown(user, state, settings) + len(ties), 0)]

    def is_repeat(
        self, user: Hashable, entry: Entry, state: UserState, settings: MatchSettings
    ) -> bool:
        """Whether an entry without a time of day, not added yet, is like one counted before."""
        if entry.time % DAY:
            return False
        elsewhere = entry.time == state.last and self._unknown(user, state, settings) > 0
        return bool(self._count(user, entry)) or (
            elsewhere and self._is_read(entry, state, settings)
        )

    def _unknown(self, user: Hashable, state: UserState, settings: MatchSettings) -> int:
        """How many interactions of its last moment a state counts more than this log has."""
        known = [*self._of(user), *self._added.get(user, ())]
        here = sum(one.time == state.last for one in known)
        return int(last_counted(state, settings) - here)

    def _is_read(self, entry: Entry, state: UserState, settings: MatchSettings) -> bool:
        """Whether a state read an entry's text at its last moment; one without a text is read."""
        if self._first[entry.item] > entry.time:
            return True
        texts = recent_texts(state, settings)[: last_counted(state, settings)]
        return bool((texts == self._text(entry.item, entry.time)).all(axis=1).any())

    def steps(
        self, user: Hashable, stamp: int, until: int, ties: Iterable[Entry] = ()
    ) -> list[Step]:
        """What a user's state lacks of this log.

        Args:
            user: id.
            stamp: of the state: what happened before it is counted.
            until: time of the last interaction that is wanted.
            ties: added interactions of the state's last moment, a tick before its stamp.
        """
        fresh, found = Counter(ties), []
        for entry in sorted([*self._of(user), *self._added.get(user, ())]):
            if entry.time > until:
                break
            is_new = entry.time >= stamp or fresh[entry] > 0
            fresh[entry] -= 1
            since = max(entry.time, int(self._first[entry.item]))
            if is_new or stamp <= since <= until:
                found.append(self._step(user, entry, since if since <= until else None, is_new))
        return found

    def _step(self, user: Hashable, entry: Entry, since: int | None, is_new: bool) -> Step:
        day = entry.time // DAY
        count, total = self._all.before(0, day)
        mean = (total + 1) / (count + 2)
        of_item = shrunk(*self._of_items.before(entry.item, day), mean)
        chance = None
        if not is_new:
            of_user = shrunk(*self._before(user, entry.time), mean)
            chance = float(chance_of(of_user, of_item, mean))
        text = None if since is None else self._text(entry.item, since)
        return Step(entry.time, entry.liked, of_item, mean, since, text, chance)

    def _text(self, item: int, time: int) -> Floats:
        """The text that an item has at a time, which has one."""
        start, end = np.searchsorted(self._encoded.texts.item, [item, item + 1])
        place = np.searchsorted(self._encoded.texts.since[start:end], time, side="right")
        text: Floats = self._encoded.vectors[start + place - 1]
        return text

    def _count(self, user: Hashable, entry: Entry) -> int:
        """How often a user met the entry's item at its time."""
        rows = self._rows(user)
        start, end = np.searchsorted(self._log.time[rows], [entry.time, entry.time + 1])
        first = np.count_nonzero(self._log.item[rows][start:end] == entry.item)
        return int(first) + sum(one[:2] == entry[:2] for one in self._added.get(user, ()))

    def _of(self, user: Hashable) -> Iterator[Entry]:
        """A user's interactions in the log that it begins with."""
        rows = self._rows(user)
        columns = (self._log.time, self._log.item, self._log.liked)
        return map(Entry, *(column[rows].tolist() for column in columns))

    def _before(self, user: Hashable, time: int) -> _Counted:
        """Count and likes of a user's interactions before a time."""
        all_of_user = [*self._of(user), *self._added.get(user, ())]
        liked = [entry.liked for entry in all_of_user if entry.time < time]
        return float(len(liked)), sum(liked)

    def _rows(self, user: Hashable) -> slice:
        code = self._users.get(user)
        if code is None:
            return slice(0, 0)
        start, end = np.searchsorted(self._log.user, [code, code + 1])
        return slice(int(start), int(end))


class _Days:
    """Interactions and likes by day and key.

    Args:
        key: ``[n]`` of the log's interactions.
        log: the log.
    """

    def __init__(self, key: Indices, log: InteractionIndex) -> None:
        day = log.time // DAY
        self._begin = int(day.min()) if len(day) else 0
        self._days = int(day.max()) - self._begin + 1 if len(day) else 0
        place = key * self._days + day - self._begin
        order = np.argsort(place, kind="stable")
        self._places = place[order]
        self._sums = np.concatenate([[0.0], np.cumsum(log.liked[order])])
        self._added: dict[int, dict[int, list[float]]] = defaultdict(dict)

    def add(self, key: int, entry: Entry) -> None:
        """Count one more."""
        counts = self._added[key].setdefault(entry.time // DAY, [0.0, 0.0])
        counts[0] += 1
        counts[1] += entry.liked

    def before(self, key: int, day: int) -> _Counted:
        """Interactions and likes of days before one."""
        begin, days = key * self._days, min(max(day - self._begin, 0), self._days)
        start, end = np.searchsorted(self._places, [begin, begin + days]).tolist()
        added = [counts for one, counts in self._added.get(key, {}).items() if one < day]
        count = end - start + sum(counts[0] for counts in added)
        total = self._sums[end] - self._sums[start] + sum(counts[1] for counts in added)
        return float(count), float(total)
