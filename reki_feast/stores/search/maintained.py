"""A graph in service, and what changes while another one is built."""

from __future__ import annotations

from threading import RLock

import numpy as np

from .graph import Graph

#: A graph is built anew when so many of its vectors no longer count, as a share of the others.
_WORN = 0.25


class Maintained:
    """A graph of one metric, and what changed while it is built.

    Attributes:
        graph: the one in service; None: none, or none yet.
        is_building: whether one is built.
        dirty: numbers of rows that changed since that was begun.
        lock: held while the graph is put in service or updated.
    """

    def __init__(self) -> None:
        self.graph: Graph | None = None
        self.is_building = True
        self.dirty: set[int] = set()
        self.lock = RLock()

    def changed(self) -> np.ndarray:
        """The rows that changed since the last call."""
        with self.lock:
            changed = np.array(sorted(self.dirty), np.int64)
            self.dirty.clear()
        return changed

    def is_worn(self) -> bool:
        """Whether so much of the graph no longer counts that it is to be built anew."""
        graph = self.graph
        return graph is not None and not self.is_building and graph.dead > _WORN * len(graph)
