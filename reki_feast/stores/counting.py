"""Rows online, counted, and compared with what was to be there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewNotFoundException
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore

from reki_feast.errors import Problem, StoreError

from ._feast import provider_of, redis_client_of, sqlite_connection_of
from .connecting import evictions, redis_errors
from .engine import RekiComputeEngine
from .online.layouts import layout_of
from .redis_online import location_of

#: Before any row.
BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Count:
    """Rows of one view: distinct ids in what was materialized, and rows in the online store.

    Attributes:
        view: name of the view.
        source: distinct ids.
        online: rows in the online store.
        version: number of the view's version; None for the one in service.
    """

    view: str
    source: int
    online: int
    version: int | None = None

    @property
    def name(self) -> str:
        """As references name it: ``reki``, or ``reki@v1``."""
        return self.view if self.version is None else f"{self.view}@v{self.version}"


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
    found = [view_of(store, name) for name in views]
    return verified(store, [count_view(store, view, start, end) for view in found])


def verified(store: FeatureStore, counts: list[Count]) -> list[Count]:
    """The counts.

    Raises:
        StoreError: fewer rows are online than the source has ids; all such views together.
    """
    short = [count for count in counts if count.online < count.source]
    if short:
        told, hint = _losing(store)
        faults = [
            Problem(
                f"every id of view {count.name} is in the online store",
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
    return count_rows(store, view_of(store, view))


def count_rows(store: FeatureStore, view: FeatureView) -> int:
    """Rows of a view, in service or another version, in the repo's online store.

    Raises:
        StoreError: the online store is neither Redis nor SQLite.
    """
    online = provider_of(store).online_store
    if isinstance(online, RedisOnlineStore):
        return _count_redis(online, store, view)
    if isinstance(online, SqliteOnlineStore):
        return _count_sqlite(online, store, view)
    raise StoreError(
        "Rows can be counted in a Redis or SQLite online store",
        detail=type(online).__name__,
        hint="count them with the online store's own tools",
    )


def view_of(store: FeatureStore, name: str) -> FeatureView:
    """A registered view.

    Raises:
        StoreError: there is none of that name.
    """
    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException as error:
        raise StoreError(
            f"Feature view {name} is registered",
            detail=f"it is not in project {store.project}",
            hint="run `feast apply` in the Feast repo",
        ) from error


def count_view(
    store: FeatureStore,
    view: FeatureView,
    start: datetime | None,
    end: datetime | None,
    version: int | None = None,
) -> Count:
    """Count a view's ids in its source, of a range, and its rows online.

    Raises:
        StoreError: the online store is neither Redis nor SQLite.
    """
    source, online = _count_source(store, view, start, end), count_rows(store, view)
    return Count(view.name, source, online, version)


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
        end_date=end or datetime.now(UTC),
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
