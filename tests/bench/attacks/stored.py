"""What a project holds, read past the commands: to be compared before and after an attack."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

from reki_feast.errors import RekiError
from reki_feast.llm import Ledger
from reki_feast.llm.ledger import invariants
from reki_feast.project import open_project
from reki_feast.stores import embedded
from reki_feast.tables import parquet
from reki_feast.views.manifest import read_manifest
from tests.bench.serving import REFS

#: Columns that are another's whenever a row is made.
_MADE = ("created_timestamp", "hash")
#: All of the shop.
_ROWS = [{"customer_id": f"c'{n}", "sku": f"s-{n % 20}"} for n in range(30)]
#: By key and time, of what a row was made.
Made = dict[tuple[Any, ...], str]


@dataclass(frozen=True)
class Contents:
    """What is stored.

    Attributes:
        answers: the model's, by prompt.
        rows: by table, what tells its rows: keys, texts and times.
        online: what is served of everybody; None where nothing is.
    """

    answers: Mapping[str, str]
    rows: Mapping[str, frozenset[tuple[Any, ...]]]
    online: Mapping[str, Any] | None


def contents(root: Path, *, serves: bool) -> Contents:
    """What a project holds."""
    found: dict[str, frozenset[Any]] = {}
    for folder in sorted({path.parent for path in data(root).rglob("*.parquet")}):
        parts = [_telling(pq.read_table(path, partitioning=None)) for path in _parts(folder)]
        name = re.sub(r"spaces/v\d+", "a new space", str(folder.relative_to(data(root))))
        if name != "inputs":  # what later runs compare with; a killed one may store it twice
            found[name] = found.get(name, frozenset()) | {row for part in parts for row in part}
    return Contents(answers(root), found, served(root) if serves else None)


def data(root: Path) -> Path:
    """The folder of the shop's tables."""
    return root / "data" / "shop"


def answers(root: Path) -> dict[str, str]:
    """The model's answers, by prompt."""
    with Ledger(data(root) / "ledger.sqlite", reading=True) as ledger:
        rows = ledger.rows("SELECT prompt, answer FROM prompts WHERE answer IS NOT NULL")
    return {prompt.rstrip(): answer for prompt, answer in rows}


def served(root: Path) -> Mapping[str, Any]:
    """What the repo serves of everybody in the shop."""
    store = FeatureStore(repo_path=str(root / "feature_repo"))
    found: Mapping[str, Any] = store.get_online_features(REFS, _ROWS).to_dict()
    return found


def made_by(root: Path, table: str) -> Made:
    """Of each key and time of a table, the newest row's hash."""
    rows = [row for path in _parts(data(root) / table) for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: row["created_timestamp"])
    key = next(name for name in ("customer_id", "sku") if name in rows[0])
    return {(row[key], row["event_timestamp"]): row["hash"] for row in rows}


# --- faults ---------------------------------------------------------------------------------


def torn(root: Path) -> list[str]:
    """Files that are not whole, and books that do not balance."""
    said = [fault for path in sorted(data(root).rglob("*.parquet")) for fault in _unread(path)]
    project = open_project(root)
    try:
        project.lake.check()
        if (data(root) / "manifest.json").exists():
            read_manifest(data(root))
    except RekiError as error:
        said.append(f"not whole: {error}")
    if (data(root) / "ledger.sqlite").exists():
        with project.ledger(reading=True) as ledger:
            said += invariants.violations(ledger.rows)
    return said


def left_over(root: Path) -> list[str]:
    """Files half written, locks held and processes at work in a project that nobody works on."""
    found = [f"half written: {path.name}" for path in root.rglob("*.tmp")]
    found += [f"held: {path.name}" for path in root.rglob("*lock") if _is_held(path)]
    return [*found, *(f"process {pid} is at work" for pid in processes(root))]


def servers(root: Path) -> list[int]:
    """Processes of the project's embedded server."""
    state = embedded.status(root / "data" / "redis")
    return [*([state.pid] if state.running else []), *state.unreachable]


def processes(root: Path) -> list[int]:
    """Processes that work in a folder, as Linux tells."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            there = str((entry / "cwd").readlink())
        except OSError:  # it ended
            continue
        if (
            there.removesuffix(" (deleted)").startswith(str(root))
            and int(entry.name) != os.getpid()
        ):
            found.append(int(entry.name))
    return found


def open_to_others(root: Path) -> list[str]:
    """What is stored and others may read, write or enter."""
    found = [path for path in (root, *root.rglob("*")) if is_open(path)]
    return [f"open to others: {path.relative_to(root.parent)}" for path in found]


def is_open(path: Path) -> bool:
    """Whether others than its owner may do anything with a file or a folder."""
    return not path.is_symlink() and bool(path.lstat().st_mode & 0o077)


def holding(root: Path, marks: Iterable[str]) -> list[str]:
    """Files in whose bytes, or in whose rows, a mark stands."""
    wanted = [mark.encode() for mark in marks]
    return [
        f"in {path.relative_to(root)}: {mark.decode()}"
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for mark in wanted
        if mark in _bytes(path)
    ]


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix == ".parquet":  # its pages are compressed
        raw += repr(pq.read_table(path, partitioning=None).to_pydict()).encode()
    return raw


def _parts(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.parquet"))


def _telling(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    names = [
        field.name
        for field in table.schema
        if field.name not in _MADE
        and (pa.types.is_string(field.type) or pa.types.is_timestamp(field.type))
    ]
    yield from zip(*(table[name].to_pylist() for name in names), strict=True)


def _unread(path: Path) -> list[str]:
    try:
        parquet.read_table(path, "reki run")
    except RekiError as error:
        return [f"not whole: {error}"]
    return []


def _is_held(path: Path) -> bool:
    """Whether a process has one of the two kinds of locks on a file."""
    with path.open("r+b") as file:
        for lock in (fcntl.lockf, fcntl.flock):
            try:
                lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
    return False
