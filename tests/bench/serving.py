"""Reads of a Feast repo beside all that writes it: how many of them meet an error.

    python -m tests.bench.serving [reads]

A process trains new weights, publishes, applies and materializes them, then runs Feast's own
commands, for as long as two threads read online and join. Most reads are of a repo that is kept
open; some open it anew. Ends with an error if a read fails, or gets no vector.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import FeatureStore

from reki_feast import stages
from reki_feast.cli.init import init
from reki_feast.project import open_project
from reki_feast.stores import embedded
from tests.bench.common import ROOT
from tests.stages.conftest import T0, Edit, make_shop

_READS = 10_000
#: Of a reader that opens the repo for every read: so many of those with an open one.
_RARER = 25
#: A read of so many is a join.
_JOIN = 20
#: Of reads.
KINDS = ("kept", "opened", "kept, joined", "opened, joined")
REFS = ["reki:user_aug", "reki_item:item_aug", "reki_match:score"]
_LOG = pd.DataFrame(
    {
        "customer_id": [f"c'{n}" for n in range(8)],
        "sku": [f"s-{n}" for n in range(8)],
        "event_timestamp": [T0 + timedelta(days=60)] * 8,
    }
)
_ROWS = _LOG[["customer_id", "sku"]].to_dict("records")
#: What writes: new weights, published, materialized, promoted; then Feast's own commands.
_WRITER = """
import os, sys
from itertools import count
from pathlib import Path
from feast.cli.cli import cli
from reki_feast import stages
from tests.stages.conftest import reseed
root = Path(sys.argv[1])
repo = root / "feature_repo"
START, END = "2020-01-01T00:00:00", "2026-11-01T00:00:00"
LINES = ("apply", f"materialize {START} {END}", f"materialize-incremental {END}")
print("begun", flush=True)
for seed in count(1):
    if (root / "stop").exists():
        break
    project = reseed(root, seed)
    stages.train(project, retrain=True)
    stages.publish(project, materialize=True)
    stages.promote(project)
    stages.retire(project, f"v{seed - 1}")
    os.chdir(repo)
    for name in [n for n, m in sys.modules.items() if getattr(m, "__file__", None)
                 and Path(m.__file__).is_relative_to(repo)]:
        del sys.modules[name]  # as a new process has none of the repo's files imported
    for line in LINES:
        cli(line.split(), standalone_mode=False)
    (root / "round").touch()
    print("round", flush=True)
"""


@dataclass
class Told:
    """What readers met.

    Attributes:
        reads: by kind.
        errors: by kind and message.
        rounds: of the writer.
    """

    reads: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    rounds: int = 0


def make_repo(root: Path) -> Path:
    """A shop that ran, and the Feast repo that `reki init` lays down, materialized."""
    repo = lay_repo(root)
    stages.run(open_project(root), materialize=True)
    return repo


def lay_repo(root: Path, edit: Edit = lambda text: text) -> Path:
    """A shop, its declarations edited, and the Feast repo that `reki init` lays down."""
    make_shop(root, edit)
    init(root / "laid", "shop")
    (root / "laid" / "feature_repo").rename(root / "feature_repo")
    features = root / "feature_repo" / "features.py"
    text = features.read_text().replace("ValueType.INT64", "ValueType.STRING")
    text = text.replace('"user_id"', '"customer_id"').replace('"item_id"', '"sku"')
    features.write_text(text)
    return root / "feature_repo"


def read_beside(repo: Path, reads: int) -> Told:
    """So many reads beside a writer, or more, till it has written all once."""
    told, lock = Told(), threading.Lock()
    with _writing(repo.parent) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()  # that it has begun
        jobs = [threading.Thread(target=_read, args=(repo, reads, told, lock)) for _ in range(2)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        (repo.parent / "stop").touch()
        said, failed = writer.communicate()
    told.rounds = said.count("round")
    if writer.returncode:
        told.errors[f"the writer: {failed[-2000:]}"] += 1
    return told


@contextmanager
def _writing(root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "ignore", "-c", _WRITER, str(root)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as writer:
        try:
            yield writer
        finally:
            writer.kill()


def _read(repo: Path, reads: int, told: Told, lock: threading.Lock) -> None:
    """Every read of a kind that its number tells."""
    kept, written = FeatureStore(repo_path=str(repo)), repo.parent / "round"
    while True:
        with lock:
            number = told.reads.total()
            kind = "kept" if number % _RARER else "opened"
            kind += ", joined" if number % _JOIN == 1 or number % (_RARER * 4) == 0 else ""
            if number >= reads and written.exists():
                return
            told.reads[kind] += 1
        if error := met(kind, kept, repo):
            with lock:
                told.errors[f"{kind}: {error}"] += 1


def met(kind: str, kept: FeatureStore, repo: Path) -> str:
    """What a read of a kind meets; nothing where all is well."""
    try:
        store = kept if kind.startswith("kept") else FeatureStore(repo_path=str(repo))
        missing = _joined(store) if kind.endswith("joined") else _online(store)
    except Exception as found:  # noqa: BLE001 — what a read meets is counted
        return f"{type(found).__name__}: {' '.join(str(found).split())[:200]}"
    return f"{missing} missing" if missing else ""


def _online(store: FeatureStore) -> int:
    found = store.get_online_features(REFS, _ROWS).to_dict()
    return sum(one is None for name in ("user_aug", "item_aug", "score") for one in found[name])


def _joined(store: FeatureStore) -> int:
    found = store.get_historical_features(_LOG, REFS).to_df()
    return int(found[["user_aug", "item_aug", "score"]].isna().sum().sum())


def main(arguments: list[str]) -> int:
    """Print what readers met."""
    warnings.simplefilter("ignore")
    reads = int(arguments[0]) if arguments else _READS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "my shop"
        began = datetime.now(UTC)
        try:
            told = read_beside(make_repo(root), reads)
        finally:
            embedded.stop(root / "data" / "redis")
    seconds = (datetime.now(UTC) - began).total_seconds()
    rows = {**told.reads, "writer's rounds": told.rounds, "errors": told.errors.total()}
    for name, count in rows.items():
        sys.stdout.write(f"{name:20} {count:8,}\n")
    for message, count in told.errors.most_common(10):
        sys.stdout.write(f"{count:6,} × {message}\n")
    sys.stdout.write(f"{seconds:.0f} s\n")
    return 1 if told.errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
