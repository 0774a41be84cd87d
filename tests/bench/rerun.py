"""Seconds of a `reki run` that changes nothing, beside an earlier commit's, on the same project.

    python -m tests.bench.rerun [USERS] [COMMIT]

A project of USERS users (60,000), 2 snapshots and vectors of 384 floats is run by the earlier
commit, and copied. Each version brings its copy up to date, and runs it twice more: at once, and
without what the stages stored of that. Each run is a process of its own, imports included. The
seconds of all cores are given beside those of the clock, which other programs lengthen. The result
goes to ``build/bench/rerun.json``.
"""

from __future__ import annotations

import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.common import ROOT, Row, finish
from tests.encoding.static_model import static_model

#: The last commit before stages kept the results of runs that found nothing to do.
BEFORE = "6ea5f2e"
USERS, ITEMS, EACH, SIZE = 60_000, 2_000, 4, 384
T0 = datetime(2025, 1, 1, tzinfo=UTC)
_YEAR = 365 * 24 * 3600
#: The runs that are measured.
RUNS = ("the second run, which changes nothing", "a run that looks at everything")
#: The commands of either version.
MAIN = """
import sys
try:
    from reki_feast.cli.app import main
except ImportError:
    from reki_feast.cli import main
sys.exit(main(sys.argv[1:]))
"""
GENERATOR = """
from reki_feast import LLM, Encoder, Individual, Scenario, Sources, Training

scenario = Scenario(name="shop", item="film", factors=["price", "style"], rating="stars",
                    liked="stars >= 4", description="{{{{ title }}}}, {{{{ genre }}}}",
                    profile="from {{{{ region }}}}", as_of=["2025-07-01", "2026-01-01"])
sources = Sources(items="select * from 'items.parquet'", users="select * from 'users.parquet'",
                  interactions="select * from 'interactions.parquet'")
llm = LLM(provider="echo", concurrency=64)
encoder = Encoder(model={model!r})
training = Training(epochs=1, check=False, blocks=2)
customers = Individual(kind="user")
products = Individual(kind="item")
"""


def lay_down(root: Path, users: int) -> None:
    """Tables, declarations and a static encoder."""
    draw = np.random.default_rng(0)
    words = [f"word{n}" for n in range(500)]
    titles = [" ".join(words[n] for n in draw.integers(0, 500, 4)) for _ in range(ITEMS)]
    genres = [words[n] for n in draw.integers(0, 20, ITEMS)]
    regions = [words[n] for n in draw.integers(0, 50, users)]
    who, what = np.tile(np.arange(users), EACH), draw.integers(0, ITEMS, users * EACH)
    stars = np.clip(3 + (who + what) % 2 * 2 - draw.integers(0, 3, len(who)), 1, 5)
    seconds = np.sort(draw.integers(0, _YEAR, len(who))).tolist()
    tables = {
        "items": {"item_id": np.arange(ITEMS), "title": titles, "genre": genres},
        "users": {"user_id": np.arange(users), "region": regions},
        "interactions": {
            "user_id": who,
            "item_id": what,
            "stars": stars,
            "event_timestamp": [T0 + timedelta(seconds=n) for n in seconds],
        },
    }
    root.mkdir()
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), root / f"{name}.parquet")
    model = static_model(root / "model", size=SIZE, vocabulary=["[UNK]", *words])
    (root / "generators").mkdir()
    (root / "generators" / "shop.py").write_text(GENERATOR.format(model=str(model)))


def code_of(commit: str, folder: Path) -> Path:
    """The package as of a commit."""
    raw = subprocess.run(
        ["git", "archive", commit, "reki_feast"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def run(code: Path, project: Path) -> tuple[float, float]:
    """Seconds that `reki run` takes by this code, imports included: by the clock, of all cores."""
    began, used = time.perf_counter(), _cpu()
    subprocess.run(
        [sys.executable, "-c", MAIN, "run"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(code)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began, _cpu() - used


def again(code: Path, project: Path) -> list[tuple[float, float]]:
    """The same of :data:`RUNS`."""
    run(code, project)
    second = run(code, project)
    for stored in project.glob("data/*/up_to_date.json"):
        stored.unlink()
    return [second, run(code, project)]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(users: int = USERS, commit: str = BEFORE) -> None:
    """Measure both versions, print the table, write ``build/bench/rerun.json``."""
    with TemporaryDirectory(prefix="reki-rerun-") as name:
        folder = Path(name)
        before, project = code_of(commit, folder / "before"), folder / "project"
        # a copy, since an edit of the package's files is a change too
        after = folder / "after"
        shutil.copytree(ROOT / "reki_feast", after / "reki_feast")
        lay_down(project, users)
        run(before, project)
        shutil.copytree(project, folder / "copy")
        theirs, ours = again(before, project), again(after, folder / "copy")
    rows = [
        _row(f"{what}, {users:,} users", our[at], their[at], f"seconds {unit}; reference: {commit}")
        for what, our, their in zip(RUNS, ours, theirs, strict=True)
        for at, unit in enumerate(("by the clock", "of all cores"))
    ]
    note = f"2 snapshots, {SIZE} floats, on {os.cpu_count()} CPU cores"
    finish("rerun", "rerun", rows, [note])


def _row(name: str, ours: float, reference: float, unit: str) -> Row:
    return {
        "name": name,
        "ours": round(ours, 2),
        "reference": round(reference, 2),
        "ratio": round(reference / ours, 1),
        "unit": unit,
    }


if __name__ == "__main__":
    main(*(int(one) if one.isdigit() else one for one in sys.argv[1:]))  # type: ignore[arg-type]
