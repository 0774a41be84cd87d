"""What is stored and what is running; and stopping what is running."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from reki_feast.errors import LakeError, MissingExtraError, Problem, RekiError, StoreError
from reki_feast.extras import named_when_missing
from reki_feast.files import unreadable
from reki_feast.project import DeclaredProject
from reki_feast.results import (
    AskingRun,
    DownResult,
    PromptStates,
    RedisState,
    StatusResult,
    StoredTable,
    TotalUsage,
)
from reki_feast.stages.gain import helping_notes
from reki_feast.stages.ledger_reports import latest_runs, prompt_states, total_usage
from reki_feast.stages.training_data import trained_weights

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
    sizes = {name: read(partial(project.lake.size, name), (0, 0, 0)) for name in names}
    figures = read(partial(_ledger, project), _LedgerFigures())
    read(project.lake.check, None)
    made = read(partial(_manifest, project), None)
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
        redis=_redis(project),
        problems=list(faults),
        notes=[
            *(figures.usage.notes() if figures.usage else []),
            *helping_notes((made or {}).get("helps") or {}),
            *map(str, faults),
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


def _ledger(project: DeclaredProject) -> _LedgerFigures:
    """Prompts by state, the latest runs, and what all runs took."""
    if not (project.data / "ledger.sqlite").exists():
        return _LedgerFigures()
    with project.ledger(reading=True) as ledger:
        return _LedgerFigures(prompt_states(ledger), latest_runs(ledger), total_usage(ledger))


def _manifest(project: DeclaredProject) -> dict[str, Any]:
    """What is stored about the weights; empty without weights."""
    return project.lake.read_json("hein") or {}


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
