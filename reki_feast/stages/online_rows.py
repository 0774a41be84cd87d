"""The rows of a project's views that are online, beside those that should be there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from reki_feast.errors import Problem
from reki_feast.project import DeclaredProject
from reki_feast.results import OnlineView

if TYPE_CHECKING:
    from reki_feast.stores.comparison import ComparedView

#: The table whose rows online `reki push` brings up to date before a run does.
_PUSHED = "user_match"


def compare_online_rows(
    project: DeclaredProject, end: datetime | None = None
) -> tuple[list[OnlineView], list[Problem]]:
    """Compare a sample of the rows online with the newest rows of the tables.

    Args:
        project: its Feast repo is applied.
        end: rows of a later time do not count; None for all.

    Returns:
        The views that were materialized, and what is wrong with them.

    Raises:
        StoreError: the repo, a table or the online store cannot be read.
    """
    from reki_feast.stores.comparison import compare_repo
    from reki_feast.stores.defaults import SCENARIO_TAG

    found = compare_repo(project.feature_repo, {SCENARIO_TAG: project.name}, end)
    views = [_shown(view) for view in found]
    return views, [problem for view in found for problem in _problems(view)]


def is_of_scenario(view: Any) -> bool:
    """Whether a feature view is a scenario's."""
    from reki_feast.stores.defaults import SCENARIO_TAG

    return SCENARIO_TAG in view.tags


def compare_if_running(project: DeclaredProject) -> tuple[list[OnlineView], list[Problem]]:
    """The same, with nothing where the repo is not applied or its embedded Redis is not running.

    Raises:
        StoreError: the repo, a table or the online store cannot be read.
    """
    if not (project.feature_repo / "feature_store.yaml").exists():
        return [], []
    from reki_feast.stores.readiness import is_readable_now

    with warnings.catch_warnings():  # `feast apply` tells of old names in the repo
        warnings.simplefilter("ignore", FutureWarning)
        return compare_online_rows(project) if is_readable_now(project.feature_repo) else ([], [])


def _shown(view: ComparedView) -> OnlineView:
    found = view.found
    return OnlineView(
        view=view.name,
        compared=found.compared,
        equal=found.equal,
        missing=found.missing,
        older=found.stale,
        later=found.newer,
        other=found.other,
    )


def _problems(view: ComparedView) -> Iterator[Problem]:
    found, rule = view.found, f"the rows of view {view.name} online are the newest of its table"
    if found.wrong:
        yield Problem(
            rule,
            str(found),
            "run `reki publish --materialize`; where they stay, something else writes there, or "
            "the store keeps a row of the same time (skip_dedup: true for Feast's own)",
        )
    elif found.newer and view.table != _PUSHED:
        yield Problem(
            rule,
            str(found),
            "they are of another data folder: `feast teardown` in the Feast repo removes all its "
            "rows online; then run `reki publish --materialize`",
        )
