"""Nearest vectors in memory: exact by one matrix product, or by a graph above a number of rows.

It knows numpy, and usearch where that is installed; neither Feast nor Redis.
"""

from __future__ import annotations

from .exceptions import QueryError
from .filters import Filter, names_of
from .index import EVENT_TIME, Found, IndexOptions, Query, VectorIndex
from .metrics import Metric, metric_of
from .table import Rows

__all__ = [
    "EVENT_TIME",
    "Filter",
    "Found",
    "IndexOptions",
    "Metric",
    "Query",
    "QueryError",
    "Rows",
    "VectorIndex",
    "metric_of",
    "names_of",
]
