"""`make feast-suite`: Feast's own integration tests against our stores.

    python -m tests.feast_suite [FEAST_SOURCE]

Each group of tests is run with the stock stores and with ours. Prints how many passed, and every
test that the stock stores pass and ours do not; ends with 1 if there is any.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from reki_feast import rendering
from reki_feast.errors import RekiError
from reki_feast.report import Report, Table
from reki_feast.stores import embedded

from . import room, source
from .runs import GROUPS, KINDS, Outcome, Place, both, counts, lost

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "feast-suite"
Found = dict[str, dict[str, dict[str, Outcome]]]


def main() -> int:
    """Run the suite; the exit code."""
    asked = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("FEAST_SOURCE", "")
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        python = room.python_of(BUILD / "venv", ROOT)
        version = room.version_of(python, "feast")
        origin = source.fetch(version, BUILD / "suite", asked)
        found = run(python)
    except RekiError as error:
        print(error, file=sys.stderr)
        return 2
    report, plain = told(found, f"Feast {version}, its tests from {origin}")
    (BUILD / "report.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    rendering.report(report)
    return 1 if report.failed else 0


def run(python: Path) -> Found:
    """Every group with either kind of stores, each run in a Redis database of its own."""
    folder = BUILD / "redis"
    embedded.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        address = embedded.start(folder).connection_string
        place = Place(python, BUILD / "suite", BUILD, address)
        found: Found = {}
        for number, group in enumerate(GROUPS):
            print(f"{group.name} …", file=sys.stderr)
            databases = {kind: len(KINDS) * number + at for at, kind in enumerate(KINDS)}
            found[group.name] = both(place, group, databases)
        return found
    finally:
        embedded.stop(folder)


def told(found: Found, origin: str) -> tuple[Report, dict[str, Any]]:
    """What to print, and what to write."""
    rows: list[tuple[Any, ...]] = []
    regressions = {}
    for group, runs in found.items():
        for kind in KINDS:
            rows.append((group, kind, *counts(runs[kind]).values()))
        regressions.update(lost(runs["stock"], runs["ours"]))
    tables = [Table("stores", ("tests", "stores", "passed", "failed", "skipped"), rows)]
    if regressions:
        ends = [(name, why.splitlines()[0]) for name, why in regressions.items()]
        tables.append(Table("passed by the stock stores, not by ours", ("test", "ours"), ends))
    notes = [origin, f"written to {BUILD / 'report.json'}, logs beside it"]
    report = Report("Feast's own tests", tables=tables, notes=notes, failed=len(regressions))
    states = {
        group: {kind: {name: end.state for name, end in runs[kind].items()} for kind in KINDS}
        for group, runs in found.items()
    }
    summary = [dict(zip(tables[0].columns, row, strict=True)) for row in rows]
    return report, {
        "origin": origin,
        "summary": summary,
        "regressions": regressions,
        "tests": states,
    }


if __name__ == "__main__":
    sys.exit(main())
