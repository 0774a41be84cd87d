"""A compute engine for ``feast materialize`` that hands Arrow columns to the online store.

In ``feature_store.yaml``::

    batch_engine:
      type: reki_feast.stores.engine.RekiComputeEngine

Feast's local engine reads a view's whole source into memory, makes a protobuf object of every
value and writes only the first Arrow batch of a table that has several. This one streams the
latest rows from DuckDB to Redis, in batches, where both stores are ours and the view takes its
columns from its source as they are. Any other view and store: Feast's own plan, all batches
written.

There `feast materialize-incremental` leaves what `feast materialize` of all so far would leave. In
Feast's own way it leaves out rows that came late: whose event time lies before the last end.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa
from feast import FeatureView
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.dag.context import ExecutionContext
from feast.infra.compute_engines.local.arrow_table_value import ArrowTableValue
from feast.infra.compute_engines.local.compute import LocalComputeEngine, LocalComputeEngineConfig
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.compute_engines.local.nodes import LocalOutputNode
from feast.infra.registry.base_registry import BaseRegistry
from pydantic import StrictStr
from typing_extensions import override

from ._feast import backend_of
from .batches import WRITE_BATCH, write_in_batches
from .duckdb_offline import RekiDuckDBOfflineStore
from .offline.latest import SourceColumns
from .offline.sources import is_readable
from .redis_online import RekiRedisOnlineStore


class RekiComputeEngineConfig(LocalComputeEngineConfig):
    """The options of the local engine; they mean the same."""

    type: StrictStr = "reki_feast.stores.engine.RekiComputeEngine"  # type: ignore[assignment]


class RekiComputeEngine(LocalComputeEngine):
    """Feast's local engine, with Arrow all the way to our Redis store."""

    @override
    def _materialize_one(
        self,
        registry: BaseRegistry,
        task: MaterializationTask,
        **kwargs: Any,
    ) -> LocalMaterializationJob:
        job = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        context = self.get_execution_context(registry, task)
        try:
            builder = _Builder(registry, task, backend=backend_of(self, context))
            if task.only_latest and self.streams(task.feature_view):
                _stream(builder, context, task)
            else:
                builder.build().execute(context)
        except Exception as error:  # noqa: BLE001 — handed to Feast, which raises it
            return LocalMaterializationJob(job, MaterializationJobStatus.ERROR, error)
        return LocalMaterializationJob(job, MaterializationJobStatus.SUCCEEDED)

    def streams(self, view: Any) -> bool:
        """Whether a view's rows go as columns, and its checkpoint tells which of them are online.

        Args:
            view: of the repo.
        """
        plain = type(view) is FeatureView and is_readable(view.batch_source)
        changed = ("stream_source", "source_views", "filter", "enable_validation", "offline")
        return (
            plain
            and view.online
            and not any(getattr(view, name, None) for name in changed)
            and isinstance(self.online_store, RekiRedisOnlineStore)
            and _is_ours(self.offline_store)
        )


def _is_ours(store: Any) -> bool:
    kind = store if isinstance(store, type) else type(store)
    return issubclass(kind, RekiDuckDBOfflineStore)


def _stream(builder: LocalFeatureBuilder, context: ExecutionContext, task: Any) -> None:
    """The latest row of each entity, from DuckDB to Redis, a batch at a time."""
    view, info = task.feature_view, builder.get_column_info(task.feature_view)
    config: Any = context.repo_config
    offline: Any = context.offline_store
    online: Any = context.online_store
    asked = SourceColumns(info.join_keys, info.feature_cols, info.ts_col, info.created_ts_col)
    begun, end = _incremental(task), task.end_time
    start = begun or task.start_time
    rows = config.materialization_config.online_write_batch_size or WRITE_BATCH
    mapping = info.field_mapping or {}
    with online.checkpoint(config, view) as slot:
        since = slot.load(start, end) if begun else None
        pulled = offline.pull_since(config, view.batch_source, asked, (start, end), since)
        slot.begin(pulled.whole)
        with pulled.job.to_batches(rows) as batches:
            online.write_arrow(config, view, (_renamed(batch, mapping) for batch in batches))
        slot.keep(start, end, pulled.files)


def _incremental(task: Any) -> datetime | None:
    """Of an incremental run, where the first materialization of the view began; else None.

    Feast asks for the rows since the end of the last one, which leaves out those that came late.
    """
    done: list[tuple[datetime, datetime]] = task.feature_view.materialization_intervals
    if not done or task.start_time != max(end for _, end in done):
        return None
    return min(start for start, _ in done)


def _renamed(batch: pa.RecordBatch, mapping: dict[str, str]) -> pa.RecordBatch:
    names = [mapping.get(name, name) for name in batch.schema.names]
    return pa.RecordBatch.from_arrays(batch.columns, names=names)


class _Builder(LocalFeatureBuilder):
    """Feast's plan, with another end."""

    @override
    def build_output_nodes(self, view: Any, input_node: Any) -> LocalOutputNode:
        node = _Output("output", self.feature_view, inputs=[input_node])
        self.nodes.append(node)
        return node


class _Output(LocalOutputNode):
    """Writes all batches of a table: as columns to our store, as messages to any other."""

    @override
    def execute(self, context: ExecutionContext) -> ArrowTableValue:
        view: Any = self.feature_view
        online: Any = context.online_store
        if not view.online or not isinstance(online, RekiRedisOnlineStore):
            write_in_batches(context.repo_config)
            return super().execute(context)
        table = self.get_single_table(context).data
        rows = context.repo_config.materialization_config.online_write_batch_size or WRITE_BATCH
        online.write_arrow(context.repo_config, view, table.to_batches(max_chunksize=rows))
        if view.offline and table.num_rows:
            context.offline_store.offline_write_batch(
                context.repo_config, view, table, lambda done: None
            )
        output = ArrowTableValue(data=table)
        context.node_outputs[self.name] = output
        return output
