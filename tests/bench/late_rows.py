"""`feast materialize-incremental` of late rows beside `feast materialize` of all, by our engine.

Eight snapshots of 100,000 vectors are online. Then come rows for 1 % of the ids, made later but as
of a time before the last end, which Feast's own incremental run leaves out. ``ratio`` is how many
times faster the incremental run brings them online than a full run, by the medians.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import timedelta
from io import StringIO
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from feast import FeatureStore

from reki_feast.stores import embedded
from tests.bench.common import Row, finish
from tests.bench.stores import DAY, SNAPSHOTS, USERS, make_files, make_store, snapshot

VIEW = "reki_history"
END = DAY + timedelta(weeks=SNAPSHOTS)


def come_late(folder: Path, number: int) -> None:
    """Vectors of 1 % of the ids, as of the last snapshot."""
    rows = snapshot("user_id", "user_aug", USERS, SNAPSHOTS - 1)
    place = folder / "history" / f"late-{number}.parquet"
    pq.write_table(rows.slice(number * USERS // 100, USERS // 100), place)


def timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        call()
    return time.perf_counter() - began


def measured(store: FeatureStore, folder: Path, turns: int) -> dict[str, list[float]]:
    """Seconds of full runs, of runs with late rows, and of runs with nothing new."""

    def full() -> None:
        store.materialize(DAY, END, feature_views=[VIEW])

    def incremental() -> None:
        store.materialize_incremental(END, feature_views=[VIEW])

    found: dict[str, list[float]] = {"full": [timed(full)], "late": [], "nothing": []}
    for number in range(turns):
        come_late(folder, number)
        found["late"].append(timed(incremental))
        found["nothing"].append(timed(incremental))
        found["full"].append(timed(full))
    found["full"].pop(0)  # the first one met an empty Redis
    return found


def run(turns: int) -> None:
    with tempfile.TemporaryDirectory(prefix="reki-bench-") as made:
        folder = Path(made)
        address = embedded.start(folder / "redis").connection_string
        try:
            make_files(folder)
            seconds = measured(make_store("ours", folder, address), folder, turns)
        finally:
            embedded.stop(folder / "redis")
    whole = median(seconds.pop("full"))
    rows: list[Row] = [
        {
            "name": f"incremental, {name}",
            "ours": round(median(took), 3),
            "reference": round(whole, 3),
            "ratio": round(whole / median(took), 1),
            "unit": "s",
        }
        for name, took in seconds.items()
    ]
    finish(
        "late_rows",
        "feast materialize-incremental beside feast materialize of all",
        rows,
        [f"{SNAPSHOTS} snapshots of {USERS:,} ids; late: rows of 1 % of them, as of the last one"],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    run(parser.parse_args().turns)
