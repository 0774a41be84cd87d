"""An approximate index: a hierarchical navigable small world graph of faiss (``faiss-cpu``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from .columns import grown
from .metrics import Metric

#: Links of a node, and candidates that are looked at where one is added.
LINKS, BUILD_BREADTH = 16, 128
#: Candidates of a search that are tried, until the recall is enough.
BREADTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
#: Share of the true nearest that a trial finds, at this many: .99 of all queries for sure.
RECALL, RECALL_AT = 0.993, 50
#: Vectors added while searches wait.
BATCH = 256


def is_installed() -> bool:
    """Whether there is a library for graphs."""
    return find_spec("faiss") is not None


class Graph:
    """Rows by their numbers, for one metric.

    A vector that was replaced or removed stays in the graph, and no longer counts.

    Attributes:
        breadth: candidates that a search looks at.
        removed: whether it holds vectors of rows that were removed.
    """

    def __init__(self, metric: Metric, width: int) -> None:
        """Empty; ``width`` is how many numbers a vector has."""
        faiss = _faiss()
        kind = faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT
        half = faiss.ScalarQuantizer.QT_fp16
        self._index: Any = faiss.IndexHNSWSQ(width, half, LINKS, kind)
        self._index.hnsw.efConstruction = BUILD_BREADTH
        self._metric, self._lock = metric, Lock()
        self._row_of = np.zeros(0, np.int64)  # of each vector of the graph; -1: it does not count
        self._id_of = np.zeros(0, np.int64)  # of each row, one more than its vector's id; 0: none
        self._prints = np.zeros(0, np.uint64)  # fingerprint of each vector
        self.breadth, self.removed = BREADTHS[0], False

    def __len__(self) -> int:
        return int(np.count_nonzero(self._row_of >= 0))

    @property
    def dead(self) -> int:
        """How many vectors no longer count."""
        return len(self._row_of) - len(self)

    def add(self, rows: np.ndarray, vectors: np.ndarray, batch: int = BATCH) -> None:
        """Add rows, in place of those of the same numbers.

        Args:
            rows: (n,) numbers.
            vectors: (n, d) float32.
            batch: vectors that are added while searches wait.
        """
        prepared = _unit(vectors) if self._metric is Metric.COSINE else vectors
        prints = fingerprints(vectors)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            with self._lock:
                self._forget(part)
                first = len(self._row_of)
                self._index.add(np.ascontiguousarray(prepared[start : start + batch]))
                self._row_of = np.concatenate([self._row_of, part])
                self._prints = np.concatenate([self._prints, prints[start : start + batch]])
                self._id_of[part] = np.arange(first, first + len(part)) + 1

    def remove(self, rows: np.ndarray) -> None:
        """Let rows no longer count."""
        with self._lock:
            self._forget(rows)
            self.removed |= bool(len(rows))

    def search(self, query: np.ndarray, count: int, breadth: int = 0) -> np.ndarray:
        """Numbers of about the nearest rows.

        Args:
            query: (d,) float32.
            count: how many; fewer are found where some no longer count.
            breadth: candidates that are looked at; 0: as many as the recall needs.
        """
        faiss = _faiss()
        one = _unit(query[None]) if self._metric is Metric.COSINE else query[None]
        wanted = max(breadth or self.breadth, count + count * self.dead // max(1, len(self)))
        limits = faiss.SearchParametersHNSW(efSearch=wanted)
        with self._lock:
            _, ids = self._index.search(np.ascontiguousarray(one), wanted, params=limits)
            rows = self._row_of[ids[0][ids[0] >= 0]]
        found: np.ndarray = rows[rows >= 0][:count]
        return found

    def tune(self, queries: np.ndarray, truth: Callable[[np.ndarray], np.ndarray]) -> bool:
        """Look at as many candidates as the recall needs; whether it is reached.

        Args:
            queries: (n, d) float32.
            truth: the numbers of the nearest rows of a query.
        """
        expected = [set(truth(query).tolist()) for query in queries]
        for breadth in BREADTHS:
            found = [set(self.search(q, RECALL_AT, breadth).tolist()) for q in queries]
            hits = sum(len(a & b) for a, b in zip(found, expected, strict=True))
            if hits >= RECALL * sum(map(len, expected)):
                self.breadth = breadth
                return True
        return False

    def write(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Write the graph to a file.

        Returns:
            Of each of its n vectors the row, -1 where it no longer counts, and the fingerprint.
        """
        faiss = _faiss()
        with self._lock:
            faiss.write_index(self._index, str(path))
            return self._row_of.copy(), self._prints.copy()

    @classmethod
    def read(cls, path: Path, metric: Metric, rows: np.ndarray, prints: np.ndarray) -> Graph:
        """A graph from a file.

        Args:
            path: that ``write`` wrote.
            metric: of the graph.
            rows: (n,) the row of each of its vectors now; -1: it does not count.
            prints: (n,) fingerprints of its vectors.

        Raises:
            RuntimeError: the file is not readable by faiss.
            ValueError: it holds another number of vectors.
        """
        faiss = _faiss()
        index = faiss.read_index(str(path))
        if index.ntotal != len(rows):
            raise ValueError(f"{index.ntotal} vectors, not {len(rows)}")
        graph = cls(metric, index.d)
        graph._index, graph._row_of, graph._prints = index, rows, prints
        graph._reach(rows)
        alive = np.flatnonzero(rows >= 0)
        graph._id_of[rows[alive]] = alive + 1
        return graph

    def _forget(self, rows: np.ndarray) -> None:
        self._reach(rows)
        ids = self._id_of[rows]
        self._row_of[ids[ids > 0] - 1] = -1
        self._id_of[rows] = 0

    def _reach(self, rows: np.ndarray) -> None:
        """Have room for these row numbers."""
        extent = int(rows.max(initial=-1)) + 1
        if extent > len(self._id_of):
            self._id_of = grown(self._id_of, extent + extent // 4)


def _faiss() -> Any:
    """The library; its own types lack much of it."""
    return import_module("faiss")


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def fingerprints(vectors: np.ndarray, chunk: int = 65_536) -> np.ndarray:
    """(n,) uint64 that tell vectors apart."""
    factors = np.random.default_rng(0).integers(1, 1 << 63, vectors.shape[1], np.uint64) | 1
    words = np.ascontiguousarray(vectors).view(np.uint32)
    parts: Sequence[np.ndarray] = [
        (words[start : start + chunk].astype(np.uint64) * factors).sum(1)
        for start in range(0, len(words), chunk)
    ]
    return np.concatenate([np.zeros(0, np.uint64), *parts])
