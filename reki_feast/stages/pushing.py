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

from reki_feast.errors import CondenseError, SourceError
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import PushResult
from reki_feast.schema import TIMESTAMP
from reki_feast.stages.context import StageContext
from reki_feast.stages.matching import fitted_scores, material, weights_in_service
from reki_feast.tables import duckdb_session
from reki_feast.tables.inputs import judged
from reki_feast.tables.interactions import up_to_now

if TYPE_CHECKING:
    import pandas as pd

    from reki_feast.models.text_match import Entry, GrowingInteractions, UserState
    from reki_feast.views.match_states import StoredState

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


class Pusher:
    """Brings users' match states up to date in the online store, as interactions come.

    It opens the project once: its fitted scores, its items' texts, its log as of now, its Feast
    repo. What is pushed is added to that log, so the numbers are those that the next run computes
    of all of it: with the same interactions, states online and in training tables are equal. When
    a run has published since, the next push opens the project anew.

    States of other weights are never written beside what is served. After ``reki train --retrain``
    an open Pusher goes on with the weights in service. From the moment that new ones are published
    until they are materialized, pushes are refused; then the states that the run did not know of
    are made anew, and the same may be pushed again.

    One Pusher can be used by several threads; of several processes each should push users of its
    own.

    Args:
        project: with scores published, and their views in its Feast repo.

    Raises:
        CondenseError: no scores are fitted.
        SourceError: the project's tables have faults.
        StoreError: there is no Feast repo, or it has no view of users' states; or what it serves
            is of other weights than those that were trained last.
    """

    def __init__(self, project: DeclaredProject) -> None:
        self._project, self._lock = project, Lock()
        self._session = duckdb_session.DuckDBSession(project.root, project.declared.sources.setup)
        self._weights = ""
        self._open(None)

    def push(self, interactions: Interactions) -> PushResult:
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
            StoreError: the online store failed, or serves other weights than those published.
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
        return PushResult(
            project=self._project.name,
            counted=counts.counted,
            late=counts.late,
            repeated=counts.again,
            unknown_items=counts.strange,
            users=counts.users,
            new_users=counts.new_users,
            notes=notes,
        )

    def _open(self, before: GrowingInteractions | None) -> None:
        """Read the project; ``before`` is the log so far, whose additions are kept."""
        from reki_feast.models.text_match import GrowingInteractions
        from reki_feast.views.match_states import UserStates

        project = self._project
        opened, fitted = self._published(), fitted_scores(project)
        if fitted is None or opened is None:
            raise _nothing_to_push_to("published" if fitted else "fitted")
        states = UserStates(project.feature_repo, project.name, project.data / "user_match")
        weights = weights_in_service(project, fitted, states.weights)
        context = StageContext(project.root, project.declared)
        found = material(context, fitted)
        if found is None:
            raise _nothing_to_push_to("fitted")
        encoded = fitted.encode(found.texts)
        # the encoder's vectors, many times as wide, are not needed again
        encoded = replace(encoded, texts=replace(found.texts, vectors=encoded.vectors))
        self._fitted, self._tables, self._states = fitted, context.tables, states
        self._log = GrowingInteractions(found.log, encoded)
        if before:
            self._log.take_over(before)
            if weights != self._weights:
                self._renew()
        self._opened, self._weights = opened, weights

    def _renew(self) -> None:
        """Make states anew that this Pusher wrote with other weights, and no run knew of."""
        from reki_feast.models.text_match import unknown_user

        added = self._log.added
        unknown = {user: unknown_user(self._fitted.settings) for user in added}
        self._write(self._changed(added, unknown, {user: [] for user in added}))

    def _write(self, states: Mapping[Any, UserState]) -> None:
        if states:
            rows = [(state.vector, state.sums) for state in states.values()]
            self._states.write(list(states), rows, [state.stamp for state in states.values()])

    def _published(self) -> int | None:
        """When was last published."""
        path = self._project.data / "manifest.json"
        return path.stat().st_mtime_ns if path.exists() else None

    def _push(self, rows: pa.Table, counts: _Counts) -> list[str]:
        from reki_feast.models.text_match import NEVER

        project, how = self._project, self._fitted.settings
        rows, notes = judged(project.declared.scenario, rows, self._tables, self._session)
        rows, ahead = up_to_now(rows, _FAST)
        by_user = self._by_user(rows, counts)
        stored = self._states.read(list(by_user), (how.user_size, how.sums_size))
        states = {user: self._state(one) for user, one in zip(by_user, stored, strict=True)}
        fresh = {
            user: self._added(user, entries, states[user], counts)
            for user, entries in by_user.items()
        }
        changed = self._changed(by_user, states, fresh)
        self._write(changed)
        counts.users = len(changed)
        counts.new_users = sum(states[user].stamp == NEVER for user in changed)
        return [*notes, *ahead]

    def _by_user(self, judged: pa.Table, counts: _Counts) -> dict[Any, list[Entry]]:
        """Interactions with items that are known, by user."""
        from reki_feast.models.text_match import Entry

        columns = [judged[key.name].to_pylist() for key in (self._tables.user, self._tables.item)]
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
        from reki_feast.models.text_match import stored_state, unknown_user

        return stored_state(*stored) if stored else unknown_user(self._fitted.settings)

    def _added(
        self, user: Any, entries: list[Entry], state: UserState, counts: _Counts
    ) -> list[Entry]:
        """A user's interactions that were not known, added to the log; without late ones."""
        fresh = [entry for entry in entries if self._log.add(user, entry)]
        told = self._log.told_before(user, fresh, state, self._fitted.settings)
        in_time = [entry for entry in fresh if entry.time >= state.last and entry not in told]
        counts.again += len(entries) - len(fresh) + len(told)
        counts.late += len(fresh) - len(told) - len(in_time)
        counts.counted += len(in_time)
        return in_time

    def _changed(
        self,
        by_user: Mapping[Any, list[Entry]],
        states: Mapping[Any, UserState],
        fresh: Mapping[Any, list[Entry]],
    ) -> dict[Any, UserState]:
        """States after what they lacked of the log, of users who lacked something."""
        from reki_feast.models.text_match import updated

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


def _nothing_to_push_to(lacking: str) -> CondenseError:
    return CondenseError(
        "users' states are those of fitted and published scores",
        detail=f"none are {lacking}",
        hint="reki run; scores want interactions with times, and items with texts",
    )


def push(
    interactions: Interactions, project: str | Path = ".", scenario: str | None = None
) -> PushResult:
    """Bring users' match states up to date online, by interactions that have just happened.

    Opens the project each time, which takes seconds; a service keeps a :class:`Pusher`.

    Args:
        interactions: as for :meth:`Pusher.push`.
        project: its folder.
        scenario: which ``generators/NAME.py``, if several.

    Returns:
        How many interactions were counted, and how many users they are of.

    Raises:
        DeclarationError: there is no declarations file, or it has faults.
        CondenseError: no scores are fitted.
        SourceError: the rows, or the project's tables, have faults.
        StoreError: there is no Feast repo with a view of users' states, or its store failed.
    """
    return Pusher(open_project(Path(project), scenario)).push(interactions)


def push_file(project: DeclaredProject, path: str) -> PushResult:
    """The same for a file that DuckDB can read; a relative path starts where the user stands.

    Raises:
        RekiError: as for :func:`push`.
    """
    quoted = str(Path(path).absolute()).replace("'", "''")
    rows = duckdb_session.query(f"select * from '{quoted}'", root=project.root)
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
            detail=f"{type(error).__name__}: {' '.join(str(error).split())}",
            hint="give each column values of one type",
        ) from error
