"""Feast's own DuckDB store, for sources and views that our SQL does not read.

It reads by ibis, which with DuckDB 1.5 and later warns of ``fetch_arrow_table`` at each query
(DeprecationWarning). Parquet sources never come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis
import pyarrow as pa
from feast import FeatureView
from feast.infra.offline_stores.ibis import IbisRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalJob
from typing_extensions import override

from reki_feast.stores.defaults import default_vectors


class OneBatchRetrievalJob(IbisRetrievalJob):
    """A job whose Arrow table has one batch (Arrow's limit of 2 GiB of text a batch allowing)."""

    @classmethod
    def of(cls, job: IbisRetrievalJob) -> OneBatchRetrievalJob:
        """The same job, read in one batch."""
        one = cls.__new__(cls)
        one.__dict__.update(job.__dict__)
        return one

    @override
    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return super()._to_arrow_internal(timeout).combine_chunks()


def in_one_batch(job: RetrievalJob) -> RetrievalJob:
    """Keep Feast from dropping every Arrow batch but the first when it writes online."""
    return OneBatchRetrievalJob.of(job) if isinstance(job, IbisRetrievalJob) else job


def with_defaults(
    job: RetrievalJob, views: Sequence[FeatureView], refs: Sequence[str], full_names: bool
) -> RetrievalJob:
    """Default vectors filled in where null."""
    filled = _defaults_by_column(views, refs, full_names)
    if filled and isinstance(job, IbisRetrievalJob):
        job.table = _fill(job.table, filled)
    return job


def _defaults_by_column(
    views: Sequence[FeatureView], refs: Sequence[str], full_names: bool
) -> dict[str, tuple[float, ...]]:
    """Default vectors by the column they appear in, named as Feast names it."""
    found = {}
    for view in views:
        projection: Any = view.projection
        asked = projection.name_to_use()
        shown = projection.name_alias or view.name
        for feature, vector in default_vectors(view).items():
            if f"{asked}:{feature}" in refs:
                found[f"{shown}__{feature}" if full_names else feature] = vector
    return found


def _fill(table: Any, defaults: dict[str, tuple[float, ...]]) -> Any:
    """Coalesce the columns of an ibis table with their defaults, exact to the bit.

    As text: DuckDB reads a number literal as a decimal first, and a decimal rounds.
    """
    return table.mutate(
        **{
            column: ibis.coalesce(
                table[column], ibis.literal(str(list(vector))).cast("array<float32>")
            )
            for column, vector in defaults.items()
        }
    )
