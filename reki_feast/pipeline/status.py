"""What is stored and what is running; and stopping what is running."""

from __future__ import annotations

from pathlib import Path

from reki_feast.pipeline.books import paid_note, runs_table, states_table
from reki_feast.pipeline.helping import helping_notes
from reki_feast.project import Project
from reki_feast.report import Report, Table


def status(project: Project) -> Report:
    """Tables with their rows, the ledger, the weights, the embedded Redis."""
    folders = sorted(path for path in project.data.glob("*") if path.is_dir())
    rows = [_table_row(project, folder) for folder in folders]
    calls, paid = _calls(project)
    return Report(
        f"{project.name}: {project.data}",
        tables=[
            Table("tables", ("table", "parts", "rows", "MB"), [row for row in rows if row[1]]),
            *calls,
            Table("running", ("what", "state"), [("weights", _weights(project)), _redis(project)]),
        ],
        notes=[*paid, *helping_notes((project.lake.read_json("hein") or {}).get("helps") or {})],
        next=["reki run"] if not rows else [],
    )


def _table_row(project: Project, folder: Path) -> tuple[str, int, int, float]:
    import pyarrow.parquet as pq

    parts = project.lake.parts(folder.name)
    count = sum(pq.read_metadata(path).num_rows for path in parts)
    size = sum(path.stat().st_size for path in parts)
    return folder.name, len(parts), count, round(size / 1e6, 2)


def _calls(project: Project) -> tuple[list[Table], list[str]]:
    """Prompts by state; the latest runs, what they took beside what was planned."""
    if not (project.data / "ledger.sqlite").exists():
        return [], []
    with project.ledger() as ledger:
        return [states_table(ledger), runs_table(ledger)], paid_note(ledger)


def _weights(project: Project) -> str:
    made = project.lake.read_json("hein")
    if made is None:
        return "none yet"
    return f"q = {made['q']}, trained as of {str(made['trained_as_of'])[:16]}, hash {made['hash']}"


def _redis(project: Project) -> tuple[str, str]:
    from reki_feast.store import embedded

    found = embedded.status(project.redis)
    if not found.running or found.address is None:
        return "embedded Redis", "not running"
    said = f"{found.keys:,} keys, {found.memory / 1e6:.1f} MB"
    return "embedded Redis", f"{found.address.connection_string}, pid {found.pid}, {said}"


def down(project: Project) -> Report:
    """Stop the project's embedded Redis; its data stays on disk.

    Raises:
        StoreError: the server is ours and does not go.
    """
    from reki_feast.store import embedded

    stopped = embedded.stop(project.redis)
    return Report("the embedded Redis is stopped" if stopped else "no embedded Redis is running")
