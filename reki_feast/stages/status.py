"""What is stored and what is running; and stopping what is running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from reki_feast.errors import LakeError, MissingExtraError, Problem, RekiError, StoreError
from reki_feast.extras import named_when_missing
from reki_feast.files import unreadable
from reki_feast.project import DeclaredProject
from reki_feast.results import (
    AskingRun,
    DownResult,
    OnlineView,
    PromptStates,
    RedisState,
    StatusResult,
    StoredTable,
    TotalUsage,
)
from reki_feast.stages.gain import helping_notes
from reki_feast.stages.ledger_reports import latest_runs, prompt_states, total_usage
from reki_feast.stages.living_spaces import all_lakes
from reki_feast.stages.online_rows import compare_if_running
from reki_feast.stages.projections import stored_projection
from reki_feast.stages.training_data import trained_weights
from reki_feast.tables.lake import Lake

T = TypeVar("T")


class _LedgerFigures(NamedTuple):
    prompts: PromptStates | None = None
    runs: list[AskingRun] | None = None
    usage: TotalUsage | None = None


def status(project: DeclaredProject) -> StatusResult:
    """Tables with their rows, the ledger, the weights, the embedded Redis.

    Each damaged file is named once, beside everything that can be read.

    Args:
        project: the project.

    Raises:
        LakeError: the folder itself cannot be read.
    """
    faults: dict[Problem, None] = {}
    unchecked: dict[Problem, None] = {}

    def read(reader: Callable[[], T], otherwise: T) -> T:
        try:
            with named_when_missing():
                return reader()
        except MissingExtraError as error:
            unchecked.update(dict.fromkeys(error.problems))
            return otherwise
        except RekiError as error:
            faults.update(dict.fromkeys(error.problems))
            return otherwise

    names = _tables(project)
    lakes: list[Lake] = read(partial(all_lakes, project), [])
    sizes = {
        label: read(partial(lake.size, name), (0, 0, 0))
        for label, name, lake in _stored_tables(lakes, names)
    }
    figures = read(partial(_ledger, project), _LedgerFigures())
    for lake in lakes:
        read(lake.check, None)
    made = read(partial(_manifest, project), None)
    projection = read(partial(stored_projection, project.lake), None)
    online, wrong = _online(project)
    return StatusResult(
        project=project.name,
        folder=project.data,
        stored=[
            StoredTable(name, parts, rows, round(size / 1e6, 2))
            for name, (parts, rows, size) in sizes.items()
            if parts
        ],
        **figures._asdict(),
        weights=trained_weights(made) if made else None,
        weights_readable=made is not None,
        representations="" if projection is None else projection.about,
        redis=_redis(project),
        online=online,
        problems=list(faults),
        notes=[
            *(figures.usage.notes() if figures.usage else []),
            *helping_notes((made or {}).get("helps") or {}),
            *map(str, faults),
            *(f"{one.problem}, but {one.detail}: {one.hint}" for one in wrong),
            *(f"weights are not checked: {problem}" for problem in unchecked),
        ],
        next=["reki run"] if not names and not faults else [],
        failed=len(faults),
    )


def _tables(project: DeclaredProject) -> list[str]:
    try:
        return sorted(path.name for path in project.data.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LakeError(unreadable(project.data, error)) from error


def _stored_tables(lakes: Sequence[Lake], names: Sequence[str]) -> Iterator[tuple[str, str, Lake]]:
    """Each table: as it is shown, its name, and its lake; the space in service first."""
    seen: set[Path] = set()
    for lake in lakes:
        suffix = "" if lake is lakes[0] else f"@{lake.space.version}"
        for name in names:
            if (folder := lake.folder_of(name)) / name not in seen:
                seen.add(folder / name)
                yield f"{name}{suffix}", name, lake


def _ledger(project: DeclaredProject) -> _LedgerFigures:
    """Prompts by state, the latest runs, and what all runs took."""
    if not (project.data / "ledger.sqlite").exists():
        return _LedgerFigures()
    with project.ledger(reading=True) as ledger:
        return _LedgerFigures(prompt_states(ledger), latest_runs(ledger), total_usage(ledger))


def _manifest(project: DeclaredProject) -> dict[str, Any]:
    """What is stored about the weights; empty without weights."""
    return project.lake.read_json("hein") or {}


def _online(project: DeclaredProject) -> tuple[list[OnlineView], list[Problem]]:
    """The rows online beside the tables; that they cannot be read is told, and is no fault here."""
    try:
        with named_when_missing():
            return compare_if_running(project)
    except RekiError as error:
        return [], list(error.problems)


def _redis(project: DeclaredProject) -> RedisState:
    from reki_feast.stores import embedded

    try:
        found = embedded.status(project.redis)
    except StoreError as error:
        return RedisState(False, f"cannot be asked: {error.problems[0].detail}")
    if found.unreachable:
        pids = ", ".join(map(str, found.unreachable))
        return RedisState(False, f"cannot be reached: pid {pids}; run reki down")
    if found.address is None:
        return RedisState(False, "not running")
    size = f"{found.keys:,} keys, {found.memory / 1e6:.1f} MB"
    state = f"socket {found.address.path}, pid {found.pid}, {size}"
    return RedisState(True, state, found.pid, found.keys, found.memory)


def down(project: DeclaredProject) -> DownResult:
    """Stop the project's embedded Redis; its data stays on disk.

    Args:
        project: the project.

    Raises:
        StoreError: the server is ours and does not stop.
    """
    from reki_feast.stores import embedded

    return DownResult(project=project.name, stopped=embedded.stop(project.redis))
