"""Materialize so that no row is lost, and count afterwards."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path

from feast import FeatureStore, FeatureView

from ._feast import provider_of
from .applying import apply_to, config_of
from .batches import write_in_batches
from .counting import BEGINNING, Count, count_view, verified, view_of
from .engine import RekiComputeEngine
from .online.layouts import stored_name
from .registry import atomic_registry
from .spaces import space_of
from .versions import versions_of


def apply_and_materialize(
    repo: str | Path,
    end: datetime,
    *,
    changes_of: Callable[[FeatureView], bool] = lambda view: False,
) -> list[Count]:
    """``feast apply`` and ``feast materialize`` of a whole repo, counted afterwards.

    All rows up to ``end`` go, not only those since the last time: rows made anew by new weights
    bear the as-of time of the old ones. Who reads meanwhile finds the views as they were; where the
    registry is a local file, they change in one step when the rows are there.

    The other versions that a view's tag declares go, too, each under its own rows.

    Args:
        repo: the folder of feature_store.yaml.
        end: rows up to here, an aware time.
        changes_of: of which views rows that are online already stay out, where the engine and the
            stores are this package's and can tell; all go again where some are missing afterwards.

    Returns:
        Each view and version with its ids in the source and its rows online.

    Raises:
        StoreError: Feast does not accept the repo, or rows are missing online; or somebody else
            changed the registry meanwhile.
    """
    repo = Path(repo).resolve()
    config = config_of(repo)
    with atomic_registry(config):
        apply_to(config, repo)
        store = FeatureStore(config=config)
        views = [view for view in store.list_feature_views() if view.online]
        versions = [version for view in views for version in other_versions(store, view)]
        _prepare(store, [*views, *versions])
        names = [view.name for view in views]
        known = [view.name for view in views if changes_of(view) and _was_streamed(store, view)]
        _materialize(store, [name for name in names if name not in known], BEGINNING, end)
        _materialize(store, known, None, end)
        _materialize_versions(store, versions, end)
        counts = _counted(store, names, end)
        if short := [one.view for one in counts if one.view in known and one.online < one.source]:
            _materialize(store, short, BEGINNING, end)
            counts = _counted(store, names, end)
        for version in versions:
            number = version.current_version_number
            counts.append(count_view(store, version, BEGINNING, end, number))
        return verified(store, counts)


def other_versions(store: FeatureStore, view: FeatureView) -> list[FeatureView]:
    """Versions whose rows have a name of their own: Feast's stores know no spaces by themselves."""
    taken = stored_name(store.config, view)
    return [one for one in versions_of(view) if stored_name(store.config, one) != taken]


def _was_streamed(store: FeatureStore, view: FeatureView) -> bool:
    """Whether the engine goes on from what it brought online, late rows included."""
    engine = provider_of(store).batch_engine
    is_ours = isinstance(engine, RekiComputeEngine) and engine.streams(view)
    return is_ours and bool(view.materialization_intervals)


def _counted(store: FeatureStore, names: list[str], end: datetime) -> list[Count]:
    return [count_view(store, view_of(store, name), BEGINNING, end) for name in names]


def _prepare(store: FeatureStore, views: list[FeatureView]) -> None:
    """Have stores with tables make those of views in spaces, which Feast made under other names."""
    if tables := [view for view in views if space_of(view) is not None]:
        provider_of(store).update_infra(
            project=store.project,
            tables_to_delete=[],
            tables_to_keep=tables,
            entities_to_delete=[],
            entities_to_keep=[],
            partial=True,
        )


def _materialize_versions(store: FeatureStore, versions: list[FeatureView], end: datetime) -> None:
    """All rows; the registry notes for views in service alone how far they are materialized."""
    for version in versions:
        with redirect_stdout(io.StringIO()):
            provider_of(store).materialize_single_feature_view(
                config=store.config,
                feature_view=version,
                start_date=BEGINNING,
                end_date=end,
                registry=store.registry,
                project=store.project,
                tqdm_builder=None,
            )


def materialize_views(
    store: FeatureStore,
    views: Iterable[str],
    end: datetime,
    *,
    start: datetime | None = None,
    incremental: bool = False,
) -> list[Count]:
    """``feast materialize`` for some views, in batches, counted afterwards.

    Works with any offline store; counting needs Redis or SQLite online.

    Args:
        store: the repo.
        views: names of feature views over Parquet files.
        end: rows up to here, an aware time.
        start: rows from here; None for the first there is. Not used when incremental.
        incremental: go on where the last materialization ended.

    Returns:
        Each view with its ids in the source and its rows online.

    Raises:
        StoreError: after it, rows are missing online.
    """
    names = list(views)
    _materialize(store, names, None if incremental else start or BEGINNING, end)
    # Feast notes from where on it wrote: of an incremental run it alone knows.
    found = [view_of(store, name) for name in names]
    return verified(
        store,
        [count_view(store, view, view.materialization_intervals[-1][0], end) for view in found],
    )


def _materialize(
    store: FeatureStore, names: list[str], start: datetime | None, end: datetime
) -> None:
    """From ``start``, or from where the last one ended."""
    if not names:  # Feast takes it for all views
        return
    write_in_batches(store.config)
    with redirect_stdout(io.StringIO()):  # Feast prints what it does, without being asked
        if start is None:
            store.materialize_incremental(end, feature_views=names)
        else:
            store.materialize(start, end, feature_views=names)
