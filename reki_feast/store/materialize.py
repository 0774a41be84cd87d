"""Materialize so that no row is lost, and count afterwards."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewNotFoundException
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import compute_table_id, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.repo_config import load_repo_config
from feast.repo_operations import apply_total, get_repo_files

from reki_feast.errors import Fault, RekiError, StoreError

from .batches import write_in_batches
from .online.commands import literally
from .online.packed import packed_keys
from .redis_online import RekiRedisOnlineStore

#: Before any row.
BEGINNING = datetime(1970, 1, 2, tzinfo=timezone.utc)
SCAN = 10_000


@dataclass(frozen=True)
class Count:
    """Rows of one view: distinct ids in what was materialized, and rows in the online store."""

    view: str
    source: int
    online: int


def apply_and_materialize(repo: str | Path, end: datetime) -> list[Count]:
    """``feast apply`` and ``feast materialize`` of a whole repo, counted afterwards.

    All rows up to ``end`` go, not only those since the last time: rows made anew by new weights
    bear the as-of time of the old ones.

    Args:
        repo: the folder of feature_store.yaml.
        end: rows up to here, an aware time.

    Raises:
        StoreError: Feast does not accept the repo, or rows are missing online.
    """
    repo = Path(repo).resolve()
    _apply(repo)
    store = FeatureStore(repo_path=str(repo))
    names = [view.name for view in store.list_feature_views() if view.online]
    return materialize_views(store, names, end)


def _apply(repo: Path) -> None:
    try:
        config = load_repo_config(repo, repo / "feature_store.yaml")
        with _inside(repo), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "On demand feature view is an exp", RuntimeWarning)
            apply_total(config, repo, skip_source_validation=False)
    except RekiError:
        raise
    except (Exception, SystemExit) as error:  # whatever the repo's own files raise
        raise StoreError(
            f"Feast accepts the repo {repo}",
            found=f"{type(error).__name__}: {error}",
            mend=f"cd {repo} && feast apply",
        ) from error


@contextmanager
def _inside(repo: Path) -> Iterator[None]:
    """Be where Feast imports a repo's files from, and leave no trace of them.

    A process of its own would do as well, but importing Feast takes seconds.
    """
    where, path, writing = Path.cwd(), list(sys.path), sys.dont_write_bytecode
    _drop_modules(repo)
    sys.path.insert(0, str(repo))
    try:
        os.chdir(repo)
        yield
    finally:
        os.chdir(where)
        sys.path[:], sys.dont_write_bytecode = path, writing
        _drop_modules(repo)


def _drop_modules(repo: Path) -> None:
    """Forget imported modules of the repo, and those that would be taken for them."""
    names = {".".join(f.relative_to(repo).with_suffix("").parts) for f in get_repo_files(repo)}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (_own(Path(file), repo) or name in names - sys.stdlib_module_names):
            del sys.modules[name]


def _own(file: Path, repo: Path) -> bool:
    """Whether a file is the repo's, and not of packages that are installed below it."""
    if repo not in file.parents:
        return False
    parts = file.relative_to(repo).parts
    return not any(part.startswith(".") or part == "site-packages" for part in parts)


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

    Raises:
        StoreError: after it, rows are missing online.
    """
    names = list(views)
    write_in_batches(store.config)
    with redirect_stdout(io.StringIO()):  # Feast prints what it does, without being asked
        if incremental:
            store.materialize_incremental(end, feature_views=names)
        else:
            store.materialize(start or BEGINNING, end, feature_views=names)
    # Feast notes from where on it wrote: of an incremental run it alone knows.
    began = {name: _view(store, name).materialization_intervals[-1][0] for name in names}
    return _verified([_count(store, name, began[name], end) for name in names])


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

    Raises:
        StoreError: fewer rows are online than the source has ids; all such views together.
    """
    return _verified([_count(store, name, start, end) for name in views])


def _verified(counts: list[Count]) -> list[Count]:
    faults = [
        Fault(
            f"every id of view {count.view} is in the online store",
            found=f"{count.online} rows online of {count.source} ids in the source",
            mend="set `batch_engine: {type: reki_feast.store.engine.RekiComputeEngine}` in "
            "feature_store.yaml and materialize again",
        )
        for count in counts
        if count.online < count.source
    ]
    if faults:
        raise StoreError(faults)
    return counts


def count_online(store: FeatureStore, view: str) -> int:
    """Rows of a view in the repo's online store, counted there.

    Raises:
        StoreError: there is no such view, or the online store is neither Redis nor SQLite.
    """
    feature_view = _view(store, view)
    online: Any = store._get_provider().online_store
    if isinstance(online, RedisOnlineStore):
        return _count_redis(online, store, feature_view)
    if isinstance(online, SqliteOnlineStore):
        return _count_sqlite(online, store, feature_view)
    raise StoreError(
        "Rows can be counted in a Redis or SQLite online store",
        found=type(online).__name__,
        mend="count them with the online store's own tools",
    )


def _view(store: FeatureStore, name: str) -> FeatureView:
    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException as error:
        raise StoreError(
            f"Feature view {name} is registered",
            found=f"it is not in project {store.project}",
            mend="run `feast apply` in the Feast repo",
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
    provider: Any = store._get_provider()
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
    rows = online._get_conn(store.config).execute(
        f'SELECT COUNT(DISTINCT entity_key) FROM "{table}"'
    )
    return int(rows.fetchone()[0])


def _count_redis(online: Any, store: FeatureStore, view: FeatureView) -> int:
    """Keys of the view's entity and project that bear the view's time stamp."""
    if isinstance(online, RekiRedisOnlineStore):
        online.at(store.config)
    client = online._get_client(store.config.online_store)
    versioned = store.config.registry.enable_online_feature_view_versioning
    name = compute_versioned_name(view, versioned)
    if isinstance(online, RekiRedisOnlineStore) and online.packs(store.config, view):
        return sum(1 for _ in packed_keys(client, store.project, name))
    stamp = f"_ts:{name}"
    prefix = serialize_entity_key_prefix(list(view.join_keys))
    keys = (
        key
        for key in client.scan_iter(literally(prefix) + b"*", count=SCAN)
        if _project(key, len(prefix), len(view.join_keys)) == store.project.encode()
    )
    count = 0
    while some := list(islice(keys, SCAN)):
        with client.pipeline(transaction=False) as pipe:
            for key in some:
                pipe.hexists(key, stamp)
            count += sum(pipe.execute())
    return count


def _project(key: bytes, at: int, values: int) -> bytes:
    r"""What follows the entity's values in a Redis key: the project's name.

    >>> _project(b"prefix" + b"\x02\x00\x00\x00" + b"\x03\x00\x00\x00" + b"abcmovies", 6, 1)
    b'movies'
    """
    for _ in range(values):
        at += 8 + int.from_bytes(key[at + 4 : at + 8], "little")
    return key[at:]
