"""Users' match states brought up to date online, at the moment of a click and without a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from reki_feast import inputs as sources
from reki_feast import lake
from reki_feast.errors import CondenseError, SourceError
from reki_feast.pipeline.matching import fitted_scores, material
from reki_feast.project import Project, open_project
from reki_feast.report import Report, Table
from reki_feast.schema import TIMESTAMP

if TYPE_CHECKING:
    import pandas as pd

    from reki_feast.match import Entry, Grown, UserState
    from reki_feast.store.states import StoredState

#: What :meth:`Pusher.push` takes.
Interactions: TypeAlias = "pa.Table | pd.DataFrame | Sequence[Mapping[str, Any]]"
#: How far a pushing machine's clock may be fast; what lies later is left out.
_FAST = timedelta(minutes=5)


@dataclass
class _Counts:
    """What became of the interactions of a push."""

    counted: int = 0
    late: int = 0
    again: int = 0
    strange: int = 0
    users: int = 0
    new_users: int = 0

    def rows(self) -> list[tuple[str, int]]:
        """What is told."""
        return [
            ("interactions counted", self.counted),
            ("late, left to the next run", self.late),
            ("known already", self.again),
            ("of unknown items, left out", self.strange),
            ("users brought up to date", self.users),
            ("of them new", self.new_users),
        ]


class Pusher:
    """Brings users' match states up to date in the online store, as interactions come.

    It opens the project once: its fitted scores, its items' texts, its log as of now, its Feast
    repo. What is pushed is added to that log, so the numbers are those that the next run computes
    of all of it: with the same interactions, states online and in training tables are equal. When
    a run has published since, the next push opens the project anew. One Pusher can be used by
    several threads; of several processes each should push users of its own.

    Args:
        project: with scores published, and their views in its Feast repo.

    Raises:
        CondenseError: no scores are fitted.
        SourceError: the project's tables have faults.
        StoreError: there is no Feast repo, or it has no view of users' states.
    """

    def __init__(self, project: Project) -> None:
        from reki_feast.store.states import UserStates

        self._project, self._lock = project, Lock()
        self._session = lake.Session(project.root, project.declared.sources.setup)
        self._open(None)
        self._states = UserStates(project.feature_repo, project.name, project.data / "user_match")

    def push(self, interactions: Interactions) -> Report:
        """Count interactions in their users' states, and store those online.

        An interaction is late, and left to the next run, if its user's state counts a later one. An
        item without a text adds to the user's counts alone. What is sent twice is counted once: the
        same user, item and time of day. Where a store fails, the same may be pushed again.

        Args:
            interactions: columns as the interactions query gives them: both keys, what
                ``Scenario.liked`` and ``Scenario.rating`` need, ``event_timestamp``.

        Returns:
            How many interactions were counted, and how many users they are of.

        Raises:
            SourceError: the rows have faults, all of them together; nothing was counted.
            StoreError: the online store failed.
        """
        rows, counts, notes = _table(interactions), _Counts(), []
        if rows.num_rows:
            with self._lock:
                if self._published() != self._opened:
                    self._open(self._log)
                notes = self._push(rows, counts)
        if counts.late:
            notes.append(f"{counts.late} interactions are late: `reki run` counts them")
        if counts.strange:
            key = self._project.declared.scenario.item_key
            notes.append(f"{counts.strange} interactions left out: their {key} is not in the items")
        return Report(
            f"{self._project.name}: {counts.users} users brought up to date online",
            tables=[Table("pushed", ("what", "count"), counts.rows())],
            notes=notes,
        )

    def _open(self, before: Grown | None) -> None:
        """Read the project; ``before`` is the log so far, whose additions are kept."""
        from reki_feast.match import Grown

        project = self._project
        self._opened, fitted = self._published(), fitted_scores(project)
        given = sources.read(project.declared, project.root)
        found = material(project, given, fitted) if fitted else None
        if fitted is None or found is None or self._opened is None:
            raise CondenseError(
                "users' states are those of fitted and published scores",
                found="none are fitted" if found is None else "none are published",
                mend="reki run; scores want interactions with times, and items with texts",
            )
        encoded = fitted.encode(found.texts)
        # the encoder's vectors, many times as wide, are not needed again
        encoded = replace(encoded, texts=replace(found.texts, vectors=encoded.vectors))
        self._fitted, self._given, self._log = fitted, given, Grown(found.log, encoded)
        if before:
            self._log.take_over(before)

    def _published(self) -> int | None:
        """When was last published."""
        path = self._project.data / "manifest.json"
        return path.stat().st_mtime_ns if path.exists() else None

    def _push(self, rows: pa.Table, counts: _Counts) -> list[str]:
        from reki_feast.match import NEVER

        project, how = self._project, self._fitted.settings
        judged, notes = sources.judged(project.declared.scenario, rows, self._given, self._session)
        judged, ahead = sources.up_to_now(judged, _FAST)
        by_user = self._by_user(judged, counts)
        stored = self._states.read(list(by_user), (how.user_size, how.sums_size))
        states = {user: self._state(one) for user, one in zip(by_user, stored, strict=True)}
        fresh = {
            user: self._added(user, entries, states[user].last, counts)
            for user, entries in by_user.items()
        }
        changed = self._changed(by_user, states, fresh)
        if changed:
            rows_now = [(state.vector, state.sums) for state in changed.values()]
            self._states.write(list(changed), rows_now, [one.stamp for one in changed.values()])
        counts.users = len(changed)
        counts.new_users = sum(states[user].stamp == NEVER for user in changed)
        return [*notes, *ahead]

    def _by_user(self, judged: pa.Table, counts: _Counts) -> dict[Any, list[Entry]]:
        """Interactions with items that are known, by user."""
        from reki_feast.match import Entry

        columns = [judged[key.name].to_pylist() for key in (self._given.user, self._given.item)]
        times = judged["event_timestamp"].cast(TIMESTAMP).cast(pa.int64()).to_pylist()
        by_user: dict[Any, list[Entry]] = defaultdict(list)
        for user, item, time, liked in zip(
            *columns, times, judged["liked"].to_pylist(), strict=True
        ):
            code = self._log.code(item)
            if code is None:
                counts.strange += 1
            else:
                by_user[user].append(Entry(time, code, float(liked)))
        return by_user

    def _state(self, stored: StoredState | None) -> UserState:
        from reki_feast.match import stored_state, unknown_user

        return stored_state(*stored) if stored else unknown_user(self._fitted.settings)

    def _added(self, user: Any, entries: list[Entry], last: int, counts: _Counts) -> list[Entry]:
        """A user's interactions that were not known, added to the log; without late ones."""
        fresh = [entry for entry in entries if self._log.add(user, entry)]
        in_time = [entry for entry in fresh if entry.time >= last]
        counts.again += len(entries) - len(fresh)
        counts.late += len(fresh) - len(in_time)
        counts.counted += len(in_time)
        return in_time

    def _changed(
        self,
        by_user: Mapping[Any, list[Entry]],
        states: Mapping[Any, UserState],
        fresh: Mapping[Any, list[Entry]],
    ) -> dict[Any, UserState]:
        """States after what they lacked of the log, of users who lacked something."""
        from reki_feast.match import updated

        steps = {}
        for user, entries in by_user.items():
            stamp, until = states[user].stamp, max(entry.time for entry in entries)
            ties = [entry for entry in fresh[user] if entry.time < stamp]
            lacking = self._log.steps(user, stamp, until, ties)
            if lacking:
                steps[user] = lacking
        if not steps:
            return {}
        made = updated(self._fitted, [states[user] for user in steps], list(steps.values()))
        return dict(zip(steps, made, strict=True))


def push(
    interactions: Interactions, project: str | Path = ".", scenario: str | None = None
) -> Report:
    """Bring users' match states up to date online, by interactions that have just happened.

    Opens the project each time, which takes seconds; a service keeps a :class:`Pusher`.

    Args:
        interactions: as for :meth:`Pusher.push`.
        project: its folder.
        scenario: which ``generators/NAME.py``, if several.

    Raises:
        DeclarationError: there is no declarations file, or it has faults.
        CondenseError: no scores are fitted.
        SourceError: the rows, or the project's tables, have faults.
        StoreError: there is no Feast repo with a view of users' states, or its store failed.
    """
    return Pusher(open_project(Path(project), scenario)).push(interactions)


def push_file(project: Project, path: str) -> Report:
    """The same for a file that DuckDB can read; a relative path starts where the user stands.

    Raises:
        RekiError: as for :func:`push`.
    """
    quoted = str(Path(path).absolute()).replace("'", "''")
    rows = lake.query(f"select * from '{quoted}'", root=project.root)
    return Pusher(project).push(rows)


def _table(interactions: Interactions) -> pa.Table:
    """Rows as one table, whatever they come in.

    Raises:
        SourceError: a column has values of several types.
    """
    if isinstance(interactions, pa.Table):
        return interactions
    try:
        if not isinstance(interactions, Sequence):
            return pa.Table.from_pandas(interactions, preserve_index=False)
        names = dict.fromkeys(name for row in interactions for name in row)
        return pa.table({name: [row.get(name) for row in interactions] for name in names})
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise SourceError(
            "interactions are a table: a pyarrow Table, a DataFrame, or a list of dicts",
            found=f"{type(error).__name__}: {' '.join(str(error).split())}",
            mend="give each column values of one type",
        ) from error
