"""What is online beside what should be there: a sample of rows, byte by byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from feast import FeatureStore, FeatureView
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.infra.online_stores.redis import RedisOnlineStore
from typing_extensions import override

from ._feast import provider_of, redis_client_of
from .connecting import redis_errors
from .counting import BEGINNING
from .duckdb_offline import RekiDuckDBOfflineStore
from .exceptions import map_store_errors
from .materialize import other_versions
from .offline.latest import KeySample, SourceColumns
from .offline.sources import is_readable
from .online.decoding import nanoseconds
from .online.layouts import layout_of
from .online.lifetimes import max_age, too_old
from .online.rows import RowBlock, rows_of_batch
from .online.wire import execute
from .redis_online import RekiRedisOnlineStore, location_of

#: Ids that are looked at, where nobody says how many.
SAMPLE = 200
#: After any row.
_END = datetime(9999, 1, 1, tzinfo=UTC)
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


@dataclass(frozen=True)
class RowComparison:
    """Rows of some ids online, beside their newest rows in a view's table.

    Attributes:
        view: name of the view.
        compared: ids that were looked at.
        equal: rows online with the event time and the bytes of the newest row.
        missing: ids without a row online.
        stale: rows online with an earlier event time.
        newer: rows online with a later event time, as pushed rows have.
        other: rows online with the event time of the newest row and other values.
    """

    view: str
    compared: int
    equal: int = 0
    missing: int = 0
    stale: int = 0
    newer: int = 0
    other: int = 0

    @property
    def wrong(self) -> int:
        """Rows that should be others; a later event time is none of them."""
        return self.missing + self.stale + self.other

    @override
    def __str__(self) -> str:
        """What was found, in words."""
        counts = {
            "missing": self.missing,
            "older": self.stale,
            "of a later time": self.newer,
            "with other values": self.other,
        }
        found = [f"{count} {what}" for what, count in counts.items() if count]
        return f"of {self.compared} rows {', '.join(found) or 'none differs'}"


def compare_online(
    store: FeatureStore,
    view: FeatureView,
    end: datetime | None = None,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
) -> RowComparison:
    """Compare a view's rows online with the newest rows of its table, for a sample of ids.

    Rows that are too old for the view's ttl to be served are not compared.

    Args:
        store: the repo.
        view: a feature view, in service or another version.
        end: rows with a later event time do not count; None for all.
        sample: how many ids.
        seed: draws others.

    Returns:
        How many rows are equal, and how the others differ.

    Raises:
        StoreError: the source or the online store cannot be read.
    """
    config: Any = store.config
    expected = _newest(store, view, end or _END, KeySample(sample, seed))
    age = max_age(view, config.online_store) if _is_ours(store) else None
    counts = np.zeros(5, np.int64)
    compared = 0
    for block in _blocks(view, expected, config.entity_key_serialization_version):
        rows = block if age is None else block.taken(~too_old(block.times, age))
        if len(rows):
            compared += len(rows)
            counts += _outcomes(rows, *_online(store, view, rows), _tick(store))
    return RowComparison(view.name, compared, *counts.tolist())


class ComparedView(NamedTuple):
    """A view of a repo that was compared.

    Attributes:
        name: as references name it: ``reki``, or ``reki@v1``.
        table: last part of its source's path.
        found: what was found.
    """

    name: str
    table: str
    found: RowComparison


def compare_repo(
    repo: Path, tags: Mapping[str, str], end: datetime | None = None
) -> list[ComparedView]:
    """Compare the views of a repo that are online, and their other versions.

    Args:
        repo: the folder of feature_store.yaml, applied.
        tags: which views: those that have these.
        end: rows with a later event time do not count; None for all.

    Returns:
        The views that were materialized.

    Raises:
        StoreError: a source or the online store cannot be read.
    """
    store = FeatureStore(repo_path=str(repo))
    views = [
        view
        for view in store.list_feature_views()
        if view.online and view.materialization_intervals and tags.items() <= view.tags.items()
    ]
    found = [_compared(store, view, view.name, end) for view in views]
    for view in views:
        for version in other_versions(store, view):
            name = f"{view.name}@v{version.current_version_number}"
            found.append(_compared(store, version, name, end))
    return found


def _compared(
    store: FeatureStore, view: FeatureView, name: str, end: datetime | None
) -> ComparedView:
    source: Any = view.batch_source
    return ComparedView(name, Path(source.path).name, compare_online(store, view, end))


def _is_ours(store: FeatureStore) -> bool:
    return isinstance(provider_of(store).online_store, RekiRedisOnlineStore)


def _newest(store: FeatureStore, view: FeatureView, end: datetime, sample: KeySample) -> pa.Table:
    """The newest rows of some ids, under the names of the view."""
    source: Any = view.batch_source
    named = {new: old for old, new in source.field_mapping.items()}

    def column(name: str) -> str:
        return str(named.get(name, name))

    asked = SourceColumns(
        [column(key) for key in view.join_keys if key != DUMMY_ENTITY_ID],
        [column(field.name) for field in view.features],
        column(source.timestamp_field),
        column(source.created_timestamp_column) or None,
    )
    offline: Any = provider_of(store).offline_store
    if isinstance(offline, RekiDuckDBOfflineStore) and is_readable(source):
        found = offline.pull_sample(store.config, source, asked, (BEGINNING, end), sample)
    else:
        found = offline.pull_latest_from_table_or_query(
            store.config,
            source,
            list(asked.keys),
            list(asked.features),
            asked.time,
            asked.created,
            BEGINNING,
            end,
        )
    rows = found.to_arrow()
    if rows.num_rows > sample.size:
        rows = rows.sort_by([(key, "ascending") for key in asked.keys])
        chosen = np.random.default_rng(sample.seed).choice(rows.num_rows, sample.size, False)
        rows = rows.take(np.sort(chosen))
    mapping = {**source.field_mapping, source.timestamp_field: source.timestamp_field}
    return rows.rename_columns([mapping.get(name, name) for name in rows.column_names])


def _blocks(view: FeatureView, rows: pa.Table, version: int) -> list[RowBlock]:
    batches = rows.combine_chunks().to_batches()
    return [block for batch in batches for block in rows_of_batch(view, batch, version)]


def _online(
    store: FeatureStore, view: FeatureView, rows: RowBlock
) -> tuple[list[int | None], dict[str, list[bytes]]]:
    """Event times of rows online, in nanoseconds, None where there is none; and their values."""
    online = provider_of(store).online_store
    names, entities = list(rows.values), rows.entities.to_pylist()
    if not isinstance(online, RedisOnlineStore):
        version = store.config.entity_key_serialization_version
        keys = [deserialize_entity_key(entity, version) for entity in entities]
        hint = "see that online_store in feature_store.yaml is the store that was materialized to"
        with map_store_errors(f"The online store has rows of view {view.name} to read", hint):
            return _read(online.online_read(store.config, view, keys, names), names)
    with redis_errors(location_of(online, store.config)):
        client = redis_client_of(online, store.config.online_store)
        layout = layout_of(store.config, view, names)
        found = layout.rows(execute(client, *layout.read(entities)))
    times = nanoseconds(found.timestamps).tolist()
    stored = [
        None if raw is None else time for raw, time in zip(found.timestamps, times, strict=True)
    ]
    values = [[value or b"" for value in column] for column in found.columns]
    return stored, dict(zip(names, values, strict=True))


def _read(rows: list[Any], names: list[str]) -> tuple[list[int | None], dict[str, list[bytes]]]:
    """The same of what any store reads."""
    times = [None if time is None else _nanoseconds(time) for time, _ in rows]
    values = {
        name: [v[name].SerializeToString() if v and name in v else b"" for _, v in rows]
        for name in names
    }
    return times, values


def _nanoseconds(time: datetime) -> int:
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND * 1000


def _tick(store: FeatureStore) -> int:
    """Nanoseconds in which event times are compared: some online stores keep whole seconds."""
    return 1 if isinstance(provider_of(store).online_store, RedisOnlineStore) else 1_000_000_000


def _outcomes(
    rows: RowBlock, times: list[int | None], values: dict[str, list[bytes]], tick: int
) -> np.ndarray:
    """How many rows are equal, missing, stale, newer and other."""
    outcomes = np.zeros(5, np.int64)
    wanted = {name: column.to_pylist() for name, column in rows.values.items()}
    wanted_times = (rows.times // tick).tolist()
    for n, (expected, time) in enumerate(zip(wanted_times, times, strict=True)):
        found = None if time is None else time // tick
        if found is None:
            outcome = 1
        elif found != expected:
            outcome = 2 if found < expected else 3
        else:
            outcome = 0 if all(values[name][n] == wanted[name][n] for name in wanted) else 4
        outcomes[outcome] += 1
    return outcomes
