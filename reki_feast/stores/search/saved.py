"""Graphs on disk: the graph, and beside it which key and which vector each of its nodes is of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from reki_feast import files, permissions
from reki_feast.errors import LakeError

from .graph import BUILD_BREADTH, LINKS, Graph, fingerprints
from .metrics import Metric
from .table import VectorTable

#: Of what the files hold; another one is not read.
_FORMAT = 1


@dataclass(frozen=True)
class SavedGraph:
    """A graph of one metric in a folder, this user's alone.

    It is a cache: what is missing, damaged or of another kind is built anew.

    Attributes:
        folder: of one view's vectors.
        metric: of the graph.
    """

    folder: Path
    metric: Metric

    def load(self, table: VectorTable) -> tuple[Graph, np.ndarray] | None:
        """The graph, and the (n,) numbers of rows that it lacks or has other vectors of.

        None where there is none, or more than half of the rows are lacking.
        """
        try:
            with self._nodes.open("rb") as file, np.load(file) as nodes:
                if nodes["about"].tobytes() != self._about(table.width, self._graph.stat().st_size):
                    return None
                keys = _split(nodes["keys"].tobytes(), nodes["ends"])
                prints = nodes["prints"]
                rows, lacking = _matched(table, keys, prints)
            if 2 * len(lacking) > len(table):
                return None
            graph = Graph.read(self._graph, self.metric, rows, prints)
        except (OSError, EOFError, ValueError, KeyError, RuntimeError, BadZipFile):
            return None
        return graph, lacking

    def save(self, graph: Graph, table: VectorTable) -> bool:
        """Write a graph; whether the folder could be written."""
        try:
            permissions.make_folder(self.folder, permissions.OWNER)
            nodes: list[np.ndarray] = []
            self._nodes.unlink(missing_ok=True)
            mode = permissions.OWNER.file
            files.atomically(self._graph, lambda path: nodes.extend(graph.write(path)), mode=mode)
            described = self._described(table, *nodes)
            files.atomically(self._nodes, lambda path: _savez(path, described), mode=mode)
        except (OSError, LakeError):
            return False
        return True

    def delete(self) -> None:
        """Delete the files: they hold vectors of rows that are deleted."""
        self._nodes.unlink(missing_ok=True)
        self._graph.unlink(missing_ok=True)

    def _described(
        self, table: VectorTable, rows: np.ndarray, prints: np.ndarray
    ) -> dict[str, np.ndarray]:
        keys, _ = table.of_numbers(rows)
        return {
            "about": _bytes(self._about(table.width, self._graph.stat().st_size)),
            "keys": _bytes(b"".join(keys)),
            "ends": np.cumsum([len(key) for key in keys], dtype=np.int64),
            "prints": prints,
        }

    def _about(self, width: int, size: int) -> bytes:
        told = [_FORMAT, self.metric.value, width, LINKS, BUILD_BREADTH, size]
        return json.dumps(told).encode()

    @property
    def _graph(self) -> Path:
        return self.folder / f"{self.metric.value}.faiss"

    @property
    def _nodes(self) -> Path:
        return self.folder / f"{self.metric.value}.npz"


def _matched(
    table: VectorTable, keys: Sequence[bytes], told: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The row of each node, -1 where it has another vector by now; and the rows without a node."""
    rows = table.numbers(keys)
    _, vectors = table.of_numbers(rows)
    rows[fingerprints(vectors) != told] = -1
    lacking = np.setdiff1d(table.alive(), rows)
    return rows, lacking


def _split(joined: bytes, ends: np.ndarray) -> list[bytes]:
    starts = [0, *ends.tolist()[:-1]]
    return [joined[start:end] for start, end in zip(starts, ends.tolist(), strict=True)]


def _bytes(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8)


def _savez(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)
