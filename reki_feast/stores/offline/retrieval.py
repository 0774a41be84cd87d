"""The job that ``get_historical_features`` returns: nothing runs before its rows are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ibis
import pyarrow as pa
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import SavedDatasetStorage
from typing_extensions import override

from reki_feast.errors import StoreError
from reki_feast.stores._feast import write_data_source

from .query import Query
from .sources import is_readable
from .vectorized import FormulaColumns
from .writing import BATCH, persist, stage

#: Rows a batch at most, where batches hold columns that are left out of the result.
_WIDE = 8_192


@dataclass(frozen=True)
class OutputLocation:
    """Where a job writes: the repo's folder, and the staging location of the store."""

    repo: str = ""
    staging: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True)
class OnDemandColumns:
    """What on-demand views add to a query's columns, and take from them.

    Attributes:
        computed: columns of formulas, computed batch by batch.
        hidden: columns that these are computed of, and which are not in the result.
        others: other on-demand views; they run over the whole table, as in Feast.
        full_names: whether columns are named ``view__feature``.
    """

    computed: Sequence[FormulaColumns] = ()
    hidden: Sequence[str] = ()
    others: Sequence[OnDemandFeatureView] = ()
    full_names: bool = False


class DuckDBRetrievalJob(RetrievalJob):
    """Rows of one query. Each way to them runs it anew, on a connection of its own.

    Args:
        query: the query.
        place: where to write.
        on_demand: columns of on-demand views.
        metadata: makes the metadata; None for rows on their way online.
        one_batch: give the Arrow table in one batch, which is all that Feast would write online.
    """

    def __init__(
        self,
        query: Query,
        place: OutputLocation,
        on_demand: OnDemandColumns = OnDemandColumns(),
        *,
        metadata: Callable[[], RetrievalMetadata] | None = None,
        one_batch: bool = False,
    ) -> None:
        super().__init__()
        self.query = query
        self._place = place
        self._computed = list(on_demand.computed)
        self._hidden = list(on_demand.hidden)
        self._on_demand = list(on_demand.others)
        self._full_names = on_demand.full_names
        self._metadata = metadata
        self._one_batch = one_batch

    def to_batches(self, rows: int = BATCH) -> pa.RecordBatchReader:
        """A stream of batches of about `rows` rows: DuckDB keeps no more than it needs to join.

        With on-demand views without a formula the whole table is made first: they may look
        at all its rows.

        Raises:
            StoreError: DuckDB cannot run the query; also while reading.
        """
        if self._on_demand:
            return pa.Table.to_reader(self.to_arrow(), max_chunksize=rows)
        return self._stream(rows)

    @override
    def to_sql(self) -> str:
        """The query, for DuckDB; it names entity rows and remote sources by tables of its own.

        It is without what on-demand views add, and with the vectors that they are computed of.
        """
        return self.query.sql

    @override
    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,
        timeout: int | None = None,
    ) -> None:
        """Write the rows, for Parquet without holding them in memory.

        Raises:
            SavedDatasetLocationAlreadyExists: something is there, and may not be replaced.
            StoreError: DuckDB cannot run the query, or cannot write there.
        """
        place: Any = storage.to_data_source()
        if is_readable(place):
            persist(self._whole(), place, self._place.repo, allow_overwrite)
            return
        rows = ibis.memtable(self.to_arrow())
        write_data_source(rows, place, self._place.repo, allow_overwrite)

    @override
    def supports_remote_storage_export(self) -> bool:
        """Whether the store has a ``staging_location``."""
        return self._place.staging is not None

    @override
    def to_remote_storage(self) -> list[str]:
        """Write Parquet parts into a new folder of the staging location; the parts' paths.

        Raises:
            StoreError: there is no staging location, or the rows cannot be written.
        """
        if self._place.staging is None:
            raise StoreError(
                "The offline store has a staging location to export to",
                hint="set staging_location under offline_store in feature_store.yaml",
            )
        return stage(self._whole(), self._place.staging, self._place.endpoint or "")

    @property
    @override
    def full_feature_names(self) -> bool:
        """Whether columns are named ``view__feature``."""
        return self._full_names

    @property
    @override
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """On-demand views that Feast is to compute: all that have no formula."""
        return self._on_demand

    @cached_property
    def _described(self) -> RetrievalMetadata | None:
        return self._metadata() if self._metadata else None

    @property
    @override
    def metadata(self) -> RetrievalMetadata | None:
        """Features, keys and the span of event times."""
        return self._described

    def _whole(self) -> Query:
        """The query, or one over the table with what on-demand views add."""
        if self._on_demand:
            return Query.of(self.to_arrow(), self.query.limits)
        return Query.of(self.to_batches(), self.query.limits) if self._computed else self.query

    @override
    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        if self._hidden:  # which may not fit in memory all at once
            return self._stream(_WIDE).read_all()
        table = self._with_computed(self.query.arrow())
        return table.combine_chunks() if self._one_batch else table

    def _stream(self, rows: int) -> pa.RecordBatchReader:
        reader = self.query.batches(min(rows, _WIDE) if self._hidden else rows)
        if not self._computed:
            return reader
        schema = self._with_computed(reader.schema.empty_table()).schema
        return pa.RecordBatchReader.from_batches(schema, map(self._add_computed, reader))

    def _with_computed(self, table: pa.Table) -> pa.Table:
        if not self._computed:
            return table
        batches = [self._add_computed(batch) for batch in table.to_batches()]
        if not batches:
            batches = [self._add_computed(pa.RecordBatch.from_pylist([], table.schema))]
        return pa.Table.from_batches(batches)

    def _add_computed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for columns in self._computed:
            batch = columns.add_to(batch)
        return _without(batch, self._hidden) if self._hidden else batch


def _without(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    """Copies of the other columns: DuckDB's hold the memory of all as long as one is in use."""
    return batch.drop_columns(list(columns)).take(pa.array(range(len(batch)), pa.int64()))
