"""Users' match states of one space of vectors, brought up to date online by interactions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reki_feast.errors import CondenseError
from reki_feast.project import DeclaredProject
from reki_feast.schema import TIMESTAMP
from reki_feast.stages.context import StageContext
from reki_feast.stages.matching import fitted_scores, match_data, weights_in_service
from reki_feast.tables.duckdb_session import DuckDBSession
from reki_feast.tables.inputs import judged
from reki_feast.tables.interactions import up_to_now

if TYPE_CHECKING:
    from reki_feast.models.text_match import Entry, GrowingInteractions, UserState
    from reki_feast.views.match_states import StoredState

#: How far a pushing machine's clock may be fast; what lies later is left out.
_FAST = timedelta(minutes=5)


@dataclass
class PushCounts:
    """What became of the interactions of a push."""

    counted: int = 0
    late: int = 0
    again: int = 0
    strange: int = 0
    alike: int = 0
    users: int = 0
    new_users: int = 0


class StateUpdater:
    """The states that one space's scores are computed of: the log so far, and what is online.

    Args:
        project: opened in the space.
        session: evaluates the project's expressions.
        before: a log whose additions are kept, of another space or of before.

    Raises:
        CondenseError: no scores are fitted.
        StoreError: the Feast repo has no view of the states; or it serves others than those that
            were trained last.
    """

    def __init__(
        self,
        project: DeclaredProject,
        session: DuckDBSession,
        before: GrowingInteractions | None = None,
    ) -> None:
        self._project, self._session = project, session
        self._weights = ""
        self._open(before)

    @property
    def log(self) -> GrowingInteractions:
        """All interactions that are known."""
        return self._log

    def push(self, rows: pa.Table, counts: PushCounts) -> list[str]:
        """Count interactions in their users' states; what should be said of them.

        Raises:
            SourceError: the rows have faults.
            StoreError: the online store failed, or serves other weights than those published.
        """
        if self._published() != self._opened:
            self._open(self._log)
        return self._push(rows, counts)

    def _open(self, before: GrowingInteractions | None) -> None:
        """Read the project; ``before`` is the log so far, whose additions are kept."""
        from reki_feast.models.text_match import GrowingInteractions
        from reki_feast.views.match_states import UserStates

        project = self._project
        opened, fitted = self._published(), fitted_scores(project)
        if fitted is None or opened is None:
            raise _nothing_to_push_to("published" if fitted else "fitted")
        space, table = project.lake.space, project.lake.folder_of("user_match") / "user_match"
        states = UserStates(project.feature_repo, project.name, table, space.number)
        weights = weights_in_service(project, fitted, states.weights)
        context = StageContext(project.root, project.declared, space)
        found = match_data(context, fitted)
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
        path = self._project.lake.folder_of("manifest") / "manifest.json"
        return path.stat().st_mtime_ns if path.exists() else None

    def _push(self, rows: pa.Table, counts: PushCounts) -> list[str]:
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

    def _by_user(self, judged: pa.Table, counts: PushCounts) -> dict[Any, list[Entry]]:
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
        self, user: Any, entries: list[Entry], state: UserState, counts: PushCounts
    ) -> list[Entry]:
        """A user's interactions that were not known, added to the log; without late ones."""
        how = self._fitted.settings
        alike = {entry for entry in entries if self._log.is_repeat(user, entry, state, how)}
        fresh = [entry for entry in entries if self._log.add(user, entry)]
        told = self._log.told_before(user, fresh, state, how)
        in_time = [entry for entry in fresh if entry.time >= state.last and entry not in told]
        counts.again += len(entries) - len(fresh) + len(told)
        counts.late += len(fresh) - len(told) - len(in_time)
        counts.counted += len(in_time)
        counts.alike += sum(entry in alike for entry in in_time)
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
