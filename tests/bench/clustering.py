"""Streaming hierarchical clustering: points a second, purity and memory, beside others.

Three parts. Real data (UCI, as the authors of StreaKHC prepared them): rows shuffled, the first
quarter as the first batch, then the rest; the median over seeds. A stream of a million points, one
process a method, so that its peak memory is its own. Orders of arrival that are meant to hurt.

The reference of the real data is the authors' own code, measured once (constants below); that of
the million is the limit it has to keep; that of the hurtful orders is our own speed on harmless
points of the same size.

Two kinds of purity. Dendrogram purity (expected, exact) needs a tree: of StreaKHC and of
AgglomerativeClustering. Flat purity is the share of points that are of their cluster's commonest
class, with as many clusters as there are classes: of all.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import AgglomerativeClustering, Birch, MiniBatchKMeans

from reki_feast import rendering
from reki_feast.clustering import StreaKHC, shape
from reki_feast.clustering.tree import NODE, Tree, empty
from reki_feast.report import Progress, Report, Table
from tests.bench.common import ROOT, Row, finish

Points = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Reference:
    """The authors' code (github.com/xhan97/StreaKHC), t=300, psi=13, median of 3 seeds.

    It takes points one at a time, and its tree forgets the oldest ones beyond 5,000.
    """

    points_per_s: float
    purity: float


AUTHORS = {
    "WDBC": Reference(770, 0.888),
    "Segment": Reference(1_540, 0.619),
    "pendig": Reference(1_450, 0.642),
}
SOURCE = "authors' code, github.com/xhan97/StreaKHC, median of 3 seeds"

MILLION, BATCH, WIDTH, GAUSSIANS = 1_000_000, 50_000, 32, 1_000
#: Standard deviation around centres in the unit cube: a Gaussian fits Birch's default threshold.
SPREAD = 0.08
LIMIT_S, LIMIT_GB = 600, 8
#: A method that has taken so long is stopped after the batch.
PATIENCE_S = 180


@dataclass(frozen=True)
class Clustered:
    """One method on one order of the points."""

    method: str
    seconds: float
    points: int
    flat_purity: float
    dendrogram_purity: float | None = None

    @property
    def points_per_s(self) -> float:
        return self.points / self.seconds


def flat_purity(labels: Labels, classes: Labels) -> float:
    """The share of points that are of their cluster's commonest class.

    >>> flat_purity(np.array([0, 0, 0, 1]), np.array([5, 5, 6, 6]))
    0.75
    """
    cells, counts = np.unique(np.stack([labels, classes]), axis=1, return_counts=True)
    most = np.zeros(int(labels.max()) + 1, np.int64)
    np.maximum.at(most, cells[0], counts)
    return float(most.sum() / len(labels))


def tree_of(children: npt.NDArray[Any]) -> Tree:
    """scikit-learn's merges as our tree, as far as purity needs it.

    >>> shape.leaf_order(tree_of(np.array([[0, 2], [1, 3]])))[0].tolist()
    [1, 0, 2]
    """
    n = len(children) + 1
    nodes = np.zeros(2 * n, NODE)
    numbers = np.r_[2 * np.arange(n), 2 * np.arange(n - 2, -1, -1) + 1]  # the last merge is 1
    nodes["size"][: 2 * n : 2] = 1
    nodes["parent"][1] = -1
    for inner, sides in zip(numbers[n:].tolist(), numbers[children].tolist(), strict=True):
        nodes["left"][inner], nodes["right"][inner] = sides
        nodes["parent"][sides] = inner
        nodes["size"][inner] = nodes["size"][sides].sum()
    made = empty(1)._replace(nodes=nodes)
    made.state[0] = n
    return made


def warm_up() -> None:
    """Let everything be compiled that is timed later."""
    points = np.random.default_rng(0).normal(size=(3_000, 5)).astype(np.float32)
    for fitted in (StreaKHC().fit(points), StreaKHC().fit(points[:100]).partial_fit(points)):
        fitted.cut(n_clusters=5)
        fitted.dendrogram_purity(np.arange(fitted.n_samples_seen_) % 3)
        shape.depths(fitted.tree_)
    MiniBatchKMeans(3, n_init=1).fit(points)


def clustered(method: str, points: Points, classes: Labels, seed: int) -> Clustered:
    """Cluster the points in their order."""
    n, count = len(points), len(np.unique(classes))
    began = time.perf_counter()
    if method.startswith("StreaKHC"):
        step = 1 if "one by one" in method else n
        ours = StreaKHC(random_state=seed).partial_fit(points[: n // 4])
        for start in range(n // 4, n, step):
            ours.partial_fit(points[start : start + step])
        seconds = time.perf_counter() - began
        labels, purity = ours.cut(n_clusters=count), ours.dendrogram_purity(classes)
        return Clustered(method, seconds, n, flat_purity(labels, classes), purity)
    if method == "AgglomerativeClustering":
        theirs = AgglomerativeClustering(count, compute_full_tree=True).fit(points)
    elif method == "Birch":
        theirs = Birch(n_clusters=count, threshold=0.25).fit(points)
    else:
        theirs = MiniBatchKMeans(count, n_init=3, random_state=seed).fit(points)
    seconds = time.perf_counter() - began
    flat = flat_purity(theirs.labels_, classes)
    if method != "AgglomerativeClustering":
        return Clustered(method, seconds, n, flat)
    purity = shape.dendrogram_purity(tree_of(theirs.children_), classes)
    return Clustered(method, seconds, n, flat, purity)


METHODS = (
    *("StreaKHC", "StreaKHC, one by one"),
    *("Birch", "MiniBatchKMeans", "AgglomerativeClustering"),
)


def middle(runs: Sequence[Clustered]) -> Clustered:
    """The median of each figure."""
    purities = [run.dendrogram_purity for run in runs if run.dendrogram_purity is not None]
    return Clustered(
        runs[0].method,
        median(run.seconds for run in runs),
        runs[0].points,
        median(run.flat_purity for run in runs),
        median(purities) if purities else None,
    )


def real(folder: Path, seeds: Sequence[int], progress: Progress) -> tuple[list[Row], Table]:
    """Rows and table of the real data."""
    rows: list[Row] = []
    lines: list[tuple[Any, ...]] = []
    for name, reference in AUTHORS.items():
        points, classes = read(folder / f"{name}.csv")
        found: dict[str, Clustered] = {}
        with progress.bar(name) as bar:
            for done, method in enumerate(METHODS):
                runs = []
                for seed in seeds:
                    order = np.random.default_rng(seed).permutation(len(points))
                    runs.append(clustered(method, points[order], classes[order], seed))
                found[method] = middle(runs)
                bar(done + 1, len(METHODS))
        lines += [
            (
                f"{name}, {one.points:,} x {points.shape[1]}",
                one.method,
                round(one.points_per_s),
                one.seconds,
                one.dendrogram_purity,
                one.flat_purity,
            )
            for one in found.values()
        ]
        lines.append(
            ("", SOURCE.split(",")[0], round(reference.points_per_s), None, reference.purity, None)
        )
        ours = found.pop("StreaKHC")
        rows.append(
            {
                "name": f"streakhc_{name.lower()}",
                "ours": ours.points_per_s,
                "reference": reference.points_per_s,
                "ratio": ours.points_per_s / reference.points_per_s,
                "unit": "points/s",
                "purity": ours.dendrogram_purity,
                "reference_purity": reference.purity,
                "flat_purity": ours.flat_purity,
                "classes": len(np.unique(classes)),
                "points": len(points),
                "seeds": list(seeds),
                "reference_source": SOURCE,
                "beside": {
                    one.method: {**asdict(one), "points_per_s": one.points_per_s}
                    for one in found.values()
                },
            }
        )
    columns = (
        *("data", "method", "points/s", "seconds"),
        *("dendrogram purity", "flat purity"),
    )
    return rows, Table("real data, t=300, psi=13", columns, lines)


def read(path: Path) -> tuple[Points, Labels]:
    """Features and classes of a file of row id, class, features."""
    values = np.loadtxt(path, delimiter=",", dtype=np.float64)
    return values[:, 2:].astype(np.float32), values[:, 1].astype(np.int64)


def stream(points: int) -> Iterator[tuple[Points, Labels]]:
    """A mixture of Gaussians in batches, each from its own seed."""
    centres = np.random.default_rng(0).random((GAUSSIANS, WIDTH), np.float32)
    for start in range(0, points, BATCH):
        draw = np.random.default_rng([1, start])
        classes = draw.integers(0, GAUSSIANS, min(BATCH, points - start))
        noise = draw.standard_normal((len(classes), WIDTH), np.float32)
        noise *= np.float32(SPREAD)
        noise += centres[classes]
        yield noise, classes


def memory(field: str) -> float:
    """GB of this process, ``VmRSS`` now or ``VmHWM`` at the most so far.

    ``getrusage`` alone would not do: after an exec it still knows the parent's peak.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split(f"{field}:")[1].split()[0]) * 1024 / 1e9
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def streamed(method: str, points: int) -> dict[str, Any]:
    """Take the stream with one method, in this process, and say what it took."""
    warm_up()
    model: Any
    if method == "StreaKHC":
        model = StreaKHC(random_state=0)
    elif method == "Birch":
        model = Birch(n_clusters=None)
    else:
        model = MiniBatchKMeans(GAUSSIANS, random_state=0, n_init=1)
    gc.collect()
    before = memory("VmRSS")
    seconds: list[float] = []
    depths: list[float] = []
    known: list[Labels] = []
    for batch, classes in stream(points):
        began = time.perf_counter()
        model.partial_fit(batch)
        seconds.append(time.perf_counter() - began)
        known.append(classes.astype(np.int16))
        if method == "StreaKHC" and len(seconds) * BATCH in (BATCH, points):
            depths.append(float(shape.depths(model.tree_)[-len(batch) :].mean()))
        del batch
        if sum(seconds) > PATIENCE_S and method != "StreaKHC":
            break
    gc.collect()
    after, peak = memory("VmRSS"), memory("VmHWM")
    every = np.concatenate(known).astype(np.int64)
    said: dict[str, Any] = {"method": method, "points": len(every), "seconds": sum(seconds)}
    said["points_per_s"] = len(every) / sum(seconds)
    said.update(gb_before=before, gb_after=after, gb_peak=peak)
    said["bytes_a_point"] = (after - before) * 1e9 / len(every)
    said.update(first_batch_s=seconds[0], last_batch_s=seconds[-1])
    if method == "StreaKHC":
        said.update(first_batch_depth=depths[0], last_batch_depth=depths[-1])
        all_depths = shape.depths(model.tree_)
        said.update(mean_depth=float(all_depths.mean()), max_depth=int(all_depths.max()))
        said["dendrogram_purity"] = model.dendrogram_purity(every)
        said["flat_purity"] = flat_purity(model.cut(n_clusters=GAUSSIANS), every)
    elif method == "MiniBatchKMeans":
        labels = [model.predict(batch) for batch, _ in stream(len(every))]
        said["flat_purity"] = flat_purity(np.concatenate(labels), every)
    else:
        said["subclusters"] = len(model.subcluster_centers_)
        left = stream(min(len(every), 2 * BATCH))
        sample = [(model.predict(batch), classes) for batch, classes in left]
        found = [np.concatenate(part) for part in zip(*sample, strict=True)]
        said["flat_purity"] = flat_purity(found[0], found[1])
    return said


def million(points: int, progress: Progress) -> tuple[Row, Table, list[str]]:
    """Row, table and notes of the long stream, each method in a process of its own."""
    found: list[dict[str, Any]] = []
    methods = ("StreaKHC", "MiniBatchKMeans", "Birch")
    with progress.bar(f"{points:,} points") as bar:
        for done, method in enumerate(methods):
            command = [
                sys.executable,
                "-m",
                __spec__.name if __spec__ else "tests.bench.clustering",
            ]
            command += ["--stream", method, "--points", str(points)]
            said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
            found.append(json.loads(said.stdout.splitlines()[-1]))
            bar(done + 1, len(methods))
    ours = found[0]
    limit = LIMIT_S * points / MILLION
    row = {
        "name": "streakhc_1m" if points == MILLION else f"streakhc_{points}",
        "ours": ours["points_per_s"],
        "reference": points / limit,
        "ratio": ours["points_per_s"] * limit / points,
        "unit": "points/s",
        "reference_source": f"the limit: {points:,} points in {limit:.0f} s",
        **{name: value for name, value in ours.items() if name not in ("method", "points_per_s")},
        "limit_s": limit,
        "limit_gb": LIMIT_GB,
        "kept": bool(ours["seconds"] <= limit and ours["gb_peak"] <= LIMIT_GB),
        "beside": {one["method"]: one for one in found[1:]},
    }
    columns = {
        "points": "points",
        "seconds": "seconds",
        "points_per_s": "points/s",
        "gb_before": "GB before",
        "gb_peak": "GB peak",
        "bytes_a_point": "bytes a point",
        "first_batch_s": "first batch s",
        "last_batch_s": "last batch s",
        "first_batch_depth": "its depth",
        "last_batch_depth": "last's depth",
        "mean_depth": "mean depth",
        "max_depth": "max depth",
        "dendrogram_purity": "dendr. purity",
        "flat_purity": "flat purity",
    }
    lines = [(name, *(rounded(one.get(key)) for one in found)) for key, name in columns.items()]
    title = f"a stream of {points:,} points of {WIDTH} floats, {GAUSSIANS:,} Gaussians"
    notes = [
        f"limits of the long stream: {limit:.0f} s, {LIMIT_GB} GB; "
        + ("kept" if row["kept"] else "NOT KEPT"),
        "depth is the mean over the batch's own points, as the tree was after the batch",
        "AgglomerativeClustering is left out of the long stream: its time and memory are quadratic",
        "Birch of the long stream makes no final clusters (n_clusters=None): its flat purity is "
        f"that of {found[2]['subclusters']:,} subclusters, on the first {2 * BATCH:,} points",
    ]
    notes += [
        f"{one['method']} was stopped after {one['points']:,} points: {PATIENCE_S} s were over"
        for one in found[1:]
        if one["points"] < points
    ]
    return row, Table(title, ("", *methods), lines), notes


def rounded(value: Any) -> Any:
    return round(value) if isinstance(value, float) and value >= 1_000 else value


def hurtful(
    folder: Path | None, points: int, seeds: Sequence[int], progress: Progress
) -> tuple[list[Row], Table]:
    """Rows and table of orders of arrival that are meant to hurt."""
    draw = np.random.default_rng(0)
    normal = draw.normal(size=(points, 16)).astype(np.float32)
    outliers = normal.copy()
    outliers[::100] *= np.geomspace(10, 1e15, len(outliers[::100]), dtype=np.float32)[:, None]
    line = np.sort(normal[:, :1], axis=0) * np.ones(16, np.float32)
    cases: dict[str, tuple[str, Points, Points]] = {
        "streakhc_equal": ("equal points", np.ones_like(normal), normal),
        "streakhc_outliers": ("every 100th ever farther out", outliers, normal),
        "streakhc_line": ("sorted along a line", line, normal),
    }
    if folder is not None:
        real_points, classes = read(folder / "pendig.csv")
        by_class = real_points[np.argsort(classes, kind="stable")]
        shuffled = draw.permutation(real_points)
        cases["streakhc_sorted"] = ("pendig, sorted by class", by_class, shuffled)
    rows: list[Row] = []
    lines = []
    with progress.bar("orders meant to hurt") as bar:
        for name, (what, hurting, harmless) in cases.items():
            speeds, depths, plain = [], [], []
            for seed in seeds:
                speed, depth = timed(hurting, seed)
                speeds.append(speed)
                depths.append(depth)
                plain.append(timed(harmless, seed)[0])
            ours, reference = median(speeds), median(plain)
            row = {
                "name": name,
                "ours": ours,
                "reference": reference,
                "ratio": ours / reference,
                "unit": "points/s",
                "reference_source": "ours, harmless points in as many floats",
                "points": len(hurting),
                "max_depth": int(max(depth.max() for depth in depths)),
                "mean_depth": fmean(float(depth.mean()) for depth in depths),
                "seeds": list(seeds),
            }
            rows.append(row)
            lines.append(
                (
                    *(what, row["points"], round(ours), round(reference)),
                    *(row["mean_depth"], row["max_depth"], float(np.log2(len(hurting)))),
                )
            )
            bar(len(rows), len(cases))
    columns = (
        *("order", "points", "points/s", "points/s, harmless"),
        *("mean depth", "max depth", "log2(points)"),
    )
    return rows, Table("orders of arrival meant to hurt", columns, lines)


def timed(points: Points, seed: int) -> tuple[float, npt.NDArray[np.int32]]:
    """Points a second, first quarter first, and the depths of all."""
    began = time.perf_counter()
    fitted = StreaKHC(random_state=seed).partial_fit(points[: len(points) // 4])
    fitted.partial_fit(points[len(points) // 4 :])
    seconds = time.perf_counter() - began
    return len(points) / seconds, shape.depths(fitted.tree_)


def found_data() -> Path | None:
    """The folder with the real data, None without."""
    folder = Path(os.environ.get("REKI_DATA") or ROOT.parent / "shared" / "data") / "clustering"
    return folder if all((folder / f"{name}.csv").exists() for name in AUTHORS) else None


def run(
    *, seeds: Sequence[int] = SEEDS, small: bool = False, progress: Progress | None = None
) -> None:
    """Run all parts, print their tables, write ``build/bench/clustering.json``."""
    bars = progress or rendering.ProgressBars()
    folder, notes, tables = found_data(), [], []
    points = 100_000 if small else MILLION
    row, table, said = million(points, bars)  # first: while this process is small
    warm_up()
    rows: list[Row] = []
    if folder is None:
        notes.append(
            "the real data is absent: set REKI_DATA to a folder with "
            + ", ".join(f"clustering/{name}.csv" for name in AUTHORS)
        )
    else:
        real_rows, real_table = real(folder, seeds, bars)
        rows, tables = real_rows, [real_table]
        notes.append(
            "StreaKHC takes the first quarter, then the rest; one by one: the rest by single points"
        )
        notes.append(
            "the authors' 770 points/s on WDBC include numba's compilation; warm their code made "
            "2,636 there (purity .913), 2,132 on Segment (.603), 1,256 on pendig, on 2 cores"
        )
        notes.append(
            "flat purity: share of points of their cluster's commonest class, as many clusters as "
            "classes; Birch with threshold 0.25, AgglomerativeClustering with Ward's linkage"
        )
    hurt_rows, hurt_table = hurtful(folder, 10_000 if small else 100_000, seeds[:3], bars)
    rows = [*rows, row, *hurt_rows]
    notes += said
    said_seeds, load = ", ".join(map(str, seeds)), os.getloadavg()[0]
    notes.append(
        f"median over seeds {said_seeds}; compiled code warm; "
        f"{os.cpu_count()} CPU cores, load {load:.1f}"
    )
    rendering.report(
        Report("StreaKHC beside others", tables=[*tables, table, hurt_table], notes=notes)
    )
    finish("clustering_small" if small else "clustering", "clustering", rows)


def main() -> None:
    """Run it alone."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.bench.clustering")
    parser.add_argument("--small", action="store_true", help="one seed, a tenth of the points")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many seeds")
    parser.add_argument("--stream", help=argparse.SUPPRESS)
    parser.add_argument("--points", type=int, default=MILLION, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stream:
        warnings.simplefilter("ignore")
        sys.stdout.write(json.dumps(streamed(asked.stream, asked.points)) + "\n")
        return
    run(seeds=range(1 if asked.small else asked.seeds), small=asked.small)


if __name__ == "__main__":
    main()
