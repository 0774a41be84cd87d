"""What is stored and what is running; and stopping what is running."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from reki_feast.errors import Fault, LakeError, RekiError, StoreError
from reki_feast.files import unreadable
from reki_feast.pipeline.books import paid_note, runs_table, states_table
from reki_feast.pipeline.helping import helping_notes
from reki_feast.pipeline.learning import when_trained
from reki_feast.project import Project
from reki_feast.report import Report, Table

T = TypeVar("T")
_NOTHING: tuple[list[Table], list[str]] = ([], [])
_UNREAD: tuple[str, list[str]] = ("cannot be read", [])


def status(project: Project) -> Report:
    """Tables with their rows, the ledger, the weights, the embedded Redis.

    A damaged file is told, each fault once, beside all that can be read.

    Raises:
        LakeError: the folder itself cannot be read.
    """
    faults: list[Fault] = []

    def looked(look: Callable[[], T], otherwise: T) -> T:
        try:
            return look()
        except RekiError as error:
            faults.extend(error.faults)
            return otherwise

    names = _tables(project)
    sizes = [(name, *looked(partial(project.lake.size, name), (0, 0, 0))) for name in names]
    rows = [(name, parts, count, round(size / 1e6, 2)) for name, parts, count, size in sizes]
    calls, paid = looked(partial(_calls, project), _NOTHING)
    looked(project.lake.check, None)
    weights, helping = looked(partial(_weights, project), _UNREAD)
    return Report(
        f"{project.name}: {project.data}",
        tables=[
            Table("tables", ("table", "parts", "rows", "MB"), [row for row in rows if row[1]]),
            *calls,
            Table("running", ("what", "state"), [("weights", weights), _redis(project)]),
        ],
        notes=[*paid, *helping, *map(str, dict.fromkeys(faults))],
        next=["reki run"] if not names and not faults else [],
        failed=len(dict.fromkeys(faults)),
    )


def _tables(project: Project) -> list[str]:
    try:
        return sorted(path.name for path in project.data.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LakeError(unreadable(project.data, error)) from error


def _calls(project: Project) -> tuple[list[Table], list[str]]:
    """Prompts by state; the latest runs, what they took beside what was planned."""
    if not (project.data / "ledger.sqlite").exists():
        return [], []
    with project.ledger(reading=True) as ledger:
        return [states_table(ledger), runs_table(ledger)], paid_note(ledger)


def _weights(project: Project) -> tuple[str, list[str]]:
    """What the weights are, and whether they help."""
    made = project.lake.read_json("hein")
    if made is None:
        return "none yet", []
    said = f"q = {made['q']}, {when_trained(made)}, hash {made['hash']}"
    return said, helping_notes(made.get("helps") or {})


def _redis(project: Project) -> tuple[str, str]:
    from reki_feast.store import embedded

    what = "embedded Redis"
    try:
        found = embedded.status(project.redis)
    except StoreError as error:
        return what, f"cannot be asked: {error.faults[0].found}"
    if found.strays:
        return what, f"cannot be reached: pid {', '.join(map(str, found.strays))}; run reki down"
    if found.address is None:
        return what, "not running"
    said = f"{found.keys:,} keys, {found.memory / 1e6:.1f} MB"
    return what, f"socket {found.address.path}, pid {found.pid}, {said}"


def down(project: Project) -> Report:
    """Stop the project's embedded Redis; its data stays on disk.

    Raises:
        StoreError: the server is ours and does not go.
    """
    from reki_feast.store import embedded

    stopped = embedded.stop(project.redis)
    return Report("the embedded Redis is stopped" if stopped else "no embedded Redis is running")
