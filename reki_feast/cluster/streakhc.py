"""StreaKHC, streaming hierarchical clustering, in scikit-learn's manners."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state

from reki_feast import files
from reki_feast.cluster import shape, tree
from reki_feast.cluster.kernel import Floats, IsolationKernel, Maps, places
from reki_feast.cluster.shape import Labels
from reki_feast.cluster.tree import Tree, grown
from reki_feast.errors import ClusterError

#: ``labels_`` are those of a cut at this size, the paper's cap on a group of items.
LABELS_MAX_SIZE = 80
#: Centres drawn from fewer points than this are drawn again as points come.
YOUNG = 1_000
_CHUNK = 32_768
_FORMAT = 1


class StreaKHC(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Streaming hierarchical clustering based on point-set kernel.

    Han, Zhu, Ting, Zhan and Li, KDD 2022. Every point costs one walk down the tree, whatever came
    before it; nothing is ever built again. Three things differ from the paper, all for the better
    and all bounded in cost: the search for a leaf goes on from the best two nodes of a level
    instead of one, a node whose points have doubled may rotate a grandchild up, and a path that
    grows much longer than the logarithm of its points is balanced
    (:mod:`reki_feast.cluster.tree`).

    **Centres.** The kernel's centres are drawn from the first batch. While they were drawn from
    fewer than 1,000 points, they are drawn again, from all points so far, each time the points
    have doubled, and the tree is built again from these few. From then on they stand, and so does
    the tree: :attr:`drift_` tells how far later points fall otherwise than the first ones did.
    Beyond 0.5 the kernel no longer tells the new points apart well: fit anew.

    Memory: t bytes a point for its map, 64 for its two nodes, and at most 4 * t * psi / 16 more
    for sums: some 800 bytes a point in practice with the defaults. Points are not kept.

    Args:
        n_estimators: t, random subsets of the isolation kernel.
        max_samples: psi, centres a subset; at most half of the points they are drawn from.
        random_state: of the centres; an int makes everything repeatable.
        beam_width: nodes of a level that the search goes on from; time grows with it. 1 is the
            paper's. On 200,000 points of 1,000 Gaussians, dendrogram purity is 0.24 with 1, 0.42
            with 2, 0.66 with 8; on a few classes it hardly matters.

    Attributes:
        n_features_in_: d, floats of a point.
        n_samples_seen_: n, points in the tree.
        labels_: int64 ``[n]``, ``cut(max_size=80)``.
        drift_: 0 to 1, the share of later points that would have to move between the kernel's
            cells to be spread over them as the points that the centres were drawn from are.

    >>> points = [[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]]
    >>> StreaKHC(random_state=0).fit(points).cut(n_clusters=2).tolist()
    [0, 0, 1, 1]
    """

    def __init__(
        self,
        n_estimators: int = 300,
        max_samples: int = 13,
        random_state: int | np.random.RandomState | None = None,
        beam_width: int = 2,
    ) -> None:
        self.n_estimators = n_estimators
        self.max_samples = max_samples
        self.random_state = random_state
        self.beam_width = beam_width

    def fit(self, X: npt.ArrayLike, y: object = None) -> StreaKHC:  # noqa: ARG002, N803
        """Begin a new tree with these points, in their order.

        Args:
            X: ``[n, d]``; n may be 0.
            y: ignored.

        Raises:
            ClusterError: the points are not finite numbers in rows, or a parameter is no
                positive integer.
        """
        for name in _FITTED:
            self.__dict__.pop(name, None)
        return self.partial_fit(X)

    def partial_fit(self, X: npt.ArrayLike, y: object = None) -> StreaKHC:  # noqa: ARG002, N803
        """Add points to the tree, in their order; the first call begins it.

        After the first batch it does not matter how points are cut into batches.

        Raises:
            ClusterError: as in :meth:`fit`, or d differs from that of earlier points. The tree is
                as it was.
        """
        points = self._checked(X)
        if not hasattr(self, "_tree"):
            self._begin(points.shape[1])
        done = 0
        if self._kernel is None and len(points):
            self._young = points
            self._draw()
            done = len(points)
        while done < len(points):
            upto = len(points)
            if self._drawn_from < YOUNG:
                upto = min(upto, done + 2 * self._drawn_from - self.n_samples_seen_)
                self._young = np.concatenate([self._young, points[done:upto]])
            self._add(points[done:upto])
            done = upto
            if self._drawn_from < YOUNG and self.n_samples_seen_ == 2 * self._drawn_from:
                self._draw()
        return self

    @property
    def n_samples_seen_(self) -> int:
        """n, points in the tree."""
        return self._fitted().points

    @property
    def labels_(self) -> Labels:
        """Int64 ``[n]``, ``cut(max_size=80)``."""
        return self.cut(max_size=LABELS_MAX_SIZE)

    @property
    def drift_(self) -> float:
        """Total variation between the cells of the first points and of the later ones, 0 to 1."""
        self._fitted()
        later = self._tree.sums[0].astype(np.float64) - self._first_cells
        count = self.n_samples_seen_ - self._drawn_from
        if self._kernel is None or count <= 0:
            return 0.0
        apart = np.abs(later / count - self._first_cells / self._drawn_from)
        return float(apart.sum() / (2 * self._kernel.t))

    def cut(self, *, max_size: int | None = None, n_clusters: int | None = None) -> Labels:
        """Clusters of the tree as it stands, which is not built again.

        Args:
            max_size: the largest nodes of at most so many points.
            n_clusters: so many nodes: the one with most points is taken apart until there are.

        Returns:
            Int64 ``[n]``, the cluster of each point, from 0, in the tree's order.

        Raises:
            ClusterError: not exactly one of the two is given, or it is out of range.
        """
        found = self._fitted()
        if (max_size is None) == (n_clusters is None):
            given = f"max_size={max_size}, n_clusters={n_clusters}"
            mend = "cut(max_size=80) or cut(n_clusters=107)"
            raise ClusterError("a cut is by size or by count", found=given, mend=mend)
        if max_size is not None:
            _positive("max_size", max_size)
            return shape.cut_by_size(found, max_size)
        _positive("n_clusters", n_clusters)
        assert n_clusters is not None
        if n_clusters > found.points:
            rule = "there are at most as many clusters as points"
            said = f"n_clusters={n_clusters}, {found.points} points"
            raise ClusterError(rule, found=said, mend="ask for fewer clusters")
        return shape.cut_by_count(found, n_clusters)

    def dendrogram_purity(self, y: npt.ArrayLike) -> float:
        """Expected dendrogram purity, 0 to 1, exact.

        Args:
            y: ``[n]``, the true class of each point, in order of arrival.

        Raises:
            ClusterError: as many classes as points are not given.
        """
        classes = np.asarray(y)
        if classes.shape != (self.n_samples_seen_,):
            rule = "purity takes one class a point"
            found = f"shape {classes.shape}, {self.n_samples_seen_} points"
            raise ClusterError(rule, found=found, mend="give y in the order of arrival")
        _, codes = np.unique(classes, return_inverse=True)
        return shape.dendrogram_purity(self._tree, codes.astype(np.int64))

    def save(self, path: str | Path) -> None:
        """Write tree, maps and centres as one safetensors file, in one step; no pickle.

        Raises:
            LakeError: the file cannot be written.
        """
        tensors, about = self.parts()
        files.write_tensors(Path(path), tensors, about)

    @classmethod
    def load(cls, path: str | Path) -> StreaKHC:
        """Read what :meth:`save` wrote; the stream goes on where it was.

        Raises:
            ClusterError: the file holds something else.
            LakeError: the file is missing or damaged.
        """
        return cls.of_parts(*files.read_tensors(Path(path)))

    def parts(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """All numbers by name, and the rest as JSON-able data; for :meth:`of_parts`."""
        found = self._fitted()
        points, rows, seed = found.points, int(found.state[tree.ROWS]), self.random_state
        tensors: dict[str, npt.NDArray[Any]] = {
            "nodes": found.nodes[: 2 * points].view(np.uint8).reshape(-1, tree.NODE.itemsize),
            "sums": found.sums[:rows],
            "free": found.free[: int(found.state[tree.FREE])],
            "state": found.state,
            "maps": self._maps[:points],
            "first_cells": self._first_cells,
            "young": self._young,
        }
        if self._kernel is not None:
            tensors["centres"] = self._kernel.centres
        about = {
            "format": _FORMAT,
            "n_estimators": int(self.n_estimators),
            "max_samples": int(self.max_samples),
            "beam_width": int(self.beam_width),
            "random_state": int(seed) if isinstance(seed, int | np.integer) else None,
            "seed": self._seed,
            "drawn_from": self._drawn_from,
            "draws": self._draws,
            "n_features_in": self.n_features_in_,
        }
        return {name: np.ascontiguousarray(value) for name, value in tensors.items()}, about

    @classmethod
    def of_parts(cls, tensors: dict[str, npt.NDArray[Any]], about: dict[str, Any]) -> StreaKHC:
        """The clustering that :meth:`parts` took apart.

        Raises:
            ClusterError: the parts are something else's, or of another version.
        """
        said = about if isinstance(about, dict) else {}
        absent = ", ".join(sorted(_PARTS - {*tensors, *said}))
        if said.get("format") != _FORMAT or absent:
            rule = f"a saved StreaKHC is of format {_FORMAT}, and whole"
            found = f"format {said.get('format')}" if said.get("format") != _FORMAT else ""
            mend = "fit anew, or read it with the version that wrote it"
            raise ClusterError(rule, found=found or f"no {absent}", mend=mend)
        made = cls(
            about["n_estimators"], about["max_samples"], about["random_state"], about["beam_width"]
        )
        made._begin(about["n_features_in"])
        made._seed, made._drawn_from = about["seed"], about["drawn_from"]
        made._draws, made._young = about["draws"], tensors["young"]
        made._first_cells, made._maps = tensors["first_cells"], tensors["maps"]
        if "centres" in tensors:
            made._kernel = IsolationKernel(tensors["centres"])
        nodes = np.ascontiguousarray(tensors["nodes"]).reshape(-1).view(tree.NODE)
        free = np.zeros(len(tensors["sums"]), np.int32)
        free[: len(tensors["free"])] = tensors["free"]
        state = tensors["state"].copy()  # the rest is copied as soon as a point comes
        made._tree = Tree(nodes, tensors["sums"], free, state)
        return made

    @property
    def tree_(self) -> Tree:
        """The tree's arrays, for :mod:`reki_feast.cluster.shape` and ``groups``."""
        return self._fitted()

    @property
    def maps_(self) -> Maps:
        """``[n, t]``, each point's nearest centre in each subset."""
        self._fitted()
        return self._maps[: self.n_samples_seen_]

    def _begin(self, features: int) -> None:
        for name in ("n_estimators", "max_samples", "beam_width"):
            _positive(name, getattr(self, name))
        self.n_features_in_ = features
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._kernel: IsolationKernel | None = None
        self._drawn_from, self._draws = 0, 0
        self._young = np.empty((0, features), np.float32)
        self._clear(self.max_samples)

    def _clear(self, psi: int) -> None:
        self._tree = tree.empty(self.n_estimators * psi)
        self._maps: Maps = places(0, self.n_estimators, psi)
        self._first_cells = np.zeros(self.n_estimators * psi)

    def _draw(self) -> None:
        """Draw the centres from the points kept, and build the tree from them."""
        random = np.random.default_rng([self._seed, self._draws])
        self._draws += 1
        points = self._young
        self._kernel = IsolationKernel.draw(points, self.n_estimators, self.max_samples, random)
        self._drawn_from = len(points)
        self._clear(self._kernel.psi)
        self._add(points)
        self._first_cells = self._tree.sums[0].astype(np.float64)
        if self._drawn_from >= YOUNG:
            self._young = points[:0].copy()  # a view would keep them all

    def _add(self, points: Floats) -> None:
        assert self._kernel is not None
        for start in range(0, len(points), _CHUNK):
            part = points[start : start + _CHUNK]
            seen = self._tree.points
            last = seen + len(part)
            self._maps = grown(self._maps, last, seen)
            self._maps[seen:last] = self._kernel.map(part)
            self._tree = tree.with_room(self._tree, last)
            tree.insert(self._tree, self._maps, last, beam=self.beam_width)

    def _fitted(self) -> Tree:
        if not hasattr(self, "_tree"):
            raise ClusterError("a tree has points", found="not fitted", mend="call fit(X) first")
        return self._tree

    def _checked(self, given: npt.ArrayLike) -> Floats:
        try:
            wide = np.asarray(given)
            if wide.dtype.kind in "cmM":
                raise TypeError(f"values of type {wide.dtype}")
            wide = wide.astype(np.float64, copy=False)
        except (TypeError, ValueError) as error:
            rule, mend = "points are numbers in rows of equal length", "give an [n, d] array"
            raise ClusterError(rule, found=str(error), mend=mend) from error
        if wide.ndim != 2 or wide.shape[1] == 0:
            rule, mend = (
                "points are an array [n, d] with d of 1 or more",
                "reshape it: one row a point",
            )
            raise ClusterError(rule, found=f"shape {wide.shape}", mend=mend)
        known = getattr(self, "n_features_in_", wide.shape[1])
        if wide.shape[1] != known:
            rule, mend = "all points of a tree have as many floats", "fit(X) begins a new tree"
            found = f"{wide.shape[1]} floats, {known} before"
            raise ClusterError(rule, found=found, mend=mend)
        with np.errstate(over="ignore"):
            points = np.ascontiguousarray(wide, np.float32)
        bad = ~np.isfinite(points).all(axis=1)
        if bad.any():
            rule = "points are finite in float32"
            found = f"{int(bad.sum())} of {len(points)} rows are not, first row {int(bad.argmax())}"
            raise ClusterError(rule, found=found, mend="drop or fill those rows; scale huge values")
        return points


_FITTED = ("_tree", "_kernel", "n_features_in_")
_PARTS = {
    *("nodes", "sums", "free", "state", "maps", "first_cells", "young"),
    *("n_estimators", "max_samples", "beam_width", "random_state"),
    *("seed", "drawn_from", "draws"),
    "n_features_in",
}


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        rule = f"{name} is an integer of 1 or more"
        raise ClusterError(rule, found=repr(value), mend=f"set {name}")
