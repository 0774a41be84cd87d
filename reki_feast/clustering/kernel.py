"""The isolation kernel: a point is told by the nearest of a few centres, t times over.

Ting, Zhu and Zhou, "Isolation Kernel and Its Effect on SVM", KDD 2018, with the Voronoi cells of
Qin, Ting, Zhu and Lee, AAAI 2019; as used by StreaKHC (Han et al., KDD 2022, section 3). Two
points are the more similar the more often they share a cell; cells are small where points are
dense, so that similarity follows density. A point's feature map has t blocks of psi floats, one of
which is 1; here it is the t positions of those ones.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from reki_feast.clustering.compiled import compiled

Floats = npt.NDArray[np.float32]
#: Positions of the ones, as :func:`empty_maps` makes them.
Maps = npt.NDArray[Any]

_ROWS = 2048  # mapped by one thread at a time


def empty_maps(points: int, t: int, psi: int) -> Maps:
    """``[points, t]``, not filled: uint8 up to 256 centres a subset, uint16 or uint32 beyond."""
    return np.empty((points, t), np.min_scalar_type(psi - 1))


class IsolationKernel:
    """t random subsets of psi points, and the map of a point to its nearest centre in each.

    Args:
        centres: float32 ``[t, psi, d]``.

    Attributes:
        t: number of subsets.
        psi: centres of a subset.
    """

    def __init__(self, centres: Floats) -> None:
        self.centres = np.ascontiguousarray(centres, np.float32)
        self.t, self.psi, self.d = self.centres.shape
        # by dimension, then by centre within the subset: subsets lie side by side
        self._columns = np.ascontiguousarray(self.centres.transpose(2, 1, 0)).reshape(self.d, -1)

    @classmethod
    def draw(cls, points: Floats, t: int, psi: int, random: np.random.Generator) -> IsolationKernel:
        """Draw each subset without replacement; psi is at most half of the points, rounded up.

        Were every point a centre, no two points would share a cell, and all be equally unlike.
        """
        count = min(psi, (len(points) + 1) // 2)
        chosen = np.stack([random.choice(len(points), count, replace=False) for _ in range(t)])
        return cls(points[chosen])

    def map(self, points: Floats) -> Maps:
        """``[n, d]`` to ``[n, t]``: the nearest centre in each subset, the first of equals.

        A row's result does not depend on the rows beside it, nor on the number of threads.
        """
        out = empty_maps(len(points), self.t, self.psi)
        starts = range(0, len(points), _ROWS)

        def part(start: int) -> None:
            rows = slice(start, start + _ROWS)
            _nearest(points[rows], self._columns, self.t, self.psi, out[rows])

        workers = min(os.cpu_count() or 1, len(starts))
        if workers <= 1:
            for start in starts:
                part(start)
        else:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(part, starts))
        return out


@compiled
def _nearest(points: Floats, columns: Floats, t: int, psi: int, out: Maps) -> None:
    """Squared differences summed dimension by dimension: no cancellation far from the origin."""
    n, d = points.shape
    width = t * psi
    distance = np.empty(width, np.float32)
    best = np.empty(t, np.float32)
    for row in range(n):
        distance[:] = np.float32(0)
        k = 0
        while k + 4 <= d:
            x0, x1, x2, x3 = (
                points[row, k],
                points[row, k + 1],
                points[row, k + 2],
                points[row, k + 3],
            )
            for c in range(width):
                d0 = columns[k, c] - x0
                d1 = columns[k + 1, c] - x1
                d2 = columns[k + 2, c] - x2
                d3 = columns[k + 3, c] - x3
                distance[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
            k += 4
        while k < d:
            x0 = points[row, k]
            for c in range(width):
                d0 = columns[k, c] - x0
                distance[c] += d0 * d0
            k += 1
        for j in range(t):
            best[j] = distance[j]
            out[row, j] = 0
        for r in range(1, psi):
            for j in range(t):
                if distance[r * t + j] < best[j]:
                    best[j] = distance[r * t + j]
                    out[row, j] = r
