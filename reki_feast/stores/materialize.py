"""Materialize so that no row is lost, and count afterwards."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewNotFoundException
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.repo_config import RepoConfig, load_repo_config
from feast.repo_operations import apply_total

from reki_feast.errors import Problem, StoreError

from ._feast import provider_of, redis_client_of, sqlite_connection_of
from .batches import write_in_batches
from .connecting import evictions, redis_errors
from .engine import RekiComputeEngine
from .exceptions import map_repo_errors
from .online.layouts import layout_of
from .redis_online import location_of
from .registry import atomic_registry
from .repo_process import call_in_repo

#: Before any row.
BEGINNING = datetime(1970, 1, 2, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Count:
    """Rows of one view: distinct ids in what was materialized, and rows in the online store.

    Attributes:
        view: name of the view.
        source: distinct ids.
        online: rows in the online store.
    """

    view: str
    source: int
    online: int


def apply_and_materialize(repo: str | Path, end: datetime) -> list[Count]:
    """``feast apply`` and ``feast materialize`` of a whole repo, counted afterwards.

    All rows up to ``end`` go, not only those since the last time: rows made anew by new weights
    bear the as-of time of the old ones. Who reads meanwhile finds the views as they were; where the
    registry is a local file, they change in one step when the rows are there.

    Args:
        repo: the folder of feature_store.yaml.
        end: rows up to here, an aware time.

    Returns:
        Each view with its ids in the source and its rows online.

    Raises:
        StoreError: Feast does not accept the repo, or rows are missing online; or somebody else
            changed the registry meanwhile.
    """
    repo = Path(repo).resolve()
    config = _config(repo)
    with atomic_registry(config):
        call_in_repo(repo, f"{__name__}:apply_repo", repo, config.registry.path)
        store = FeatureStore(config=config)
        names = [view.name for view in store.list_feature_views() if view.online]
        _materialize(store, names, BEGINNING, end)
    store = FeatureStore(repo_path=str(repo))
    return _verified(store, [_count(store, name, BEGINNING, end) for name in names])


def _config(repo: Path) -> RepoConfig:
    with _applying(repo):
        return load_repo_config(repo, repo / "feature_store.yaml")


def apply_repo(repo: Path, registry: str) -> None:
    """``feast apply``, where the working folder is the repo.

    Args:
        repo: the folder of feature_store.yaml.
        registry: the registry's path, in place of the one that is configured.

    Raises:
        StoreError: Feast does not accept the repo.
    """
    with _applying(repo), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an exp", RuntimeWarning)
        config = load_repo_config(repo, repo / "feature_store.yaml")
        config.registry.path = registry
        apply_total(config, repo, skip_source_validation=False)


def _applying(repo: Path) -> AbstractContextManager[None]:
    return map_repo_errors(f"Feast accepts the repo {repo}", f"cd {repo} && feast apply")


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
    began = {name: _view(store, name).materialization_intervals[-1][0] for name in names}
    return _verified(store, [_count(store, name, began[name], end) for name in names])


def _materialize(
    store: FeatureStore, names: list[str], start: datetime | None, end: datetime
) -> None:
    """From ``start``, or from where the last one ended."""
    write_in_batches(store.config)
    with redirect_stdout(io.StringIO()):  # Feast prints what it does, without being asked
        if start is None:
            store.materialize_incremental(end, feature_views=names)
        else:
            store.materialize(start, end, feature_views=names)


def verify_materialized(
    store: FeatureStore,
    views: Iterable[str],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[Count]:
    """Count each view's ids in its source and its rows online.

    Args:
        store: the repo.
        views: names of feature views over Parquet files.
        start: count only source rows from here, as far as was materialized.
        end: count only source rows up to here.

    Returns:
        Each view with its ids in the source and its rows online.

    Raises:
        StoreError: fewer rows are online than the source has ids; all such views together.
    """
    return _verified(store, [_count(store, name, start, end) for name in views])


def _verified(store: FeatureStore, counts: list[Count]) -> list[Count]:
    short = [count for count in counts if count.online < count.source]
    if short:
        told, hint = _losing(store)
        faults = [
            Problem(
                f"every id of view {count.view} is in the online store",
                detail=f"{count.online} rows online of {count.source} ids in the source{told}",
                hint=hint,
            )
            for count in short
        ]
        raise StoreError(faults)
    return counts


def _losing(store: FeatureStore) -> tuple[str, str]:
    """What is known of why rows are missing, and the mend."""
    provider = provider_of(store)
    online = provider.online_store
    if isinstance(online, RedisOnlineStore):
        with _redis(online, store) as client:
            dropped = evictions(client)
        if dropped:
            return f"; {dropped}", (
                "set maxmemory-policy noeviction, so that a full Redis refuses rows and drops "
                "none; raise maxmemory, and materialize again"
            )
    if isinstance(provider.batch_engine, RekiComputeEngine):
        return "", "see that nothing else deletes rows there, then materialize again"
    engine = f"{RekiComputeEngine.__module__}.{RekiComputeEngine.__name__}"
    wanted = f"batch_engine: {{type: {engine}}}"
    return "", f"set `{wanted}` in feature_store.yaml and materialize again"


def count_online(store: FeatureStore, view: str) -> int:
    """Rows of a view in the repo's online store, counted there.

    Args:
        store: the repo.
        view: name of a feature view.

    Returns:
        The number of rows.

    Raises:
        StoreError: there is no such view, or the online store is neither Redis nor SQLite.
    """
    feature_view = _view(store, view)
    online = provider_of(store).online_store
    if isinstance(online, RedisOnlineStore):
        return _count_redis(online, store, feature_view)
    if isinstance(online, SqliteOnlineStore):
        return _count_sqlite(online, store, feature_view)
    raise StoreError(
        "Rows can be counted in a Redis or SQLite online store",
        detail=type(online).__name__,
        hint="count them with the online store's own tools",
    )


def _view(store: FeatureStore, name: str) -> FeatureView:
    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException as error:
        raise StoreError(
            f"Feature view {name} is registered",
            detail=f"it is not in project {store.project}",
            hint="run `feast apply` in the Feast repo",
        ) from error


def _count(store: FeatureStore, view: str, start: datetime | None, end: datetime | None) -> Count:
    return Count(
        view, _count_source(store, _view(store, view), start, end), count_online(store, view)
    )


def _count_source(
    store: FeatureStore, view: FeatureView, start: datetime | None, end: datetime | None
) -> int:
    """Distinct ids that the repo's own offline store sees in the view's source."""
    source: Any = view.batch_source
    provider = provider_of(store)
    named = {new: old for old, new in source.field_mapping.items()}
    keys = [named.get(key, key) for key in view.join_keys]
    job = provider.offline_store.pull_all_from_table_or_query(
        config=store.config,
        data_source=source,
        join_key_columns=keys,
        feature_name_columns=[],
        timestamp_field=named.get(source.timestamp_field, source.timestamp_field),
        start_date=start or BEGINNING,
        end_date=end or datetime.now(timezone.utc),
    )
    ids = job.to_arrow().select(keys)
    return int(ids.group_by(ids.column_names).aggregate([]).num_rows)


def _count_sqlite(online: Any, store: FeatureStore, view: FeatureView) -> int:
    versioned = store.config.registry.enable_online_feature_view_versioning
    table = compute_table_id(store.project, view, versioned).replace('"', '""')
    rows = sqlite_connection_of(online, store.config).execute(
        f'SELECT COUNT(DISTINCT entity_key) FROM "{table}"'
    )
    return int(rows.fetchone()[0])


def _count_redis(online: Any, store: FeatureStore, view: FeatureView) -> int:
    """Entities that have a row of the view."""
    with _redis(online, store) as client:
        return sum(1 for _ in layout_of(store.config, view).entities(client, view.join_keys))


@contextmanager
def _redis(online: Any, store: FeatureStore) -> Iterator[Any]:
    """The client of a store; its errors are raised as StoreErrors."""
    with redis_errors(location_of(online, store.config)):
        yield redis_client_of(online, store.config.online_store)
