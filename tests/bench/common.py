"""What the benchmarks share: where the data is, where results go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reki_feast import rendering
from reki_feast.report import Report, Table

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"

Row = Mapping[str, Any]


def data_folder() -> Path:
    """Where MovieLens is: ``REKI_DATA``, or ``../shared/data``; ends the program when absent."""
    folder = Path(os.environ.get("REKI_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "ml-100k" / "ratings.parquet").exists():
        sys.exit(
            f"real input is absent: no {folder / 'ml-100k' / 'ratings.parquet'}\n"
            "  hint: set REKI_DATA to a folder with ml-100k/, ml-1m/ and ml-1m-knowledge/"
        )
    return folder


def finish(name: str, title: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
    """Print the rows as a table and write them as ``build/bench/NAME.json``."""
    columns = ("name", "ours", "reference", "ratio", "unit")
    values = [tuple(row.get(column) for column in columns) for row in rows]
    table = Table(name, columns, values)
    rendering.report(
        Report(title, tables=[table], notes=[*notes, f"written to {store(name, rows)}"])
    )


def stored_rows(name: str) -> list[Row]:
    """The rows of ``build/bench/NAME.json``; none where it is not there."""
    path = BUILD / "bench" / f"{name}.json"
    found: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return found


def store(name: str, rows: Sequence[Row]) -> Path:
    """Write rows as ``build/bench/NAME.json``; its path."""
    path = BUILD / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
    return path
