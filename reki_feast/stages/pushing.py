"""Users' match states brought up to date online, at the moment of a click and without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from reki_feast.errors import CondenseError, SourceError, StoreError
from reki_feast.extras import named_when_missing
from reki_feast.project import DeclaredProject, open_project
from reki_feast.results import PushResult
from reki_feast.stages.living_spaces import is_published
from reki_feast.stages.state_updates import PushCounts, StateUpdater
from reki_feast.tables import duckdb_session
from reki_feast.views.spaces import SPACES, VectorSpace, read_spaces

if TYPE_CHECKING:
    import pandas as pd

    from reki_feast.models.text_match import GrowingInteractions

#: What :meth:`Pusher.push` takes.
Interactions: TypeAlias = "pa.Table | pd.DataFrame | Sequence[Mapping[str, Any]]"


class Pusher:
    """Brings users' match states up to date in the online store, as interactions come.

    It opens the project once: its fitted scores, its items' texts, its log as of now, its Feast
    repo. What is pushed is added to that log, so the numbers are those that the next run computes
    of all of it: with the same interactions, states online and in training tables are equal. When
    a run has published since, the next push opens the project anew.

    States are written in the space in service, and in every other one that the repo serves as a
    version; each with its own weights. When another space is put in service, the next push knows.

    One Pusher can be used by several threads; of several processes each should push users of its
    own.

    Args:
        project: with scores published, and their views in its Feast repo.

    Raises:
        CondenseError: no scores are fitted.
        SourceError: the project's tables have faults.
        StoreError: there is no Feast repo, or it has no view of users' states; or what it serves
            is of other weights than those that were trained last.
        MissingExtraError: a package of the extra ``train`` is not installed.
    """

    @named_when_missing()
    def __init__(self, project: DeclaredProject) -> None:
        self._project, self._lock = project, Lock()
        self._session = duckdb_session.DuckDBSession(project.root, project.declared.sources.setup)
        self._spaces: tuple[int | None, list[StateUpdater]] = (None, [])
        self._open()

    def push(self, interactions: Interactions) -> PushResult:
        """Count interactions in their users' states, and store those online.

        An interaction is late, and left to the next run, if its user's state counts a later one. An
        item without a text adds to the user's counts alone. What is sent twice is counted once: the
        same user, item and time of day. Where a store fails, the same may be pushed again.
        Interactions with a date and no time of day may well repeat, so each push counts them; a
        note says how many are like ones that were counted before. The next run, materialized,
        counts what the tables have.

        Args:
            interactions: columns as the interactions query gives them: both keys, what
                ``Scenario.liked`` and ``Scenario.rating`` need, ``event_timestamp``.

        Returns:
            How many interactions were counted, and how many users they are of.

        Raises:
            SourceError: the rows have faults, all of them together; nothing was counted.
            StoreError: the online store failed, or serves other weights than those published.
        """
        rows, counts, notes = _table(interactions), PushCounts(), []
        if rows.num_rows:
            with self._lock:
                current, *others = self._open()
                notes = current.push(rows, counts)
                for other in others:
                    other.push(rows, PushCounts())
        if counts.late:
            notes.append(f"{counts.late} interactions are late: `reki run` counts them")
        if counts.alike:
            notes.append(_counted_again(counts.alike))
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

    def _open(self) -> list[StateUpdater]:
        """The spaces that are served, that in service first; opened anew when they change."""
        path = self._project.data / f"{SPACES}.json"
        changed = path.stat().st_mtime_ns if path.exists() else 0
        before, updaters = self._spaces
        if before != changed:
            log = updaters[0].log if updaters else None
            found = read_spaces(self._project.data)
            others = [one for one in found.spaces if one != found.in_service]
            updaters = [self._updater(found.in_service, log)]
            for space in (one for one in others if is_published(self._project, one)):
                with suppress(StoreError, CondenseError):  # the repo does not serve it
                    updaters.append(self._updater(space, updaters[0].log))
            self._spaces = changed, updaters
        return updaters

    def _updater(self, space: VectorSpace, log: GrowingInteractions | None) -> StateUpdater:
        project = DeclaredProject(self._project.root, self._project.declared, space)
        return StateUpdater(project, self._session, log)


def _counted_again(alike: int) -> str:
    return (
        f"{alike} interactions have a date without a time of day, and are like ones that were "
        "counted before: they were counted again. Where they are the same, the next "
        "`reki run --materialize` mends that; with times of day it is told at once"
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
        MissingExtraError: a package of the extra ``train`` is not installed.
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
