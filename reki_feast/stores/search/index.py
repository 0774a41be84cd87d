"""The nearest of many vectors, while they change: exact, or by a graph above a number of rows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

import numpy as np

from . import graph as graphs
from .columns import NumberColumn
from .exact import candidates
from .exceptions import QueryError
from .filters import Filter, matching
from .graph import Graph
from .maintained import Maintained
from .metrics import Metric
from .saved import SavedGraph
from .table import Rows, Snapshot, VectorTable

#: The column of event times, which every row has.
EVENT_TIME = "event_timestamp"
#: Rows that go into a graph at once while it is built.
_CHUNK = 10_000
#: Queries that a new graph is tried with, beside those asked last.
_TRIED = 192
#: Where a filter lets fewer rows through, they are compared one by one.
_SELECTIVE = 0.1
#: Seconds until a new graph is tried again, where rows changed meanwhile.
_PAUSE_S = 0.5


@dataclass(frozen=True)
class IndexOptions:
    """How an index searches.

    Attributes:
        exact_rows: up to so many rows the search is exact; above, by a graph, where faiss is
            installed and the graph finds enough.
        folder: where graphs are kept; None: nowhere.
    """

    exact_rows: int = 100_000
    folder: Path | None = None


@dataclass(frozen=True)
class Query:
    """What is searched.

    Attributes:
        vector: (d,) float32.
        count: how many rows.
        metric: how near.
        filters: what rows are considered; None: all.
        since: event time from which on they are, nanoseconds since 1970; None: any.
    """

    vector: np.ndarray
    count: int
    metric: Metric = Metric.L2
    filters: Filter | None = None
    since: int | None = None


class Found(NamedTuple):
    """The nearest rows, the nearest first.

    Attributes:
        keys: of the rows.
        distances: (n,) float64.
    """

    keys: Sequence[bytes]
    distances: np.ndarray


class VectorIndex:
    """Rows in memory that are searched by many threads, and changed by one.

    Attributes:
        table: the rows.
    """

    def __init__(self, width: int, options: IndexOptions) -> None:
        """Empty; ``width`` is how many numbers a vector has."""
        self.table = VectorTable(width)
        self._options = options
        self._graphs: dict[Metric, Maintained] = {}
        self._lock = Lock()
        self._asked: deque[np.ndarray] = deque(maxlen=_TRIED)
        self._closed = False

    def __len__(self) -> int:
        return len(self.table)

    def put(self, rows: Rows) -> np.ndarray:
        """Store rows; their (n,) numbers."""
        numbers, changed = self.table.put(rows)
        self._follow(numbers[changed])
        return numbers

    def remove(self, keys: Sequence[bytes]) -> None:
        """Remove the rows of some keys."""
        numbers = self.table.remove(keys)
        if len(numbers):
            self._follow(numbers)
            for saved in filter(None, map(self._saved, Metric)):
                saved.delete()

    def close(self) -> None:
        """End what goes on in the background."""
        self._closed = True

    def is_approximate(self, metric: Metric) -> bool:
        """Whether searches are answered by a graph now."""
        found = self._graphs.get(metric)
        return found is not None and found.graph is not None and self._is_large()

    def nearest(self, query: Query) -> Found:
        """The nearest rows.

        Raises:
            QueryError: the query has another length, numbers that are not finite, no rows to
                return, or a filter that does not fit.
        """
        self._check(query)
        vector = np.ascontiguousarray(query.vector, np.float32)
        snapshot, allowed = self.table.snapshot(), None
        if query.filters is not None or query.since is not None:
            allowed = self._allowed(query, snapshot)
        graph = self._graph(query.metric, vector) if self._is_large() else None
        if graph is not None:
            found = self._by_graph(graph, vector, query, allowed)
            if found is not None:
                return found
        numbers = candidates(snapshot, vector, query.metric, query.count, allowed)
        return self._rescored(numbers, vector, query)

    def _by_graph(
        self, graph: Graph, vector: np.ndarray, query: Query, allowed: np.ndarray | None
    ) -> Found | None:
        """By a graph; None where too few of its rows are considered."""
        count = query.count
        if allowed is not None:
            share = np.count_nonzero(allowed) / max(1, len(allowed))
            if share < _SELECTIVE:
                return None
            count = int(1.5 * count / share) + 16
        numbers = graph.search(vector, count)
        if allowed is not None:
            numbers = numbers[numbers < len(allowed)]
            numbers = numbers[allowed[numbers]]
        found = self._rescored(numbers, vector, query)
        is_enough = len(found.keys) == min(query.count, len(self.table))
        return found if is_enough else None

    def _rescored(self, numbers: np.ndarray, vector: np.ndarray, query: Query) -> Found:
        """The nearest of some rows, by distances in float64."""
        keys, vectors, _ = self.table.taken(numbers)
        distances = query.metric.distances(vectors, vector)
        order = np.argsort(distances, kind="stable")[: query.count]
        return Found([keys[n] for n in order.tolist()], distances[order])

    def _allowed(self, query: Query, snapshot: Snapshot) -> np.ndarray:
        mask = snapshot.alive
        if query.since is not None:
            mask = mask & (snapshot.times >= query.since)
        if query.filters is not None:
            mask = mask & self._matching(query.filters, snapshot)
        return mask

    def _matching(self, filters: Filter, snapshot: Snapshot) -> np.ndarray:
        with self.table.lock:
            columns = dict(self.table.columns)
            times = NumberColumn.of(snapshot.times, snapshot.alive, 1_000_000_000)
            columns.setdefault(EVENT_TIME, times)
            return matching(filters, columns, len(snapshot.times))

    def _check(self, query: Query) -> None:
        width, shape = self.table.width, query.vector.shape
        if shape != (width,) or not np.isfinite(query.vector).all():
            found = f"shape {shape}" if shape != (width,) else "numbers that are not finite"
            raise QueryError(
                f"A query is a vector of {width} finite numbers, as the stored vectors are",
                detail=found,
                hint="make it by the same model as those",
            )
        if query.count < 1:
            raise QueryError(
                "A search is for one row at least",
                detail=f"{query.count}",
                hint="give a top_k of 1 or more",
            )

    def _is_large(self) -> bool:
        return len(self.table) > self._options.exact_rows

    def _graph(self, metric: Metric, vector: np.ndarray) -> Graph | None:
        """The graph, if it is built; else it is begun in the background."""
        self._asked.append(vector)
        found = self._graphs.get(metric)
        if found is None and graphs.is_installed():
            with self._lock:
                if metric not in self._graphs:
                    self._graphs[metric] = Maintained()
                    self._begin(metric, self._graphs[metric])
        return found.graph if found else None

    def _follow(self, numbers: np.ndarray) -> None:
        """Let the graphs know which rows changed or are gone."""
        for metric, maintained in list(self._graphs.items()) if len(numbers) else ():
            with maintained.lock:
                if maintained.is_building:
                    maintained.dirty.update(numbers.tolist())
                if maintained.graph is not None:
                    self._update(maintained.graph, numbers)
            if maintained.is_worn():
                self._begin(metric, maintained)

    def _update(self, graph: Graph, numbers: np.ndarray) -> None:
        _, vectors, stored = self.table.taken(numbers)
        graph.remove(np.setdiff1d(numbers, stored))
        graph.add(stored, vectors)

    def _begin(self, metric: Metric, maintained: Maintained) -> None:
        """Build a graph in the background."""
        maintained.is_building = True
        builder = Thread(target=self._build, args=(metric, maintained), daemon=True)
        builder.name = f"reki-graph-{metric.value}"
        builder.start()

    def _build(self, metric: Metric, maintained: Maintained) -> None:
        """Build a graph, or load it, and put it in service if it finds enough; else none is."""
        try:
            saved = self._saved(metric) if maintained.graph is None else None
            loaded = saved.load(self.table) if saved else None
            graph = self._built(metric) if loaded is None else loaded[0]
            if loaded is not None:
                self._update(graph, loaded[1])
            if self._finds_enough(graph, metric, maintained):
                self._serve(graph, maintained)
        finally:
            maintained.is_building = False
            maintained.dirty.clear()
        if maintained.graph is graph and loaded is None and not self._closed:
            self._save(metric, graph)

    def _finds_enough(self, graph: Graph, metric: Metric, maintained: Maintained) -> bool:
        """Whether a graph reaches its recall; tried again where rows change meanwhile."""
        while not self._closed:
            while maintained.dirty:
                self._update(graph, maintained.changed())
            if graph.tune(*self._trial(metric)):
                return True
            if not maintained.dirty:
                break
            time.sleep(_PAUSE_S)
        return False

    def _serve(self, graph: Graph, maintained: Maintained) -> None:
        """Put a graph in service, with what changed last."""
        while len(maintained.dirty) > _CHUNK:
            self._update(graph, maintained.changed())
        with maintained.lock:
            self._update(graph, maintained.changed())
            maintained.graph, maintained.is_building = graph, False

    def _built(self, metric: Metric) -> Graph:
        graph, alive = Graph(metric, self.table.width), self.table.alive()
        for start in range(0, len(alive), _CHUNK):
            if self._closed:
                break
            _, vectors, stored = self.table.taken(alive[start : start + _CHUNK])
            graph.add(stored, vectors, _CHUNK)
        return graph

    def _save(self, metric: Metric, graph: Graph) -> None:
        """Keep a graph; not one with vectors of rows that are deleted."""
        saved = self._saved(metric)
        if saved and saved.save(graph, self.table) and graph.removed:
            saved.delete()

    def _trial(self, metric: Metric) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Queries, and what the true answers to them are.

        Queries lie between rows: a graph finds a row itself, and its links, more easily.
        """
        rng, alive = np.random.default_rng(0), self.table.alive()
        sample = rng.choice(alive, min(_TRIED, len(alive)), replace=False)
        _, vectors, _ = self.table.taken(sample)

        def truth(vector: np.ndarray) -> np.ndarray:
            snapshot, count = self.table.snapshot(), graphs.RECALL_AT
            numbers = candidates(snapshot, vector, metric, count, None)
            distances = metric.distances(snapshot.vectors[numbers], vector)
            nearest: np.ndarray = numbers[np.argsort(distances, kind="stable")[:count]]
            return nearest

        def between(vector: np.ndarray) -> np.ndarray:
            if not len(near := truth(vector)):  # all were removed meanwhile
                return vector[None]
            one, other = self.table.snapshot().vectors[rng.choice(near, 2)]
            moved: np.ndarray = vector + (one - other) / 2
            return moved[None]

        asked = [one[None] for one in list(self._asked)]
        return np.concatenate([vectors[:0], *map(between, vectors), *asked]), truth

    def _saved(self, metric: Metric) -> SavedGraph | None:
        folder = self._options.folder
        return SavedGraph(folder, metric) if folder else None
